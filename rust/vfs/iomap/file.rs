// SPDX-License-Identifier: GPL-2.0

//! What can be done with a regular file besides reading folios: read(2), mmap(2), splice(2), and
//! asking where its data is.
//!
//! C headers: [`include/linux/fs.h`](srctree/include/linux/fs.h),
//! [`include/linux/fiemap.h`](srctree/include/linux/fiemap.h)

use super::{Callbacks, Operations};
use crate::{bindings, fs::FileSystem, if_some, inode, ioctl};
use core::ptr;
use kernel::ffi;

impl<O: Operations> Callbacks<O> {
    pub(super) const FILE: bindings::file_operations = bindings::file_operations {
        llseek: Some(Self::llseek),
        read_iter: Some(Self::read_iter),
        unlocked_ioctl: if_some(O::FileSystem::HAS_LABEL, ioctl::ioctl::<O::FileSystem>),
        compat_ioctl: if_some(O::FileSystem::HAS_LABEL, ioctl::ioctl::<O::FileSystem>),
        mmap_prepare: Some(bindings::generic_file_readonly_mmap_prepare),
        get_unmapped_area: Some(bindings::thp_get_unmapped_area),
        splice_read: Some(bindings::filemap_splice_read),
        setlease: Some(bindings::generic_setlease),
        ..pin_init::zeroed()
    };

    pub(super) const INODE: bindings::inode_operations = bindings::inode_operations {
        fiemap: Some(Self::fiemap),
        ..inode::Callbacks::<O::FileSystem>::OTHER
    };

    /// # Safety
    ///
    /// Only for `file_operations::llseek` of a file of this file system.
    unsafe extern "C" fn llseek(
        file: *mut bindings::file,
        offset: bindings::loff_t,
        whence: ffi::c_int,
    ) -> bindings::loff_t {
        // SAFETY: The VFS gives an open file of ours. Nothing waits for the iteration, as the
        // callbacks can tell by its null context.
        unsafe {
            let inode = (*file).f_inode;
            let found = match u32::try_from(whence) {
                Ok(bindings::SEEK_HOLE) => bindings::iomap_seek_hole(inode, offset, &Self::IOMAP),
                Ok(bindings::SEEK_DATA) => bindings::iomap_seek_data(inode, offset, &Self::IOMAP),
                _ => return bindings::generic_file_llseek(file, offset, whence),
            };
            match found {
                error @ ..0 => error,
                found => bindings::vfs_setpos(file, found, (*(*inode).i_sb).s_maxbytes),
            }
        }
    }

    /// A direct read of a volume that is not on a block device is one through the page cache like
    /// any other.
    ///
    /// # Safety
    ///
    /// Only for `file_operations::read_iter` of a file of this file system.
    unsafe extern "C" fn read_iter(
        iocb: *mut bindings::kiocb,
        to: *mut bindings::iov_iter,
    ) -> isize {
        // SAFETY: The VFS gives a read of an open file of ours.
        unsafe {
            if bindings::vfs_helper_iov_iter_count(to) == 0 {
                return 0;
            }
            let sb = (*(*(*iocb).ki_filp).f_inode).i_sb;
            if (*iocb).ki_flags & bindings::VFS_CONST_IOCB_DIRECT != 0 && !(*sb).s_bdev.is_null() {
                let (operations, private) = (ptr::null(), ptr::null_mut());
                return bindings::iomap_dio_rw(iocb, to, &Self::LOCATED, operations, 0, private, 0);
            }
            bindings::filemap_read(iocb, to, 0)
        }
    }

    /// # Safety
    ///
    /// Only for `address_space_operations::bmap` of a file of this file system.
    pub(super) unsafe extern "C" fn bmap(
        mapping: *mut bindings::address_space,
        block: bindings::sector_t,
    ) -> bindings::sector_t {
        // SAFETY: The VFS gives the mapping of a file of ours. See `llseek`.
        unsafe { bindings::iomap_bmap(mapping, block, &Self::LOCATED) }
    }

    /// # Safety
    ///
    /// Only for `inode_operations::fiemap` of a file or directory of this file system.
    pub(crate) unsafe extern "C" fn fiemap(
        inode: *mut bindings::inode,
        info: *mut bindings::fiemap_extent_info,
        start: bindings::u64_,
        len: bindings::u64_,
    ) -> ffi::c_int {
        // SAFETY: The VFS gives an inode of ours and where the extents go. See `llseek`.
        unsafe { bindings::iomap_fiemap(inode, info, start, len, &Self::LOCATED) }
    }
}
