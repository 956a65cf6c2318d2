// SPDX-License-Identifier: GPL-2.0

//! A work queue of one's own, and work that runs again and again.
//!
//! A module whose work items run on the system's queues cannot tell when the last of them has
//! returned, and so cannot be unloaded safely. Dropping a [`OwnedQueue`] waits for that. Work that
//! runs again after a time belongs to a [`Ticker`]: dropping that cancels it.
//!
//! C header: [`include/linux/workqueue.h`](srctree/include/linux/workqueue.h)

use crate::bindings;
use core::{ops::Deref, ptr::NonNull};
use kernel::{
    prelude::*,
    sync::atomic::{ordering, Atomic},
    workqueue::Queue,
};

mod ticker;

pub use ticker::{Tick, Ticker};

/// A work queue that is drained and destroyed when dropped.
///
/// # Invariants
///
/// The pointer was returned by `alloc_workqueue` and not destroyed yet.
pub struct OwnedQueue(NonNull<bindings::workqueue_struct>);

// SAFETY: A `struct workqueue_struct` may be used and destroyed by any task.
unsafe impl Send for OwnedQueue {}
// SAFETY: As above; queueing takes the queue's own locks.
unsafe impl Sync for OwnedQueue {}

impl OwnedQueue {
    /// Makes a queue whose items may run on any CPU and may sleep for long. May sleep.
    pub fn new_unbound(name: &'static CStr) -> Result<Self> {
        // SAFETY: The format takes one string, which is NUL-terminated and static.
        let queue = unsafe {
            bindings::alloc_workqueue_noprof(
                c"%s".as_char_ptr(),
                bindings::wq_flags_WQ_UNBOUND,
                0,
                name.as_char_ptr(),
            )
        };
        // INVARIANT: Just allocated.
        NonNull::new(queue).map(Self).ok_or(ENOMEM)
    }
}

impl Deref for OwnedQueue {
    type Target = Queue;

    fn deref(&self) -> &Queue {
        // SAFETY: By the invariants the queue is alive for as long as `self` is.
        unsafe { Queue::from_raw(self.0.as_ptr()) }
    }
}

impl Drop for OwnedQueue {
    fn drop(&mut self) {
        // SAFETY: By the invariants the queue is alive; nobody can queue on it any more because
        // all borrows of `self` have ended. Waits for the items that are on it.
        unsafe { bindings::destroy_workqueue(self.0.as_ptr()) };
    }
}

/// A work queue in a static, for work items that outlive what queued them.
///
/// An item may own the last reference to an object; if the object owned the queue, the queue would
/// be destroyed by one of its own items and wait for itself. A static is owned by the module.
pub struct StaticQueue(Atomic<usize>);

impl StaticQueue {
    /// A queue that does not exist yet.
    #[expect(clippy::new_without_default, reason = "It is for statics only.")]
    pub const fn new() -> Self {
        Self(Atomic::new(0))
    }

    /// Makes the queue; it lasts as long as what is returned. May sleep.
    pub fn start(&'static self, name: &'static CStr) -> Result<StartedQueue> {
        let queue = OwnedQueue::new_unbound(name)?;
        self.0
            .store(queue.0.as_ptr().expose_provenance(), ordering::Release);
        Ok(StartedQueue {
            queue: self,
            _owned: queue,
        })
    }

    /// The queue, or the system's when it was not started.
    pub fn get(&self) -> &Queue {
        match NonNull::new(core::ptr::with_exposed_provenance_mut(
            self.0.load(ordering::Acquire),
        )) {
            // SAFETY: Stored by `start`, and removed before the queue is destroyed. Whoever queues
            // work does so before the module that owns the static goes.
            Some(queue) => unsafe { Queue::from_raw(queue.as_ptr()) },
            None => kernel::workqueue::system_unbound(),
        }
    }
}

/// Keeps a [`StaticQueue`] in existence; drains it when dropped.
pub struct StartedQueue {
    queue: &'static StaticQueue,
    _owned: OwnedQueue,
}

impl Drop for StartedQueue {
    fn drop(&mut self) {
        // The queue itself is drained and destroyed after this, with the fields: late items still
        // run, and what they queue goes to the system's queue.
        self.queue.0.store(0, ordering::Release);
    }
}
