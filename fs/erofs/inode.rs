// SPDX-License-Identifier: GPL-2.0

//! Inodes: those of files, and those that cache the metadata of a device.

use crate::{data, dir, volume, Erofs};
use erofs_disk::{Inode, COMPACT_INODE_SIZE, EXTENDED_INODE_SIZE};
use kernel::{prelude::*, sync::aref::ARef};
use vfs::{
    inode::{self, Found, INode, Kind, Params},
    iomap,
    super_block::SuperBlock,
    u64_from,
};

/// Longest target of a symlink in bytes (`PATH_MAX` with its NUL).
const LINK_MAX: u64 = 4095;

/// What an inode is.
pub(crate) enum Node {
    /// An inode of the image.
    Disk(Inode),
    /// All bytes of a device, whose pages hold metadata.
    Device(usize),
}

impl Node {
    /// The inode of the image. [`EINVAL`] if it is not one.
    pub(crate) fn disk(&self) -> Result<&Inode> {
        match self {
            Self::Disk(inode) => Ok(inode),
            Self::Device(_) => Err(EINVAL),
        }
    }

    /// Its number in the image; 0 if it is not one of the image's, which no handle names.
    pub(crate) fn nid(&self) -> u64 {
        self.disk().map_or(0, |inode| inode.nid)
    }

    /// Whether it is a directory of the image.
    pub(crate) fn is_dir(&self) -> bool {
        self.disk().is_ok_and(Inode::is_dir)
    }
}

/// Makes the inode that caches the metadata of the device `index`. May sleep.
pub(crate) fn for_device(
    sb: &SuperBlock<Erofs>,
    index: usize,
    size: u64,
) -> Result<ARef<INode<Erofs>>> {
    inode::new_internal(sb)?.init(Params {
        mode: MODE_REGULAR,
        uid: 0,
        gid: 0,
        nlink: 1,
        size,
        sectors: 0,
        mtime: (0, 0),
        kind: Kind::File(iomap::table::<data::Data>()),
        data: Node::Device(index),
    })
}

/// `S_IFREG`.
const MODE_REGULAR: u16 = 0o100_000;

/// The inode `nid`, read from the image if it is not in memory. May sleep.
pub(crate) fn get(sb: &SuperBlock<Erofs>, nid: u64) -> Result<ARef<INode<Erofs>>> {
    let number = sb.data().super_block()?.inode_number(nid);
    let new = match inode::get(sb, number)? {
        Found::Ready(inode) => return Ok(inode),
        Found::New(new) => new,
    };
    let disk = read(sb, nid)?;
    let kind = if disk.is_file() {
        Kind::File(iomap::table::<data::Data>())
    } else if disk.is_dir() {
        Kind::Directory(vfs::dir::mapped_table::<dir::Directory, data::Data>())
    } else if disk.is_symlink() {
        Kind::Symlink(link_target(sb, &disk)?)
    } else {
        Kind::Special(disk.rdev)
    };
    let block_size = u64::from(sb.data().super_block()?.block_size());
    let blocks = disk.size.div_ceil(block_size);
    new.init(Params {
        mode: u16::try_from(disk.mode)?,
        uid: disk.uid,
        gid: disk.gid,
        nlink: disk.nlink,
        size: disk.size,
        sectors: blocks.saturating_mul(block_size / 512),
        mtime: (disk.mtime, disk.mtime_nsec),
        kind,
        data: Node::Disk(disk),
    })
}

/// Reads the inode `nid` of the image. May sleep.
pub(crate) fn read(sb: &SuperBlock<Erofs>, nid: u64) -> Result<Inode> {
    let volume = sb.data();
    let super_block = volume.super_block()?;
    let offset = super_block
        .inode_offset(nid)
        .map_err(|e| volume.disk_error(format_args!("inode {nid}"), e))?;
    let mut bytes = [0; EXTENDED_INODE_SIZE];
    // The first bytes tell how long it is; a compact one may be the last thing in the image.
    let area = super_block.inode_area(nid);
    let read = |at, bytes: &mut [u8]| volume::read_area(sb, area, at, bytes);
    let (compact, rest) = bytes
        .split_at_mut_checked(COMPACT_INODE_SIZE)
        .ok_or(EINVAL)?;
    read(offset, compact)?;
    let size =
        Inode::size_of(compact).map_err(|e| volume.disk_error(format_args!("inode {nid}"), e))?;
    if size > COMPACT_INODE_SIZE {
        let at = offset.saturating_add(u64_from(COMPACT_INODE_SIZE));
        read(at, rest)?;
    }
    Inode::parse(super_block, nid, &bytes)
        .map_err(|e| volume.disk_error(format_args!("inode {nid}"), e))
}

fn link_target(sb: &SuperBlock<Erofs>, disk: &Inode) -> Result<KVec<u8>> {
    let volume = sb.data();
    if disk.size == 0 || disk.size > LINK_MAX {
        return Err(volume.corrupt(format_args!(
            "inode {}: symlink with a target of {} bytes",
            disk.nid, disk.size
        )));
    }
    let mut target = vfs::zeroed(usize::try_from(disk.size)?)?;
    data::read_exact(sb, disk, 0, &mut target)?;
    if target.contains(&0) {
        return Err(volume.corrupt(format_args!("inode {}: NUL in a symlink", disk.nid)));
    }
    Ok(target)
}
