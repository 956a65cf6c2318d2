// SPDX-License-Identifier: GPL-2.0

//! ioctl(2) of files and directories: the volume's label.
//!
//! C header: [`include/uapi/linux/fs.h`](srctree/include/uapi/linux/fs.h)

use crate::{bindings, fs::FileSystem, super_block::SuperBlock, to_errno};
use kernel::{
    ffi,
    prelude::*,
    uaccess::{UserPtr, UserSlice},
};

/// Longest label that `FS_IOC_GETFSLABEL` has room for, with its NUL.
const LABEL_MAX: usize = 256;

/// # Safety
///
/// Only for `file_operations::unlocked_ioctl` and `compat_ioctl` of a file of the file system `T`.
pub(crate) unsafe extern "C" fn ioctl<T: FileSystem>(
    file: *mut bindings::file,
    command: ffi::c_uint,
    argument: ffi::c_ulong,
) -> ffi::c_long {
    if command != bindings::VFS_CONST_FS_IOC_GETFSLABEL {
        return to_long(Err(ENOTTY));
    }
    // SAFETY: The VFS gives an open file of ours.
    let sb = unsafe { SuperBlock::<T>::from_raw((*(*file).f_inode).i_sb) };
    to_long(give_label(T::label(sb), argument))
}

fn to_long(result: Result) -> ffi::c_long {
    ffi::c_long::try_from(to_errno(result)).unwrap_or(-5)
}

/// Copies the label with a NUL behind it.
fn give_label(label: &[u8], to: usize) -> Result {
    let len = label.len().min(LABEL_MAX - 1);
    let label = label.get(..len).unwrap_or(label);
    let mut writer = UserSlice::new(UserPtr::from_addr(to), len.saturating_add(1)).writer();
    writer.write_slice(label)?;
    writer.write_slice(&[0])
}
