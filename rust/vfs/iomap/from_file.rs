// SPDX-License-Identifier: GPL-2.0

//! Folios that are read from a file: an image file, or a block device, which is a file for that.

use super::FolioRead;
use crate::{
    bindings, cred,
    kfile::{KFile, ReadTarget},
};
use core::mem::MaybeUninit;
use kernel::{prelude::*, workqueue::Queue};

/// Folios on their way, and the iterator over their memory.
///
/// # Invariants
///
/// The iterator was set up over the segments of `folios`, which do not change.
struct Target {
    iter: bindings::iov_iter,
    folios: FolioRead,
}

// SAFETY: The memory may be filled by any task, see `FolioRead`.
unsafe impl Send for Target {}

// SAFETY: By the invariants the iterator is over memory that stays until the folios are completed,
// and its segments lie in memory of their own, which a move does not move. Dropping the folios
// completes them with an error.
unsafe impl ReadTarget for Target {
    fn iter(&mut self) -> *mut bindings::iov_iter {
        &raw mut self.iter
    }

    fn complete(self, result: Result<usize>) {
        self.folios.complete(result);
    }
}

impl FolioRead {
    /// Reads from `pos` of `file`, with the rights that it was opened with: past its page cache if
    /// `direct` is set and the file can do it, else through it. Either way the folios are completed
    /// when the bytes are there; errors are told from `queue`. May sleep, and without `direct` waits
    /// for the disk.
    pub fn read_from(self, file: &KFile, pos: u64, direct: bool, queue: &'static Queue) {
        let mut iter = MaybeUninit::zeroed();
        let segments = self.segments();
        // SAFETY: The segments live as long as `self`, and so as the iterator.
        let iter = unsafe {
            bindings::iov_iter_bvec(
                iter.as_mut_ptr(),
                bindings::ITER_DEST,
                segments.as_ptr(),
                segments.len(),
                self.len(),
            );
            iter.assume_init()
        };
        // INVARIANT: Just set up.
        let mut target = Target { iter, folios: self };
        let _as_mounter = cred::Override::new(file.cred());
        if direct && file.can_read_direct() {
            match file.read_direct(pos, None, target, queue) {
                Ok(()) => return,
                // The device may want an alignment that the read does not have.
                Err((_, refused)) => target = refused,
            }
        }
        file.read_buffered(pos, None, target, queue);
    }
}
