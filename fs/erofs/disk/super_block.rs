// SPDX-License-Identifier: GPL-2.0

//! The super block: where everything else is, and which features the image needs.

use core::ops::Range;

use zerocopy::byteorder::little_endian::{U16, U32, U64};
use zerocopy::FromBytes as _;
use zerocopy_derive::{FromBytes, Immutable, KnownLayout, Unaligned};

use crate::crc32c;
use crate::device::DEVICE_SLOT_SIZE;
use crate::{Area, Error, Result};

/// Byte offset of the super block in the primary device; the bytes before it are for boot code.
pub const SUPER_OFFSET: u64 = 1024;

/// Size of the super block without extension slots.
pub const SUPER_SIZE: usize = 128;

/// Size of the super block with the extension slot that has a meaning: the most that
/// [`SuperBlock::parse`] needs. Every image has as many bytes there.
pub const SUPER_SIZE_MAX: usize = 144;

/// Magic number of an EROFS super block.
pub const MAGIC: u32 = 0xe0f5_e1e2;

/// Size of an extension slot behind the super block.
const EXT_SLOT_SIZE: u64 = 16;

/// The super block with its extension slots ends before this byte of the device.
const SUPER_END_MAX: u64 = 4096;

/// log2 of the size of an inode slot, the unit in which a nid counts.
const INODE_SLOT_BITS: u32 = 5;

/// Compatible feature: the checksum is valid.
const COMPAT_SB_CHKSUM: u32 = 0x1;

/// Compatible feature: attributes have name filters.
const COMPAT_XATTR_FILTER: u32 = 0x4;

/// Compatible feature: the shared attributes are in the metabox.
const COMPAT_SHARED_XATTRS_IN_METABOX: u32 = 0x8;

/// Compatible feature: the long prefixes of attribute names are in the primary device, whatever
/// special inodes there are.
const COMPAT_PLAIN_XATTR_PREFIXES: u32 = 0x10;

/// Incompatible features that a reader of uncompressed files can do with.
///
/// `0x1` (LZ4 with leading zero padding) is set on images without a compressed file, too: it
/// changes what compressed blocks look like, and an inode tells whether it has any. `0x4` allows
/// chunk-based files, `0x40` attribute names with a long prefix.
const INCOMPAT_SUPPORTED: u32 = 0x1
    | 0x4
    | INCOMPAT_DEVICE_TABLE
    | INCOMPAT_FRAGMENTS
    | 0x40
    | INCOMPAT_48BIT
    | INCOMPAT_METABOX;

/// Incompatible feature: the image has a device table. In a compressed image the same bit stands
/// for a second compression algorithm per file.
const INCOMPAT_DEVICE_TABLE: u32 = 0x8;

/// Incompatible feature: there may be a packed inode, with pieces of compressed files, or with the
/// long prefixes of attribute names. The same bit stands for compressed data that files share; an
/// inode tells whether it is compressed.
const INCOMPAT_FRAGMENTS: u32 = 0x20;

/// Incompatible feature: block numbers have up to 48 bits.
const INCOMPAT_48BIT: u32 = 0x80;

/// Incompatible feature: inodes may be in the metabox.
const INCOMPAT_METABOX: u32 = 0x100;

/// Bit of a nid: the inode is in the metabox.
const NID_METABOX: u64 = 1 << 63;

/// Incompatible features that are known but not supported, each with its name for the log.
const INCOMPAT_NAMED: [(u32, &str); 2] = [
    (
        0x2,
        "feature_incompat: compression configurations or big physical clusters (0x2)",
    ),
    (0x10, "feature_incompat: compressed tail packing (0x10)"),
];

/// The super block as it is on disk.
#[derive(FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawSuperBlock {
    /// Offset 0: [`MAGIC`].
    magic: U32,
    /// Offset 4: CRC-32C from the magic to the end of the block, with 0 in this place; see
    /// [`checksum_range`].
    ///
    /// [`checksum_range`]: SuperBlock::checksum_range
    checksum: U32,
    /// Offset 8: features that a reader may ignore, one bit each.
    feature_compat: U32,
    /// Offset 12: log2 of the block size in bytes, 9 to 12.
    block_bits: u8,
    /// Offset 13: number of 16-byte extension slots behind the super block.
    ext_slots: u8,
    /// Offset 14: nid of the root directory; of a 48-bit image with `root_nid_48`, bits 32 to 47 of
    /// `blocks`.
    root_nid_or_blocks_high: U16,
    /// Offset 16: number of inodes.
    inodes: U64,
    /// Offset 24: seconds since 1970, signed: the base of the times of compact inodes.
    epoch: U64,
    /// Offset 32: nanoseconds of the times of compact inodes, less than 10^9.
    fixed_nsec: U32,
    /// Offset 36: size of the primary device in blocks.
    blocks: U32,
    /// Offset 40: first block of the metadata area; nid 0 is there.
    meta_block: U32,
    /// Offset 44: first block of the shared extended attributes.
    xattr_block: U32,
    /// Offset 48: UUID of the image.
    uuid: [u8; 16],
    /// Offset 64: label, padded with NULs.
    volume_name: [u8; 16],
    /// Offset 80: features that a reader must know, one bit each.
    feature_incompat: U32,
    /// Offset 84: compression algorithms in use, or the LZ4 window; of no interest without
    /// compressed files.
    _compression: U16,
    /// Offset 86: number of devices besides the primary one, if the image has a device table.
    extra_devices: U16,
    /// Offset 88: place of the device table in units of 128 bytes.
    device_table: U16,
    /// Offset 90: log2 of (directory block size / block size); only 0 exists.
    dir_block_bits: u8,
    /// Offset 91: number of long prefixes of attribute names.
    xattr_prefix_count: u8,
    /// Offset 92: place of the long prefixes in units of 4 bytes; see
    /// [`xattr_prefix_area`](SuperBlock::xattr_prefix_area).
    xattr_prefix_start: U32,
    /// Offset 96: nid of the packed inode, 0 if there is none.
    packed_nid: U64,
    /// Offset 104: nonzero if the name filters of attributes are not to be used.
    xattr_filter_reserved: u8,
    /// Offset 105: index of the attribute name prefix for sharing pages between images.
    _ishare_xattr_prefix: u8,
    /// Offset 106: reserved.
    _reserved: [u8; 2],
    /// Offset 108: seconds between the epoch and the making of the image.
    _build_time: U32,
    /// Offset 112: nid of the root directory of a 48-bit image, 0 if the one at offset 14 counts.
    root_nid_48: U64,
    /// Offset 120: reserved.
    _reserved2: U64,
}

/// The first extension slot as it is on disk.
#[derive(FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawExtSlot {
    /// Offset 128: nid of the inode whose data is the metabox.
    metabox_nid: U64,
    /// Offset 136: reserved.
    _reserved: U64,
}

const _: () = assert!(size_of::<RawSuperBlock>() == SUPER_SIZE);
const _: () = assert!(SUPER_SIZE + size_of::<RawExtSlot>() == SUPER_SIZE_MAX);

/// A super block that was checked.
#[derive(Clone, Debug)]
pub struct SuperBlock {
    checksum: u32,
    feature_compat: u32,
    feature_incompat: u32,
    block_bits: u8,
    root_nid: u64,
    inodes: u64,
    epoch: i64,
    fixed_nsec: u32,
    blocks: u64,
    meta_block: u32,
    xattr_block: u32,
    uuid: [u8; 16],
    volume_name: [u8; 16],
    device_count: u16,
    device_table: u64,
    xattr_prefix_count: u8,
    xattr_prefix_start: u64,
    packed_nid: Option<u64>,
    metabox_nid: Option<u64>,
    xattr_filter_reserved: u8,
}

impl SuperBlock {
    /// Reads the super block from the bytes at [`SUPER_OFFSET`], at least [`SUPER_SIZE`] of them.
    /// An image with a metabox takes [`SUPER_SIZE_MAX`]: who gives no more than [`SUPER_SIZE`] gets
    /// no such image.
    ///
    /// The checksum is left to [`Self::verify_checksum`], because the size of the block that it
    /// covers is only known afterwards.
    ///
    /// # Errors
    ///
    /// [`Error::BadMagic`] if this is not EROFS, [`Error::Unsupported`] for a feature that this
    /// crate lacks, else [`Error::Corrupt`].
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        let (raw, rest) = RawSuperBlock::ref_from_prefix(bytes)
            .map_err(|_| Error::Corrupt("super block: too short"))?;
        if raw.magic.get() != MAGIC {
            return Err(Error::BadMagic(raw.magic.get()));
        }
        if !(9..=12).contains(&raw.block_bits) {
            return Err(Error::Unsupported("blkszbits: not 9 to 12"));
        }
        if raw.dir_block_bits != 0 {
            return Err(Error::Unsupported("dirblkbits: not 0"));
        }
        check_features(raw.feature_incompat.get())?;

        let super_end = u64::from(raw.ext_slots)
            .saturating_mul(EXT_SLOT_SIZE)
            .saturating_add(SUPER_OFFSET.saturating_add(128));
        if super_end > SUPER_END_MAX {
            return Err(Error::Corrupt("sb_extslots: more than 4096 bytes"));
        }
        if raw.fixed_nsec.get() >= 1_000_000_000 {
            return Err(Error::Corrupt("fixed_nsec: a second or more"));
        }

        let has = |feature| raw.feature_incompat.get() & feature != 0;
        let has_devices = has(INCOMPAT_DEVICE_TABLE);
        let device_count = if has_devices {
            raw.extra_devices.get()
        } else {
            0
        };
        let device_table = u64::from(raw.device_table.get()).saturating_mul(128);
        if device_count > 0 && device_table < super_end {
            return Err(Error::Corrupt("devt_slotoff: within the super block"));
        }

        let low = raw.root_nid_or_blocks_high.get();
        let (root_nid, blocks_high) = match raw.root_nid_48.get() {
            nid if has(INCOMPAT_48BIT) && nid != 0 => (nid, low),
            _ => (u64::from(low), 0),
        };
        let metabox_nid = has(INCOMPAT_METABOX)
            .then(|| metabox_nid(raw.ext_slots, rest))
            .transpose()?;

        Ok(SuperBlock {
            checksum: raw.checksum.get(),
            feature_compat: raw.feature_compat.get(),
            feature_incompat: raw.feature_incompat.get(),
            block_bits: raw.block_bits,
            root_nid,
            inodes: raw.inodes.get(),
            epoch: i64::from_le_bytes(raw.epoch.to_bytes()),
            fixed_nsec: raw.fixed_nsec.get(),
            blocks: u64::from(raw.blocks.get()) | u64::from(blocks_high).wrapping_shl(32),
            meta_block: raw.meta_block.get(),
            xattr_block: raw.xattr_block.get(),
            uuid: raw.uuid,
            volume_name: raw.volume_name,
            device_count,
            device_table,
            xattr_prefix_count: raw.xattr_prefix_count,
            xattr_prefix_start: u64::from(raw.xattr_prefix_start.get()).saturating_mul(4),
            packed_nid: Some(raw.packed_nid.get())
                .filter(|&nid| has(INCOMPAT_FRAGMENTS) && nid != 0),
            metabox_nid,
            xattr_filter_reserved: raw.xattr_filter_reserved,
        })
    }

    /// Where the bytes that the checksum covers are in the primary device: from the super block to
    /// the end of its block.
    pub fn checksum_range(&self) -> Range<u64> {
        let block = u64::from(self.block_size());
        // Blocks of up to 1024 bytes begin at the super block; in a larger one, 1024 bytes come
        // before it.
        let len = match block.saturating_sub(SUPER_OFFSET) {
            0 => block,
            rest => rest,
        };
        SUPER_OFFSET..SUPER_OFFSET.saturating_add(len)
    }

    /// Checks the checksum over the bytes of [`Self::checksum_range`], of which `bytes` may hold
    /// more.
    ///
    /// Images without a checksum pass.
    pub fn verify_checksum(&self, bytes: &[u8]) -> Result<()> {
        if self.feature_compat & COMPAT_SB_CHKSUM == 0 {
            return Ok(());
        }
        if self.compute_checksum(bytes)? == self.checksum {
            Ok(())
        } else {
            Err(Error::Corrupt("checksum: does not match the super block"))
        }
    }

    /// Makes the checksum right after a change of the bytes from [`SUPER_OFFSET`] to the end of the
    /// block.
    ///
    /// Images without a checksum stay as they are.
    pub fn fix_checksum(bytes: &mut [u8]) -> Result<()> {
        let super_block = SuperBlock::parse(bytes)?;
        if super_block.feature_compat & COMPAT_SB_CHKSUM == 0 {
            return Ok(());
        }
        let checksum = super_block.compute_checksum(bytes)?;
        bytes
            .get_mut(4..8)
            .ok_or(Error::Corrupt("super block: too short"))?
            .copy_from_slice(&checksum.to_le_bytes());
        Ok(())
    }

    fn compute_checksum(&self, bytes: &[u8]) -> Result<u32> {
        let range = self.checksum_range();
        let covered = usize::try_from(range.end.saturating_sub(range.start))
            .ok()
            .and_then(|len| bytes.get(..len));
        let (Some(covered), Some(magic)) = (covered, bytes.get(..4)) else {
            return Err(Error::Corrupt("super block: too short for its checksum"));
        };
        let rest = covered.get(8..).unwrap_or_default();
        let crc = crc32c::update(crc32c::SEED, magic);
        Ok(crc32c::update(crc32c::update(crc, &[0; 4]), rest))
    }

    /// Where the inode `nid` is: in the primary device or in the metabox.
    pub fn inode_area(&self, nid: u64) -> Area {
        if nid & NID_METABOX != 0 {
            Area::Metabox
        } else {
            Area::Primary
        }
    }

    /// Byte offset of the inode `nid` in its [area](Self::inode_area).
    ///
    /// # Errors
    ///
    /// A nid comes from a directory entry; one that leads nowhere is corrupt.
    pub fn inode_offset(&self, nid: u64) -> Result<u64> {
        const WRONG: Error = Error::Corrupt("nid: beyond any device");

        let base = match self.inode_area(nid) {
            Area::Metabox if self.metabox_nid.is_none() => {
                return Err(Error::Corrupt("nid: in the metabox, and there is none"))
            }
            Area::Metabox => 0,
            // A 32-bit number and at most 12 bits more.
            _ => u64::from(self.meta_block).wrapping_shl(self.block_bits()),
        };
        let offset = (nid & !NID_METABOX)
            .checked_mul(1 << INODE_SLOT_BITS)
            .and_then(|slots| base.checked_add(slots))
            .ok_or(WRONG)?;
        // Leaves room for the inode and what is behind it within the range of file offsets.
        if offset > i64::MAX.unsigned_abs() >> 1 {
            return Err(WRONG);
        }
        Ok(offset)
    }

    /// Byte offset in the primary device of the slot of the extra device `index`, which counts from
    /// 0, or `None` if there is no such device. A slot has [`DEVICE_SLOT_SIZE`] bytes.
    pub fn device_slot_offset(&self, index: u16) -> Option<u64> {
        if index >= self.device_count {
            return None;
        }
        // The slot size is a small constant, so the conversion holds.
        let slot_size = u64::try_from(DEVICE_SLOT_SIZE).ok()?;
        self.device_table
            .checked_add(u64::from(index).checked_mul(slot_size)?)
    }

    /// Number of devices besides the primary one.
    pub fn device_count(&self) -> u16 {
        self.device_count
    }

    /// The bits of a chunk's device number that count: as many as [`Self::device_count`] needs.
    pub fn device_mask(&self) -> u16 {
        u16::MAX
            .checked_shr(self.device_count.leading_zeros())
            .unwrap_or(0)
    }

    /// log2 of the block size, 9 to 12.
    pub fn block_bits(&self) -> u32 {
        u32::from(self.block_bits)
    }

    /// Block size in bytes, 512 to 4096.
    pub fn block_size(&self) -> u32 {
        1u32.wrapping_shl(self.block_bits())
    }

    /// Size of the primary device in blocks.
    pub fn blocks(&self) -> u64 {
        self.blocks
    }

    /// Whether block numbers may have more than 32 bits.
    pub(crate) fn has_48bit_blocks(&self) -> bool {
        self.feature_incompat & INCOMPAT_48BIT != 0
    }

    /// nid of the root directory.
    pub fn root_nid(&self) -> u64 {
        self.root_nid
    }

    /// Number of the inode `nid` for `stat(2)` and `readdir(3)`, as Linux tells it.
    ///
    /// It is the nid, except in an image with a metabox: there bit 31 tells whether the inode is in
    /// the metabox, and what was above moves up by one bit.
    pub fn inode_number(&self, nid: u64) -> u64 {
        if self.metabox_nid.is_none() {
            return nid;
        }
        const LOW: u64 = (1 << 31) - 1;
        let in_metabox = nid.wrapping_shr(63).wrapping_shl(31);
        (nid & !LOW).wrapping_shl(1) | in_metabox | (nid & LOW)
    }

    /// Number of inodes, as the image tells it.
    pub fn inodes(&self) -> u64 {
        self.inodes
    }

    /// Base of the times of compact inodes: seconds since 1970.
    pub fn epoch(&self) -> i64 {
        self.epoch
    }

    /// Nanoseconds of the times of compact inodes, less than 10^9.
    pub fn fixed_nsec(&self) -> u32 {
        self.fixed_nsec
    }

    /// UUID of the image.
    pub fn uuid(&self) -> [u8; 16] {
        self.uuid
    }

    /// Label of the image, up to 16 bytes without the padding.
    pub fn volume_name(&self) -> &[u8] {
        until_nul(&self.volume_name)
    }

    /// Compatible feature bits.
    pub fn feature_compat(&self) -> u32 {
        self.feature_compat
    }

    /// Incompatible feature bits; only supported ones are set.
    pub fn feature_incompat(&self) -> u32 {
        self.feature_incompat
    }

    /// Where the shared extended attributes are: in the primary device or in the metabox.
    ///
    /// # Errors
    ///
    /// They are in a metabox that does not exist. Images without shared attributes are fine.
    pub fn shared_xattrs_area(&self) -> Result<Area> {
        if self.feature_compat & COMPAT_SHARED_XATTRS_IN_METABOX == 0 {
            Ok(Area::Primary)
        } else if self.metabox_nid.is_some() {
            Ok(Area::Metabox)
        } else {
            Err(Error::Corrupt(
                "shared attributes: in the metabox, and there is none",
            ))
        }
    }

    /// Byte offset of the shared extended attributes in their [area](Self::shared_xattrs_area),
    /// less than 2^44.
    pub fn shared_xattrs_offset(&self) -> u64 {
        u64::from(self.xattr_block).wrapping_shl(self.block_bits())
    }

    /// Number of long prefixes of attribute names.
    pub fn xattr_prefix_count(&self) -> u8 {
        self.xattr_prefix_count
    }

    /// Where the long prefixes of attribute names are: in the primary device if the image says so,
    /// else in the metabox, the packed inode, or the primary device, whichever there is.
    pub fn xattr_prefix_area(&self) -> Area {
        if self.feature_compat & COMPAT_PLAIN_XATTR_PREFIXES != 0 {
            Area::Primary
        } else if self.metabox_nid.is_some() {
            Area::Metabox
        } else if self.packed_nid.is_some() {
            Area::Packed
        } else {
            Area::Primary
        }
    }

    /// Byte offset of the long prefixes of attribute names in their
    /// [area](Self::xattr_prefix_area), less than 2^34.
    pub fn xattr_prefix_offset(&self) -> u64 {
        self.xattr_prefix_start
    }

    /// nid of the packed inode, or `None` if the image has none.
    pub fn packed_nid(&self) -> Option<u64> {
        self.packed_nid
    }

    /// nid of the inode whose data is the metabox, or `None` if the image has none. It is in the
    /// primary device.
    pub fn metabox_nid(&self) -> Option<u64> {
        self.metabox_nid
    }

    /// Whether the name filters of attributes may be used: the image has them, in the one form that
    /// is known.
    pub fn xattr_filter_usable(&self) -> bool {
        self.feature_compat & COMPAT_XATTR_FILTER != 0 && self.xattr_filter_reserved == 0
    }
}

/// Refuses incompatible features that are not supported, with the name of the first one.
fn check_features(features: u32) -> Result<()> {
    let refused = features & !INCOMPAT_SUPPORTED;
    if refused == 0 {
        return Ok(());
    }
    let name = INCOMPAT_NAMED
        .iter()
        .find(|(bit, _)| refused & bit != 0)
        .map_or("feature_incompat: an unknown bit", |(_, name)| *name);
    Err(Error::Unsupported(name))
}

/// Reads the nid of the metabox from the bytes behind the first [`SUPER_SIZE`].
fn metabox_nid(ext_slots: u8, bytes: &[u8]) -> Result<u64> {
    if ext_slots == 0 {
        return Err(Error::Corrupt("sb_extslots: no room for metabox_nid"));
    }
    let (raw, _) = RawExtSlot::ref_from_prefix(bytes)
        .map_err(|_| Error::Corrupt("super block: too short for metabox_nid"))?;
    let nid = raw.metabox_nid.get();
    if nid & NID_METABOX != 0 {
        return Err(Error::Corrupt("metabox_nid: in the metabox"));
    }
    Ok(nid)
}

/// The bytes before the first NUL.
pub(crate) fn until_nul(bytes: &[u8]) -> &[u8] {
    bytes.split(|&byte| byte == 0).next().unwrap_or_default()
}
