// SPDX-License-Identifier: GPL-2.0

//! Owned paths: a dentry together with the mount it was reached through.
//!
//! C headers: [`include/linux/path.h`](srctree/include/linux/path.h),
//! [`include/linux/namei.h`](srctree/include/linux/namei.h)

use crate::bindings;
use core::mem::MaybeUninit;
use kernel::{
    error::{from_err_ptr, to_result},
    prelude::*,
};

mod remove;

/// A positive dentry and its mount, with a reference to both.
///
/// # Invariants
///
/// Both pointers are valid and counted, and the dentry is positive: it was found by a path walk
/// that did not ask to create, and holding it pins its inode.
pub struct Path(bindings::path);

// SAFETY: References to dentries and mounts may be taken and dropped by any task.
unsafe impl Send for Path {}
// SAFETY: Nothing in a `Path` changes while it is shared.
unsafe impl Sync for Path {}

/// What the file system under a path can do, as far as a cache asks.
#[derive(Clone, Copy, Debug)]
pub struct Features {
    /// Block size in bytes, as statfs gives it.
    pub block_size: u64,
    /// It holds extended attributes.
    pub xattr: bool,
    /// It is mounted read-only.
    pub read_only: bool,
    /// The mount maps user ids.
    pub idmapped: bool,
}

/// How full a file system is, as statfs(2) gives it.
#[derive(Clone, Copy, Debug)]
pub struct Space {
    /// Size in blocks of `block_size`.
    pub blocks: u64,
    /// Blocks that somebody without privileges may still use.
    pub available: u64,
    /// How many inodes it has room for; zero when it sets no limit.
    pub files: u64,
    /// Inodes that are free; zero when it sets no limit.
    pub free_files: u64,
    /// Size of a block in bytes.
    pub block_size: u64,
}

impl Path {
    /// The working directory of the current task. Does not sleep.
    ///
    /// [`ESRCH`] when the task is exiting and has none any more.
    pub fn working_directory() -> Result<Self> {
        let mut path = MaybeUninit::<bindings::path>::uninit();
        // SAFETY: `path` has room for the answer.
        match unsafe { bindings::vfs_helper_get_pwd(path.as_mut_ptr()) } {
            // SAFETY: It is filled in.
            // INVARIANT: With one reference to each part, of a directory, whose dentry is positive
            // for as long as anybody has a reference.
            true => Ok(Self(unsafe { path.assume_init() })),
            false => Err(ESRCH),
        }
    }

    /// Looks up the directory `name` as the current task sees it, following symlinks. May sleep.
    ///
    /// Errors are those of path lookup: [`ENOENT`], [`ENOTDIR`], [`EACCES`].
    pub fn directory(name: &CStr) -> Result<Self> {
        let flags = bindings::VFS_CONST_LOOKUP_FOLLOW | bindings::VFS_CONST_LOOKUP_DIRECTORY;
        let mut path = MaybeUninit::<bindings::path>::uninit();
        // SAFETY: `name` is NUL-terminated and `path` has room for the answer.
        to_result(unsafe { bindings::kern_path(name.as_char_ptr(), flags, path.as_mut_ptr()) })?;
        // SAFETY: On success `kern_path` has filled `path` in.
        // INVARIANT: With one reference to each part, of a path that exists.
        Ok(Self(unsafe { path.assume_init() }))
    }

    /// Looks up `name` below this directory. No symlink is followed, because whoever can write
    /// there is not trusted. May sleep.
    pub fn lookup(&self, name: &CStr) -> Result<Self> {
        let mut path = MaybeUninit::<bindings::path>::uninit();
        // SAFETY: By the invariants dentry and mount are valid; `name` is NUL-terminated and `path`
        // has room for the answer.
        to_result(unsafe {
            bindings::vfs_path_lookup(
                self.0.dentry,
                self.0.mnt,
                name.as_char_ptr(),
                bindings::VFS_CONST_LOOKUP_NO_SYMLINKS,
                path.as_mut_ptr(),
            )
        })?;
        // SAFETY: On success `vfs_path_lookup` has filled `path` in.
        // INVARIANT: As in `directory`.
        Ok(Self(unsafe { path.assume_init() }))
    }

    /// Looks up the directory `name` in this directory, and makes it with mode 0700 if there is
    /// none. May sleep.
    ///
    /// Errors are those of mkdir(2): [`ENOSPC`], [`EACCES`], [`EROFS`]; [`ENOTDIR`] when `name` is
    /// something else.
    pub fn make_directory(&self, name: &CStr) -> Result<Self> {
        self.check_directory()?;
        // SAFETY: The mount is valid.
        to_result(unsafe { bindings::mnt_want_write(self.0.mnt) })?;
        let result = self.make_directory_locked(name);
        // SAFETY: Taken above.
        unsafe { bindings::mnt_drop_write(self.0.mnt) };
        result?;
        let path = self.lookup(name)?;
        path.check_directory()?;
        Ok(path)
    }

    fn make_directory_locked(&self, name: &CStr) -> Result {
        let mut qstr = qstr(name)?;
        // SAFETY: The parent is a valid dentry and the name lives through the call. What is
        // returned is a dentry with the parent locked, which `end_creating` undoes.
        unsafe {
            let child = from_err_ptr(bindings::start_creating_noperm(
                self.0.dentry,
                &raw mut qstr,
            ))?;
            if !(*child).d_inode.is_null() {
                bindings::vfs_helper_end_creating(child);
                return Ok(());
            }
            let child = bindings::vfs_mkdir(
                bindings::vfs_helper_nop_mnt_idmap(),
                self.inode(),
                child,
                0o700,
                core::ptr::null_mut(),
            );
            bindings::vfs_helper_end_creating(child);
            from_err_ptr(child).map(drop)
        }
    }

    /// [`ENOTDIR`] when names cannot be looked up in this.
    fn check_directory(&self) -> Result {
        // SAFETY: A positive dentry has an inode, whose type never changes.
        match u32::from(unsafe { (*self.inode()).i_mode }) & bindings::S_IFMT {
            bindings::S_IFDIR => Ok(()),
            _ => Err(ENOTDIR),
        }
    }

    /// Sets the extended attribute `name` to `value`. May sleep.
    pub fn set_xattr(&self, name: &CStr, value: &[u8]) -> Result {
        // SAFETY: The mount is valid.
        to_result(unsafe { bindings::mnt_want_write(self.0.mnt) })?;
        // SAFETY: As in `xattr`; the value is as long as said. The mount may be written to.
        let result = to_result(unsafe {
            bindings::vfs_setxattr(
                bindings::vfs_helper_nop_mnt_idmap(),
                self.0.dentry,
                name.as_char_ptr(),
                value.as_ptr().cast(),
                value.len(),
                0,
            )
        });
        // SAFETY: Taken above.
        unsafe { bindings::mnt_drop_write(self.0.mnt) };
        result
    }

    /// Whether both name the same directory, be it through different mounts: a daemon that is
    /// started again in a mount namespace of its own meets the directory on another one.
    pub fn same(&self, other: &Self) -> bool {
        self.0.dentry == other.0.dentry
    }

    /// Whether both are on the same file system, be it through different mounts.
    pub fn same_file_system(&self, other: &Self) -> bool {
        // SAFETY: By the invariants the dentries are valid. Their super block never changes.
        unsafe { (*self.0.dentry).d_sb == (*other.0.dentry).d_sb }
    }

    /// Whether this is `ancestor` or below it, be it through different mounts. Does not sleep.
    pub fn is_below(&self, ancestor: &Self) -> bool {
        // SAFETY: By the invariants the dentries are valid. The call takes the locks that it needs.
        unsafe { bindings::is_subdir(self.0.dentry, ancestor.0.dentry) }
    }

    /// How full the file system below is. May sleep.
    pub fn space(&self) -> Result<Space> {
        let statfs = self.statfs()?;
        Ok(Space {
            blocks: statfs.f_blocks,
            available: statfs.f_bavail,
            files: statfs.f_files,
            free_files: statfs.f_ffree,
            block_size: u64::try_from(statfs.f_bsize).map_err(|_| ERANGE)?,
        })
    }

    fn statfs(&self) -> Result<bindings::kstatfs> {
        let mut statfs = MaybeUninit::<bindings::kstatfs>::zeroed();
        // SAFETY: The path is valid; `statfs` has room for the answer. `kernel::bindings` holds
        // `kstatfs` as an opaque type, ours is the same C type.
        to_result(unsafe { bindings::vfs_statfs(&self.0, statfs.as_mut_ptr().cast()) })?;
        // SAFETY: Zeroed, then filled in by `vfs_statfs`.
        Ok(unsafe { statfs.assume_init() })
    }

    /// What the file system below offers. May sleep.
    pub fn features(&self) -> Result<Features> {
        let statfs = self.statfs()?;
        // SAFETY: A counted dentry has a super block, and a positive one an inode.
        let (sb_flags, opflags) = unsafe {
            let dentry = self.0.dentry;
            ((*(*dentry).d_sb).s_flags, (*self.inode()).i_opflags)
        };
        let rdonly = usize::try_from(bindings::VFS_CONST_SB_RDONLY)?;
        Ok(Features {
            block_size: u64::try_from(statfs.f_bsize).map_err(|_| ERANGE)?,
            xattr: u32::from(opflags) & bindings::IOP_XATTR != 0,
            read_only: sb_flags & rdonly != 0,
            // SAFETY: The mount is valid.
            idmapped: unsafe { bindings::vfs_helper_is_idmapped_mnt(self.0.mnt) },
        })
    }

    /// Reads the extended attribute `name` into `buf` and returns its length. May sleep.
    ///
    /// [`ENODATA`] when there is none, [`ERANGE`] when `buf` is too small.
    pub fn xattr(&self, name: &CStr, buf: &mut [u8]) -> Result<usize> {
        // SAFETY: The dentry is valid and positive, `name` is NUL-terminated and `buf` is as long
        // as said. Idmapped mounts are refused by whoever uses xattrs, so no ids are mapped.
        let len = unsafe {
            bindings::vfs_getxattr(
                bindings::vfs_helper_nop_mnt_idmap(),
                self.0.dentry,
                name.as_char_ptr(),
                buf.as_mut_ptr().cast(),
                buf.len(),
            )
        };
        if len < 0 {
            return Err(Error::from_errno(i32::try_from(len).unwrap_or(-5)));
        }
        usize::try_from(len).map_err(|_| EIO)
    }

    /// Whether this is a regular file.
    pub fn is_regular(&self) -> bool {
        // SAFETY: A positive dentry has an inode.
        unsafe { is_regular(self.inode()) }
    }

    fn inode(&self) -> *mut bindings::inode {
        // SAFETY: The dentry is valid. A counted positive dentry keeps its inode.
        unsafe { (*self.0.dentry).d_inode }
    }

    /// The C path, valid for as long as `self` is borrowed.
    pub(crate) fn as_raw(&self) -> *const bindings::path {
        &self.0
    }
}

impl Drop for Path {
    fn drop(&mut self) {
        // SAFETY: By the invariants we own a reference to each part.
        unsafe { bindings::path_put(&self.0) };
    }
}

/// # Safety
///
/// `inode` must be valid.
unsafe fn is_regular(inode: *const bindings::inode) -> bool {
    // SAFETY: By the safety requirement; the type never changes.
    u32::from(unsafe { (*inode).i_mode }) & bindings::S_IFMT == bindings::S_IFREG
}

/// The name as lookups take it, valid for as long as `name` is.
fn qstr(name: &CStr) -> Result<bindings::qstr> {
    let mut qstr = bindings::qstr {
        name: name.to_bytes().as_ptr(),
        ..bindings::qstr::default()
    };
    qstr.__bindgen_anon_1.__bindgen_anon_1.len = u32::try_from(name.to_bytes().len())?;
    Ok(qstr)
}
