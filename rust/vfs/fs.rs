// SPDX-License-Identifier: GPL-2.0

//! File system types: registration, mount options, super blocks coming and going.
//!
//! A mount runs through three states, which are three types. A [`super_block::New`] has nothing
//! yet; attaching the file system's data makes it a [`super_block::Filling`], whose inodes can be
//! read; returning the root inode makes it live, and from then on callbacks see it as a
//! [`SuperBlock`].
//!
//! C headers: [`include/linux/fs.h`](srctree/include/linux/fs.h),
//! [`include/linux/fs_context.h`](srctree/include/linux/fs_context.h)

use crate::{
    bindings,
    inode::{self, INode},
    super_block::{self, SuperBlock},
    xattr::{self, Namespace},
};
use core::{mem, ptr};
use kernel::{
    container_of,
    error::{to_result, VTABLE_DEFAULT_ERROR},
    ffi,
    module::this_module,
    prelude::*,
    seq_file::SeqFile,
    sync::aref::ARef,
    types::Opaque,
};

mod context;

use context::Context;

/// Where the bytes of a volume are.
#[derive(Debug)]
pub enum Backing<K> {
    /// Where the file system knows: mount(2)'s source is of no interest. A mount whose key equals
    /// that of a mounted volume is one more mount of that volume, with the same pages in memory.
    /// Without a key every mount is a volume of its own.
    Own(Option<K>),
    /// On the block device, or else in the image file, that mount(2)'s source names. The volume
    /// gets it by [`super_block::New::image`].
    Source,
}

/// A read-only file system.
#[vtable]
pub trait FileSystem: Sized + Send + Sync + 'static {
    /// Name for mount(2).
    const NAME: &'static CStr;

    /// Magic number that statfs(2) reports.
    const MAGIC: u32;

    /// What all mounts share.
    type Context: Send + Sync + 'static;

    /// Mount options as far as they are parsed.
    type Options: Default + Send + 'static;

    /// What belongs to a mounted volume. Dropped at unmount, in process context.
    type Data: Send + Sync + 'static;

    /// Tells volumes with [`Backing::Own`] apart. Compared under a spin lock.
    type Key: PartialEq + Send + Sync + 'static;

    /// What belongs to an inode. Dropped after an RCU grace period, in soft interrupt context: its
    /// destructor must not sleep.
    type INodeData: Send + Sync + 'static;

    /// Takes one mount option; `value` is none for a flag. [`ENOPARAM`] for a name that is not
    /// known, [`EINVAL`] for a bad value. May sleep. Without this there are no options.
    fn parse_option(_options: &mut Self::Options, _name: &CStr, _value: Option<&CStr>) -> Result {
        Err(ENOPARAM)
    }

    /// The options that a volume has from now on, which remount(2) gave: what is not among them is
    /// as by default. May sleep. [`EINVAL`], and nothing changes, if one of them cannot change.
    /// Without this a remount takes options, and changes nothing.
    fn reconfigure(_sb: &SuperBlock<Self>, _options: Self::Options) -> Result<Reconfigured> {
        kernel::build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Where the bytes of a volume with these options are. What has to be opened to tell can be left
    /// with the options, for [`FileSystem::fill_super`]; that is not called for one more mount of a
    /// volume. May sleep. [`EINVAL`] for options that do not go together.
    ///
    /// Without this they are the file system's own, every mount is a volume, and the type needs no
    /// device.
    fn backing(
        _context: &Self::Context,
        _options: &mut Self::Options,
    ) -> Result<Backing<Self::Key>> {
        Ok(Backing::Own(None))
    }

    /// Mounts: attaches the data to the super block and returns the root directory. May sleep.
    fn fill_super<'a>(
        sb: super_block::New<'a, Self>,
        options: Self::Options,
    ) -> Result<(super_block::Filling<'a, Self>, ARef<INode<Self>>)>;

    /// The last user of the mount is gone, or it failed, and the inodes are about to go: what they still wait for
    /// should be given up, because nobody can be told to stop waiting from here on. May sleep.
    fn unmount(_sb: &SuperBlock<Self>) {}

    /// The numbers for statfs(2).
    fn statfs(sb: &SuperBlock<Self>) -> Statfs;

    /// The value of an extended attribute: fills the room that [`xattr::Value::room`] gives, and
    /// returns the length in bytes. `name` is what follows the prefix of the name space; nothing
    /// does with those of access control lists. May sleep.
    ///
    /// [`ENODATA`] when there is no such attribute, [`EOPNOTSUPP`] when there can be none.
    fn get_xattr(
        _inode: &INode<Self>,
        _namespace: Namespace,
        _name: &[u8],
        _value: xattr::Value<'_>,
    ) -> Result<usize> {
        kernel::build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Adds the whole names of the extended attributes, those that
    /// [`Namespace::is_listed`]. May sleep.
    fn list_xattrs(_inode: &INode<Self>, _names: &mut xattr::Names<'_>) -> Result {
        kernel::build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// What a file handle has for an inode: a number that [`FileSystem::find_by_handle`] finds it by
    /// as long as the volume is the same.
    fn handle(_inode: &INode<Self>) -> u64 {
        kernel::build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// The inode that a file handle names, which may hold any number. May sleep. Without this there
    /// are no file handles.
    fn find_by_handle(_sb: &SuperBlock<Self>, _handle: u64) -> Result<ARef<INode<Self>>> {
        kernel::build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// The directory that a directory is in. May sleep. For file handles.
    fn parent(_dir: &INode<Self>) -> Result<ARef<INode<Self>>> {
        kernel::build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// The volume's label, without a NUL. Without this `FS_IOC_GETFSLABEL` is not known.
    fn label(_sb: &SuperBlock<Self>) -> &[u8] {
        kernel::build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Writes the mount options as /proc/mounts shows them, see [`show_option`]. May sleep.
    fn show_options(_sb: &SuperBlock<Self>, _seq: &SeqFile) {}
}

/// What remount(2) changed for the VFS.
#[derive(Clone, Copy, Debug)]
pub struct Reconfigured {
    /// Whether access control lists are heeded.
    pub posix_acl: bool,
}

/// What statfs(2) reports of a read-only volume.
#[derive(Clone, Copy, Debug, Default)]
pub struct Statfs {
    /// Block size in bytes.
    pub block_size: u32,
    /// Size in blocks.
    pub blocks: u64,
    /// Number of inodes.
    pub files: u64,
    /// Longest file name in bytes.
    pub name_len: u32,
    /// Identifies the volume. Without one, the number of the block device does, if there is one.
    pub id: Option<u64>,
    /// How many of the inodes are free.
    pub free_files: u64,
}

/// Writes `,name=value` with the characters escaped that /proc/mounts uses itself.
pub fn show_option(seq: &SeqFile, name: &CStr, value: &CStr) {
    // SAFETY: `SeqFile` is a transparent wrapper of a `struct seq_file`; the strings are
    // NUL-terminated.
    unsafe {
        bindings::vfs_helper_seq_show_option(
            ptr::from_ref(seq).cast_mut().cast(),
            name.as_char_ptr(),
            value.as_char_ptr(),
        )
    }
}

/// A registered file system type together with the slab of its inodes.
///
/// Must live in a module: the type names it as its owner, so that it stays while there are mounts.
#[pin_data(PinnedDrop)]
pub struct Registration<T: FileSystem> {
    #[pin]
    fs: Opaque<bindings::file_system_type>,
    inodes: inode::Cache<T>,
    context: T::Context,
}

// SAFETY: Registering and unregistering may be done by any task.
unsafe impl<T: FileSystem> Send for Registration<T> {}
// SAFETY: A shared registration gives access to the slab, which has its own locks, and to the
// context, which is `Sync`.
unsafe impl<T: FileSystem> Sync for Registration<T> {}

impl<T: FileSystem> Registration<T> {
    const FLAGS: u32 = match T::HAS_BACKING {
        true => bindings::FS_ALLOW_IDMAP | bindings::FS_REQUIRES_DEV,
        false => bindings::FS_ALLOW_IDMAP,
    };

    /// Registers the type; [`EBUSY`] when its name is taken. May sleep.
    pub fn new(context: T::Context) -> impl PinInit<Self, Error> {
        try_pin_init!(Self {
            context,
            inodes: inode::Cache::new()?,
            fs <- Opaque::try_ffi_init(|slot: *mut bindings::file_system_type| {
                let fs = bindings::file_system_type {
                    name: T::NAME.as_char_ptr(),
                    owner: this_module::<T::OwnerModule>().as_ptr(),
                    // `kernel::bindings` has the context as an opaque type; ours is the same type.
                    // SAFETY: The two function types differ in the pointee's name only.
                    init_fs_context: Some(unsafe {
                        mem::transmute::<
                            unsafe extern "C" fn(*mut bindings::fs_context) -> ffi::c_int,
                            unsafe extern "C" fn(*mut kernel::bindings::fs_context) -> ffi::c_int,
                        >(Context::<T>::init)
                    }),
                    kill_sb: Some(Self::kill_sb),
                    fs_flags: crate::int(Self::FLAGS),
                    ..pin_init::zeroed()
                };
                // SAFETY: `slot` points at memory for the type, which stays in place because the
                // registration is pinned, and is unregistered before it goes.
                to_result(unsafe {
                    slot.write(fs);
                    bindings::register_filesystem(slot)
                })
            }),
        }? Error)
    }

    /// The registration that has the C type `fs`.
    ///
    /// # Safety
    ///
    /// `fs` must be the type that a live registration of `T` has registered.
    unsafe fn of_type<'a>(fs: *mut bindings::file_system_type) -> &'a Self {
        let fs = Opaque::cast_from(fs);
        // SAFETY: The caller's promise.
        unsafe { &*container_of!(fs, Self, fs) }
    }

    /// The registration of the type of `sb`.
    ///
    /// # Safety
    ///
    /// `sb` must be a valid super block of the type `T`.
    unsafe fn of<'a>(sb: *mut bindings::super_block) -> &'a Self {
        // SAFETY: The super block's type is the one in a registration of `T`, which outlives it.
        unsafe { Self::of_type((*sb).s_type) }
    }

    /// # Safety
    ///
    /// Only for `file_system_type::kill_sb` of a super block of the type `T`.
    unsafe extern "C" fn kill_sb(sb: *mut bindings::super_block) {
        // SAFETY: By the safety requirement. A super block with a root has its data attached. Once
        // it is killed no mount compares its key any more.
        unsafe {
            if !(*sb).s_root.is_null() {
                T::unmount(SuperBlock::from_raw(sb));
            }
            let info = (*sb).s_fs_info;
            match (*sb).s_bdev.is_null() {
                true => bindings::kill_anon_super(sb),
                false => bindings::kill_block_super(sb),
            }
            super_block::Info::<T>::free(info);
        }
    }

    /// The slab that the inodes of `sb` come from.
    ///
    /// # Safety
    ///
    /// `sb` must be a valid super block of the type `T`.
    pub(crate) unsafe fn inodes<'a>(sb: *mut bindings::super_block) -> &'a inode::Cache<T> {
        // SAFETY: The caller's promise.
        &unsafe { Self::of(sb) }.inodes
    }

    /// What all mounts of the type of `sb` share.
    ///
    /// # Safety
    ///
    /// `sb` must be a valid super block of the type `T`.
    pub(crate) unsafe fn context<'a>(sb: *mut bindings::super_block) -> &'a T::Context {
        // SAFETY: The caller's promise.
        &unsafe { Self::of(sb) }.context
    }
}

#[pinned_drop]
impl<T: FileSystem> PinnedDrop for Registration<T> {
    fn drop(self: Pin<&mut Self>) {
        // SAFETY: Registered in `new`. There are no mounts, since they pin the module. The slab is
        // dropped after this, with the fields.
        unsafe { bindings::unregister_filesystem(self.fs.get()) };
    }
}
