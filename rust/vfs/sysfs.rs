// SPDX-License-Identifier: GPL-2.0

//! Folders under /sys/fs, with files of a line each.
//!
//! A folder goes when it is dropped, with its files: whoever reads or writes one of them is waited
//! for.
//!
//! C headers: [`include/linux/kobject.h`](srctree/include/linux/kobject.h),
//! [`include/linux/sysfs.h`](srctree/include/linux/sysfs.h)

use crate::bindings;
use core::{
    ptr::{self, NonNull},
    slice,
};
use kernel::{
    error::to_result,
    ffi,
    page::PAGE_SIZE,
    prelude::*,
    str::{parse_int::ParseInt as _, CString},
    sync::{
        atomic::{ordering, Atomic},
        Arc,
    },
};

/// A folder.
///
/// # Invariants
///
/// The object is in sysfs, and we own a reference to it. The files are in it and stay where they are.
pub struct Folder {
    object: NonNull<bindings::kobject>,
    files: KVec<KBox<File>>,
}

// SAFETY: Any task may add files and remove the folder.
unsafe impl Send for Folder {}
// SAFETY: A shared reference only gives the object as a parent, and to hold it is counted.
unsafe impl Sync for Folder {}

/// What a file has.
enum Content {
    /// A line that does not change.
    Text(&'static CStr),
    /// A number that can be written.
    Number(Arc<Atomic<u32>>),
}

/// A file. The C part comes first, so that a pointer to one is a pointer to the other.
#[repr(C)]
struct File {
    attribute: bindings::kobj_attribute,
    // The C part points to it.
    _name: CString,
    content: Content,
}

impl File {
    /// What is read from it, at most a page.
    fn line(&self) -> Result<CString> {
        match &self.content {
            Content::Text(text) => CString::try_from_fmt(fmt!("{}\n", text.to_str()?)),
            Content::Number(number) => {
                CString::try_from_fmt(fmt!("{}\n", number.load(ordering::Relaxed)))
            }
        }
    }

    /// Takes what is written to it.
    fn take(&self, bytes: &[u8]) -> Result {
        match &self.content {
            Content::Text(_) => Err(EPERM),
            Content::Number(number) => {
                let new = u32::from_str(bytes.trim_ascii().as_ref())?;
                number.store(new, ordering::Relaxed);
                Ok(())
            }
        }
    }
}

impl Folder {
    /// Makes the folder /sys/fs/NAME. May sleep.
    pub fn in_fs(name: &CStr) -> Result<Self> {
        // SAFETY: The object of /sys/fs is made at boot.
        unsafe { Self::new(bindings::fs_kobj, name) }
    }

    /// Makes a folder in this one, which must go before it. May sleep.
    pub fn folder(&self, name: &CStr) -> Result<Self> {
        // SAFETY: By the invariants.
        unsafe { Self::new(self.object.as_ptr(), name) }
    }

    /// # Safety
    ///
    /// `parent` must be in sysfs.
    unsafe fn new(parent: *mut bindings::kobject, name: &CStr) -> Result<Self> {
        // SAFETY: By the safety requirement; the name is copied.
        let object = unsafe { bindings::kobject_create_and_add(name.as_char_ptr(), parent) };
        // INVARIANT: Just made and added, and the reference is ours.
        Ok(Self {
            object: NonNull::new(object).ok_or(ENOMEM)?,
            files: KVec::new(),
        })
    }

    /// Adds a file that everybody can read, with a line that does not change. May sleep.
    pub fn add_text(&mut self, name: &CStr, text: &'static CStr) -> Result {
        self.add(name, 0o444, Content::Text(text))
    }

    /// Adds a file with a number, which root can write, in any base that C has. May sleep.
    pub fn add_number(&mut self, name: &CStr, number: Arc<Atomic<u32>>) -> Result {
        self.add(name, 0o644, Content::Number(number))
    }

    fn add(&mut self, name: &CStr, mode: u16, content: Content) -> Result {
        let name = CString::try_from(name)?;
        let mut attribute = bindings::kobj_attribute::default();
        attribute.__bindgen_anon_1.show_const = Some(show);
        attribute.__bindgen_anon_2.store_const = Some(store);
        attribute.attr.name = name.as_char_ptr();
        attribute.attr.mode = mode;
        let file = File {
            attribute,
            _name: name,
            content,
        };
        let mut file = KBox::new(file, GFP_KERNEL)?;
        self.files.reserve(1, GFP_KERNEL)?;
        // SAFETY: The object is in sysfs. The file is in a box, which is kept until the folder is
        // gone.
        to_result(unsafe {
            bindings::vfs_helper_sysfs_attr_init(&mut file.attribute.attr);
            let attribute = &raw const file.attribute.attr;
            bindings::sysfs_create_file_ns(self.object.as_ptr(), attribute, ptr::null())
        })?;
        // There is room.
        Ok(self.files.push(file, GFP_KERNEL)?)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // SAFETY: By the invariants. Removing the folder waits for those who use a file, and the
        // boxes go after it.
        unsafe {
            bindings::kobject_del(self.object.as_ptr());
            bindings::kobject_put(self.object.as_ptr());
        }
    }
}

/// # Safety
///
/// Only for `kobj_attribute::show` of a [`File`]: `buf` has room for a page.
unsafe extern "C" fn show(
    _: *mut bindings::kobject,
    attribute: *const bindings::kobj_attribute,
    buf: *mut ffi::c_char,
) -> isize {
    // SAFETY: By the safety requirement; the file is there as long as it is used.
    let (file, room) = unsafe {
        let room = slice::from_raw_parts_mut(buf.cast::<u8>(), PAGE_SIZE);
        (&*attribute.cast::<File>(), room)
    };
    let line = match file.line() {
        Ok(line) => line,
        Err(e) => return to_isize(e),
    };
    let line = line.to_bytes();
    match room.get_mut(..line.len()) {
        Some(room) => {
            room.copy_from_slice(line);
            isize::try_from(line.len()).unwrap_or(0)
        }
        None => to_isize(EMSGSIZE),
    }
}

/// # Safety
///
/// Only for `kobj_attribute::store` of a [`File`]: `buf` has `len` bytes.
unsafe extern "C" fn store(
    _: *mut bindings::kobject,
    attribute: *const bindings::kobj_attribute,
    buf: *const ffi::c_char,
    len: usize,
) -> isize {
    // SAFETY: By the safety requirement; the file is there as long as it is used.
    let (file, bytes) = unsafe {
        let bytes = slice::from_raw_parts(buf.cast::<u8>(), len);
        (&*attribute.cast::<File>(), bytes)
    };
    match file.take(bytes) {
        Ok(()) => isize::try_from(len).unwrap_or(isize::MAX),
        Err(e) => to_isize(e),
    }
}

fn to_isize(e: Error) -> isize {
    isize::try_from(e.to_errno()).unwrap_or(-5)
}
