// SPDX-License-Identifier: GPL-2.0

//! Directories: lookup and readdir.
//!
//! A directory is a row of blocks, each with sorted entries, and the blocks are in order too. The
//! bytes of a block are copied and then looked at; of a block that a lookup only passes, no more than
//! its first name.

use crate::{buffers::Buffer, data, inode, Erofs};
use core::ops::Range;
use erofs_disk::{BlockSearch, DirBlock, FirstName, Inode, DIR_HEAD_SIZE};
use kernel::{prelude::*, sync::aref::ARef};
use vfs::{
    dentry::{Spliced, Unhashed},
    dir::{self, Emitter, EntryType},
    inode::INode,
    u64_from,
};

/// What directories do.
pub(crate) struct Directory;

impl dir::Operations for Directory {
    type FileSystem = Erofs;

    fn lookup(dir: &INode<Erofs>, dentry: Unhashed<'_, Erofs>) -> Result<Spliced> {
        if dentry.name().len() > erofs_disk::NAME_MAX {
            return Err(ENAMETOOLONG);
        }
        let found = match find(dir, dentry.name())? {
            Some(nid) => Some(inode::get(dir.super_block(), nid)?),
            None => None,
        };
        dentry.splice(found)
    }

    fn read_dir(dir: &INode<Erofs>, emitter: &mut Emitter<'_>) -> Result {
        let disk = dir.data().disk()?;
        let volume = dir.super_block().data();
        let corrupt = |e| volume.disk_error(format_args!("directory {}", disk.nid), e);
        let super_block = volume.super_block()?;
        let block_size = u64::from(super_block.block_size());
        let mut blocks = Blocks::new(dir, disk)?;
        let window = u64::from(volume.dir_ra_bytes());
        let mut asked = 0;
        // A cookie is the offset of an entry in the directory.
        while emitter.position() < disk.size {
            let position = emitter.position();
            let index = position.checked_div(block_size).ok_or(EINVAL)?;
            let start = index.checked_mul(block_size).ok_or(EINVAL)?;
            if window > 0 && start >= asked {
                data::read_ahead(dir.super_block(), disk, start, window)?;
                asked = start.saturating_add(window.max(block_size));
            }
            let block = DirBlock::new(blocks.read(index)?).map_err(corrupt)?;
            // A cookie that was not ours goes to the entry at or after it.
            let first = position.saturating_sub(start).div_ceil(ENTRY_SIZE);
            for at in usize::try_from(first)?..block.count() {
                let offset = u64_from(at).saturating_mul(ENTRY_SIZE);
                // Also when this entry is damaged: who asks again gets the error, and not the
                // entry before it once more.
                emitter.set_position(start.saturating_add(offset));
                let entry = block.get(at).ok_or(EINVAL)?.map_err(corrupt)?;
                let number = super_block.inode_number(entry.nid);
                if !emitter.emit(entry.name, number, entry_type(entry.file_type)) {
                    return Ok(());
                }
            }
            emitter.set_position(
                start
                    .saturating_add(block_size)
                    .min(disk.size.max(position)),
            );
        }
        if disk.dot_omitted && emitter.position() == disk.size {
            let number = super_block.inode_number(disk.nid);
            if emitter.emit(b".", number, EntryType::Directory) {
                emitter.set_position(disk.size.saturating_add(1));
            }
        }
        Ok(())
    }
}

/// Size of an entry without its name, in bytes.
const ENTRY_SIZE: u64 = 12;

/// The directory that `dir` is in.
pub(crate) fn parent(dir: &INode<Erofs>) -> Result<ARef<INode<Erofs>>> {
    let nid = find(dir, b"..")?.ok_or(ENOENT)?;
    inode::get(dir.super_block(), nid)
}

/// The inode number that `name` has in `dir`.
fn find(dir: &INode<Erofs>, name: &[u8]) -> Result<Option<u64>> {
    let disk = dir.data().disk()?;
    let volume = dir.super_block().data();
    let corrupt = |e| volume.disk_error(format_args!("directory {}", disk.nid), e);
    let mut blocks = Blocks::new(dir, disk)?;
    let mut search = BlockSearch::new(blocks.count);
    while let Some(index) = search.next_block() {
        let len = blocks.len_of(index)?;
        let head = blocks.read_part(index, 0..DIR_HEAD_SIZE)?;
        let first = FirstName::locate(head, len).map_err(corrupt)?;
        let bytes = blocks.read_part(index, first.place())?;
        search.step(first.check(bytes).map_err(corrupt)?, name);
    }
    let Some(index) = search.result() else {
        return Ok(None);
    };
    let block = DirBlock::new(blocks.read(index)?).map_err(corrupt)?;
    let found = block.find(name).map_err(corrupt)?;
    Ok(found.map(|entry| entry.nid))
}

/// Copies blocks of a directory, one at a time.
struct Blocks<'a> {
    reader: data::Reader<'a>,
    size: u64,
    count: u64,
    block_size: u64,
    buf: Buffer<'a>,
}

impl<'a> Blocks<'a> {
    fn new(dir: &'a INode<Erofs>, disk: &'a Inode) -> Result<Self> {
        let volume = dir.super_block().data();
        let block_size = u64::from(volume.super_block()?.block_size());
        Ok(Self {
            reader: data::Reader::new(dir.super_block(), disk),
            size: disk.size,
            count: disk.size.div_ceil(block_size),
            block_size,
            buf: volume.buffers().take(usize::try_from(block_size)?)?,
        })
    }

    /// The length of the block `index`, which ends at the directory's size.
    fn len_of(&self, index: u64) -> Result<usize> {
        let pos = index.checked_mul(self.block_size).ok_or(EINVAL)?;
        let left = self.size.checked_sub(pos).ok_or(EINVAL)?;
        Ok(usize::try_from(left.min(self.block_size))?)
    }

    /// The block `index`.
    fn read(&mut self, index: u64) -> Result<&[u8]> {
        let len = self.len_of(index)?;
        self.read_part(index, 0..len)
    }

    /// Some bytes of the block `index`, as far as it has them.
    fn read_part(&mut self, index: u64, part: Range<usize>) -> Result<&[u8]> {
        let part = part.start..part.end.min(self.len_of(index)?);
        let block = index.checked_mul(self.block_size).ok_or(EINVAL)?;
        let pos = block.checked_add(u64_from(part.start)).ok_or(EINVAL)?;
        let buf = self.buf.get_mut(..part.len()).ok_or(EINVAL)?;
        self.reader.read_exact(pos, buf)?;
        Ok(buf)
    }
}

/// The type of an entry: the numbers are the kernel's `FT_*`.
fn entry_type(file_type: u8) -> EntryType {
    match file_type {
        1 => EntryType::Regular,
        2 => EntryType::Directory,
        3 => EntryType::CharacterDevice,
        4 => EntryType::BlockDevice,
        5 => EntryType::Fifo,
        6 => EntryType::Socket,
        7 => EntryType::Symlink,
        _ => EntryType::Unknown,
    }
}
