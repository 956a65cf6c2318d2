// SPDX-License-Identifier: GPL-2.0

//! Tables in debugfs, for people who look at what a module is doing.
//!
//! `kernel::debugfs` makes files without an owner. One that somebody has open while its module is
//! unloaded then leads into memory that is gone, when it is closed. These have one: an open table
//! keeps its module.
//!
//! C headers: [`include/linux/debugfs.h`](srctree/include/linux/debugfs.h),
//! [`include/linux/seq_file.h`](srctree/include/linux/seq_file.h)

use crate::bindings;
use core::{marker::PhantomData, ptr};
use kernel::{ffi, module::this_module, prelude::*, seq_file::SeqFile};

/// What stands in a file.
#[vtable]
pub trait Table: Send + Sync + Sized + 'static {
    /// Name of the file.
    const NAME: &'static CStr;

    /// Prints all of it. Called for each open that is read. May sleep.
    fn show(&self, m: &SeqFile) -> Result;
}

/// A directory at the top of debugfs, empty again and removed when dropped.
///
/// Without debugfs there is none, and no files in it; that is no error, as nobody depends on them.
///
/// # Invariants
///
/// A dentry that `debugfs_create_dir` returned, or an error pointer.
pub struct Dir(*mut bindings::dentry);

// SAFETY: The functions for debugfs may be called by any task.
unsafe impl Send for Dir {}
// SAFETY: As above.
unsafe impl Sync for Dir {}

impl Dir {
    /// Makes the directory. May sleep.
    pub fn new(name: &CStr) -> Self {
        // SAFETY: The name is NUL-terminated and copied. Without a parent it is at the top.
        // INVARIANT: As returned.
        Self(unsafe { bindings::debugfs_create_dir(name.as_char_ptr(), ptr::null_mut()) })
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        // SAFETY: By the invariants; error pointers are let pass.
        unsafe { bindings::debugfs_remove(self.0) };
    }
}

/// A file that only root can read. Dropping it removes it, and waits for those who are reading.
///
/// # Invariants
///
/// The dentry is one that `debugfs_create_file_full` returned for `table`, or an error pointer.
pub struct File<T: Table> {
    dentry: *mut bindings::dentry,
    // Dropped after the file is gone.
    _table: KBox<T>,
}

// SAFETY: The functions for debugfs may be called by any task; `T` is `Send`.
unsafe impl<T: Table> Send for File<T> {}
// SAFETY: As above; `T` is `Sync`.
unsafe impl<T: Table> Sync for File<T> {}

impl<T: Table> File<T> {
    /// Makes the file. May sleep.
    pub fn new(dir: &Dir, table: T) -> Result<Self> {
        let table = KBox::new(table, GFP_KERNEL)?;
        // SAFETY: The parent is a directory or an error pointer, which is let pass. The operations
        // are static, and the table stays where it is until the file is removed.
        let dentry = unsafe {
            bindings::debugfs_create_file_full(
                T::NAME.as_char_ptr(),
                0o400,
                dir.0,
                ptr::from_ref(&*table).cast_mut().cast(),
                ptr::null(),
                &Callbacks::<T>::FOPS,
            )
        };
        // INVARIANT: As returned.
        Ok(Self {
            dentry,
            _table: table,
        })
    }
}

impl<T: Table> Drop for File<T> {
    fn drop(&mut self) {
        // SAFETY: By the invariants; error pointers are let pass. After this no callback runs.
        unsafe { bindings::debugfs_remove(self.dentry) };
    }
}

struct Callbacks<T>(PhantomData<T>);

impl<T: Table> Callbacks<T> {
    const FOPS: bindings::file_operations = bindings::file_operations {
        owner: this_module::<T::OwnerModule>().as_ptr(),
        open: Some(Self::open),
        read: Some(bindings::seq_read),
        llseek: Some(bindings::seq_lseek),
        release: Some(bindings::single_release),
        ..pin_init::zeroed()
    };

    /// # Safety
    ///
    /// Only for `file_operations::open` of a file made by [`File::new`].
    unsafe extern "C" fn open(
        inode: *mut bindings::inode,
        file: *mut bindings::file,
    ) -> ffi::c_int {
        // SAFETY: debugfs gives the inode and a file that is being opened; it put the pointer that
        // it got at the creation into the inode.
        unsafe {
            let table = (*inode).i_private;
            bindings::single_open(file, Some(Self::show), table)
        }
    }

    /// # Safety
    ///
    /// Only as the callback that [`Self::open`] gives.
    unsafe extern "C" fn show(m: *mut bindings::seq_file, _: *mut ffi::c_void) -> ffi::c_int {
        // SAFETY: debugfs calls this within a read, for the end of which the removal of the file
        // waits. `open` stored the table. Only this task uses the seq file meanwhile.
        let (table, m) = unsafe {
            let table = (*m).private.cast::<T>().cast_const();
            (&*table, SeqFile::from_raw(m))
        };
        crate::to_errno(table.show(m))
    }
}
