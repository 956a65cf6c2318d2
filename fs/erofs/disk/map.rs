// SPDX-License-Identifier: GPL-2.0

//! Where the bytes of a file are: layouts, chunks and devices put together.

use crate::{Address, Area, ChunkMap, Error, Inode, Layout, Place, ReadError, SuperBlock};

/// A piece of a file whose bytes are in one place.
///
/// It starts at a block of the file, and ends at one or with the file. A hole may end behind the
/// file, blocks end with the last one of the file at the latest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// First byte in the file.
    pub pos: u64,
    /// Length in bytes, never 0.
    pub len: u64,
    /// Where byte `pos` is; the bytes after it follow there without a gap.
    pub data: ExtentData,
}

/// Where the bytes of an [`Extent`] are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExtentData {
    /// Nowhere: they are zeros.
    Hole,
    /// With the metadata.
    Inline {
        /// Byte offset in the [area](Inode::area) of the inode.
        start: u64,
    },
    /// In blocks of a device.
    Blocks {
        /// 0 is the primary device, `n` is the device of slot `n - 1`.
        device: u16,
        /// Byte offset on the device, a multiple of the block size.
        start: u64,
    },
}

const BEYOND: Error = Error::Corrupt("block address: beyond its device");

impl Inode {
    /// Finds the extent with the byte `pos` of the file, which is less than its size.
    ///
    /// Of a run of blocks that goes over several devices, it is the part from the block of `pos` to
    /// where the device changes. Whichever of its bytes an extent is asked for, a byte is in one
    /// place.
    ///
    /// `resolve` finds the device of an address: [`resolve`](crate::resolve()) or
    /// [`resolve_flat`](crate::resolve_flat). `read` fills a buffer with the bytes from a byte
    /// offset of an area on: with an entry of the chunk map, of 4 or 8 bytes.
    ///
    /// # Errors
    ///
    /// [`ReadError::Image`] for a place that does not exist, or for a byte behind the file's end.
    pub fn extent<E>(
        &self,
        super_block: &SuperBlock,
        pos: u64,
        resolve: impl FnOnce(Address) -> Result<Place, Error>,
        read: impl FnOnce(Area, u64, &mut [u8]) -> Result<(), E>,
    ) -> Result<Extent, ReadError<E>> {
        if pos >= self.size {
            return Err(Error::Corrupt("i_size: the file ends before this byte").into());
        }
        let run = match self.layout {
            Layout::Hole => {
                return Ok(Extent {
                    pos: 0,
                    len: self.size,
                    data: ExtentData::Hole,
                })
            }
            Layout::Plain { start } => Run::flat(start, whole_blocks(super_block, self.size)?),
            Layout::Inline { start, tail } => match self.tail_pos() {
                tail_pos if pos < tail_pos => Run::flat(start, tail_pos),
                tail_pos => {
                    return Ok(Extent {
                        pos: tail_pos,
                        // The tail begins at or before `pos`.
                        len: self.size.saturating_sub(tail_pos),
                        data: ExtentData::Inline { start: tail },
                    });
                }
            },
            Layout::Chunk(map) => match self.chunk(super_block, map, pos, read)? {
                Chunk::Hole(extent) => return Ok(extent),
                Chunk::Blocks(run) => run,
            },
        };
        Ok(run.on_one_device(super_block, pos, resolve)?)
    }

    /// Reads the entry of the chunk map for the byte `pos`.
    fn chunk<E>(
        &self,
        super_block: &SuperBlock,
        map: ChunkMap,
        pos: u64,
        read: impl FnOnce(Area, u64, &mut [u8]) -> Result<(), E>,
    ) -> Result<Chunk, ReadError<E>> {
        let entry = map.entry(pos)?;
        let mut bytes = [0; 8];
        let bytes = bytes.get_mut(..entry.len).unwrap_or_default();
        read(self.area, entry.offset, bytes).map_err(ReadError::Read)?;
        Ok(match map.decode(bytes)? {
            None => Chunk::Hole(Extent {
                pos: entry.pos,
                len: entry.size,
                data: ExtentData::Hole,
            }),
            Some(address) => {
                // The last chunk may have fewer blocks than the others.
                let left = self.size.saturating_sub(entry.pos);
                Chunk::Blocks(Run {
                    pos: entry.pos,
                    len: entry.size.min(whole_blocks(super_block, left)?),
                    address,
                })
            }
        })
    }
}

/// The size in bytes of the blocks that `len` bytes take.
fn whole_blocks(super_block: &SuperBlock, len: u64) -> Result<u64, Error> {
    len.checked_next_multiple_of(u64::from(super_block.block_size()))
        .ok_or(BEYOND)
}

/// What an entry of a chunk map leads to.
enum Chunk {
    Hole(Extent),
    Blocks(Run),
}

/// Bytes of a file that are in blocks with consecutive addresses.
struct Run {
    pos: u64,
    len: u64,
    address: Address,
}

impl Run {
    /// The first `len` bytes of a file.
    fn flat(start: u64, len: u64) -> Self {
        Run {
            pos: 0,
            len,
            address: Address { device: 0, start },
        }
    }

    /// The part of the run from the block of the byte `pos` of the file on that is on one device.
    fn on_one_device(
        self,
        super_block: &SuperBlock,
        pos: u64,
        resolve: impl FnOnce(Address) -> Result<Place, Error>,
    ) -> Result<Extent, Error> {
        let in_block = u64::from(super_block.block_size()).saturating_sub(1);
        let skip = pos.checked_sub(self.pos).ok_or(BEYOND)? & !in_block;
        let Place { device, start, len } = resolve(Address {
            start: self.address.start.checked_add(skip).ok_or(BEYOND)?,
            ..self.address
        })?;
        Ok(Extent {
            pos: self.pos.checked_add(skip).ok_or(BEYOND)?,
            len: self.len.checked_sub(skip).ok_or(BEYOND)?.min(len),
            data: ExtentData::Blocks { device, start },
        })
    }
}
