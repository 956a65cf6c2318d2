// SPDX-License-Identifier: GPL-2.0

//! The mark of an inode that the kernel uses for itself: `S_KERNEL_FILE`.
//!
//! A cache marks its backing files while it has them open, so that they are not removed for want of
//! space and no two caches use one file. The kernel's own cachefiles uses the same mark in the same
//! way, and rmdir(2) respects it. It is read and changed under the inode's lock.
//!
//! C header: [`include/linux/fs.h`](srctree/include/linux/fs.h)

use crate::bindings;
use kernel::{fs::File, prelude::*, sync::aref::ARef};

/// An open file whose inode carries the mark; dropping it, which may sleep, takes the mark away.
///
/// # Invariants
///
/// The mark of the file's inode was set by us, and nobody else takes it away.
#[must_use = "the mark goes when this is dropped"]
pub struct InUse(ARef<File>);

impl InUse {
    /// Sets the mark. May sleep.
    ///
    /// [`EBUSY`] when the inode has it already, also while the file is being removed; [`ENOENT`]
    /// when the file has no name any more.
    pub(crate) fn new(file: ARef<File>) -> Result<Self> {
        // SAFETY: An open file has an inode, and keeps it.
        unsafe { set((*file.as_ptr()).f_inode) }?;
        // INVARIANT: Just set.
        Ok(Self(file))
    }
}

impl Drop for InUse {
    fn drop(&mut self) {
        // SAFETY: The open file keeps its inode. By the invariants the mark is ours.
        unsafe { clear((*self.0.as_ptr()).f_inode) };
    }
}

/// Whether the inode has the mark. May sleep.
///
/// # Safety
///
/// `inode` must be valid, and its lock not held by this task.
pub(crate) unsafe fn is_set(inode: *mut bindings::inode) -> bool {
    // SAFETY: By the safety requirement. The lock is released by whoever took it.
    unsafe {
        bindings::vfs_helper_inode_lock(inode);
        let flags = (*inode).i_flags;
        bindings::vfs_helper_inode_unlock(inode);
        flags & bindings::S_KERNEL_FILE != 0
    }
}

/// Sets the mark of an inode that has a name and no mark, see [`InUse::new`]. May sleep.
///
/// # Safety
///
/// As for [`is_set`].
pub(crate) unsafe fn set(inode: *mut bindings::inode) -> Result {
    // SAFETY: As in `is_set`.
    unsafe {
        bindings::vfs_helper_inode_lock(inode);
        let result = if (*inode).__bindgen_anon_1.i_nlink == 0 {
            Err(ENOENT)
        } else if (*inode).i_flags & bindings::S_KERNEL_FILE != 0 {
            Err(EBUSY)
        } else {
            (*inode).i_flags |= bindings::S_KERNEL_FILE;
            Ok(())
        };
        bindings::vfs_helper_inode_unlock(inode);
        result
    }
}

/// Takes the mark away. May sleep.
///
/// # Safety
///
/// As for [`is_set`], and the mark must be the caller's.
pub(crate) unsafe fn clear(inode: *mut bindings::inode) {
    // SAFETY: As in `is_set`.
    unsafe {
        bindings::vfs_helper_inode_lock(inode);
        (*inode).i_flags &= !bindings::S_KERNEL_FILE;
        bindings::vfs_helper_inode_unlock(inode);
    }
}
