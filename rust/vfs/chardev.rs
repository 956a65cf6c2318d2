// SPDX-License-Identifier: GPL-2.0

//! A misc character device with read, write and poll.
//!
//! `kernel::miscdevice` has no poll, and a device that user space waits on needs it.
//!
//! C headers: [`include/linux/miscdevice.h`](srctree/include/linux/miscdevice.h),
//! [`include/linux/poll.h`](srctree/include/linux/poll.h)

use crate::{
    bindings,
    poll::{self, Events},
};
use core::{marker::PhantomData, ptr};
use kernel::{
    container_of,
    error::to_result,
    ffi,
    fs::File,
    module::this_module,
    prelude::*,
    seq_file::SeqFile,
    sync::Arc,
    types::Opaque,
    uaccess::{UserPtr, UserSlice, UserSliceReader, UserSliceWriter},
};

/// One open of a device.
#[vtable]
pub trait Device: Sized + Send + Sync + 'static {
    /// Name of the device node.
    const NAME: &'static CStr;

    /// What all opens of the device share.
    type Context: Send + Sync + 'static;

    /// The device is opened; what is returned lives until the last close. May sleep.
    fn open(context: &Arc<Self::Context>, file: &File) -> Result<Arc<Self>>;

    /// read(2): fills `buffer` and returns the number of bytes. May sleep.
    fn read(&self, buffer: UserSliceWriter) -> Result<usize>;

    /// write(2): takes all of `data`. May sleep.
    fn write(&self, data: UserSliceReader) -> Result;

    /// poll(2): registers for wake-ups and tells what is possible now. May sleep.
    fn poll(&self, file: &File, table: &poll::Table<'_>) -> Events;

    /// Adds lines of the form `name:<tab>value` to `/proc/<pid>/fdinfo/<fd>`. May be called by any
    /// task that may look at the one that has the device open. May sleep.
    fn show_fdinfo(&self, m: &SeqFile);

    /// The last descriptor was closed. May sleep.
    fn release(&self);
}

/// Whether the current task has CAP_SYS_ADMIN in the initial user namespace.
pub fn capable_sys_admin() -> bool {
    // SAFETY: No preconditions.
    unsafe { bindings::capable(crate::int(bindings::CAP_SYS_ADMIN)) }
}

/// A registered device node, mode 0600.
#[pin_data(PinnedDrop)]
pub struct Registration<T: Device> {
    #[pin]
    inner: Opaque<bindings::miscdevice>,
    context: Arc<T::Context>,
}

// SAFETY: `misc_deregister` may be called by any task.
unsafe impl<T: Device> Send for Registration<T> {}
// SAFETY: A shared registration gives access to the context, which is `Sync`.
unsafe impl<T: Device> Sync for Registration<T> {}

impl<T: Device> Registration<T> {
    /// Makes the device node. May sleep.
    pub fn new(context: Arc<T::Context>) -> impl PinInit<Self, Error> {
        try_pin_init!(Self {
            context,
            inner <- Opaque::try_ffi_init(|slot: *mut bindings::miscdevice| {
                let misc = bindings::miscdevice {
                    minor: crate::int(bindings::MISC_DYNAMIC_MINOR),
                    name: T::NAME.as_char_ptr(),
                    fops: &Table::<T>::FOPS,
                    mode: 0o600,
                    ..pin_init::zeroed()
                };
                // SAFETY: `slot` points at memory for a `struct miscdevice`, which stays in place
                // because the registration is pinned, and is deregistered before it goes.
                to_result(unsafe {
                    slot.write(misc);
                    bindings::misc_register(slot)
                })
            }),
        }? Error)
    }
}

#[pinned_drop]
impl<T: Device> PinnedDrop for Registration<T> {
    fn drop(self: Pin<&mut Self>) {
        // SAFETY: Registered in `new`.
        unsafe { bindings::misc_deregister(self.inner.get()) };
    }
}

/// The C callbacks of a device.
struct Table<T>(PhantomData<T>);

impl<T: Device> Table<T> {
    // Open files pin the module through `owner`, so the callbacks outlive them.
    const FOPS: bindings::file_operations = bindings::file_operations {
        owner: this_module::<T::OwnerModule>().as_ptr(),
        open: Some(Self::open),
        read: Some(Self::read),
        write: Some(Self::write),
        poll: Some(Self::poll),
        show_fdinfo: Some(Self::show_fdinfo),
        release: Some(Self::release),
        ..pin_init::zeroed()
    };

    /// # Safety
    ///
    /// `file` must have been opened by [`Self::open`] and not released.
    unsafe fn device<'a>(file: *mut bindings::file) -> &'a T {
        // SAFETY: `open` stored an `Arc<T>` there, which `release` takes back.
        unsafe { &*(*file).private_data.cast::<T>() }
    }

    /// # Safety
    ///
    /// Only for `file_operations::open`: `file` is being opened by `misc_open`.
    unsafe extern "C" fn open(_: *mut bindings::inode, file: *mut bindings::file) -> ffi::c_int {
        // SAFETY: The VFS gives a file that is being opened, which nobody else uses yet. `misc_open`
        // has left a pointer to the misc device in it, which is the one in our registration, and
        // which cannot be deregistered before this returns.
        let (file_ref, context) = unsafe {
            let misc = Opaque::cast_from((*file).private_data.cast::<bindings::miscdevice>());
            let registration: *const Registration<T> = container_of!(misc, Registration<T>, inner);
            (File::from_raw_file(file), &(*registration).context)
        };
        match T::open(context, file_ref) {
            Ok(device) => {
                // SAFETY: As above.
                unsafe { (*file).private_data = Arc::into_raw(device).cast_mut().cast() };
                0
            }
            Err(e) => e.to_errno(),
        }
    }

    /// # Safety
    ///
    /// Only for `file_operations::release`: `file` was opened by [`Self::open`].
    unsafe extern "C" fn release(_: *mut bindings::inode, file: *mut bindings::file) -> ffi::c_int {
        // SAFETY: Stored by `open`; the VFS releases a file once.
        let device = unsafe { Arc::from_raw((*file).private_data.cast::<T>()) };
        device.release();
        // SAFETY: The file is still valid.
        unsafe { (*file).private_data = ptr::null_mut() };
        0
    }

    /// # Safety
    ///
    /// Only for `file_operations::read`: `file` is open.
    unsafe extern "C" fn read(
        file: *mut bindings::file,
        buffer: *mut ffi::c_char,
        len: usize,
        _: *mut bindings::loff_t,
    ) -> isize {
        // SAFETY: The VFS calls this between open and release.
        let device = unsafe { Self::device(file) };
        let buffer = UserSlice::new(UserPtr::from_ptr(buffer.cast()), len).writer();
        match device.read(buffer).map(isize::try_from) {
            Ok(n) => n.unwrap_or(isize::MAX),
            Err(e) => to_isize(e),
        }
    }

    /// # Safety
    ///
    /// Only for `file_operations::write`: `file` is open.
    unsafe extern "C" fn write(
        file: *mut bindings::file,
        data: *const ffi::c_char,
        len: usize,
        _: *mut bindings::loff_t,
    ) -> isize {
        // SAFETY: The VFS calls this between open and release.
        let device = unsafe { Self::device(file) };
        let data = UserSlice::new(UserPtr::from_ptr(data.cast_mut().cast()), len).reader();
        match device.write(data) {
            Ok(()) => isize::try_from(len).unwrap_or(isize::MAX),
            Err(e) => to_isize(e),
        }
    }

    /// # Safety
    ///
    /// Only for `file_operations::poll`: `file` is open, `table` is null or valid.
    unsafe extern "C" fn poll(
        file: *mut bindings::file,
        table: *mut bindings::poll_table_struct,
    ) -> bindings::__poll_t {
        // SAFETY: The VFS calls this between open and release, with a table that is null or valid
        // for the call.
        let (device, file, table) = unsafe {
            (
                Self::device(file),
                File::from_raw_file(file),
                poll::Table::from_raw(table),
            )
        };
        device.poll(file, &table).mask()
    }

    /// # Safety
    ///
    /// Only for `file_operations::show_fdinfo`: `file` is open, `m` is the caller's.
    unsafe extern "C" fn show_fdinfo(m: *mut bindings::seq_file, file: *mut bindings::file) {
        // SAFETY: The VFS calls this between open and release, with a seq file that only this task
        // uses until it returns.
        let (device, m) = unsafe { (Self::device(file), SeqFile::from_raw(m)) };
        device.show_fdinfo(m);
    }
}

fn to_isize(e: Error) -> isize {
    isize::try_from(e.to_errno()).unwrap_or(-5)
}
