// SPDX-License-Identifier: GPL-2.0

//! Where metadata is: in the primary device, or in the data of an inode that was made for it.

/// The bytes that an offset of metadata counts in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Area {
    /// The primary device.
    Primary,
    /// The data of the inode [`SuperBlock::metabox_nid`], which is in the primary device.
    ///
    /// [`SuperBlock::metabox_nid`]: crate::SuperBlock::metabox_nid
    Metabox,
    /// The data of the inode [`SuperBlock::packed_nid`]. Only long prefixes of attribute names are
    /// there.
    ///
    /// [`SuperBlock::packed_nid`]: crate::SuperBlock::packed_nid
    Packed,
}
