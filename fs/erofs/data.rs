// SPDX-License-Identifier: GPL-2.0

//! Where the bytes of a file are, and how they get into its page cache.

use crate::{inode::Node, volume, Erofs};
use erofs_disk::{Address, Area, Inode, Layout, Place};
use kernel::prelude::*;
use netfs_split::{File, Map, Slice, Slices, Source, SplitError};
use vfs::{
    inode::INode,
    iomap::{self, FolioRead, Location, Mapping},
    super_block::SuperBlock,
    u64_from,
};

/// The layout of one file, as `netfs_split` asks for it.
struct FileMap<'a> {
    sb: &'a SuperBlock<Erofs>,
    inode: &'a Inode,
}

impl FileMap<'_> {
    fn file(&self) -> Result<File> {
        Ok(File {
            size: self.inode.size,
            block_size: self.sb.data().super_block()?.block_size(),
        })
    }

    /// The part of the run of `len` bytes at `address` that lies on one device, from the block on
    /// that is `skip` bytes into it. `pos` is where the run starts in the file.
    fn on_device(&self, pos: u64, len: u64, address: Address, skip: u64) -> Result<Slice<u16>> {
        let volume = self.sb.data();
        let corrupt = |e| volume.disk_error(format_args!("inode {}", self.inode.nid), e);
        let beyond = || {
            corrupt(erofs_disk::Error::Corrupt(
                "block address: beyond its device",
            ))
        };
        let block = u64::from(volume.super_block()?.block_size());
        let skip = skip
            .checked_rem(block)
            .and_then(|part| skip.checked_sub(part));
        let skip = skip.ok_or_else(beyond)?;
        let address = Address {
            start: address.start.checked_add(skip).ok_or_else(beyond)?,
            ..address
        };
        let Place {
            device,
            start,
            len: there,
        } = volume.place(address)?.map_err(corrupt)?;
        Ok(Slice {
            pos: pos.checked_add(skip).ok_or_else(beyond)?,
            len: len.checked_sub(skip).ok_or_else(beyond)?.min(there),
            source: Source::Blob {
                blob: device,
                start,
            },
        })
    }

    fn blocks(&self, bytes: u64) -> Result<u64> {
        let block = u64::from(self.sb.data().super_block()?.block_size());
        bytes.checked_next_multiple_of(block).ok_or(EFSCORRUPTED)
    }
}

impl Map for FileMap<'_> {
    type Blob = u16;
    type Error = Error;

    fn extent(&self, pos: u64) -> Result<Slice<u16>> {
        let inode = self.inode;
        let device0 = |start| Address { device: 0, start };
        match inode.layout {
            Layout::Hole => Ok(Slice {
                pos: 0,
                len: inode.size,
                source: Source::Zero,
            }),
            Layout::Plain { start } => {
                self.on_device(0, self.blocks(inode.size)?, device0(start), pos)
            }
            Layout::Inline { start, tail } => match inode.tail_pos() {
                tail_pos if pos < tail_pos => self.on_device(0, tail_pos, device0(start), pos),
                tail_pos => Ok(Slice {
                    pos: tail_pos,
                    len: inode.size.checked_sub(tail_pos).ok_or(EFSCORRUPTED)?,
                    source: Source::Inline { start: tail },
                }),
            },
            Layout::Chunk(map) => {
                let volume = self.sb.data();
                let corrupt = |e| volume.disk_error(format_args!("inode {}", inode.nid), e);
                let entry = map.entry(pos).map_err(corrupt)?;
                let mut bytes = [0; 8];
                let bytes = bytes.get_mut(..entry.len).ok_or(EINVAL)?;
                volume::read_area(self.sb, inode.area, entry.offset, bytes)?;
                match map.decode(bytes).map_err(corrupt)? {
                    None => Ok(Slice {
                        pos: entry.pos,
                        len: entry.size,
                        source: Source::Zero,
                    }),
                    Some(address) => {
                        let skip = pos.checked_sub(entry.pos).ok_or(EFSCORRUPTED)?;
                        // The last chunk may have fewer blocks than the others.
                        let left = inode.size.checked_sub(entry.pos).ok_or(EFSCORRUPTED)?;
                        let len = entry.size.min(self.blocks(left)?);
                        self.on_device(entry.pos, len, address, skip)
                    }
                }
            }
        }
    }
}

/// The first slice of a range of a file, as long as it can be.
fn first_slice(map: &FileMap<'_>, pos: u64, len: u64) -> Result<Slice<u16>> {
    let volume = map.sb.data();
    let slice = Slices::new(map.file()?, map, pos, len)
        .next()
        .ok_or(EINVAL)?
        .map_err(|e| match e {
            SplitError::Map(e) => e,
            e => volume.corrupt(format_args!("inode {}: {}", map.inode.nid, Reason(&e))),
        })?;
    if let Source::Blob { blob, start } = slice.source {
        let size = volume.device(usize::from(blob))?.source().size();
        if start.checked_add(slice.len).is_none_or(|end| end > size) {
            return Err(volume.corrupt(format_args!(
                "inode {}: data at {start} lies beyond the end of device {blob}",
                map.inode.nid
            )));
        }
    }
    Ok(slice)
}

struct Reason<'a>(&'a SplitError<Error>);

impl core::fmt::Display for Reason<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self.0 {
            SplitError::Map(_) => "map",
            SplitError::RangeOverflow | SplitError::ExtentOverflow => "extent has no end",
            SplitError::BlockSize => "block size is not a power of two",
            SplitError::EmptyExtent => "extent of length 0",
            SplitError::WrongExtent => "extent does not contain the asked byte",
            SplitError::UnalignedExtent => "extent is not on block boundaries",
        })
    }
}

/// Begins to read what a file has from `pos` on, past its own page cache, as long as it lies in one
/// piece. `pos` must be within the file. May sleep. Fails where a read of that byte would.
pub(crate) fn read_ahead(sb: &SuperBlock<Erofs>, inode: &Inode, pos: u64, len: u64) -> Result {
    let slice = first_slice(&FileMap { sb, inode }, pos, len)?;
    if let Source::Blob { blob, start } = slice.source {
        let device = sb.data().device(usize::from(blob))?;
        device.read_ahead(start, slice.len);
    }
    Ok(())
}

/// Copies bytes of a file past its own page cache, for what is metadata itself. May sleep.
pub(crate) fn read_exact(
    sb: &SuperBlock<Erofs>,
    inode: &Inode,
    pos: u64,
    buf: &mut [u8],
) -> Result {
    let volume = sb.data();
    let map = FileMap { sb, inode };
    let mut at = pos;
    let mut rest = buf;
    while !rest.is_empty() {
        let slice = first_slice(&map, at, u64_from(rest.len()))?;
        let len = usize::try_from(slice.len)?.min(rest.len());
        let (part, after) = rest.split_at_mut_checked(len).ok_or(EINVAL)?;
        match slice.source {
            Source::Zero => part.fill(0),
            Source::Inline { start } => volume::read_area(sb, inode.area, start, part)?,
            Source::Blob { blob, start } => {
                volume.device(usize::from(blob))?.read_exact(start, part)?
            }
        }
        at = at.checked_add(slice.len).ok_or(EFSCORRUPTED)?;
        rest = after;
    }
    Ok(())
}

/// File data through iomap.
pub(crate) struct Data;

impl iomap::Operations for Data {
    type FileSystem = Erofs;

    fn map(inode: &INode<Erofs>, pos: u64, len: u64) -> Result<Mapping> {
        let disk = match inode.data() {
            Node::Disk(disk) => disk,
            // A device's bytes are where they are.
            Node::Device(device) => {
                let left = inode.size().saturating_sub(pos);
                return Ok(match left.checked_next_multiple_of(PAGE) {
                    Some(0) | None => Mapping::Hole { len },
                    Some(len) => Mapping::Mapped {
                        device: *device,
                        start: pos,
                        len,
                    },
                });
            }
        };
        let map = FileMap {
            sb: inode.super_block(),
            inode: disk,
        };
        let slice = first_slice(&map, pos, len)?;
        Ok(match slice.source {
            Source::Zero => Mapping::Hole { len: slice.len },
            Source::Inline { start } => {
                let mut data = iomap::inline_room(usize::try_from(slice.len)?)?;
                volume::read_area(inode.super_block(), disk.area, start, &mut data)?;
                // What is in another inode is on no device by itself.
                let place = (disk.area == Area::Primary).then_some((0, start));
                Mapping::Inline { data, place }
            }
            // At the end of the file the page cache asks for the whole block, and zeroes what is
            // behind the end.
            Source::Blob { blob, start } => Mapping::Mapped {
                device: usize::from(blob),
                start,
                len: map
                    .blocks(pos.checked_add(slice.len).ok_or(EFSCORRUPTED)?)?
                    .checked_sub(pos)
                    .ok_or(EFSCORRUPTED)?,
            },
        })
    }

    fn location(inode: &INode<Erofs>, device: usize) -> Result<Location<'_>> {
        Ok(inode
            .super_block()
            .data()
            .device(device)?
            .source()
            .location())
    }

    fn read(inode: &INode<Erofs>, device: usize, start: u64, read: FolioRead) {
        // A device that is not there fails the read, by dropping it.
        if let Ok(device) = inode.super_block().data().device(device) {
            device.source().read(start, read);
        }
    }
}

/// Unit in which a device's bytes are cached.
const PAGE: u64 = 4096;
