// SPDX-License-Identifier: GPL-2.0

//! Opening: cache files, image files, block devices.
//!
//! C headers: [`include/linux/fs.h`](srctree/include/linux/fs.h),
//! [`include/linux/blkdev.h`](srctree/include/linux/blkdev.h)

use super::KFile;
use crate::{bindings, path::Path};
use core::{
    marker::PhantomData,
    ptr::{self, NonNull},
};
use kernel::{
    cred::Credential,
    error::{from_err_ptr, to_result},
    fs::File,
    prelude::*,
    sync::aref::ARef,
};

/// A block device that is open.
#[derive(Clone, Copy)]
pub struct BlockDevice<'a>(NonNull<bindings::block_device>, PhantomData<&'a KFile>);

impl BlockDevice<'_> {
    pub(crate) fn as_raw(&self) -> *mut bindings::block_device {
        self.0.as_ptr()
    }
}

impl KFile {
    /// Opens what `path` names for reading and writing, with the rights of `cred`. May sleep.
    pub fn open(path: &Path, cred: &Credential) -> Result<Self> {
        // Nobody looks at when it was read, and to note that costs.
        let flags = crate::int(bindings::O_RDWR | bindings::O_LARGEFILE | bindings::O_NOATIME);
        // SAFETY: `path` and `cred` are valid for the call.
        let file = unsafe { bindings::dentry_open(path.as_raw(), flags, cred.as_ptr()) };
        let file = NonNull::new(from_err_ptr(file)?.cast::<File>()).ok_or(EIO)?;
        // SAFETY: `dentry_open` returned a file with a reference that is now ours, and nobody has
        // used `fdget_pos` on it, because it has no file descriptor.
        let file = Self(unsafe { ARef::from_raw(file) });
        // Readahead would bring pages of what is missing into memory, as zeros.
        // SAFETY: The file is open.
        to_result(unsafe {
            bindings::vfs_fadvise(file.0.as_ptr(), 0, 0, bindings::VFS_CONST_POSIX_FADV_RANDOM)
        })?;
        Ok(file)
    }

    /// Opens the image file `path` for reading, with the rights of the current task. May sleep. As
    /// open(2); see [`Self::check_image`].
    pub fn open_image(path: &CStr) -> Result<Self> {
        let flags = crate::int(bindings::O_RDONLY | bindings::O_LARGEFILE);
        // SAFETY: The name is NUL-terminated.
        let file = unsafe { bindings::filp_open(path.as_char_ptr(), flags, 0) };
        let file = NonNull::new(from_err_ptr(file)?.cast::<File>()).ok_or(EIO)?;
        // SAFETY: As in `open`.
        Ok(Self(unsafe { ARef::from_raw(file) }))
    }

    /// An image file that is open already. Its position is not used.
    pub(crate) fn of_image(file: &File) -> Self {
        Self(file.into())
    }

    /// Whether files of a volume can be in this file.
    ///
    /// [`ENOTBLK`] when it is not a regular file, or is on a file system that itself reads from
    /// another: an overlay, or a volume with the magic number `own` that is not on a block device.
    /// Reading through many of those would need more stack than there is. [`EINVAL`] when it is not
    /// open for reading.
    pub fn check_image(&self, own: u32) -> Result {
        // SAFETY: An open file has a mode, an inode on a super block, and a mapping with operations.
        let (suits, readable) = unsafe {
            let file = self.0.as_ptr();
            let inode = (*file).f_inode;
            let sb = (*inode).i_sb;
            let stacks = (*sb).s_stack_depth != 0
                || ((*sb).s_bdev.is_null() && u32::try_from((*sb).s_magic) == Ok(own));
            let regular = u32::from((*inode).i_mode) & bindings::S_IFMT == bindings::S_IFREG;
            let operations = (*(*file).f_mapping).a_ops;
            (
                regular && !stacks && (*operations).read_folio.is_some(),
                (*file).f_mode & bindings::VFS_CONST_FMODE_READ != 0,
            )
        };
        match (suits, readable) {
            (true, true) => Ok(()),
            (true, false) => Err(EINVAL),
            (false, _) => Err(ENOTBLK),
        }
    }

    /// Opens the block device `path` for reading, with the rights of the current task. May sleep.
    ///
    /// [`ENOTBLK`] when it is none; as open(2) otherwise.
    pub fn open_device(path: &CStr) -> Result<Self> {
        // SAFETY: The name is NUL-terminated. Without a holder others can open it, too.
        let file = unsafe {
            bindings::bdev_file_open_by_path(
                path.as_char_ptr(),
                bindings::VFS_CONST_BLK_OPEN_READ,
                ptr::null_mut(),
                ptr::null(),
            )
        };
        let file = NonNull::new(from_err_ptr(file)?.cast::<File>()).ok_or(EIO)?;
        // SAFETY: As in `open`. A device is closed with the last reference to its file.
        Ok(Self(unsafe { ARef::from_raw(file) }))
    }

    /// The block device that this is.
    pub fn block_device(&self) -> Option<BlockDevice<'_>> {
        // SAFETY: The file is open. If its inode is a block device's, that is open, too.
        unsafe {
            let file = self.0.as_ptr();
            let format = u32::from((*(*file).f_inode).i_mode) & bindings::S_IFMT;
            if format != bindings::S_IFBLK {
                return None;
            }
            // A device node on a disk has another inode than the device itself.
            let device = bindings::I_BDEV((*(*file).f_mapping).host);
            NonNull::new(device).map(|device| BlockDevice(device, PhantomData))
        }
    }

    /// A block device that is open already.
    pub(crate) fn of_device(file: &File) -> Self {
        Self(file.into())
    }

    /// Makes a file without a name on the file system of the directory `path`, with mode 0600. May
    /// sleep.
    pub fn temporary(path: &Path, cred: &Credential) -> Result<Self> {
        let flags = crate::int(bindings::O_RDWR | bindings::O_LARGEFILE);
        // SAFETY: `path` and `cred` are valid for the call.
        let file = from_err_ptr(unsafe {
            bindings::kernel_tmpfile_open(
                bindings::vfs_helper_nop_mnt_idmap(),
                path.as_raw(),
                u16::try_from(bindings::S_IFREG | 0o600)?,
                flags,
                cred.as_ptr(),
            )
        })?;
        let file = NonNull::new(file.cast::<File>()).ok_or(EIO)?;
        // SAFETY: As in `open`.
        Ok(Self(unsafe { ARef::from_raw(file) }))
    }
}
