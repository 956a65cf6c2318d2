// SPDX-License-Identifier: GPL-2.0

//! Super blocks in their states.
//!
//! C header: [`include/linux/fs/super_types.h`](srctree/include/linux/fs/super_types.h)

use crate::{
    bindings, export,
    fs::{FileSystem, Registration},
    inode::INode,
    kfile::KFile,
    xattr,
};
use core::{ffi::c_void, marker::PhantomData, mem, ops::Deref, ptr};
use kernel::{
    error::to_result,
    ffi,
    fs::File,
    page::{PAGE_SHIFT, PAGE_SIZE},
    prelude::*,
    seq_file::SeqFile,
    str::CString,
    types::Opaque,
};

/// What `s_fs_info` points to: it comes with the super block, and goes when nobody can find that
/// any more.
///
/// Its parts are used one by one: while the task that mounts attaches the data, others compare the
/// key.
pub(crate) struct Info<T: FileSystem> {
    /// The same for all mounts of a volume. Without one, every mount has a volume of its own.
    key: Option<T::Key>,
    /// Null, or from a `KBox`.
    data: *mut T::Data,
}

impl<T: FileSystem> Info<T> {
    /// For `fs_context::s_fs_info`, from where a new super block gets it.
    pub(crate) fn for_context(key: Option<T::Key>) -> Result<*mut c_void> {
        let data = ptr::null_mut();
        Ok(KBox::into_raw(KBox::new(Self { key, data }, GFP_KERNEL)?).cast())
    }

    /// Whether both are of one volume.
    ///
    /// # Safety
    ///
    /// Both must be from [`Self::for_context`] and live.
    pub(crate) unsafe fn same_volume(a: *mut c_void, b: *mut c_void) -> bool {
        // SAFETY: By the safety requirement; nobody changes a key.
        let (a, b) = unsafe { (&(*a.cast::<Self>()).key, &(*b.cast::<Self>()).key) };
        a.is_some() && a == b
    }

    /// # Safety
    ///
    /// `info` must be null, or from [`Self::for_context`] without data, and not be used any more.
    pub(crate) unsafe fn free(info: *mut c_void) {
        if !info.is_null() {
            // SAFETY: By the safety requirement.
            drop(unsafe { KBox::from_raw(info.cast::<Self>()) });
        }
    }
}

/// A super block with the file system's data attached.
///
/// # Invariants
///
/// `s_fs_info` is an `Info` with data, which is dropped after the last inode is unused.
#[repr(transparent)]
pub struct SuperBlock<T: FileSystem>(Opaque<bindings::super_block>, PhantomData<T>);

// SAFETY: Super blocks are shared between tasks; `T::Data` is `Sync`.
unsafe impl<T: FileSystem> Sync for SuperBlock<T> {}

impl<T: FileSystem> SuperBlock<T> {
    /// # Safety
    ///
    /// `sb` must be a super block of the type `T` with its data attached, and outlive `'a`.
    pub(crate) unsafe fn from_raw<'a>(sb: *mut bindings::super_block) -> &'a Self {
        // SAFETY: The type is transparent; the rest is the caller's promise.
        unsafe { &*sb.cast() }
    }

    pub(crate) fn as_raw(&self) -> *mut bindings::super_block {
        self.0.get()
    }

    /// What the file system attached.
    pub fn data(&self) -> &T::Data {
        // SAFETY: By the invariants. Only shared references are given out.
        unsafe { &**data_slot::<T>(self.0.get()) }
    }
}

/// Where the pointer to the data is.
///
/// # Safety
///
/// `sb` must be a super block of the type `T` that has its [`Info`].
unsafe fn data_slot<T: FileSystem>(sb: *mut bindings::super_block) -> *mut *mut T::Data {
    // SAFETY: By the safety requirement.
    unsafe { &raw mut (*(*sb).s_fs_info.cast::<Info<T>>()).data }
}

/// A super block that has nothing attached yet.
#[must_use]
pub struct New<'a, T: FileSystem> {
    sb: *mut bindings::super_block,
    source: Option<&'a CStr>,
    image: Option<KFile>,
    _life: PhantomData<(&'a (), T)>,
}

impl<'a, T: FileSystem> New<'a, T> {
    /// # Safety
    ///
    /// `sb` must be a new super block that is used by this task alone for the length of `'a`.
    pub(crate) unsafe fn from_raw(
        sb: *mut bindings::super_block,
        source: Option<&'a CStr>,
        image: Option<KFile>,
    ) -> Self {
        Self {
            sb,
            source,
            image,
            _life: PhantomData,
        }
    }

    /// What mount(2) calls the source.
    pub fn source(&self) -> Option<&'a CStr> {
        self.source
    }

    /// Whether the source is a block device.
    pub fn is_on_device(&self) -> bool {
        // SAFETY: By the constructor's promise the super block is ours.
        unsafe { !(*self.sb).s_bdev.is_null() }
    }

    /// The block device or image file that is mounted. [`EINVAL`] with [`Backing::Own`], and the
    /// second time.
    ///
    /// [`Backing::Own`]: crate::fs::Backing::Own
    pub fn image(&mut self) -> Result<KFile> {
        // SAFETY: By the constructor's promise the super block is ours. The file of its device, if
        // it has one, is open as long as it lives.
        let device = unsafe { (*self.sb).s_bdev_file.cast::<File>().as_ref() };
        match device {
            Some(file) => Ok(KFile::of_device(file)),
            None => self.image.take().ok_or(EINVAL),
        }
    }

    /// What all mounts of the file system share.
    pub fn context(&self) -> &'a T::Context {
        // SAFETY: The super block is of our type, and is gone before that is.
        unsafe { Registration::<T>::context(self.sb) }
    }

    /// Attaches the data. The volume is read-only, has times of nanoseconds, files up to the largest
    /// size that the kernel knows, and for now blocks of a page.
    pub fn attach(self, data: T::Data) -> Result<Filling<'a, T>> {
        let flags =
            usize::try_from(bindings::VFS_CONST_SB_RDONLY | bindings::VFS_CONST_SB_NOATIME)?;
        // Without a backing device of its own, a super block has no readahead. A block device has
        // one.
        // SAFETY: By the constructor's promise the super block is ours.
        unsafe {
            if (*self.sb).s_bdev.is_null() {
                to_result(bindings::super_setup_bdi(self.sb))?;
                (*(*self.sb).s_bdi).io_pages = READ_PAGES_MAX;
            }
        }
        let page_bits = u8::try_from(PAGE_SHIFT)?;
        let data = KBox::new(data, GFP_KERNEL)?;
        // SAFETY: By the constructor's promise the super block is ours.
        let sb = unsafe {
            *data_slot::<T>(self.sb) = KBox::into_raw(data);
            let sb = &mut *self.sb;
            sb.s_flags |= flags;
            if T::HAS_FIND_BY_HANDLE {
                sb.s_export_op = ptr::from_ref(&export::Table::<T>::OPS).cast();
            }
            if T::HAS_GET_XATTR {
                sb.s_xattr = xattr::Table::<T>::HANDLERS.as_ptr();
            }
            sb.s_maxbytes = i64::MAX;
            // Until the volume says otherwise; the inodes that it is read through need one.
            sb.s_blocksize_bits = page_bits;
            sb.s_blocksize = PAGE_SIZE;
            sb.s_time_gran = 1;
            if sb.s_bdev.is_null() {
                name_by_device(sb);
            }
            bindings::vfs_helper_super_set_sysfs_name_id(self.sb);
            // INVARIANT: The data was just attached.
            SuperBlock::from_raw(self.sb)
        };
        Ok(Filling { sb })
    }
}

/// A super block that is not on a block device is known by its number.
fn name_by_device(sb: &mut bindings::super_block) {
    let (major, minor) = (sb.s_dev >> 20, sb.s_dev & 0xf_ffff);
    let Ok(name) = CString::try_from_fmt(fmt!("{major}:{minor}")) else {
        return;
    };
    for (slot, byte) in sb.s_id.iter_mut().zip(name.to_bytes_with_nul()) {
        *slot = *byte;
    }
}

/// Pages that readahead asks for at once when somebody reads as much: 1 MiB. The default is one
/// readahead window, between which nothing is in flight.
const READ_PAGES_MAX: usize = (1 << 20) / PAGE_SIZE;

/// A super block with data but without a root, used by the task that mounts.
#[must_use]
pub struct Filling<'a, T: FileSystem> {
    sb: &'a SuperBlock<T>,
}

impl<T: FileSystem> Filling<'_, T> {
    /// Sets the UUID of the volume.
    pub fn set_uuid(&mut self, uuid: [u8; 16]) {
        // SAFETY: Nobody else uses the super block yet; a UUID has so many bytes.
        unsafe { bindings::vfs_helper_super_set_uuid(self.sb.as_raw(), uuid.as_ptr(), 16) };
    }

    /// What the volume is called in /sys: its device, or a number.
    pub fn sysfs_name(&self) -> &CStr {
        // SAFETY: The name was set when the data was attached, and ends with a NUL.
        unsafe { CStr::from_char_ptr((&raw const (*self.sb.as_raw()).s_sysfs_name).cast()) }
    }

    /// Access control lists are heeded.
    pub fn set_posix_acl(&mut self) -> Result {
        let flag = usize::try_from(bindings::VFS_CONST_SB_POSIXACL)?;
        // SAFETY: Nobody else uses the super block yet.
        unsafe { (*self.sb.as_raw()).s_flags |= flag };
        Ok(())
    }

    /// Sets the block size to `1 << bits` bytes.
    pub fn set_block_bits(&mut self, bits: u8) {
        // SAFETY: Nobody else uses the super block yet.
        unsafe {
            let sb = &mut *self.sb.as_raw();
            sb.s_blocksize_bits = bits;
            sb.s_blocksize = 1 << (bits & 31);
        }
    }
}

impl<T: FileSystem> Deref for Filling<'_, T> {
    type Target = SuperBlock<T>;

    fn deref(&self) -> &SuperBlock<T> {
        self.sb
    }
}

/// Whether the data is attached.
///
/// # Safety
///
/// `sb` must be a super block of the type `T`, used by this task alone.
pub(crate) unsafe fn has_data<T: FileSystem>(sb: *mut bindings::super_block) -> bool {
    // SAFETY: By the safety requirement.
    unsafe { !(*data_slot::<T>(sb)).is_null() }
}

/// Drops the data of a super block that has no inodes in use any more, if it has data.
///
/// # Safety
///
/// `sb` must be a super block of the type `T` that nobody uses the data of.
pub(crate) unsafe fn drop_data<T: FileSystem>(sb: *mut bindings::super_block) {
    // SAFETY: By the safety requirement. `New::attach` stored the box. The pointer stays until the
    // drop is over, because dropping inodes that the data holds may need it.
    unsafe {
        let slot = data_slot::<T>(sb);
        if !(*slot).is_null() {
            drop(KBox::from_raw(*slot));
            *slot = ptr::null_mut();
        }
    }
}

/// C callbacks of a super block.
pub(crate) struct Table<T>(PhantomData<T>);

impl<T: FileSystem> Table<T> {
    pub(crate) const OPS: bindings::super_operations = bindings::super_operations {
        alloc_inode: Some(Self::alloc_inode),
        free_inode: Some(Self::free_inode),
        put_super: Some(Self::put_super),
        // `kernel::bindings` has kstatfs as an opaque type; ours is the same type.
        // SAFETY: The two function types differ in the pointee's name only.
        statfs: Some(unsafe {
            mem::transmute::<
                unsafe extern "C" fn(*mut bindings::dentry, *mut bindings::kstatfs) -> ffi::c_int,
                unsafe extern "C" fn(
                    *mut bindings::dentry,
                    *mut kernel::bindings::kstatfs,
                ) -> ffi::c_int,
            >(Self::statfs)
        }),
        show_options: Some(Self::show_options),
        ..pin_init::zeroed()
    };

    /// # Safety
    ///
    /// Only for `super_operations::alloc_inode` of a super block of the type `T`.
    unsafe extern "C" fn alloc_inode(sb: *mut bindings::super_block) -> *mut bindings::inode {
        // SAFETY: The VFS gives a super block of our type.
        unsafe { Registration::<T>::inodes(sb).alloc(sb) }
    }

    /// # Safety
    ///
    /// Only for `super_operations::free_inode`, of an inode that [`Self::alloc_inode`] made.
    unsafe extern "C" fn free_inode(inode: *mut bindings::inode) {
        // SAFETY: The VFS frees an inode that `alloc_inode` gave it, once, after a grace period.
        // The super block may be gone by then, its type is not: the slab waits for the callbacks.
        unsafe { crate::inode::Cache::<T>::free(inode) };
    }

    /// # Safety
    ///
    /// Only for `super_operations::put_super` of a super block of the type `T`.
    unsafe extern "C" fn put_super(sb: *mut bindings::super_block) {
        // SAFETY: Called at the end of an unmount, when no inode is in use except those that the
        // data holds.
        unsafe { drop_data::<T>(sb) };
    }

    /// # Safety
    ///
    /// Only for `super_operations::statfs`: `dentry` is of a live super block of the type `T`.
    unsafe extern "C" fn statfs(
        dentry: *mut bindings::dentry,
        out: *mut bindings::kstatfs,
    ) -> ffi::c_int {
        // SAFETY: The VFS gives a dentry of a live super block.
        let statfs = T::statfs(unsafe { SuperBlock::from_raw((*dentry).d_sb) });
        // SAFETY: And room for the answer, zeroed.
        let out = unsafe { &mut *out };
        out.f_type = isize::try_from(T::MAGIC).unwrap_or(0);
        out.f_bsize = isize::try_from(statfs.block_size).unwrap_or(0);
        out.f_frsize = isize::try_from(statfs.block_size).unwrap_or(0);
        out.f_blocks = statfs.blocks;
        out.f_files = statfs.files;
        out.f_ffree = statfs.free_files;
        out.f_namelen = isize::try_from(statfs.name_len).unwrap_or(0);
        // SAFETY: As above.
        let id = unsafe {
            let sb = (*dentry).d_sb;
            match statfs.id {
                Some(id) => id,
                None if (*sb).s_bdev.is_null() => 0,
                None => bindings::vfs_helper_huge_encode_dev((*sb).s_dev),
            }
        };
        let [a, b, c, d, e, f, g, h] = id.to_le_bytes();
        out.f_fsid.val = [
            i32::from_le_bytes([a, b, c, d]),
            i32::from_le_bytes([e, f, g, h]),
        ];
        0
    }

    /// # Safety
    ///
    /// Only for `super_operations::show_options`: `dentry` is of a live super block of the type `T`.
    unsafe extern "C" fn show_options(
        seq: *mut bindings::seq_file,
        dentry: *mut bindings::dentry,
    ) -> ffi::c_int {
        // SAFETY: The VFS gives valid pointers, the dentry one of a live super block.
        let (sb, seq) = unsafe { (SuperBlock::from_raw((*dentry).d_sb), SeqFile::from_raw(seq)) };
        T::show_options(sb, seq);
        0
    }
}

impl<T: FileSystem> SuperBlock<T> {
    /// The super block of `inode`.
    pub(crate) fn of(inode: &INode<T>) -> &Self {
        // SAFETY: An inode outlives neither its super block nor, while it is in use, the data.
        unsafe { Self::from_raw((*inode.as_raw()).i_sb) }
    }
}
