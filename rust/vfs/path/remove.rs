// SPDX-License-Identifier: GPL-2.0

//! Removing files that the kernel does not use.
//!
//! C headers: [`include/linux/namei.h`](srctree/include/linux/namei.h),
//! [`include/linux/fs.h`](srctree/include/linux/fs.h)

use super::{is_regular, qstr, Path};
use crate::{bindings, in_use};
use kernel::{
    error::{from_err_ptr, to_result},
    prelude::*,
};

impl Path {
    /// Removes the regular file `name` from this directory, unless the kernel uses it. May sleep.
    ///
    /// The current task's credentials must allow it. `name` is a single name: anything else is an
    /// [`EACCES`]. [`ENOENT`] when there is none, [`EISDIR`] when it is not a regular file,
    /// [`EBUSY`] when it is marked as in use (see [`in_use`]); else the errors of unlink(2).
    pub fn remove_file(&self, name: &CStr) -> Result {
        self.check_directory()?;
        // SAFETY: The mount is valid.
        to_result(unsafe { bindings::mnt_want_write(self.0.mnt) })?;
        let result = self.remove_file_locked(name);
        // SAFETY: Taken above.
        unsafe { bindings::mnt_drop_write(self.0.mnt) };
        result
    }

    fn remove_file_locked(&self, name: &CStr) -> Result {
        let mut qstr = qstr(name)?;
        // SAFETY: The parent is a directory, and the name lives through the call. What is returned
        // is a positive dentry with a reference for us and with the parent locked; `end_removing`
        // gives back both, once, on each way out.
        let child = unsafe { bindings::start_removing_noperm(self.0.dentry, &raw mut qstr) };
        let child = from_err_ptr(child)?;
        // SAFETY: The dentry is positive, and stays so while we hold the parent's lock. Only the
        // removal makes it negative, so a reference of our own keeps the inode until after it.
        let inode = unsafe {
            let inode = (*child).d_inode;
            bindings::ihold(inode);
            inode
        };
        // LOCK: The directory's, then the file's, as for unlink(2).
        // SAFETY: All are valid until after this call, and the directory is locked.
        let result = unsafe { self.remove_child(child, inode) };
        // SAFETY: Both references are ours. The inode's comes last, as its file may be long and
        // freeing its blocks needs no lock of the directory.
        unsafe {
            bindings::vfs_helper_end_removing(child);
            bindings::iput(inode);
        }
        result
    }

    /// # Safety
    ///
    /// `child` must be the dentry of `inode` in this directory, which the caller has locked, and
    /// the caller must have a reference to both.
    unsafe fn remove_child(
        &self,
        child: *mut bindings::dentry,
        inode: *mut bindings::inode,
    ) -> Result {
        // SAFETY: By the safety requirement. The mark is ours between `set` and `clear`: it keeps
        // others from beginning to use the file before it is gone, after which they cannot.
        unsafe {
            if !is_regular(inode) {
                return Err(EISDIR);
            }
            in_use::set(inode)?;
            let result = to_result(bindings::vfs_unlink(
                bindings::vfs_helper_nop_mnt_idmap(),
                self.inode(),
                child,
                core::ptr::null_mut(),
            ));
            in_use::clear(inode);
            result
        }
    }

    /// Whether the regular file `name` of this directory is marked as in use by the kernel (see
    /// [`in_use`]). May sleep.
    ///
    /// `name` is a single name: anything else is an [`EACCES`]. [`ENOENT`] when there is none,
    /// [`EISDIR`] when it is not a regular file.
    pub fn in_use(&self, name: &CStr) -> Result<bool> {
        self.check_directory()?;
        let mut qstr = qstr(name)?;
        // SAFETY: The parent is a directory, and the name lives through the call. What is returned
        // is a positive dentry, which stays so while we have the reference to it that comes along.
        unsafe {
            let child = from_err_ptr(bindings::lookup_noperm_positive_unlocked(
                &raw mut qstr,
                self.0.dentry,
            ))?;
            let inode = (*child).d_inode;
            let result = match is_regular(inode) {
                true => Ok(in_use::is_set(inode)),
                false => Err(EISDIR),
            };
            bindings::dput(child);
            result
        }
    }
}
