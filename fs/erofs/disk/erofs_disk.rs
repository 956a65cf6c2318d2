// SPDX-License-Identifier: GPL-2.0

//! The EROFS on-disk format: what the bytes of an image mean, for files that are not compressed.
//!
//! The caller reads bytes and hands them in; this crate checks them and hands back numbers of the
//! machine; for attributes it asks for the bytes, a few at a time. It does no I/O, takes no lock,
//! and allocates nothing. An image is not trusted: every value is checked before it is used in
//! arithmetic or as an index, and whatever a crafted image holds, the answer is a value or an
//! [`Error`].
//!
//! An image is a sequence of blocks of 512 to 4096 bytes in the primary device. All numbers are
//! little-endian. Inodes, and what is right behind them, may also be in the data of an inode that
//! was made for it; an [`Area`] tells which.
//!
//! | what | where | in |
//! | --- | --- | --- |
//! | super block | byte 1024 | [`SuperBlock`] |
//! | device table | 128-byte slots, from the super block | [`DeviceSlot`] |
//! | inode `nid` | metadata area + 32 * `nid` | [`Inode`] |
//! | extended attributes | directly behind the inode, and shared ones | [`Xattrs`] |
//! | long prefixes of attribute names | from the super block | [`LongPrefixes`] |
//! | chunk map, or inline tail | behind the attributes | [`ChunkMap`], [`Layout`] |
//! | file data, directory blocks | whole blocks of any device | [`Extent`], [`DirBlock`] |
//!
//! Sources: `Documentation/filesystems/erofs.rst` and `fs/erofs/erofs_fs.h` of Linux 7.3.

// Kbuild gives `no_std` on the command line, and warns when it is given twice.
#![cfg_attr(not(CONFIG_RUST), no_std)]
#![forbid(unsafe_code)]
#![deny(missing_docs)]
#![deny(
    clippy::arithmetic_side_effects,
    clippy::cast_possible_truncation,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used
)]

mod area;
mod chunk;
mod crc32c;
mod device;
mod dirent;
mod error;
mod inode;
mod map;
mod super_block;
mod xattr;
mod xattr_prefix;
mod xxh32;

pub use area::Area;
pub use chunk::{ChunkEntry, ChunkMap};
pub use device::{resolve, resolve_flat, Address, DeviceSlot, Place, DEVICE_SLOT_SIZE};
pub use dirent::{BlockSearch, DirBlock, DirEntry, FirstName, DIR_HEAD_SIZE, NAME_MAX};
pub use error::{Error, ReadError, Result};
pub use inode::{device_number, Inode, Layout, COMPACT_INODE_SIZE, EXTENDED_INODE_SIZE};
pub use map::{Extent, ExtentData};
pub use super_block::{SuperBlock, MAGIC, SUPER_OFFSET, SUPER_SIZE, SUPER_SIZE_MAX};
pub use xattr::{XattrEntries, XattrEntry, XattrValue, Xattrs};
pub use xattr_prefix::{LongPrefix, LongPrefixes, Namespace};
