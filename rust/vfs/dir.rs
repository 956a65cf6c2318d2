// SPDX-License-Identifier: GPL-2.0

//! Directories: lookup and readdir.
//!
//! C header: [`include/linux/fs.h`](srctree/include/linux/fs.h)

use crate::{
    bindings,
    dentry::{Spliced, Unhashed},
    fs::FileSystem,
    if_some,
    inode::{self, INode},
    ioctl, iomap, to_errno,
};
use core::marker::PhantomData;
use kernel::{ffi, prelude::*};

/// What a directory does.
pub trait Operations: Sized + 'static {
    /// The file system whose directories these are.
    type FileSystem: FileSystem;

    /// Looks up the name of `dentry` in `dir` and answers by splicing. May sleep.
    fn lookup(
        dir: &INode<Self::FileSystem>,
        dentry: Unhashed<'_, Self::FileSystem>,
    ) -> Result<Spliced>;

    /// Emits entries from [`Emitter::position`] on, until [`Emitter::emit`] says that the buffer
    /// is full or the directory is at its end. May sleep.
    fn read_dir(dir: &INode<Self::FileSystem>, emitter: &mut Emitter<'_>) -> Result;
}

/// Type of a directory entry, as readdir(3) gives it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "The names are those of inode(7).")]
pub enum EntryType {
    #[default]
    Unknown,
    Fifo,
    CharacterDevice,
    Directory,
    BlockDevice,
    Regular,
    Symlink,
    Socket,
}

impl EntryType {
    const fn to_raw(self) -> u32 {
        match self {
            Self::Unknown => bindings::DT_UNKNOWN,
            Self::Fifo => bindings::DT_FIFO,
            Self::CharacterDevice => bindings::DT_CHR,
            Self::Directory => bindings::DT_DIR,
            Self::BlockDevice => bindings::DT_BLK,
            Self::Regular => bindings::DT_REG,
            Self::Symlink => bindings::DT_LNK,
            Self::Socket => bindings::DT_SOCK,
        }
    }
}

/// Where readdir puts the entries.
///
/// # Invariants
///
/// The file is a directory that is being listed into the context.
pub struct Emitter<'a> {
    file: *mut bindings::file,
    context: &'a mut bindings::dir_context,
}

impl Emitter<'_> {
    /// The cookie to go on from; zero at the start.
    pub fn position(&self) -> u64 {
        u64::try_from(self.context.pos).unwrap_or(u64::MAX)
    }

    /// Sets the cookie of the next entry. It must grow from entry to entry.
    pub fn set_position(&mut self, position: u64) {
        self.context.pos = i64::try_from(position).unwrap_or(i64::MAX);
    }

    /// Adds `.` and `..`, unless they were added before, for a file system that has no entries of
    /// these names: they take the positions 0 and 1. False when the buffer is full.
    pub fn emit_dots(&mut self) -> bool {
        // SAFETY: By the invariants.
        unsafe { bindings::vfs_helper_dir_emit_dots(self.file, self.context) }
    }

    /// Adds an entry; false when the buffer is full and it was not added.
    pub fn emit(&mut self, name: &[u8], ino: u64, entry_type: EntryType) -> bool {
        let Ok(len) = i32::try_from(name.len()) else {
            return false;
        };
        // SAFETY: The context is valid, and the name is as long as said.
        unsafe {
            bindings::vfs_helper_dir_emit(
                self.context,
                name.as_ptr().cast(),
                len,
                ino,
                entry_type.to_raw(),
            )
        }
    }
}

/// The operations of a directory inode, see [`table`].
pub struct Table<T> {
    inode: &'static bindings::inode_operations,
    file: &'static bindings::file_operations,
    _fs: PhantomData<T>,
}

impl<T> Table<T> {
    pub(crate) fn inode_operations(&self) -> *const bindings::inode_operations {
        self.inode
    }

    pub(crate) fn file_operations(&self) -> *const bindings::file_operations {
        self.file
    }
}

/// The table for directories that do what `O` says.
pub const fn table<O: Operations>() -> Table<O::FileSystem> {
    Table {
        inode: &Callbacks::<O>::INODE,
        file: &Callbacks::<O>::FILE,
        _fs: PhantomData,
    }
}

/// The table for directories that do what `O` says, and whose own bytes lie where `D` says:
/// `FS_IOC_FIEMAP` tells it.
pub const fn mapped_table<O, D>() -> Table<O::FileSystem>
where
    O: Operations,
    D: iomap::Operations<FileSystem = O::FileSystem>,
{
    Table {
        inode: &Mapped::<O, D>::INODE,
        file: &Callbacks::<O>::FILE,
        _fs: PhantomData,
    }
}

struct Mapped<O, D>(PhantomData<(O, D)>);

impl<O, D> Mapped<O, D>
where
    O: Operations,
    D: iomap::Operations<FileSystem = O::FileSystem>,
{
    const INODE: bindings::inode_operations = bindings::inode_operations {
        fiemap: Some(iomap::Callbacks::<D>::fiemap),
        ..Callbacks::<O>::INODE
    };
}

struct Callbacks<O>(PhantomData<O>);

impl<O: Operations> Callbacks<O> {
    const INODE: bindings::inode_operations = bindings::inode_operations {
        lookup: Some(Self::lookup),
        ..inode::Callbacks::<O::FileSystem>::OTHER
    };

    const FILE: bindings::file_operations = bindings::file_operations {
        llseek: Some(bindings::generic_file_llseek),
        read: Some(bindings::generic_read_dir),
        iterate_shared: Some(Self::iterate_shared),
        unlocked_ioctl: if_some(O::FileSystem::HAS_LABEL, ioctl::ioctl::<O::FileSystem>),
        compat_ioctl: if_some(O::FileSystem::HAS_LABEL, ioctl::ioctl::<O::FileSystem>),
        setlease: Some(bindings::generic_setlease),
        ..pin_init::zeroed()
    };

    /// # Safety
    ///
    /// Only for `inode_operations::lookup` of a directory of this file system.
    unsafe extern "C" fn lookup(
        dir: *mut bindings::inode,
        dentry: *mut bindings::dentry,
        _flags: ffi::c_uint,
    ) -> *mut bindings::dentry {
        // SAFETY: The VFS gives a directory of ours and a dentry to look up in it.
        let (dir, dentry) = unsafe { (INode::from_raw(dir), Unhashed::from_raw(dentry)) };
        match O::lookup(dir, dentry) {
            Ok(spliced) => spliced.into_raw(),
            Err(e) => e.to_ptr(),
        }
    }

    /// # Safety
    ///
    /// Only for `file_operations::iterate_shared` of a directory of this file system.
    unsafe extern "C" fn iterate_shared(
        file: *mut bindings::file,
        context: *mut bindings::dir_context,
    ) -> ffi::c_int {
        // SAFETY: The VFS gives an open directory of ours and a context that is ours for the call.
        let (dir, context) = unsafe { (INode::from_raw((*file).f_inode), &mut *context) };
        // INVARIANT: By the safety requirement.
        to_errno(O::read_dir(dir, &mut Emitter { file, context }))
    }
}
