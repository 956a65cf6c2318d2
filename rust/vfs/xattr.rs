// SPDX-License-Identifier: GPL-2.0

//! Extended attributes of a read-only file system, and the access control lists among them.
//!
//! C headers: [`include/linux/xattr.h`](srctree/include/linux/xattr.h),
//! [`include/linux/posix_acl_xattr.h`](srctree/include/linux/posix_acl_xattr.h)

use crate::{bindings, fs::FileSystem, inode::INode};
use core::{marker::PhantomData, ptr, slice};
use kernel::{ffi, prelude::*};

/// What the name of an attribute begins with, and so who may do what with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Namespace {
    /// `user.`
    User,
    /// `trusted.`: for whoever has CAP_SYS_ADMIN.
    Trusted,
    /// `security.`
    Security,
    /// `system.posix_acl_access`, all of the name.
    AclAccess,
    /// `system.posix_acl_default`, all of the name.
    AclDefault,
}

impl Namespace {
    /// What names in it begin with.
    pub const fn prefix(self) -> &'static CStr {
        match self {
            Self::User => c"user.",
            Self::Trusted => c"trusted.",
            Self::Security => c"security.",
            Self::AclAccess => c"system.posix_acl_access",
            Self::AclDefault => c"system.posix_acl_default",
        }
    }

    /// Whether listxattr(2) may tell names in it to the current task.
    pub fn is_listed(self) -> bool {
        self != Self::Trusted || crate::chardev::capable_sys_admin()
    }
}

/// Where a value goes.
pub struct Value<'a>(Option<&'a mut [u8]>);

impl Value<'_> {
    /// Room for a value of `len` bytes. None when only the length is asked for; [`ERANGE`] when
    /// there is too little. The caller fills it, all of it, and returns the length.
    pub fn room(&mut self, len: usize) -> Result<Option<&mut [u8]>> {
        match &mut self.0 {
            None => Ok(None),
            Some(buffer) => buffer.get_mut(..len).map(Some).ok_or(ERANGE),
        }
    }
}

/// Where the names go.
pub struct Names<'a> {
    buffer: Option<&'a mut [u8]>,
    len: usize,
}

impl Names<'_> {
    /// Room for a whole name, which takes `len` bytes with the NUL at its end. None when only the
    /// length of all names is asked for; [`ERANGE`] when there is too little. The caller fills it,
    /// all of it.
    pub fn room(&mut self, len: usize) -> Result<Option<&mut [u8]>> {
        let start = self.len;
        self.len = start.checked_add(len).ok_or(ERANGE)?;
        match &mut self.buffer {
            None => Ok(None),
            Some(buffer) => buffer.get_mut(start..self.len).map(Some).ok_or(ERANGE),
        }
    }
}

/// C callbacks, for a super block and its inodes.
pub(crate) struct Table<T>(PhantomData<T>);

impl<T: FileSystem> Table<T> {
    /// `super_block::s_xattr`, ended by a null.
    pub(crate) const HANDLERS: &'static [*const bindings::xattr_handler; 4] = &[
        &Self::handler(Namespace::User, 0),
        &Self::handler(Namespace::Trusted, 1),
        &Self::handler(Namespace::Security, 2),
        ptr::null(),
    ];

    const fn handler(namespace: Namespace, flags: ffi::c_int) -> bindings::xattr_handler {
        bindings::xattr_handler {
            prefix: namespace.prefix().to_bytes_with_nul().as_ptr(),
            flags,
            get: Some(Self::get),
            ..pin_init::zeroed()
        }
    }

    /// # Safety
    ///
    /// Only for `xattr_handler::get` of a handler in [`Self::HANDLERS`].
    unsafe extern "C" fn get(
        handler: *const bindings::xattr_handler,
        _: *mut bindings::dentry,
        inode: *mut bindings::inode,
        name: *const ffi::c_char,
        buffer: *mut ffi::c_void,
        size: usize,
    ) -> ffi::c_int {
        // SAFETY: The VFS gives the handler, an inode of ours and a NUL-terminated name.
        let (flags, inode, name) = unsafe {
            (
                (*handler).flags,
                INode::from_raw(inode),
                CStr::from_char_ptr(name),
            )
        };
        let namespace = match flags {
            0 => Namespace::User,
            1 => Namespace::Trusted,
            _ => Namespace::Security,
        };
        // SAFETY: The buffer is so much memory of the kernel, which only this task uses; null stands
        // for none.
        let buffer = unsafe { buffer_of(buffer, size) };
        match T::get_xattr(inode, namespace, name.to_bytes(), Value(buffer)) {
            Ok(len) => ffi::c_int::try_from(len).unwrap_or(-7),
            Err(e) => e.to_errno(),
        }
    }

    /// # Safety
    ///
    /// Only for `inode_operations::listxattr` of an inode of this file system.
    pub(crate) unsafe extern "C" fn list(
        dentry: *mut bindings::dentry,
        buffer: *mut ffi::c_char,
        size: usize,
    ) -> isize {
        // SAFETY: The VFS gives a dentry with an inode of ours.
        let inode = unsafe { INode::from_raw((*dentry).d_inode) };
        let mut names = Names {
            // SAFETY: As in `get`.
            buffer: unsafe { buffer_of(buffer.cast(), size) },
            len: 0,
        };
        match T::list_xattrs(inode, &mut names) {
            Ok(()) => isize::try_from(names.len).unwrap_or(-7),
            Err(e) => isize::try_from(e.to_errno()).unwrap_or(-5),
        }
    }

    /// # Safety
    ///
    /// Only for `inode_operations::get_inode_acl` of an inode of this file system.
    pub(crate) unsafe extern "C" fn acl(
        inode: *mut bindings::inode,
        kind: ffi::c_int,
        rcu: bool,
    ) -> *mut bindings::posix_acl {
        // What is not cached takes reading.
        if rcu {
            return ECHILD.to_ptr();
        }
        let namespace = match u32::try_from(kind) {
            Ok(bindings::VFS_CONST_ACL_TYPE_ACCESS) => Namespace::AclAccess,
            Ok(bindings::VFS_CONST_ACL_TYPE_DEFAULT) => Namespace::AclDefault,
            _ => return EINVAL.to_ptr(),
        };
        // SAFETY: The VFS gives an inode of ours.
        let inode = unsafe { INode::from_raw(inode) };
        match acl_value::<T>(inode, namespace) {
            // SAFETY: The value has so many bytes, and the name space lives for ever.
            Ok(value) => unsafe {
                bindings::posix_acl_from_xattr(
                    &raw mut bindings::init_user_ns,
                    value.as_ptr().cast(),
                    value.len(),
                )
            },
            Err(e) if e == ENODATA => ptr::null_mut(),
            // A list that cannot be read must not be taken for none.
            Err(e) => e.to_ptr(),
        }
    }
}

fn acl_value<T: FileSystem>(inode: &INode<T>, namespace: Namespace) -> Result<KVec<u8>> {
    let len = T::get_xattr(inode, namespace, b"", Value(None))?;
    // As much as user space could have set.
    if len > XATTR_SIZE_MAX {
        return Err(EINVAL);
    }
    let mut value = crate::zeroed(len)?;
    T::get_xattr(inode, namespace, b"", Value(Some(&mut value)))?;
    Ok(value)
}

/// Longest value that setxattr(2) takes, in bytes.
const XATTR_SIZE_MAX: usize = 65536;

/// The buffer as a slice. It is zeroed, since nothing need have been written to it yet.
///
/// # Safety
///
/// `buffer` must be null, or memory of `size` bytes that nobody else uses for the lifetime that is
/// chosen.
unsafe fn buffer_of<'a>(buffer: *mut ffi::c_void, size: usize) -> Option<&'a mut [u8]> {
    if buffer.is_null() || size == 0 {
        return None;
    }
    // SAFETY: By the safety requirement; and it is initialised.
    Some(unsafe {
        ptr::write_bytes(buffer.cast::<u8>(), 0, size);
        slice::from_raw_parts_mut(buffer.cast(), size)
    })
}
