// SPDX-License-Identifier: GPL-2.0

//! The way of a mount: its options one by one, then its source, then the super block; and remounts.
//!
//! C header: [`include/linux/fs_context.h`](srctree/include/linux/fs_context.h)

use super::{Backing, FileSystem, Registration};
use crate::{
    bindings,
    kfile::KFile,
    super_block::{self, Info, SuperBlock},
    to_errno,
};
use core::{marker::PhantomData, mem, ptr};
use kernel::{
    error::{from_err_ptr, from_result, to_result},
    ffi,
    fs::File,
    prelude::*,
    sync::aref::ARef,
};

/// C callbacks of a `struct fs_context` for the file system `T`, whose `fs_private` owns a
/// `KBox<Private<T>>`.
pub(super) struct Context<T>(PhantomData<T>);

struct Private<T: FileSystem> {
    options: T::Options,
    /// The image file, if the source is one.
    image: Option<KFile>,
}

/// Longest path of an image file that /proc/mounts shows, with its NUL (`PATH_MAX`).
const PATH_MAX: usize = 4096;

impl<T: FileSystem> Context<T> {
    const OPS: bindings::fs_context_operations = bindings::fs_context_operations {
        free: Some(Self::free),
        parse_param: Some(Self::parse_param),
        get_tree: Some(Self::get_tree),
        reconfigure: Some(Self::reconfigure),
        ..pin_init::zeroed()
    };

    /// # Safety
    ///
    /// Only for `file_system_type::init_fs_context`: `fc` is valid and not in use yet.
    pub(super) unsafe extern "C" fn init(fc: *mut bindings::fs_context) -> ffi::c_int {
        from_result(|| {
            let private = Private::<T> {
                options: T::Options::default(),
                image: None,
            };
            let private = KBox::new(private, GFP_KERNEL)?;
            // SAFETY: By the safety requirement.
            unsafe {
                (*fc).fs_private = KBox::into_raw(private).cast();
                (*fc).ops = &Self::OPS;
            }
            Ok(0)
        })
    }

    /// # Safety
    ///
    /// `fc` must have been set up by [`Self::init`] and be used by this task alone.
    unsafe fn private<'a>(fc: *mut bindings::fs_context) -> &'a mut Private<T> {
        // SAFETY: `init` stored it there; the VFS serialises all use of a context.
        unsafe { &mut *(*fc).fs_private.cast::<Private<T>>() }
    }

    /// # Safety
    ///
    /// Only for `fs_context_operations::free`, after [`Self::init`].
    unsafe extern "C" fn free(fc: *mut bindings::fs_context) {
        // SAFETY: The VFS frees a context once; `init` stored the box there. What is still here of
        // a super block did not become one.
        unsafe {
            drop(KBox::from_raw((*fc).fs_private.cast::<Private<T>>()));
            Info::<T>::free((*fc).s_fs_info);
        }
    }

    /// # Safety
    ///
    /// Only for `fs_context_operations::parse_param`: both are valid and used by this task alone.
    unsafe extern "C" fn parse_param(
        fc: *mut bindings::fs_context,
        param: *mut bindings::fs_parameter,
    ) -> ffi::c_int {
        from_result(|| {
            // SAFETY: The VFS gives valid pointers, and a NUL-terminated key.
            let (fc, private, param) = unsafe { (&mut *fc, Self::private(fc), &*param) };
            // SAFETY: As above.
            let name = unsafe { CStr::from_char_ptr(param.key) };
            if name == c"source" && param.type_() == bindings::fs_value_type_fs_value_is_file {
                // SAFETY: The type says which member of the union it is; the caller keeps the file
                // open.
                let file = unsafe { param.__bindgen_anon_1.file.cast::<File>().as_ref() };
                Self::take_source(fc, private, file.ok_or(EINVAL)?)?;
                return Ok(0);
            }
            let value = match param.type_() {
                bindings::fs_value_type_fs_value_is_string => {
                    // SAFETY: The type says which member of the union it is.
                    let string = unsafe { param.__bindgen_anon_1.string };
                    // SAFETY: A string value is NUL-terminated and lives as long as the parameter.
                    (!string.is_null()).then(|| unsafe { CStr::from_char_ptr(string) })
                }
                bindings::fs_value_type_fs_value_is_flag => None,
                _ => return Err(ENOPARAM),
            };
            T::parse_option(&mut private.options, name, value)?;
            Ok(0)
        })
    }

    /// The source is an open file: the image file, which is shown with its path.
    fn take_source(fc: &mut bindings::fs_context, private: &mut Private<T>, file: &File) -> Result {
        if !fc.source.is_null() {
            pr_err!("a second source was given\n");
            return Err(EINVAL);
        }
        let mut room = crate::zeroed(PATH_MAX)?;
        // SAFETY: The file is open, and the room is as long as said.
        let path = from_err_ptr(unsafe {
            bindings::file_path(
                ptr::from_ref(file).cast_mut().cast(),
                room.as_mut_ptr().cast(),
                ffi::c_int::try_from(room.len())?,
            )
        })?;
        // SAFETY: The path is in the room, with a NUL behind it. The context frees its source.
        fc.source = unsafe { bindings::kstrdup(path, bindings::GFP_KERNEL) };
        if fc.source.is_null() {
            return Err(ENOMEM);
        }
        private.image = Some(KFile::of_image(file));
        Ok(())
    }

    /// # Safety
    ///
    /// Only for `fs_context_operations::get_tree`: `fc` is valid and used by this task alone.
    unsafe extern "C" fn get_tree(fc: *mut bindings::fs_context) -> ffi::c_int {
        from_result(|| {
            // SAFETY: By the safety requirement. The type is registered as long as it has contexts.
            let (private, shared) = unsafe {
                let shared = Registration::<T>::of_type((*fc).fs_type);
                (Self::private(fc), &shared.context)
            };
            let backing = T::backing(shared, &mut private.options)?;
            let (key, from_source) = match backing {
                Backing::Own(key) => (key, false),
                Backing::Source => (None, true),
            };
            let info = Info::<T>::for_context(key)?;
            // SAFETY: By the safety requirement. A second try has what the first one left.
            unsafe {
                Info::<T>::free((*fc).s_fs_info);
                (*fc).s_fs_info = info;
                match from_source {
                    true => Self::get_tree_of_source(fc, private),
                    false => Self::get_tree_of_own(fc, private),
                }
            }
        })
    }

    /// # Safety
    ///
    /// As for [`Self::get_tree`], of which this is the part for [`Backing::Own`].
    unsafe fn get_tree_of_own(
        fc: *mut bindings::fs_context,
        private: &mut Private<T>,
    ) -> Result<ffi::c_int> {
        private.image = None;
        // SAFETY: The context has an `Info`, which a new super block takes over. What is returned is
        // locked and active: new, or mounted already, with a root.
        unsafe {
            let (same, set) = (Self::same_volume, bindings::set_anon_super_fc);
            let sb = bindings::sget_fc(fc, Some(same), Some(set));
            let sb = from_err_ptr(sb)?;
            if (*sb).s_root.is_null() {
                if let Err(e) = to_result(Self::fill_super(sb, fc)) {
                    bindings::deactivate_locked_super(sb);
                    return Err(e);
                }
                (*sb).s_flags |= usize::try_from(bindings::VFS_CONST_SB_ACTIVE)?;
            }
            // What was opened for one more mount is not needed.
            drop(mem::take(&mut private.options));
            (*fc).root = bindings::vfs_helper_dget((*sb).s_root);
        }
        Ok(0)
    }

    /// # Safety
    ///
    /// Only for `sget_fc`, which keeps `sb` from being freed; both are of the type `T` and have
    /// their [`Info`].
    unsafe extern "C" fn same_volume(
        sb: *mut bindings::super_block,
        fc: *mut bindings::fs_context,
    ) -> ffi::c_int {
        // SAFETY: By the safety requirement.
        unsafe { Info::<T>::same_volume((*sb).s_fs_info, (*fc).s_fs_info).into() }
    }

    /// # Safety
    ///
    /// As for [`Self::get_tree`], of which this is the part for [`Backing::Source`].
    unsafe fn get_tree_of_source(
        fc: *mut bindings::fs_context,
        private: &mut Private<T>,
    ) -> Result<ffi::c_int> {
        // SAFETY: The VFS gives a context with a source that is null or NUL-terminated. It has an
        // `Info`, which a new super block takes over.
        unsafe {
            if private.image.is_none() {
                let quiet = bindings::GET_TREE_BDEV_QUIET_LOOKUP;
                let result = bindings::get_tree_bdev_flags(fc, Some(Self::fill_super), quiet);
                if result != ENOTBLK.to_errno() || (*fc).source.is_null() {
                    return Ok(result);
                }
                private.image = Some(KFile::open_image(CStr::from_char_ptr((*fc).source))?);
            }
            if let Some(image) = &private.image {
                image.check_image(T::MAGIC)?;
            }
            Ok(bindings::get_tree_nodev(fc, Some(Self::fill_super)))
        }
    }

    /// # Safety
    ///
    /// Only for `get_tree_nodev`, `get_tree_bdev_flags` and the like: `sb` is new and has an
    /// [`Info`], `fc` was set up by [`Self::init`], and both are used by this task alone.
    unsafe extern "C" fn fill_super(
        sb: *mut bindings::super_block,
        fc: *mut bindings::fs_context,
    ) -> ffi::c_int {
        // SAFETY: The caller gives a new super block of our type and the context.
        let (new, options) = unsafe {
            (*sb).s_op = &super_block::Table::<T>::OPS;
            (*sb).s_magic = usize::try_from(T::MAGIC).unwrap_or(0);
            let private = Self::private(fc);
            let source = (*fc).source;
            let source = (!source.is_null()).then(|| CStr::from_char_ptr(source));
            let new = super_block::New::from_raw(sb, source, private.image.take());
            (new, mem::take(&mut private.options))
        };
        let result = T::fill_super(new, options).and_then(|(_filling, root)| {
            let root = ARef::into_raw(root);
            // SAFETY: `d_make_root` consumes the reference to the inode, also when it fails.
            let root = unsafe { bindings::d_make_root(root.as_ptr().cast()) };
            if root.is_null() {
                return Err(ENOMEM);
            }
            // SAFETY: The super block is still being filled by this task.
            unsafe { (*sb).s_root = root };
            Ok(())
        });
        if result.is_err() {
            // SAFETY: There is no root, so neither `unmount` nor `put_super` will be called: the
            // data, if it was attached, goes here.
            unsafe {
                if super_block::has_data::<T>(sb) {
                    T::unmount(SuperBlock::from_raw(sb));
                }
                super_block::drop_data::<T>(sb);
            }
        }
        to_errno(result)
    }

    /// # Safety
    ///
    /// Only for `fs_context_operations::reconfigure`: `fc` is valid and used by this task alone, and
    /// its root is in a live super block of the type `T`, which is locked.
    unsafe extern "C" fn reconfigure(fc: *mut bindings::fs_context) -> ffi::c_int {
        // SAFETY: By the safety requirement.
        let (fc, sb, private) = unsafe {
            let sb = SuperBlock::<T>::from_raw((*(*fc).root).d_sb);
            (&mut *fc, sb, Self::private(fc))
        };
        from_result(|| {
            if T::HAS_RECONFIGURE {
                let reconfigured = T::reconfigure(sb, mem::take(&mut private.options))?;
                let acl = bindings::VFS_CONST_SB_POSIXACL;
                fc.sb_flags_mask |= acl;
                match reconfigured.posix_acl {
                    true => fc.sb_flags |= acl,
                    false => fc.sb_flags &= !acl,
                }
            }
            // It stays read-only, whatever is asked for.
            fc.sb_flags |= bindings::VFS_CONST_SB_RDONLY;
            Ok(0)
        })
    }
}
