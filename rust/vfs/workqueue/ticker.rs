// SPDX-License-Identifier: GPL-2.0

//! Work that runs at a time of its own, again and again.
//!
//! C header: [`include/linux/workqueue.h`](srctree/include/linux/workqueue.h)

use crate::bindings;
use core::{ops::Deref, ptr};
use kernel::{container_of, prelude::*, time::msecs_to_jiffies, types::Opaque, workqueue::Queue};

/// What a [`Ticker`] does when its time comes.
pub trait Tick: Send + Sync + 'static {
    /// Called in process context, by one task at a time, on the ticker's queue. `Some(ms)` asks to
    /// be called again so many milliseconds after this returns, unless that is asked for already;
    /// `None` waits for the next [`Ticker::start`] or [`Ticker::hurry`]. May sleep.
    ///
    /// Must not drop the ticker that it is called by, nor any other: the drop waits for the call to
    /// return. See [`Ticker::stop`] for how to be sure of that.
    fn tick(&self) -> Option<u32>;
}

/// Data with work that runs at a time of its own: `struct delayed_work` with what it works on.
///
/// A tick that is queued holds no reference to anything. The drop cancels it and waits for one that
/// is running, with `cancel_delayed_work_sync`, and only then are the data dropped. A tick that
/// queues itself again meanwhile does not get through: the work is disabled for as long as the
/// cancellation takes. The drop may sleep, and must come before that of the queue.
///
/// # Invariants
///
/// `work` was initialised with `run` as its function, and nobody else queues it.
#[pin_data(PinnedDrop)]
pub struct Ticker<T: Tick> {
    queue: &'static Queue,
    #[pin]
    work: Opaque<bindings::delayed_work>,
    #[pin]
    data: T,
}

// SAFETY: A `struct delayed_work` may be queued and cancelled by any task; `T` is `Send`.
unsafe impl<T: Tick> Send for Ticker<T> {}
// SAFETY: As above, and it has locks of its own; `T` is `Sync`.
unsafe impl<T: Tick> Sync for Ticker<T> {}

impl<T: Tick> Ticker<T> {
    /// A ticker whose tick is not queued yet and will run on `queue`.
    pub fn new<E>(queue: &'static Queue, data: impl PinInit<T, E>) -> impl PinInit<Self, Error>
    where
        Error: From<E>,
    {
        // INVARIANT: As required.
        try_pin_init!(Self {
            queue,
            work <- Opaque::ffi_init(|slot: *mut bindings::delayed_work| {
                // SAFETY: `slot` points at memory for a `struct delayed_work`, which stays in place
                // because the ticker is pinned, and is cancelled before it goes.
                unsafe { bindings::vfs_helper_init_delayed_work(slot, Some(Self::run)) };
            }),
            data <- data,
        }? Error)
    }

    /// Queues the tick for `ms` milliseconds from now, unless it is queued already, for whatever
    /// time. A tick that runs now does not count as queued. Any context.
    pub fn start(&self, ms: u32) {
        // SAFETY: By the invariants. The work is cancelled before `self` goes, and the queue is
        // alive for as long as it is.
        unsafe {
            bindings::queue_delayed_work_on(
                crate::int(bindings::wq_misc_consts_WORK_CPU_UNBOUND),
                self.raw_queue(),
                self.work.get(),
                msecs_to_jiffies(ms),
            );
        }
    }

    /// Makes the tick run not later than `ms` milliseconds from now, whether it is queued or not.
    /// The tick sees what was stored before this call. Any context.
    pub fn hurry(&self, ms: u32) {
        // SAFETY: As in `start`.
        unsafe {
            bindings::vfs_helper_hurry_delayed_work(
                self.raw_queue(),
                self.work.get(),
                msecs_to_jiffies(ms),
            );
        }
    }

    /// Ends the ticking for good: cancels a tick that is queued and waits for one that is running.
    /// After this [`Ticker::start`] and [`Ticker::hurry`] do nothing. May sleep. Must not be called
    /// from a tick.
    ///
    /// Whoever gives up an object that owns a ticker, and that the ticker's data lead back to, calls
    /// this while it still has a reference. Else a tick may be the last to have one, and the drop
    /// would wait for the tick that it is part of.
    pub fn stop(&self) {
        // SAFETY: By the invariants the work is initialised.
        unsafe { bindings::disable_delayed_work_sync(self.work.get()) };
    }

    fn raw_queue(&self) -> *mut bindings::workqueue_struct {
        // CAST: `Queue` is a transparent wrapper.
        ptr::from_ref(self.queue).cast_mut().cast()
    }

    /// # Safety
    ///
    /// Only as the function of the work of a `Ticker<T>`.
    unsafe extern "C" fn run(work: *mut bindings::work_struct) {
        // SAFETY: By the safety requirement `work` is within a ticker, whose drop waits for this
        // function.
        let this = unsafe {
            let work = container_of!(work, bindings::delayed_work, work);
            let this: *const Self = container_of!(Opaque::cast_from(work), Self, work);
            &*this
        };
        if let Some(ms) = this.data.tick() {
            this.start(ms);
        }
    }
}

impl<T: Tick> Deref for Ticker<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.data
    }
}

#[pinned_drop]
impl<T: Tick> PinnedDrop for Ticker<T> {
    fn drop(self: Pin<&mut Self>) {
        // SAFETY: By the invariants the work is initialised. Nobody can queue it after this,
        // because all borrows of `self` have ended.
        unsafe { bindings::cancel_delayed_work_sync(self.work.get()) };
    }
}
