// SPDX-License-Identifier: GPL-2.0

//! Locks that the lock validator is not told of.
//!
//! lockdep knows classes of locks, not locks. A page fault on a mapped file of ours may read from a
//! backing file, and so take an inode lock of the file system below while the task has the lock of
//! its memory map. A write(2) to any file there takes such an inode lock first, and then that of a
//! memory map, to fault in what it writes from. By classes that is a deadlock. By locks it is one
//! only if it is the same memory map and the same inode: a daemon that fills a file from a mapping
//! of what it fills. Whoever reads for others has to exclude that: see
//! [`KFile::busy`](crate::kfile::KFile::busy).
//!
//! C header: [`include/linux/lockdep.h`](srctree/include/linux/lockdep.h)

use crate::bindings;
use core::marker::PhantomData;

/// The current task's locks are not validated until this is dropped. Locks that are taken meanwhile
/// must be given back meanwhile.
///
/// Not `Send`: this belongs to the task.
#[must_use = "locks are validated again when this is dropped"]
pub(crate) struct Untracked(PhantomData<*mut ()>);

impl Untracked {
    pub(crate) fn new() -> Self {
        // SAFETY: A counter of the current task, counted down again in `drop`.
        unsafe { bindings::vfs_helper_lockdep_off() };
        Self(PhantomData)
    }
}

impl Drop for Untracked {
    fn drop(&mut self) {
        // SAFETY: Counted up in `new`, in this task.
        unsafe { bindings::vfs_helper_lockdep_on() };
    }
}
