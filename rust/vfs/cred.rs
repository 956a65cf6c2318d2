// SPDX-License-Identifier: GPL-2.0

//! Acting with somebody else's credentials for the length of a scope.
//!
//! A cache opens its backing files from work items, which have the kernel's own credentials; what
//! it may do there is what the daemon that bound the cache may do, perhaps under another label of
//! the security module.
//!
//! C headers: [`include/linux/cred.h`](srctree/include/linux/cred.h),
//! [`include/linux/security.h`](srctree/include/linux/security.h)

use crate::bindings;
use core::{marker::PhantomData, ptr::NonNull};
use kernel::{cred::Credential, error::to_result, prelude::*, sync::aref::ARef};

/// The current task acts with other credentials until this is dropped.
///
/// # Invariants
///
/// `old` are the credentials that the task had before; those that it has are borrowed. Not `Send`:
/// credentials belong to the task.
#[must_use = "the old credentials come back when this is dropped"]
pub struct Override<'a> {
    old: *const bindings::cred,
    _new: PhantomData<(&'a Credential, *mut ())>,
}

impl<'a> Override<'a> {
    /// Makes the current task act with `cred`.
    pub fn new(cred: &'a Credential) -> Self {
        // SAFETY: The credentials outlive the override, which borrows them.
        // INVARIANT: `override_creds` returns the credentials that were in force.
        let old = unsafe { bindings::vfs_helper_override_creds(cred.as_ptr()) };
        Self {
            old,
            _new: PhantomData,
        }
    }
}

impl Drop for Override<'_> {
    fn drop(&mut self) {
        // SAFETY: By the invariants `old` was returned by `override_creds` in this task. Overrides
        // nest because the guards are dropped in reverse order of their making.
        unsafe { bindings::vfs_helper_revert_creds(self.old) };
    }
}

/// A copy of `cred` that acts under the security context `secctx`, a label that the security module
/// in force understands. May sleep.
///
/// [`EOPNOTSUPP`] when no security module takes labels, or the one that does cannot act under
/// another one; [`EINVAL`] or [`ENOENT`] for a label that it does not know; [`EACCES`] or [`EPERM`]
/// when the current task may not choose it.
pub fn with_security_context(cred: &ARef<Credential>, secctx: &CStr) -> Result<ARef<Credential>> {
    let label = secctx.to_bytes();
    let mut secid = 0;
    // SAFETY: The label is as long as said, and `secid` has room for the answer.
    to_result(unsafe {
        bindings::security_secctx_to_secid(
            label.as_ptr().cast(),
            u32::try_from(label.len())?,
            &mut secid,
        )
    })?;
    // Nobody has answered; no module gives the number zero to a label.
    if secid == 0 {
        return Err(EOPNOTSUPP);
    }
    let copy = {
        let _as_cred = Override::new(cred);
        // SAFETY: What the task acts with now is what is copied.
        unsafe { bindings::prepare_creds() }
    };
    let copy = NonNull::new(copy).ok_or(ENOMEM)?;
    // SAFETY: The copy came with a reference, which is ours.
    let new = unsafe { ARef::from_raw(copy.cast::<Credential>()) };
    // SAFETY: Nobody else has the copy yet, so that it may be changed.
    to_result(unsafe { bindings::set_security_override(copy.as_ptr(), secid) })?;
    // A module without this hook lets the call pass and changes nothing.
    if new.get_secid() != secid {
        return Err(EOPNOTSUPP);
    }
    Ok(new)
}
