// SPDX-License-Identifier: GPL-2.0
//! The metadata of an image of which there is nothing else.

use erofs_disk::Area;

/// Byte offset at which the metadata of the primary device begins.
pub const START: u64 = 1024;

/// Reads the metadata from a byte offset of an area on. All areas have the same bytes; in the primary device, [`START`]
/// come before them.
pub fn read(
    metadata: &[u8],
    area: Area,
    offset: u64,
    buffer: &mut [u8],
) -> Result<(), BeyondTheEnd> {
    let start = match area {
        Area::Primary => START,
        Area::Metabox | Area::Packed => 0,
    };
    let found = offset
        .checked_sub(start)
        .and_then(|offset| usize::try_from(offset).ok())
        .and_then(|offset| metadata.get(offset..)?.get(..buffer.len()));
    buffer.copy_from_slice(found.ok_or(BeyondTheEnd)?);
    Ok(())
}

/// The metadata ends before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BeyondTheEnd;
