// SPDX-License-Identifier: GPL-2.0

//! Chunk-based files: the map from chunks of equal size to blocks of any device.
//!
//! The map is an array behind the inode and its attributes, one entry per chunk, of one of two
//! kinds.
//!
//! | kind | offset | size | field |
//! | --- | --- | --- | --- |
//! | block map, 4 bytes | 0 | 4 | block of device 0 |
//! | indexes, 8 bytes | 0 | 2 | bits 32 to 47 of the block, if the chunk format says so |
//! | | 2 | 2 | device id; only the bits of the device mask count |
//! | | 4 | 4 | block of that device |
//!
//! A block number of which all bits are ones, all 48 of them where there are as many, stands for a
//! hole.

use crate::{Address, Error, Result, SuperBlock};

/// Bits of the chunk format that hold log2(chunk size / block size).
const FORMAT_BITS_MASK: u16 = 0x1f;

/// Chunk format: the map has 8-byte indexes, else 4-byte block numbers.
const FORMAT_INDEXES: u16 = 0x20;

/// Chunk format: indexes have 48-bit block numbers.
const FORMAT_48BIT: u16 = 0x40;

/// Block numbers with all bits set: a hole.
const HOLE_32: u64 = 0xffff_ffff;
const HOLE_48: u64 = 0xffff_ffff_ffff;

/// The chunk map of one file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChunkMap {
    /// Byte offset of the map in the area of the inode.
    base: u64,
    chunk_bits: u32,
    block_bits: u32,
    indexes: bool,
    /// The block number of a hole, which also has all the bits that count.
    hole: u64,
    device_mask: u16,
    device_count: u16,
}

/// Where the map entry of one chunk is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChunkEntry {
    /// Number of the chunk in the file.
    pub index: u64,
    /// Byte offset of the entry in the area of the inode; an entry never crosses a block.
    pub offset: u64,
    /// Size of the entry in bytes, 4 or 8.
    pub len: usize,
    /// First byte of the chunk in the file.
    pub pos: u64,
    /// Size of the chunk in bytes. The last chunk of a file may go on behind the file's end.
    pub size: u64,
}

impl ChunkMap {
    /// Checks the chunk format of an inode with `file_size` bytes whose attributes end at the byte
    /// `end`.
    pub(crate) fn new(
        super_block: &SuperBlock,
        format: u16,
        end: u64,
        file_size: u64,
    ) -> Result<Self> {
        if format & !(FORMAT_BITS_MASK | FORMAT_INDEXES | FORMAT_48BIT) != 0 {
            return Err(Error::Unsupported("chunk format: an unknown bit"));
        }
        let indexes = format & FORMAT_INDEXES != 0;
        let map = ChunkMap {
            base: end
                .checked_next_multiple_of(if indexes { 8 } else { 4 })
                .ok_or(Error::Corrupt("chunk map: beyond any device"))?,
            // At most 12 + 31.
            chunk_bits: super_block
                .block_bits()
                .saturating_add(u32::from(format & FORMAT_BITS_MASK)),
            block_bits: super_block.block_bits(),
            indexes,
            hole: if indexes && format & FORMAT_48BIT != 0 {
                HOLE_48
            } else {
                HOLE_32
            },
            device_mask: super_block.device_mask(),
            device_count: super_block.device_count(),
        };
        // With the last entry, all entries are somewhere.
        map.entry(file_size)?;
        Ok(map)
    }

    /// Size of a chunk in bytes, a power of two and at least a block.
    pub fn chunk_size(&self) -> u64 {
        1u64.wrapping_shl(self.chunk_bits)
    }

    /// Finds the map entry for the chunk that contains the byte `pos` of the file, which is less
    /// than its size.
    pub fn entry(&self, pos: u64) -> Result<ChunkEntry> {
        let index = pos.wrapping_shr(self.chunk_bits);
        let len: u8 = if self.indexes { 8 } else { 4 };
        let offset = index
            .checked_mul(u64::from(len))
            .and_then(|offset| self.base.checked_add(offset))
            .filter(|&offset| offset < i64::MAX.unsigned_abs())
            .ok_or(Error::Corrupt("chunk map: beyond any device"))?;
        Ok(ChunkEntry {
            index,
            offset,
            len: usize::from(len),
            // The bits above were not shifted out, so none are lost on the way back.
            pos: index.wrapping_shl(self.chunk_bits),
            size: self.chunk_size(),
        })
    }

    /// Decodes a map entry: the address of the chunk's first byte, or `None` for a hole.
    ///
    /// `bytes` begins at [`ChunkEntry::offset`] and may be longer than [`ChunkEntry::len`].
    pub fn decode(&self, bytes: &[u8]) -> Result<Option<Address>> {
        let (device, block) = match (self.indexes, bytes) {
            (false, &[b0, b1, b2, b3, ..]) => (0, u64::from(u32::from_le_bytes([b0, b1, b2, b3]))),
            (true, &[h0, h1, d0, d1, b0, b1, b2, b3, ..]) => (
                u16::from_le_bytes([d0, d1]) & self.device_mask,
                u64::from_le_bytes([b0, b1, b2, b3, h0, h1, 0, 0]) & self.hole,
            ),
            _ => return Err(Error::Corrupt("chunk map: too short")),
        };
        if block == self.hole {
            return Ok(None);
        }
        if device > self.device_count {
            return Err(Error::Corrupt("chunk device id: not in the device table"));
        }
        Ok(Some(Address {
            device,
            // A 48-bit number and at most 12 bits more.
            start: block.wrapping_shl(self.block_bits),
        }))
    }
}
