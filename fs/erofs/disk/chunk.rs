// SPDX-License-Identifier: GPL-2.0

//! Chunk-based files: the map from chunks of equal size to blocks of any device.
//!
//! The map is an array behind the inode and its attributes, one entry per chunk, of one of two
//! kinds.
//!
//! | kind | offset | size | field |
//! | --- | --- | --- | --- |
//! | block map, 4 bytes | 0 | 4 | block of device 0, all ones for a hole |
//! | indexes, 8 bytes | 0 | 2 | more bits of the block in a 48-bit image |
//! | | 2 | 2 | device id; only the bits of the device mask count |
//! | | 4 | 4 | block of that device, all ones for a hole |

use crate::{Address, Error, Result, SuperBlock};

/// Bits of the chunk format that hold log2(chunk size / block size).
const FORMAT_BITS_MASK: u16 = 0x1f;

/// Chunk format: the map has 8-byte indexes, else 4-byte block numbers.
const FORMAT_INDEXES: u16 = 0x20;

/// Chunk format: indexes have 48-bit block numbers.
const FORMAT_48BIT: u16 = 0x40;

/// The chunk map of one file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChunkMap {
    /// Byte offset of the map in the primary device.
    base: u64,
    chunk_bits: u32,
    block_bits: u32,
    indexes: bool,
    device_mask: u16,
    device_count: u16,
}

/// Where the map entry of one chunk is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChunkEntry {
    /// Number of the chunk in the file.
    pub index: u64,
    /// Byte offset of the entry in the primary device; an entry never crosses a block.
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
        if format & FORMAT_48BIT != 0 {
            return Err(Error::Unsupported("chunk format: 48-bit block addresses"));
        }
        if format & !(FORMAT_BITS_MASK | FORMAT_INDEXES) != 0 {
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
            (false, &[b0, b1, b2, b3, ..]) => (0, u32::from_le_bytes([b0, b1, b2, b3])),
            (true, &[_, _, d0, d1, b0, b1, b2, b3, ..]) => (
                u16::from_le_bytes([d0, d1]) & self.device_mask,
                u32::from_le_bytes([b0, b1, b2, b3]),
            ),
            _ => return Err(Error::Corrupt("chunk map: too short")),
        };
        if block == u32::MAX {
            return Ok(None);
        }
        if device > self.device_count {
            return Err(Error::Corrupt("chunk device id: not in the device table"));
        }
        Ok(Some(Address {
            device,
            // A 32-bit number and at most 12 bits more.
            start: u64::from(block).wrapping_shl(self.block_bits),
        }))
    }
}
