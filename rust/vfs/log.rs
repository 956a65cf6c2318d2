// SPDX-License-Identifier: GPL-2.0

//! Log lines that hostile input can cause as often as it likes.
//!
//! C header: [`include/linux/printk.h`](srctree/include/linux/printk.h)

use crate::bindings;

/// Whether one more such line may be printed now: ten in five seconds. Any context.
pub fn ratelimit() -> bool {
    // SAFETY: The name is NUL-terminated and static.
    unsafe { bindings::__printk_ratelimit(kernel::str::as_char_ptr_in_const_context(c"vfs")) != 0 }
}
