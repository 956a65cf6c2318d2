// SPDX-License-Identifier: GPL-2.0

//! Work that is put off until the current task is done with a batch of I/O.
//!
//! A task that submits several reads holds a *plug* while it does (readahead for instance), so that
//! what belongs together reaches the device together. The plug is flushed when the task ends the
//! batch, or before it goes to sleep. Whoever else collects what such a task asks for can wait for
//! the same moment.
//!
//! C header: [`include/linux/blk_plug.h`](srctree/include/linux/blk_plug.h)

use crate::bindings;
use core::ptr;
use kernel::{prelude::*, sync::Arc};

/// A callback on a task's plug: `struct blk_plug_cb`, allocated by `blk_check_plugged` as larger
/// than that and zeroed, and freed by the callback.
///
/// # Invariants
///
/// If `run` is set, `head.data` is an `Arc<T>` that was turned into a pointer, and is ours.
#[repr(C)]
struct Callback<T> {
    head: bindings::blk_plug_cb,
    run: Option<fn(&T)>,
}

/// Calls `run` on `data` once, when the plug that the current task holds is flushed. To ask again
/// before that changes nothing. Returns whether the call will come: `false` when the task holds no
/// plug, when there is no memory, or when the plug has the same data with another `run`; the
/// caller then does by itself at once what has to be done. Does not sleep.
///
/// `run` must not sleep: a plug is also flushed by a task that is about to sleep already. Nor may
/// the drop of `data`, which is dropped after the call, if that is the last reference. The module
/// that `run` is in must not be unloaded before the call: it is in use for as long as the task is
/// in the read that it holds the plug for.
pub fn when_unplugged<T: Send + Sync + 'static>(data: &Arc<T>, run: fn(&T)) -> bool {
    const {
        assert!(align_of::<Callback<T>>() <= align_of::<u64>());
    }
    let Ok(size) = i32::try_from(size_of::<Callback<T>>()) else {
        return false;
    };
    // SAFETY: The callback is what the plug calls with what is returned here, once.
    let callback = unsafe {
        bindings::blk_check_plugged(
            Some(unplugged::<T>),
            Arc::as_ptr(data).cast_mut().cast(),
            size,
        )
        .cast::<Callback<T>>()
    };
    // SAFETY: Null or a callback on this task's plug with `unplugged::<T>` as its function, which
    // nothing else puts there. Nobody else looks at it before the plug is flushed, by this task.
    let Some(callback) = (unsafe { callback.as_mut() }) else {
        return false;
    };
    match callback.run {
        Some(registered) => ptr::fn_addr_eq(registered, run),
        None => {
            // INVARIANT: The pointer is that of the reference that is kept by it from now on.
            callback.head.data = Arc::into_raw(data.clone()).cast_mut().cast();
            callback.run = Some(run);
            true
        }
    }
}

/// # Safety
///
/// Only for callbacks that [`when_unplugged`] registered, once for each.
unsafe extern "C" fn unplugged<T>(callback: *mut bindings::blk_plug_cb, _from_schedule: bool) {
    let callback = callback.cast::<Callback<T>>();
    // SAFETY: By the safety requirement the callback is ours to read and to free. Nothing that is
    // read needs a drop.
    let (run, data) = unsafe {
        let parts = ((*callback).run, (*callback).head.data);
        bindings::kfree(callback.cast_const().cast());
        parts
    };
    if let Some(run) = run {
        // SAFETY: By the invariants.
        let data = unsafe { Arc::from_raw(data.cast::<T>().cast_const()) };
        run(&data);
    }
}
