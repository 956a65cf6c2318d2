// SPDX-License-Identifier: GPL-2.0

//! Inodes, with data of the file system's own in the same allocation.
//!
//! An inode that is not filled in yet is a [`New`]; only [`New::init`], which consumes it, makes an
//! [`INode`]. A `New` that is dropped becomes a bad inode, which nobody gets.
//!
//! C header: [`include/linux/fs.h`](srctree/include/linux/fs.h)

use crate::{bindings, dir, fs::FileSystem, if_some, iomap, super_block::SuperBlock, xattr};
use core::{
    cell::UnsafeCell,
    marker::PhantomData,
    mem::{offset_of, ManuallyDrop},
    ptr::{self, NonNull},
};
use kernel::{
    ffi,
    prelude::*,
    sync::aref::{ARef, AlwaysRefCounted},
    types::Opaque,
};

/// An inode that is filled in.
///
/// # Invariants
///
/// It lies in a `Slot<T>` whose `own` is set.
#[repr(transparent)]
pub struct INode<T: FileSystem>(Opaque<bindings::inode>, PhantomData<T>);

/// An inode and what belongs to it.
#[repr(C)]
struct Slot<T: FileSystem> {
    inode: Opaque<bindings::inode>,
    // None until the inode is filled in.
    own: UnsafeCell<Option<Own<T>>>,
}

struct Own<T: FileSystem> {
    data: T::INodeData,
    // Target of a symlink with its NUL, which `i_link` points to.
    _link: KVec<u8>,
}

// SAFETY: Inodes are shared between tasks; `T::INodeData` is `Send` and `Sync`.
unsafe impl<T: FileSystem> Send for INode<T> {}
// SAFETY: As above.
unsafe impl<T: FileSystem> Sync for INode<T> {}

// SAFETY: `ihold` and `iput` count references.
unsafe impl<T: FileSystem> AlwaysRefCounted for INode<T> {
    fn inc_ref(&self) {
        // SAFETY: A reference to the inode means that its count is not zero.
        unsafe { bindings::ihold(self.as_raw()) };
    }

    unsafe fn dec_ref(obj: NonNull<Self>) {
        // SAFETY: The caller owns a reference.
        unsafe { bindings::iput(obj.as_ptr().cast()) };
    }
}

impl<T: FileSystem> INode<T> {
    /// # Safety
    ///
    /// `inode` must be an inode of the type `T` that is filled in, and outlive `'a`.
    pub(crate) unsafe fn from_raw<'a>(inode: *mut bindings::inode) -> &'a Self {
        // SAFETY: The type is transparent; the rest is the caller's promise.
        unsafe { &*inode.cast() }
    }

    pub(crate) fn as_raw(&self) -> *mut bindings::inode {
        self.0.get()
    }

    /// What the file system attached.
    pub fn data(&self) -> &T::INodeData {
        // SAFETY: By the invariants the inode lies in a slot whose `own` is set, and that does not
        // change until the inode is freed.
        let own = unsafe { &*(*self.as_raw().cast::<Slot<T>>()).own.get() };
        match own {
            Some(own) => &own.data,
            // SAFETY: By the invariants.
            None => unsafe { core::hint::unreachable_unchecked() },
        }
    }

    /// The super block.
    pub fn super_block(&self) -> &SuperBlock<T> {
        SuperBlock::of(self)
    }

    /// Size in bytes.
    pub fn size(&self) -> u64 {
        // SAFETY: The inode is valid.
        let size = unsafe { bindings::vfs_helper_i_size_read(self.as_raw()) };
        u64::try_from(size).unwrap_or(0)
    }
}

/// What an inode does, by its type.
pub enum Kind<T: FileSystem> {
    /// Regular file, or an internal inode that caches a device's bytes.
    File(iomap::Table<T>),
    /// Directory.
    Directory(dir::Table<T>),
    /// Symlink with its target, without a NUL.
    Symlink(KVec<u8>),
    /// Device node (with its number as `new_encode_dev` has it), FIFO or socket.
    Special(u32),
}

/// What stat(2) shows of an inode, and what it does.
pub struct Params<T: FileSystem> {
    /// Type and permissions, as in `st_mode`.
    pub mode: u16,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Number of links.
    pub nlink: u32,
    /// Size in bytes, at most `i64::MAX`.
    pub size: u64,
    /// Space taken, in units of 512 bytes.
    pub sectors: u64,
    /// Modification time: seconds and nanoseconds. The other times are set to it.
    pub mtime: (i64, u32),
    /// Type-specific part; must fit `mode`.
    pub kind: Kind<T>,
    /// The file system's own.
    pub data: T::INodeData,
}

/// An inode that only this task can see.
///
/// # Invariants
///
/// We own one reference, and nobody else accesses the inode. When `hashed` it is locked as new.
#[must_use]
pub struct New<T: FileSystem> {
    inode: NonNull<bindings::inode>,
    hashed: bool,
    _fs: PhantomData<T>,
}

/// What looking for an inode by its number gives.
pub enum Found<T: FileSystem> {
    /// It is in memory.
    Ready(ARef<INode<T>>),
    /// It is new and must be filled in.
    New(New<T>),
}

/// Finds the inode `ino` in memory or makes a new one. May sleep.
pub fn get<T: FileSystem>(sb: &SuperBlock<T>, ino: u64) -> Result<Found<T>> {
    // SAFETY: The super block is valid.
    let inode = unsafe { bindings::iget_locked(sb.as_raw(), ino) };
    let inode = NonNull::new(inode).ok_or(ENOMEM)?;
    // SAFETY: The inode is valid; if it is new it is locked by us.
    if unsafe { bindings::vfs_helper_inode_is_new(inode.as_ptr()) } {
        // INVARIANT: A new inode was returned to us alone, locked.
        return Ok(Found::New(New {
            inode,
            hashed: true,
            _fs: PhantomData,
        }));
    }
    // SAFETY: `iget_locked` waits until the inode is filled in, or fails; the reference that it
    // returned is ours.
    Ok(Found::Ready(unsafe { ARef::from_raw(inode.cast()) }))
}

/// Makes an inode that has no number and cannot be looked up. Its bytes may be read while those of
/// another inode are, to find out where the latter are; not the other way round. May sleep.
pub fn new_internal<T: FileSystem>(sb: &SuperBlock<T>) -> Result<New<T>> {
    // SAFETY: The super block is valid.
    let inode = unsafe { bindings::new_inode(sb.as_raw()) };
    let inode = NonNull::new(inode).ok_or(ENOMEM)?;
    // SAFETY: The inode is new and nobody has its locks.
    unsafe { bindings::vfs_helper_inode_nest_below(inode.as_ptr()) };
    // INVARIANT: A new inode was returned to us alone.
    Ok(New {
        inode,
        hashed: false,
        _fs: PhantomData,
    })
}

impl<T: FileSystem> New<T> {
    /// Fills the inode in and lets others see it.
    ///
    /// [`EINVAL`] when the size does not fit, or `kind` does not fit `mode`.
    pub fn init(self, params: Params<T>) -> Result<ARef<INode<T>>> {
        let size = i64::try_from(params.size).map_err(|_| EINVAL)?;
        let mut link = KVec::new();
        let raw = self.inode.as_ptr();
        // SAFETY: By the invariants nobody else accesses the inode.
        let inode = unsafe { &mut *raw };
        inode.i_mode = params.mode;
        inode.i_blocks = params.sectors;
        let format = u32::from(params.mode) & bindings::S_IFMT;
        // SAFETY: As above; the tables are static, and the link is kept with the inode.
        unsafe {
            match params.kind {
                Kind::File(table) if format == bindings::S_IFREG => {
                    inode.i_op = table.inode_operations();
                    inode.__bindgen_anon_3.i_fop = table.file_operations();
                    (*inode.i_mapping).a_ops = table.address_space_operations();
                    bindings::vfs_helper_mapping_set_large_folios(inode.i_mapping);
                }
                Kind::Directory(table) if format == bindings::S_IFDIR => {
                    inode.i_op = table.inode_operations();
                    inode.__bindgen_anon_3.i_fop = table.file_operations();
                }
                Kind::Symlink(mut target) if format == bindings::S_IFLNK => {
                    target.push(0, GFP_KERNEL)?;
                    inode.i_op = &Callbacks::<T>::SYMLINK;
                    inode.__bindgen_anon_5.i_link = target.as_mut_ptr().cast();
                    link = target;
                }
                Kind::Special(rdev)
                    if matches!(
                        format,
                        bindings::S_IFCHR
                            | bindings::S_IFBLK
                            | bindings::S_IFIFO
                            | bindings::S_IFSOCK
                    ) =>
                {
                    inode.i_op = &Callbacks::<T>::OTHER;
                    bindings::init_special_inode(raw, params.mode, decode_dev(rdev));
                }
                _ => return Err(EINVAL),
            }
            bindings::vfs_helper_i_uid_write(raw, params.uid);
            bindings::vfs_helper_i_gid_write(raw, params.gid);
            bindings::set_nlink(raw, params.nlink);
            bindings::vfs_helper_i_size_write(raw, size);
            bindings::vfs_helper_inode_set_times(raw, params.mtime.0, params.mtime.1);
            *(*raw.cast::<Slot<T>>()).own.get() = Some(Own {
                data: params.data,
                _link: link,
            });
            if self.hashed {
                bindings::unlock_new_inode(raw);
            }
        }
        // The reference moves from `New` to the caller.
        let this = ManuallyDrop::new(self);
        // SAFETY: We own a reference.
        // INVARIANT: `own` was set above.
        Ok(unsafe { ARef::from_raw(this.inode.cast()) })
    }
}

impl<T: FileSystem> Drop for New<T> {
    fn drop(&mut self) {
        // SAFETY: By the invariants we own a reference, and a hashed inode is locked as new.
        unsafe {
            match self.hashed {
                true => bindings::iget_failed(self.inode.as_ptr()),
                false => bindings::iput(self.inode.as_ptr()),
            }
        }
    }
}

/// C callbacks of inodes.
pub(crate) struct Callbacks<T>(PhantomData<T>);

impl<T: FileSystem> Callbacks<T> {
    /// For device nodes and the like; the others have this and more.
    pub(crate) const OTHER: bindings::inode_operations = bindings::inode_operations {
        getattr: Some(Self::getattr),
        listxattr: if_some(T::HAS_LIST_XATTRS, xattr::Table::<T>::list),
        get_inode_acl: if_some(T::HAS_GET_XATTR, xattr::Table::<T>::acl),
        ..pin_init::zeroed()
    };

    const SYMLINK: bindings::inode_operations = bindings::inode_operations {
        get_link: Some(bindings::simple_get_link),
        ..Self::OTHER
    };

    /// No file can be changed, and none is compressed.
    ///
    /// # Safety
    ///
    /// Only for `inode_operations::getattr` of an inode of this file system.
    unsafe extern "C" fn getattr(
        idmap: *mut bindings::mnt_idmap,
        path: *const bindings::path,
        stat: *mut bindings::kstat,
        request: bindings::u32_,
        _: ffi::c_uint,
    ) -> ffi::c_int {
        // SAFETY: The VFS gives an inode of ours and room for the answer.
        unsafe {
            bindings::generic_fillattr(idmap, request, (*(*path).dentry).d_inode, stat);
            let immutable = u64::from(bindings::STATX_ATTR_IMMUTABLE);
            let compressed = u64::from(bindings::STATX_ATTR_COMPRESSED);
            (*stat).attributes |= immutable;
            (*stat).attributes_mask |= immutable | compressed;
            // That there are no direct reads is told by alignments of zero.
            let direct = request & bindings::STATX_DIOALIGN;
            if u32::from((*stat).mode) & bindings::S_IFMT == bindings::S_IFREG && direct != 0 {
                (*stat).result_mask |= direct;
                let device = (*(*(*(*path).dentry).d_inode).i_sb).s_bdev;
                if !device.is_null() {
                    (*stat).dio_mem_align = bindings::vfs_helper_bdev_memory_alignment(device);
                    (*stat).dio_offset_align = bindings::vfs_helper_bdev_block_size(device);
                }
            }
        }
        0
    }
}

/// `new_decode_dev` of include/linux/kdev_t.h: the disk has 12 bits of major and 20 of minor.
const fn decode_dev(dev: u32) -> u32 {
    let major = (dev & 0xfff00) >> 8;
    let minor = (dev & 0xff) | ((dev >> 12) & 0xfff00);
    (major << 20) | minor
}

/// The slab that the inodes of a file system come from.
///
/// # Invariants
///
/// The pointer is a slab cache for objects of the size of a [`Slot<T>`].
pub(crate) struct Cache<T: FileSystem> {
    slab: NonNull<bindings::kmem_cache>,
    _fs: PhantomData<T>,
}

impl<T: FileSystem> Cache<T> {
    pub(crate) fn new() -> Result<Self> {
        // The C part comes first, so that a pointer to one is a pointer to the other.
        const { assert!(offset_of!(Slot<T>, inode) == 0) };
        let size = u32::try_from(size_of::<Slot<T>>()).map_err(|_| EINVAL)?;
        let align = u32::try_from(align_of::<Slot<T>>()).map_err(|_| EINVAL)?;
        // SAFETY: The name is static; the constructor initialises what it is given.
        let slab = unsafe {
            bindings::vfs_helper_inode_cache_create(
                T::NAME.as_char_ptr(),
                size,
                align,
                Some(construct),
            )
        };
        // INVARIANT: Just made for slots.
        Ok(Self {
            slab: NonNull::new(slab).ok_or(ENOMEM)?,
            _fs: PhantomData,
        })
    }

    /// Allocates an inode for `sb`, or returns null.
    ///
    /// # Safety
    ///
    /// `sb` must be a valid super block of the type `T`.
    pub(crate) unsafe fn alloc(&self, sb: *mut bindings::super_block) -> *mut bindings::inode {
        // SAFETY: Both are valid.
        let inode = unsafe { bindings::vfs_helper_alloc_inode_sb(sb, self.slab.as_ptr()) };
        if !inode.is_null() {
            // SAFETY: The object is as large as a slot, and `own` is not initialised yet.
            unsafe { ptr::write((*inode.cast::<Slot<T>>()).own.get(), None) };
        }
        inode
    }

    /// Frees an inode; called after the grace period that RCU path walks ask for.
    ///
    /// # Safety
    ///
    /// `inode` must come from [`Self::alloc`] and not be used any more.
    pub(crate) unsafe fn free(inode: *mut bindings::inode) {
        // SAFETY: `own` was initialised by `alloc`. A null cache lets the slab allocator find the
        // one that the object is from; the type's registration may be hard to reach from here.
        unsafe {
            ptr::drop_in_place((*inode.cast::<Slot<T>>()).own.get());
            bindings::kfree(inode.cast());
        }
    }
}

impl<T: FileSystem> Drop for Cache<T> {
    fn drop(&mut self) {
        // SAFETY: No inode is in use any more; some may wait for their grace period, which
        // `rcu_barrier` waits for.
        unsafe {
            bindings::rcu_barrier();
            bindings::kmem_cache_destroy(self.slab.as_ptr());
        }
    }
}

/// Slab constructor: the C part is initialised once in the life of the memory.
///
/// # Safety
///
/// `inode` must point at memory for a slot that is not in use.
unsafe extern "C" fn construct(inode: *mut ffi::c_void) {
    // SAFETY: The slab calls this with memory for a slot, which starts with the inode.
    unsafe { bindings::inode_init_once(inode.cast()) };
}
