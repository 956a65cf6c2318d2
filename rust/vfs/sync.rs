// SPDX-License-Identifier: GPL-2.0

//! Waiting that a fatal signal ends.
//!
//! The `kernel` crate waits either uninterruptibly or until any signal. A read from a file system
//! must be killable and nothing else: other signals may not cut it short.
//!
//! C header: [`include/linux/completion.h`](srctree/include/linux/completion.h)

use crate::bindings;
use kernel::{prelude::*, types::Opaque};

/// A one-shot event that any number of tasks may wait for.
#[pin_data]
pub struct Completion {
    #[pin]
    inner: Opaque<bindings::completion>,
}

// SAFETY: `struct completion` may be used from any task.
unsafe impl Send for Completion {}
// SAFETY: `struct completion` has a lock of its own.
unsafe impl Sync for Completion {}

impl Completion {
    /// A completion that has not happened yet.
    pub fn new() -> impl PinInit<Self> {
        pin_init!(Self {
            inner <- Opaque::ffi_init(|slot: *mut bindings::completion| {
                // SAFETY: `slot` points at memory for a `struct completion`.
                unsafe { bindings::init_completion(slot) };
            }),
        })
    }

    /// Lets all present and future waiters go. May be called from any context.
    pub fn complete_all(&self) {
        // SAFETY: `inner` was initialised in `new`.
        unsafe { bindings::complete_all(self.inner.get()) };
    }

    /// Waits for the event; [`EINTR`] when the task is being killed. May sleep.
    pub fn wait_killable(&self) -> Result {
        // SAFETY: `inner` was initialised in `new`.
        match unsafe { bindings::wait_for_completion_killable(self.inner.get()) } {
            0 => Ok(()),
            _ => Err(EINTR),
        }
    }
}
