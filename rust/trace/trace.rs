// SPDX-License-Identifier: GPL-2.0

//! The tracepoints of cachefiles_demand.ko, one function for each.
//!
//! While an event is off, its function costs a call and a branch, which the kernel patches when the
//! event is turned on. All may be called from any context and under any lock.
//!
//! C header:
//! [`include/trace/events/cachefiles_demand.h`](srctree/include/trace/events/cachefiles_demand.h)

use kernel::prelude::*;
use vfs::bindings;

/// A request `id` was made for the `len` bytes from `start` of the backing file `file`.
pub fn request_queued(cache: &CStr, file: &CStr, id: u64, start: u64, len: u64) {
    // SAFETY: The strings are NUL-terminated; the call copies what it keeps of them.
    unsafe {
        bindings::demand_trace_request_queued(
            cache.as_char_ptr(),
            file.as_char_ptr(),
            id,
            start,
            len,
        );
    }
}

/// The request `id` was delivered to the daemon.
pub fn request_delivered(id: u64) {
    // SAFETY: No preconditions.
    unsafe { bindings::demand_trace_request_delivered(id) };
}

/// The request `id` is over, with zero or a negative errno, `age_us` microseconds after it was
/// queued.
pub fn request_completed(id: u64, errno: i32, age_us: u64) {
    // SAFETY: No preconditions.
    unsafe { bindings::demand_trace_request_completed(id, errno, age_us) };
}

/// A read of the `len` bytes from `start` of the backing file `file` is a hit, or has missing
/// bytes.
pub fn presence(file: &CStr, start: u64, len: u64, present: bool) {
    // SAFETY: As in `request_queued`.
    unsafe { bindings::demand_trace_presence(file.as_char_ptr(), start, len, present) };
}
