// SPDX-License-Identifier: GPL-2.0

//! Safe abstractions over the parts of the VFS that a read-only file system and a cache backend
//! need, and that the `kernel` crate does not have.
//!
//! To write a file system (`samples/rust/rust_filesystem.rs` is the smallest one):
//! 1. implement [`fs::FileSystem`] for a marker type, and keep a [`fs::Registration`] of it in the
//!    module;
//! 2. in `fill_super`, read what makes the volume, then give the root inode;
//! 3. fill each new inode with [`inode::New::init`], which takes the operations that its type has:
//!    [`dir::Operations`] for a directory, [`iomap::Operations`] for file data.
//!
//! Kernel files ([`kfile`]), paths ([`path`]), credentials ([`cred`]) and character devices
//! ([`chardev`]) stand on their own.

use kernel::{alloc::flags::__GFP_ZERO, prelude::*, str::CString};

/// Prefix of the log lines of this crate.
const __LOG_PREFIX: &[u8] = b"vfs\0";

#[doc(hidden)]
#[path = "../bindings/bindings.rs"]
pub mod bindings;

pub mod chardev;
pub mod cred;
pub mod debugfs;
pub mod dentry;
pub mod dir;
mod export;
pub mod fs;
pub mod in_use;
pub mod inode;
mod ioctl;
pub mod iomap;
pub mod kfile;
mod lockdep;
pub mod log;
pub mod mapping;
pub mod path;
pub mod plug;
pub mod poll;
pub mod super_block;
pub mod sync;
pub mod sysfs;
pub mod workqueue;
pub mod xattr;

/// Widens a `usize` for arithmetic on file offsets. Lossless: the kernel has no wider pointers.
#[inline]
pub const fn u64_from(n: usize) -> u64 {
    const_assert_usize_fits();
    // CAST: `usize` is at most 64 bits wide, checked above.
    n as u64
}

const fn const_assert_usize_fits() {
    const { assert!(size_of::<usize>() <= size_of::<u64>()) }
}

/// So many zeros. May sleep.
pub fn zeroed(len: usize) -> Result<KVec<u8>> {
    let mut bytes = KVec::with_capacity(len, GFP_KERNEL | __GFP_ZERO)?;
    // SAFETY: There is room for so many, which the allocator zeroed.
    unsafe { bytes.inc_len(len) };
    Ok(bytes)
}

/// Copies bytes into a C string. [`EINVAL`] when there is a NUL among them.
pub fn c_string(bytes: &[u8]) -> Result<CString> {
    let mut buf = KVec::with_capacity(bytes.len().saturating_add(1), GFP_KERNEL)?;
    buf.extend_from_slice(bytes, GFP_KERNEL)?;
    buf.push(0, GFP_KERNEL)?;
    let string = CStr::from_bytes_with_nul(&buf).map_err(|_| EINVAL)?;
    Ok(CString::try_from(string)?)
}

/// A flag or small number that C has as an `int` and bindgen as a `u32`.
pub(crate) const fn int(n: u32) -> kernel::ffi::c_int {
    // CAST: The same bits, which is what C does with the macro.
    n as kernel::ffi::c_int
}

/// Turns a result into what a C callback returns: zero or a negative errno.
pub(crate) fn to_errno(result: Result) -> kernel::ffi::c_int {
    match result {
        Ok(()) => 0,
        Err(e) => e.to_errno(),
    }
}

/// A callback that a table has on a condition.
pub(crate) const fn if_some<F: Copy>(condition: bool, callback: F) -> Option<F> {
    match condition {
        true => Some(callback),
        false => None,
    }
}
