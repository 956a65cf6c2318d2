// SPDX-License-Identifier: GPL-2.0

//! Extended attributes of an inode, and the access control lists among them.

use crate::{options::Switches, volume, Erofs};
use erofs_disk::{Area, Inode, ReadError, Xattrs};
use kernel::prelude::*;
use vfs::{
    inode::INode,
    super_block::SuperBlock,
    xattr::{Names, Namespace, Value},
};

/// Longest name in bytes (`XATTR_NAME_MAX`).
const NAME_MAX: usize = 255;

/// See [`vfs::fs::FileSystem::get_xattr`].
pub(crate) fn get(
    inode: &INode<Erofs>,
    namespace: Namespace,
    name: &[u8],
    mut value: Value<'_>,
) -> Result<usize> {
    let reader = Reader::new(inode)?;
    if namespace == Namespace::User && !reader.sb.data().switches().has(Switches::USER_XATTR) {
        return Err(EOPNOTSUPP);
    }
    if name.len() > NAME_MAX {
        return Err(ERANGE);
    }
    let found = match reader.open()? {
        Some(xattrs) => xattrs
            .find(on_disk(namespace), name, reader.read())
            .map_err(|e| reader.error(e))?,
        None => None,
    };
    let found = found.ok_or(ENODATA)?;
    if let Some(room) = value.room(found.len)? {
        volume::read_area(reader.sb, found.area, found.offset, room)?;
    }
    Ok(found.len)
}

/// See [`vfs::fs::FileSystem::list_xattrs`].
pub(crate) fn list(inode: &INode<Erofs>, names: &mut Names<'_>) -> Result {
    let reader = Reader::new(inode)?;
    let Some(xattrs) = reader.open()? else {
        return Ok(());
    };
    let switches = reader.sb.data().switches();
    let mut entries = xattrs.entries();
    while let Some(entry) = entries.next(reader.read()).map_err(|e| reader.error(e))? {
        let shown = match entry.namespace {
            erofs_disk::Namespace::User => switches.has(Switches::USER_XATTR),
            erofs_disk::Namespace::PosixAclAccess | erofs_disk::Namespace::PosixAclDefault => {
                switches.has(Switches::ACL)
            }
            erofs_disk::Namespace::Trusted => Namespace::Trusted.is_listed(),
            erofs_disk::Namespace::Security => true,
        };
        if !shown {
            continue;
        }
        if let Some(room) = names.room(entry.list_len())? {
            entry
                .list(room, reader.read())
                .map_err(|e| reader.error(e))?
                .ok_or(ERANGE)?;
        }
    }
    Ok(())
}

/// Reads the attributes of one inode.
struct Reader<'a> {
    sb: &'a SuperBlock<Erofs>,
    disk: &'a Inode,
}

impl<'a> Reader<'a> {
    fn new(inode: &'a INode<Erofs>) -> Result<Self> {
        Ok(Self {
            sb: inode.super_block(),
            disk: inode.data().disk()?,
        })
    }

    fn open(&self) -> Result<Option<Xattrs<'a>>> {
        let volume = self.sb.data();
        Xattrs::open(
            volume.super_block()?,
            volume.xattr_prefixes(),
            self.disk,
            self.read(),
        )
        .map_err(|e| self.error(e))
    }

    fn read(&self) -> impl FnMut(Area, u64, &mut [u8]) -> Result + use<'a> {
        let sb = self.sb;
        move |area, offset, bytes| volume::read_area(sb, area, offset, bytes)
    }

    fn error(&self, e: ReadError<Error>) -> Error {
        self.sb
            .data()
            .read_error(format_args!("attributes of inode {}", self.disk.nid), e)
    }
}

fn on_disk(namespace: Namespace) -> erofs_disk::Namespace {
    match namespace {
        Namespace::User => erofs_disk::Namespace::User,
        Namespace::Trusted => erofs_disk::Namespace::Trusted,
        Namespace::Security => erofs_disk::Namespace::Security,
        Namespace::AclAccess => erofs_disk::Namespace::PosixAclAccess,
        Namespace::AclDefault => erofs_disk::Namespace::PosixAclDefault,
    }
}
