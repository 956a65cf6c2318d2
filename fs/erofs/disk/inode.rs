// SPDX-License-Identifier: GPL-2.0

//! Inodes: attributes of a file, and how its data is laid out.

use core::ops::Range;

use zerocopy::byteorder::little_endian::{U16, U32, U64};
use zerocopy::FromBytes as _;
use zerocopy_derive::{FromBytes, Immutable, KnownLayout, Unaligned};

use crate::{Area, ChunkMap, Error, Result, SuperBlock};

/// Size of a compact inode in bytes.
pub const COMPACT_INODE_SIZE: usize = 32;

/// Size of an extended inode in bytes: the most that [`Inode::parse`] needs.
pub const EXTENDED_INODE_SIZE: usize = 64;

/// Bit 0 of `format`: the inode is an extended one.
const FORMAT_EXTENDED: u16 = 0x1;

/// Bits 1 to 3 of `format`: the data layout, 0 to 4.
const FORMAT_LAYOUT_SHIFT: u32 = 1;
const FORMAT_LAYOUT_MASK: u16 = 0x7;

/// Bit 4 of `format`. In a directory: it has no entry for `.`; in other compact inodes: there is
/// one link, and the place of the link count holds more bits of the start block.
const FORMAT_BIT4: u16 = 0x10;

/// The bits of `format` that mean something.
const FORMAT_KNOWN: u16 =
    FORMAT_EXTENDED | (FORMAT_LAYOUT_MASK << FORMAT_LAYOUT_SHIFT) | FORMAT_BIT4;

/// The file type in `mode`, and its values.
const S_IFMT: u16 = 0o170000;
const S_IFIFO: u16 = 0o010000;
const S_IFCHR: u16 = 0o020000;
const S_IFDIR: u16 = 0o040000;
const S_IFBLK: u16 = 0o060000;
const S_IFREG: u16 = 0o100000;
const S_IFLNK: u16 = 0o120000;
const S_IFSOCK: u16 = 0o140000;

/// What both kinds of inodes begin with.
#[derive(Clone, Copy, FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawHead {
    /// Offset 0: kind of inode and data layout, see the `FORMAT_` constants; other bits are 0.
    format: U16,
    /// Offset 2: size of the extended attributes: 0 for none, else 12 bytes and 4 for each after
    /// the first.
    xattr_count: U16,
    /// Offset 4: file type and permissions, as in `stat(2)`.
    mode: U16,
    /// Offset 6: link count of a compact inode, or bits 32 to 47 of the start block.
    nlink_or_start_high: U16,
}

/// A compact inode as it is on disk.
#[derive(Clone, Copy, FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawCompact {
    /// Offset 0.
    head: RawHead,
    /// Offset 8: size in bytes.
    size: U32,
    /// Offset 12: seconds of the modification time since the super block's epoch.
    mtime: U32,
    /// Offset 16: see [`RawExtended::start`].
    start: U32,
    /// Offset 20: inode number for `stat(2)` on 32-bit systems.
    ino: U32,
    /// Offset 24: owner.
    uid: U16,
    /// Offset 26: group.
    gid: U16,
    /// Offset 28: reserved.
    _reserved: U32,
}

/// An extended inode as it is on disk.
#[derive(Clone, Copy, FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawExtended {
    /// Offset 0.
    head: RawHead,
    /// Offset 8: size in bytes.
    size: U64,
    /// Offset 16: of flat files, the first block, all ones for none; of chunk-based files, the
    /// chunk format in the lower half; of device nodes, the device number.
    start: U32,
    /// Offset 20: inode number for `stat(2)` on 32-bit systems.
    ino: U32,
    /// Offset 24: owner.
    uid: U32,
    /// Offset 28: group.
    gid: U32,
    /// Offset 32: modification time in seconds since 1970, signed.
    mtime: U64,
    /// Offset 40: nanoseconds of the modification time, less than 10^9.
    mtime_nsec: U32,
    /// Offset 44: link count.
    nlink: U32,
    /// Offset 48: reserved.
    _reserved: [u8; 16],
}

const _: () = assert!(size_of::<RawCompact>() == COMPACT_INODE_SIZE);
const _: () = assert!(size_of::<RawExtended>() == EXTENDED_INODE_SIZE);

/// How the data of a file is laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// There are no blocks: the whole file is a hole, or it is a special file.
    Hole,
    /// The data is in consecutive blocks.
    Plain {
        /// Byte offset of the first block, in the unified address space of device 0.
        start: u64,
    },
    /// The last block, which [`Inode::tail_pos`] finds, is with the metadata; the blocks before it
    /// are consecutive.
    Inline {
        /// Byte offset of the first block, in the unified address space of device 0.
        start: u64,
        /// Byte offset of the tail in the [area](Inode::area) of the inode; it does not cross a
        /// block.
        tail: u64,
    },
    /// The data is in chunks.
    Chunk(ChunkMap),
}

/// An inode that was checked.
#[derive(Clone, Debug)]
pub struct Inode {
    /// Number of the inode in the image.
    pub nid: u64,
    /// Where the inode is, and what is right behind it: the attributes, and the chunk map or the
    /// inline tail. Blocks of data are in no area, but where [`Layout`] says.
    pub area: Area,
    /// File type and permissions, as in `stat(2)`; the type is a valid one.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Link count.
    pub nlink: u32,
    /// Size in bytes, at most [`i64::MAX`].
    pub size: u64,
    /// Modification time in seconds since 1970.
    pub mtime: i64,
    /// Nanoseconds of the modification time, less than 10^9.
    pub mtime_nsec: u32,
    /// Device number of a device node, else 0; see [`device_number`].
    pub rdev: u32,
    /// Inode number for `stat(2)` on 32-bit systems.
    pub ino: u32,
    /// The directory has no entry for itself, `.`, and the reader makes one up.
    pub dot_omitted: bool,
    /// Where the data is.
    pub layout: Layout,
    /// Bytes of the extended attributes in the area of the inode; empty if there are none.
    pub xattrs: Range<u64>,
    block_size: u32,
}

impl Inode {
    /// Size in bytes of the inode that begins with `bytes`, of which two are needed.
    pub fn size_of(bytes: &[u8]) -> Result<usize> {
        match bytes {
            [low, high, ..] if u16::from_le_bytes([*low, *high]) & FORMAT_EXTENDED != 0 => {
                Ok(EXTENDED_INODE_SIZE)
            }
            [_, _, ..] => Ok(COMPACT_INODE_SIZE),
            _ => Err(TOO_SHORT),
        }
    }

    /// Reads the inode `nid` from the bytes at [`SuperBlock::inode_offset`] of
    /// [`SuperBlock::inode_area`].
    ///
    /// [`Self::size_of`] tells how many bytes it takes; [`EXTENDED_INODE_SIZE`] bytes are always
    /// enough.
    ///
    /// # Errors
    ///
    /// [`Error::Unsupported`] for a compressed file, an unknown layout or an unknown format bit,
    /// else [`Error::Corrupt`].
    pub fn parse(super_block: &SuperBlock, nid: u64, bytes: &[u8]) -> Result<Self> {
        let (head, _) = RawHead::ref_from_prefix(bytes).map_err(|_| TOO_SHORT)?;
        let format = head.format.get();
        if format & !FORMAT_KNOWN != 0 {
            return Err(Error::Unsupported("i_format: an unknown bit"));
        }
        let kind = head.mode.get() & S_IFMT;
        let raw = Common::read(super_block, head, bytes)?;
        if i64::try_from(raw.size).is_err() {
            return Err(Error::Corrupt("i_size: negative"));
        }
        if raw.mtime_nsec >= 1_000_000_000 {
            return Err(Error::Corrupt("i_mtime_nsec: a second or more"));
        }
        // The kernel takes such an inode for one that is being deleted.
        if raw.nlink == 0 {
            return Err(Error::Corrupt("i_nlink: 0"));
        }

        let xattrs_len = match head.xattr_count.get() {
            0 => 0,
            // At most 12 + 4 * 65534.
            n => u64::from(n).saturating_mul(4).saturating_add(8),
        };
        // `inode_offset` leaves room for this.
        let xattrs_start = super_block
            .inode_offset(nid)?
            .saturating_add(raw.inode_size);
        let xattrs = xattrs_start..xattrs_start.saturating_add(xattrs_len);

        let (layout, rdev) = match kind {
            S_IFREG | S_IFDIR | S_IFLNK => {
                let layout = (format >> FORMAT_LAYOUT_SHIFT) & FORMAT_LAYOUT_MASK;
                (raw.layout(super_block, layout, xattrs.end)?, 0)
            }
            S_IFCHR | S_IFBLK => (Layout::Hole, raw.start_low),
            S_IFIFO | S_IFSOCK => (Layout::Hole, 0),
            _ => return Err(Error::Corrupt("i_mode: not a file type")),
        };
        Ok(Inode {
            nid,
            area: super_block.inode_area(nid),
            mode: u32::from(head.mode.get()),
            uid: raw.uid,
            gid: raw.gid,
            nlink: raw.nlink,
            size: raw.size,
            mtime: raw.mtime,
            mtime_nsec: raw.mtime_nsec,
            rdev,
            ino: raw.ino,
            dot_omitted: kind == S_IFDIR && format & FORMAT_BIT4 != 0,
            layout,
            xattrs,
            block_size: super_block.block_size(),
        })
    }

    /// First byte of the last block of the file. With [`Layout::Inline`], the bytes from there on
    /// are the tail.
    pub fn tail_pos(&self) -> u64 {
        tail_pos(self.size, self.block_size)
    }

    /// Whether this is a regular file.
    pub fn is_file(&self) -> bool {
        self.is(S_IFREG)
    }

    /// Whether this is a directory.
    pub fn is_dir(&self) -> bool {
        self.is(S_IFDIR)
    }

    /// Whether this is a symbolic link; its data is the target.
    pub fn is_symlink(&self) -> bool {
        self.is(S_IFLNK)
    }

    fn is(&self, kind: u16) -> bool {
        self.mode & u32::from(S_IFMT) == u32::from(kind)
    }
}

/// The caller gave fewer bytes than the inode has.
const TOO_SHORT: Error = Error::Corrupt("inode: too short");

/// What both kinds of inodes hold, in one form.
struct Common {
    inode_size: u64,
    size: u64,
    mtime: i64,
    mtime_nsec: u32,
    uid: u32,
    gid: u32,
    nlink: u32,
    ino: u32,
    start_low: u32,
    start_high: u16,
    /// Value of the start block that means that there is none.
    no_start: u64,
}

impl Common {
    fn read(super_block: &SuperBlock, head: &RawHead, bytes: &[u8]) -> Result<Self> {
        let shared = head.nlink_or_start_high.get();
        if head.format.get() & FORMAT_EXTENDED != 0 {
            let (raw, _) = RawExtended::ref_from_prefix(bytes).map_err(|_| TOO_SHORT)?;
            return Ok(Common {
                inode_size: 64,
                size: raw.size.get(),
                mtime: i64::from_le_bytes(raw.mtime.to_bytes()),
                mtime_nsec: raw.mtime_nsec.get(),
                uid: raw.uid.get(),
                gid: raw.gid.get(),
                nlink: raw.nlink.get(),
                ino: raw.ino.get(),
                start_low: raw.start.get(),
                start_high: shared,
                no_start: NO_START_48,
            });
        }

        let (raw, _) = RawCompact::ref_from_prefix(bytes).map_err(|_| TOO_SHORT)?;
        let is_dir = head.mode.get() & S_IFMT == S_IFDIR;
        let one_link = !is_dir && head.format.get() & FORMAT_BIT4 != 0;
        let (nlink, start_high, no_start) = if one_link {
            (1, shared, NO_START_48)
        } else {
            (shared, 0, NO_START_32)
        };
        Ok(Common {
            inode_size: 32,
            size: u64::from(raw.size.get()),
            mtime: super_block
                .epoch()
                .checked_add(i64::from(raw.mtime.get()))
                .ok_or(Error::Corrupt("i_mtime: beyond any time"))?,
            mtime_nsec: super_block.fixed_nsec(),
            uid: u32::from(raw.uid.get()),
            gid: u32::from(raw.gid.get()),
            nlink: u32::from(nlink),
            ino: raw.ino.get(),
            start_low: raw.start.get(),
            start_high,
            no_start,
        })
    }

    /// Checks the layout of a file whose attributes end at the byte `end` of its area.
    fn layout(&self, super_block: &SuperBlock, layout: u16, end: u64) -> Result<Layout> {
        match layout {
            0 if self.start_block() == self.no_start => Ok(Layout::Hole),
            0 => Ok(Layout::Plain {
                start: self.start(super_block)?,
            }),
            2 => {
                let block_size = super_block.block_size();
                let tail_len = self.size.saturating_sub(tail_pos(self.size, block_size));
                let in_block = end & u64::from(block_size).saturating_sub(1);
                if in_block.saturating_add(tail_len) > u64::from(block_size) {
                    return Err(Error::Corrupt("inline tail: crosses a block"));
                }
                // A file that is all tail has no blocks, and a start that means nothing.
                let start = if tail_len == self.size {
                    0
                } else {
                    self.start(super_block)?
                };
                Ok(Layout::Inline { start, tail: end })
            }
            4 => {
                // The lower half of the field; the upper half is reserved.
                let [low, high, ..] = self.start_low.to_le_bytes();
                let format = u16::from_le_bytes([low, high]);
                ChunkMap::new(super_block, format, end, self.size).map(Layout::Chunk)
            }
            1 | 3 => Err(Error::Unsupported("i_format: a compressed file")),
            _ => Err(Error::Unsupported("i_format: an unknown data layout")),
        }
    }

    fn start_block(&self) -> u64 {
        u64::from(self.start_low) | u64::from(self.start_high).wrapping_shl(32)
    }

    /// Byte offset of the first block of a file whose blocks all have an offset.
    fn start(&self, super_block: &SuperBlock) -> Result<u64> {
        // A 48-bit number and at most 12 bits more.
        let start = self.start_block().wrapping_shl(super_block.block_bits());
        match start.checked_add(self.size) {
            Some(end) if i64::try_from(end).is_ok() => Ok(start),
            _ => Err(Error::Corrupt(
                "i_startblk: the file ends beyond any device",
            )),
        }
    }
}

/// All ones in the 32-bit and the 48-bit form of a start block: no block at all.
const NO_START_32: u64 = 0xffff_ffff;
const NO_START_48: u64 = 0xffff_ffff_ffff;

/// First byte of the last block of a file.
fn tail_pos(size: u64, block_size: u32) -> u64 {
    size.saturating_sub(1) & !u64::from(block_size).saturating_sub(1)
}

/// Splits the device number of an inode into major and minor number.
///
/// Bits 0 to 7 and 20 to 31 are the minor number, bits 8 to 19 the major one (`new_decode_dev()` in
/// the kernel).
pub fn device_number(rdev: u32) -> (u32, u32) {
    let major = rdev.wrapping_shr(8) & 0xfff;
    let minor = (rdev & 0xff) | (rdev.wrapping_shr(12) & 0xfff00);
    (major, minor)
}
