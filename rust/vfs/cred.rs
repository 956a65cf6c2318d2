// SPDX-License-Identifier: GPL-2.0

//! Acting with somebody else's credentials for the length of a scope.
//!
//! A cache opens its backing files from work items, which have the kernel's own credentials; what
//! it may do there is what the daemon that bound the cache may do.
//!
//! C header: [`include/linux/cred.h`](srctree/include/linux/cred.h)

use crate::bindings;
use core::marker::PhantomData;
use kernel::{cred::Credential, sync::aref::ARef};

/// The current task acts with other credentials until this is dropped.
///
/// # Invariants
///
/// `old` are the credentials that the task had before, and `_new` keeps alive those that it has.
/// Not `Send`: credentials belong to the task.
#[must_use = "the old credentials come back when this is dropped"]
pub struct Override {
    old: *const bindings::cred,
    _new: ARef<Credential>,
    _not_send: PhantomData<*mut ()>,
}

impl Override {
    /// Makes the current task act with `cred`.
    pub fn new(cred: &ARef<Credential>) -> Self {
        let new = cred.clone();
        // SAFETY: `new` holds a reference for as long as the override lasts.
        // INVARIANT: `override_creds` returns the credentials that were in force.
        let old = unsafe { bindings::vfs_helper_override_creds(new.as_ptr()) };
        Self {
            old,
            _new: new,
            _not_send: PhantomData,
        }
    }
}

impl Drop for Override {
    fn drop(&mut self) {
        // SAFETY: By the invariants `old` was returned by `override_creds` in this task. Overrides
        // nest because the guards are dropped in reverse order of their making.
        unsafe { bindings::vfs_helper_revert_creds(self.old) };
    }
}
