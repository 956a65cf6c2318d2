// SPDX-License-Identifier: GPL-2.0

//! Where the bytes of a file are, and how they get into its page cache.

use crate::{inode::Node, volume, Erofs};
use erofs_disk::{Area, ExtentData, Inode};
use kernel::prelude::*;
use netfs_split::{next_slice, File, Map, Slice, Slices, Source, SplitError};
use vfs::{
    inode::INode,
    iomap::{self, FolioRead, Location, Mapping},
    super_block::SuperBlock,
    u64_from,
};

/// The layout of one file, as `netfs_split` asks for it.
#[derive(Clone, Copy)]
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

    fn blocks(&self, bytes: u64) -> Result<u64> {
        let block = u64::from(self.sb.data().super_block()?.block_size());
        bytes.checked_next_multiple_of(block).ok_or(EFSCORRUPTED)
    }
}

impl FileMap<'_> {
    fn split_error(&self, e: SplitError<Error>) -> Error {
        match e {
            SplitError::Map(e) => e,
            e => self
                .sb
                .data()
                .corrupt(format_args!("inode {}: {}", self.inode.nid, Reason(&e))),
        }
    }

    /// Checks that a device has all the bytes of a slice.
    fn check_end(&self, slice: &Slice<u16>) -> Result {
        let Source::Blob { blob, start } = slice.source else {
            return Ok(());
        };
        let volume = self.sb.data();
        let size = volume.device(usize::from(blob))?.source().size();
        if start.checked_add(slice.len).is_none_or(|end| end > size) {
            return Err(volume.corrupt(format_args!(
                "inode {}: data at {start} lies beyond the end of device {blob}",
                self.inode.nid
            )));
        }
        Ok(())
    }
}

impl Map for FileMap<'_> {
    type Blob = u16;
    type Error = Error;

    fn extent(&self, pos: u64) -> Result<Slice<u16>> {
        let inode = self.inode;
        let volume = self.sb.data();
        let extent = inode
            .extent(
                volume.super_block()?,
                pos,
                volume.places()?,
                |area, at, bytes| volume::read_area(self.sb, area, at, bytes),
            )
            .map_err(|e| volume.read_error(format_args!("inode {}", inode.nid), e))?;
        Ok(Slice {
            pos: extent.pos,
            len: extent.len,
            source: match extent.data {
                ExtentData::Hole => Source::Zero,
                ExtentData::Inline { start } => Source::Inline { start },
                ExtentData::Blocks { device, start } => Source::Blob {
                    blob: device,
                    start,
                },
            },
        })
    }
}

/// The first slice of a range of a file, as long as it can be.
fn first_slice(map: &FileMap<'_>, pos: u64, len: u64) -> Result<Slice<u16>> {
    let slice = Slices::new(map.file()?, map, pos, len)
        .next()
        .ok_or(EINVAL)?
        .map_err(|e| map.split_error(e))?;
    map.check_end(&slice)?;
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
    Reader::new(sb, inode).read_exact(pos, buf)
}

/// Copies bytes of a file as [`read_exact`] does, and remembers where the last ones lie: the next
/// ones are often near.
pub(crate) struct Reader<'a> {
    map: FileMap<'a>,
    known: Option<Slice<u16>>,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(sb: &'a SuperBlock<Erofs>, inode: &'a Inode) -> Self {
        Self {
            map: FileMap { sb, inode },
            known: None,
        }
    }

    /// May sleep.
    pub(crate) fn read_exact(&mut self, pos: u64, buf: &mut [u8]) -> Result {
        let FileMap { sb, inode } = self.map;
        let mut at = pos;
        let mut rest = buf;
        while !rest.is_empty() {
            let slice = self.slice(at, u64_from(rest.len()))?;
            let len = usize::try_from(slice.len)?.min(rest.len());
            let (part, after) = rest.split_at_mut_checked(len).ok_or(EINVAL)?;
            match slice.source {
                Source::Zero => part.fill(0),
                Source::Inline { start } => volume::read_area(sb, inode.area, start, part)?,
                Source::Blob { blob, start } => sb
                    .data()
                    .device(usize::from(blob))?
                    .read_exact(start, part)?,
            }
            at = at.checked_add(slice.len).ok_or(EFSCORRUPTED)?;
            rest = after;
        }
        Ok(())
    }

    /// Where the bytes from `pos` on lie, at most `len` of them.
    fn slice(&mut self, pos: u64, len: u64) -> Result<Slice<u16>> {
        let known = self.known.as_ref().and_then(|known| known.part(pos, len));
        let slice = match known {
            Some(slice) => slice,
            None => {
                let left = self.map.inode.size.saturating_sub(pos).max(len);
                let found = next_slice(self.map.file()?, &self.map, pos, left)
                    .map_err(|e| self.map.split_error(e))?
                    .ok_or(EINVAL)?;
                let slice = found.part(pos, len).ok_or(EINVAL)?;
                self.known = Some(found);
                slice
            }
        };
        self.map.check_end(&slice)?;
        Ok(slice)
    }
}

/// File data through iomap.
pub(crate) struct Data;

impl iomap::Operations for Data {
    type FileSystem = Erofs;

    fn map(inode: &INode<Erofs>, pos: u64, len: u64) -> Result<Mapping> {
        let disk = match inode.data() {
            Node::Disk(disk) => disk,
            Node::Device(device) => return Ok(Mapping::of_device(inode, *device, pos, len)),
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
