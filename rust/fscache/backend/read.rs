// SPDX-License-Identifier: GPL-2.0

//! A read of a client, on its way through a backend.

use kernel::{ffi, prelude::*};
use vfs::{bindings, kfile};

/// A client's read, to be completed once. Dropping it, in process context, fails it with [`EIO`].
pub struct CacheRead {
    iter: bindings::iov_iter,
    len: usize,
    /// The client's callback and what it wants back; none once it was called.
    done: Option<(Done, *mut ffi::c_void)>,
}

type Done = unsafe extern "C" fn(*mut ffi::c_void, isize);

// SAFETY: The client expects its callback from any task, and the memory may be filled by any.
unsafe impl Send for CacheRead {}

impl CacheRead {
    /// # Safety
    ///
    /// `iter` must be a destination iterator, whose memory stays until `done` is called with
    /// `private`, which must be sound to do once from any context.
    pub(super) unsafe fn new(
        iter: bindings::iov_iter,
        done: Done,
        private: *mut ffi::c_void,
    ) -> Self {
        Self {
            // SAFETY: The iterator is initialised.
            len: unsafe { bindings::vfs_helper_iov_iter_count(&raw const iter) },
            iter,
            done: Some((done, private)),
        }
    }

    /// Length in bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether nothing is asked for.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Ends the read: so many bytes are there, or none because of an error. With an error it must
    /// be called from process context, else from any.
    pub fn complete(mut self, result: Result<usize>) {
        self.finish(result);
    }

    fn finish(&mut self, result: Result<usize>) {
        let Some((done, private)) = self.done.take() else {
            return;
        };
        let n = match result {
            Ok(n) => isize::try_from(n.min(self.len)).unwrap_or(0),
            Err(e) => isize::try_from(e.to_errno()).unwrap_or(-5),
        };
        // SAFETY: By the promise in `new`, and this is the one time.
        unsafe { done(private, n) };
    }
}

impl Drop for CacheRead {
    fn drop(&mut self) {
        self.finish(Err(EIO));
    }
}

// SAFETY: The iterator and its memory stay until the read is completed, by the promise in
// `CacheRead::new`; dropping completes with an error.
unsafe impl kfile::ReadTarget for CacheRead {
    fn iter(&mut self) -> *mut bindings::iov_iter {
        &raw mut self.iter
    }

    fn complete(mut self, result: Result<usize>) {
        self.finish(result);
    }
}
