// SPDX-License-Identifier: GPL-2.0

//! File handles: names of inodes that stay right while nobody has them open. NFS servers use them,
//! open_by_handle_at(2), and fanotify.
//!
//! C header: [`include/linux/exportfs.h`](srctree/include/linux/exportfs.h)

use crate::{bindings, fs::FileSystem, inode::INode, super_block::SuperBlock};
use core::{marker::PhantomData, ptr, slice};
use kernel::{ffi, prelude::*, sync::aref::ARef};

/// C callbacks for handles of the types `FILEID_INO64_GEN` and, with the directory that a file was
/// found in, `FILEID_INO64_GEN_PARENT`: for each inode the number that the file system finds it by,
/// upper half first, and a generation, which is always the same.
pub(crate) struct Table<T>(PhantomData<T>);

/// Words that one inode takes.
const WORDS: usize = 3;

impl<T: FileSystem> Table<T> {
    /// `super_block::s_export_op`.
    pub(crate) const OPS: bindings::export_operations = bindings::export_operations {
        encode_fh: Some(Self::encode),
        fh_to_dentry: Some(Self::inode),
        fh_to_parent: Some(Self::directory),
        get_parent: Some(Self::parent),
        ..pin_init::zeroed()
    };

    /// # Safety
    ///
    /// Only for `export_operations::encode_fh` of an inode of this file system.
    unsafe extern "C" fn encode(
        inode: *mut bindings::inode,
        handle: *mut u32,
        len: *mut ffi::c_int,
        parent: *mut bindings::inode,
    ) -> ffi::c_int {
        let (words, kind) = match parent.is_null() {
            true => (WORDS, bindings::fid_type_FILEID_INO64_GEN),
            false => (2 * WORDS, bindings::fid_type_FILEID_INO64_GEN_PARENT),
        };
        // SAFETY: The caller gives room for so many words, and inodes of ours.
        unsafe {
            let room = usize::try_from(*len).unwrap_or(0);
            *len = ffi::c_int::try_from(words).unwrap_or(0);
            if room < words {
                return crate::int(bindings::fid_type_FILEID_INVALID);
            }
            let handle = slice::from_raw_parts_mut(handle, words);
            for (handle, inode) in handle.chunks_exact_mut(WORDS).zip([inode, parent]) {
                let number = T::handle(INode::from_raw(inode));
                let [a, b, c, d, e, f, g, h] = number.to_be_bytes();
                let upper = u32::from_be_bytes([a, b, c, d]);
                let lower = u32::from_be_bytes([e, f, g, h]);
                handle.copy_from_slice(&[upper, lower, (*inode).i_generation]);
            }
        }
        crate::int(kind)
    }

    /// # Safety
    ///
    /// Only for `export_operations::fh_to_dentry` of a super block of this file system.
    unsafe extern "C" fn inode(
        sb: *mut bindings::super_block,
        handle: *mut bindings::fid,
        len: ffi::c_int,
        kind: ffi::c_int,
    ) -> *mut bindings::dentry {
        // SAFETY: By the safety requirement.
        unsafe { Self::find(sb, handle, len, kind, 0) }
    }

    /// # Safety
    ///
    /// Only for `export_operations::fh_to_parent` of a super block of this file system.
    unsafe extern "C" fn directory(
        sb: *mut bindings::super_block,
        handle: *mut bindings::fid,
        len: ffi::c_int,
        kind: ffi::c_int,
    ) -> *mut bindings::dentry {
        // SAFETY: By the safety requirement.
        unsafe { Self::find(sb, handle, len, kind, WORDS) }
    }

    /// The inode whose words begin at `at`; null if the handle has none there.
    ///
    /// # Safety
    ///
    /// `sb` must be a live super block of this file system, and `handle` have `len` words.
    unsafe fn find(
        sb: *mut bindings::super_block,
        handle: *mut bindings::fid,
        len: ffi::c_int,
        kind: ffi::c_int,
        at: usize,
    ) -> *mut bindings::dentry {
        let words = match u32::try_from(kind) {
            Ok(bindings::fid_type_FILEID_INO64_GEN) => WORDS,
            Ok(bindings::fid_type_FILEID_INO64_GEN_PARENT) => 2 * WORDS,
            _ => return ptr::null_mut(),
        };
        if usize::try_from(len).unwrap_or(0) < words {
            return ptr::null_mut();
        }
        // SAFETY: By the safety requirement.
        let (sb, handle) = unsafe {
            let handle = slice::from_raw_parts(handle.cast_const().cast::<u32>(), words);
            (SuperBlock::from_raw(sb), handle)
        };
        match handle.get(at..) {
            Some([upper, lower, ..]) => {
                let number = u64::from(*upper) << 32 | u64::from(*lower);
                alias(T::find_by_handle(sb, number))
            }
            _ => ptr::null_mut(),
        }
    }

    /// # Safety
    ///
    /// Only for `export_operations::get_parent` of a directory of this file system.
    unsafe extern "C" fn parent(child: *mut bindings::dentry) -> *mut bindings::dentry {
        // SAFETY: The caller gives a dentry with an inode of ours.
        let child = unsafe { INode::from_raw((*child).d_inode) };
        alias(T::parent(child))
    }
}

/// A dentry for an inode that was found by its number.
fn alias<T: FileSystem>(inode: Result<ARef<INode<T>>>) -> *mut bindings::dentry {
    match inode {
        // SAFETY: The reference is consumed, also on error.
        Ok(inode) => unsafe { bindings::d_obtain_alias(ARef::into_raw(inode).as_ptr().cast()) },
        Err(e) => e.to_ptr(),
    }
}
