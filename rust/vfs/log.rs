// SPDX-License-Identifier: GPL-2.0

//! Log lines that hostile input can cause as often as it likes.
//!
//! C header: [`include/linux/ratelimit.h`](srctree/include/linux/ratelimit.h)

use crate::bindings;
use kernel::{prelude::*, str::as_char_ptr_in_const_context, types::Opaque};

/// How many lines one source may print at once, and in [`INTERVAL_MS`].
const BURST: i32 = 10;

/// Milliseconds after which a source may print again.
const INTERVAL_MS: u32 = 5000;

/// Limits the lines of one source: an image, a cache.
///
/// Each source has its own, so that the noise of one does not hide what is wrong with another.
#[pin_data]
pub struct Limit {
    #[pin]
    state: Opaque<bindings::ratelimit_state>,
}

// SAFETY: The state may be used from any task.
unsafe impl Send for Limit {}
// SAFETY: The state has a lock of its own.
unsafe impl Sync for Limit {}

impl Limit {
    /// A limit of ten lines in five seconds.
    pub fn new() -> impl PinInit<Self> {
        pin_init!(Self {
            state <- Opaque::ffi_init(|slot| {
                // SAFETY: `slot` points at memory for the state.
                unsafe { bindings::vfs_helper_ratelimit_state_init(slot, INTERVAL_MS, BURST) };
            }),
        })
    }

    /// Whether one more line may be printed now: the source's own ten in five seconds, and then
    /// what `kernel.printk_ratelimit` leaves to everybody. Any context.
    pub fn may_print(&self) -> bool {
        let name = as_char_ptr_in_const_context(c"vfs");
        // SAFETY: The state was initialised in `new`; the name is NUL-terminated and static.
        let own = unsafe { bindings::___ratelimit(self.state.get(), name) };
        // SAFETY: As above.
        own != 0 || unsafe { bindings::__printk_ratelimit(name) } != 0
    }
}
