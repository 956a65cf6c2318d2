// SPDX-License-Identifier: GPL-2.0

//! Buffers of a block each, which are kept for whoever needs the next one.
//!
//! Directories are looked at a block at a time, and to get memory for a block, which the kernel
//! zeroes, takes longer than to copy it and to find a name in it.

use core::{
    mem,
    ops::{Deref, DerefMut},
};
use kernel::{
    new_spinlock,
    prelude::*,
    sync::{Arc, SpinLock},
};

/// As many as are kept. More are made when more are needed at once.
const KEPT: usize = 8;

/// Buffers that nobody uses.
#[pin_data]
pub(crate) struct Buffers {
    #[pin]
    free: SpinLock<KVec<KVec<u8>>>,
}

impl Buffers {
    pub(crate) fn new() -> Result<Arc<Self>> {
        let free = KVec::with_capacity(KEPT, GFP_KERNEL)?;
        Arc::pin_init(
            pin_init!(Self {
                free <- new_spinlock!(free),
            }),
            GFP_KERNEL,
        )
    }

    /// A buffer of so many bytes, the same number each time. What is in it is of no meaning. May
    /// sleep.
    pub(crate) fn take(&self, len: usize) -> Result<Buffer<'_>> {
        let kept = self.free.lock().pop();
        let bytes = match kept {
            Some(bytes) if bytes.len() == len => bytes,
            _ => vfs::zeroed(len)?,
        };
        Ok(Buffer { pool: self, bytes })
    }
}

/// A buffer, until it is dropped.
pub(crate) struct Buffer<'a> {
    pool: &'a Buffers,
    bytes: KVec<u8>,
}

impl Deref for Buffer<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

impl DerefMut for Buffer<'_> {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.bytes
    }
}

impl Drop for Buffer<'_> {
    fn drop(&mut self) {
        let bytes = mem::take(&mut self.bytes);
        // One that is too many is freed after the lock is released.
        let _too_many = self.pool.free.lock().push_within_capacity(bytes);
    }
}
