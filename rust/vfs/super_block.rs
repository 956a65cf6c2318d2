// SPDX-License-Identifier: GPL-2.0

//! Super blocks in their states.
//!
//! C header: [`include/linux/fs/super_types.h`](srctree/include/linux/fs/super_types.h)

use crate::{
    bindings,
    fs::{FileSystem, Registration},
    inode::INode,
};
use core::{marker::PhantomData, mem, ops::Deref, ptr};
use kernel::{
    error::to_result,
    ffi,
    page::{PAGE_SHIFT, PAGE_SIZE},
    prelude::*,
    seq_file::SeqFile,
    sync::Arc,
    types::Opaque,
};

/// A super block with the file system's data attached.
///
/// # Invariants
///
/// `s_fs_info` is a `KBox<T::Data>`, which is dropped after the last inode is unused.
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
        unsafe { &*(*self.0.get()).s_fs_info.cast::<T::Data>() }
    }
}

/// A super block that has nothing attached yet.
#[must_use]
pub struct New<'a, T: FileSystem>(*mut bindings::super_block, PhantomData<(&'a (), T)>);

impl<'a, T: FileSystem> New<'a, T> {
    /// # Safety
    ///
    /// `sb` must be a new super block that is used by this task alone for the length of `'a`.
    pub(crate) unsafe fn from_raw(sb: *mut bindings::super_block) -> Self {
        Self(sb, PhantomData)
    }

    /// What all mounts of the file system share.
    pub fn context(&self) -> &Arc<T::Context> {
        // SAFETY: The super block is of our type.
        unsafe { Registration::<T>::context(self.0) }
    }

    /// Attaches the data. The volume is read-only, has times of nanoseconds, files up to the largest
    /// size that the kernel knows, and for now blocks of a page.
    pub fn attach(self, data: T::Data) -> Result<Filling<'a, T>> {
        let rdonly = usize::try_from(bindings::VFS_CONST_SB_RDONLY)?;
        // Without a backing device of its own, a super block has no readahead.
        // SAFETY: By the constructor's promise the super block is ours.
        to_result(unsafe { bindings::super_setup_bdi(self.0) })?;
        // SAFETY: As above, and the device was just made.
        unsafe { (*(*self.0).s_bdi).io_pages = READ_PAGES_MAX };
        let page_bits = u8::try_from(PAGE_SHIFT)?;
        let data = KBox::new(data, GFP_KERNEL)?;
        // SAFETY: By the constructor's promise the super block is ours.
        let sb = unsafe {
            let sb = &mut *self.0;
            sb.s_fs_info = KBox::into_raw(data).cast();
            sb.s_flags |= rdonly;
            sb.s_maxbytes = i64::MAX;
            // Until the volume says otherwise; the inodes that it is read through need one.
            sb.s_blocksize_bits = page_bits;
            sb.s_blocksize = PAGE_SIZE;
            sb.s_time_gran = 1;
            // INVARIANT: The data was just attached.
            SuperBlock::from_raw(self.0)
        };
        Ok(Filling { sb })
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

/// Drops the data of a super block that has no inodes in use any more, if it has data.
///
/// # Safety
///
/// `sb` must be a super block of the type `T` that nobody uses the data of.
pub(crate) unsafe fn drop_data<T: FileSystem>(sb: *mut bindings::super_block) {
    // SAFETY: By the safety requirement.
    let data = unsafe { (*sb).s_fs_info };
    if !data.is_null() {
        // SAFETY: `New::attach` stored the box. The pointer stays until the drop is over, because
        // dropping inodes that the data holds may need it.
        unsafe {
            let data = KBox::from_raw(data.cast::<T::Data>());
            drop(data);
            (*sb).s_fs_info = ptr::null_mut();
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
        out.f_namelen = isize::try_from(statfs.name_len).unwrap_or(0);
        let [a, b, c, d, e, f, g, h] = statfs.id.to_le_bytes();
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
