// SPDX-License-Identifier: GPL-2.0

//! The answer to a lookup.
//!
//! The name of a dentry is stable until it is spliced into the tree and not after: with a damaged
//! image that hard-links directories, splicing may move a subtree. So the name can be read from an
//! [`Unhashed`] only, and [`Unhashed::splice`] consumes it.
//!
//! C header: [`include/linux/dcache.h`](srctree/include/linux/dcache.h)

use crate::{bindings, fs::FileSystem, inode::INode};
use core::{marker::PhantomData, ptr};
use kernel::{error::from_err_ptr, prelude::*, sync::aref::ARef};

/// A dentry that is being looked up.
///
/// # Invariants
///
/// The dentry is not hashed, its parent is locked for lookup, and its name is stable.
#[must_use]
pub struct Unhashed<'a, T: FileSystem> {
    dentry: *mut bindings::dentry,
    _lookup: PhantomData<(&'a (), T)>,
}

/// Proof that a lookup was answered.
#[must_use]
pub struct Spliced(*mut bindings::dentry);

impl<T: FileSystem> Unhashed<'_, T> {
    /// # Safety
    ///
    /// `dentry` must be one that the VFS gave to `inode_operations::lookup`, for as long as that
    /// call lasts.
    pub(crate) unsafe fn from_raw(dentry: *mut bindings::dentry) -> Self {
        // INVARIANT: By the safety requirement.
        Self {
            dentry,
            _lookup: PhantomData,
        }
    }

    /// The name that is looked up; any bytes but NUL and `/`.
    pub fn name(&self) -> &[u8] {
        // SAFETY: By the invariants the name is stable while `self` exists.
        unsafe {
            let name = &(*self.dentry).__bindgen_anon_1.d_name;
            let len = name.__bindgen_anon_1.__bindgen_anon_1.len;
            core::slice::from_raw_parts(name.name, usize::try_from(len).unwrap_or(0))
        }
    }

    /// Answers with `inode`, or that there is no such name. [`EIO`] for an inode of another super
    /// block.
    pub fn splice(self, inode: Option<ARef<INode<T>>>) -> Result<Spliced> {
        let inode = match inode {
            None => ptr::null_mut(),
            Some(inode) => {
                // SAFETY: Both are valid.
                if unsafe { (*inode.as_raw()).i_sb != (*self.dentry).d_sb } {
                    return Err(EIO);
                }
                ARef::into_raw(inode).as_ptr().cast::<bindings::inode>()
            }
        };
        // SAFETY: The dentry is unhashed; the reference to the inode is consumed, also on error.
        from_err_ptr(unsafe { bindings::d_splice_alias(inode, self.dentry) }).map(Spliced)
    }
}

impl Spliced {
    /// What `inode_operations::lookup` returns: another dentry to use, or null.
    pub(crate) fn into_raw(self) -> *mut bindings::dentry {
        self.0
    }
}
