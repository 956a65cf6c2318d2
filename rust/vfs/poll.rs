// SPDX-License-Identifier: GPL-2.0

//! Who waits for a device with poll(2) or epoll, and what wakes them.
//!
//! `kernel::sync::poll` wakes everybody, whatever they wait for. A daemon with one thread that
//! waits to read and another that waits to write would have both woken by each request.
//!
//! C header: [`include/linux/poll.h`](srctree/include/linux/poll.h)

use crate::bindings;
use core::marker::PhantomData;
use kernel::{fs::File, prelude::*, sync::rcu::synchronize_rcu, types::Opaque};

/// What can be waited for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Events {
    /// A read would return data now: `EPOLLIN | EPOLLRDNORM`.
    pub readable: bool,
    /// `EPOLLOUT | EPOLLWRNORM`, whatever the device means by it.
    pub writable: bool,
}

impl Events {
    /// The events as C has them.
    pub(crate) fn mask(self) -> bindings::__poll_t {
        let bit = |set, bit| if set { bit } else { 0 };
        bit(self.readable, bindings::VFS_CONST_EPOLLIN)
            | bit(self.writable, bindings::VFS_CONST_EPOLLOUT)
    }
}

/// Where a call of poll(2) registers what can wake it.
///
/// # Invariants
///
/// Null or valid for `'a`.
pub struct Table<'a>(*mut bindings::poll_table_struct, PhantomData<&'a ()>);

impl Table<'_> {
    /// # Safety
    ///
    /// `table` must be null or valid for the lifetime that is chosen.
    pub(crate) unsafe fn from_raw(table: *mut bindings::poll_table_struct) -> Self {
        // INVARIANT: By the safety requirement.
        Self(table, PhantomData)
    }
}

/// Those who wait.
#[pin_data(PinnedDrop)]
pub struct Queue {
    #[pin]
    head: Opaque<bindings::wait_queue_head>,
}

// SAFETY: A wait queue may be used from any task.
unsafe impl Send for Queue {}
// SAFETY: A wait queue has a lock of its own.
unsafe impl Sync for Queue {}

impl Queue {
    /// A queue with nobody in it.
    pub fn new() -> impl PinInit<Self> {
        pin_init!(Self {
            head <- Opaque::ffi_init(|slot| {
                // SAFETY: `slot` points at memory for a wait queue.
                unsafe { bindings::vfs_helper_init_waitqueue_head(slot) };
            }),
        })
    }

    /// The call that `table` belongs to, of poll(2) on `file`, waits for what [`Queue::wake`] tells.
    /// May sleep.
    pub fn register(&self, file: &File, table: &Table<'_>) {
        // SAFETY: File and table are valid for the call. The queue stays in place, and before it
        // goes everybody is taken out of it.
        unsafe { bindings::vfs_helper_poll_wait(file.as_ptr(), self.head.get(), table.0) };
    }

    /// Wakes those who wait for one of the events. Does not sleep.
    pub fn wake(&self, events: Events) {
        // SAFETY: The queue was initialised in `new`.
        unsafe { bindings::vfs_helper_wake_up_poll(self.head.get(), events.mask()) };
    }
}

#[pinned_drop]
impl PinnedDrop for Queue {
    fn drop(self: Pin<&mut Self>) {
        // SAFETY: The queue was initialised in `new`. Whoever is still in it leaves it, within the
        // RCU read section that found it.
        unsafe { bindings::__wake_up_pollfree(self.head.get()) };
        synchronize_rcu();
    }
}
