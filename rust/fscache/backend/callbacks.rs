// SPDX-License-Identifier: GPL-2.0

//! What the fscache core calls: `struct fscache_cache_ops` for volumes and cookies, `struct
//! netfs_cache_ops` for the reads of an operation.

use super::{cache::Shared, Backend, CacheRead};
use core::{marker::PhantomData, ptr};
use kernel::{
    ffi,
    module::{this_module, ModuleMetadata},
    prelude::*,
    rbtree::RBTreeNodeReservation,
    sync::{Arc, ArcBorrow},
};
use vfs::bindings;

/// What a volume's `cache_priv` owns.
struct VolumeSlot<B: Backend> {
    volume: B::Volume,
    shared: Arc<Shared<B>>,
    // The backend cannot be unloaded while a client has a volume.
    _module: ModuleRef,
}

/// A reference to a loaded module.
struct ModuleRef(*mut bindings::module);

impl ModuleRef {
    /// [`ENOENT`] when the module is being unloaded.
    fn new<M: ModuleMetadata>() -> Result<Self> {
        let module = this_module::<M>().as_ptr();
        // SAFETY: It is the module that this code is in.
        match unsafe { bindings::vfs_helper_try_module_get(module) } {
            true => Ok(Self(module)),
            false => Err(ENOENT),
        }
    }
}

impl Drop for ModuleRef {
    fn drop(&mut self) {
        // SAFETY: We own a reference.
        unsafe { bindings::vfs_helper_module_put(self.0) };
    }
}

/// What a cookie's `cache_priv` owns.
struct ObjectSlot<B: Backend> {
    object: Arc<B::Object>,
    shared: Arc<Shared<B>>,
}

/// The C callbacks of a cache.
pub(super) struct Table<B>(PhantomData<B>);

impl<B: Backend> Table<B> {
    pub(super) const OPS: bindings::fscache_cache_ops = bindings::fscache_cache_ops {
        name: kernel::str::as_char_ptr_in_const_context(B::NAME),
        acquire_volume: Some(Self::acquire_volume),
        free_volume: Some(Self::free_volume),
        lookup_cookie: Some(Self::lookup_cookie),
        withdraw_cookie: Some(Self::withdraw_cookie),
        invalidate_cookie: Some(Self::invalidate_cookie),
        begin_operation: Some(Self::begin_operation),
        prepare_to_write: Some(Self::prepare_to_write),
        ..pin_init::zeroed()
    };

    const IO: bindings::netfs_cache_ops = bindings::netfs_cache_ops {
        end_operation: Some(Self::end_operation),
        read: Some(Self::read),
        query_occupancy: Some(Self::query_occupancy),
        ..pin_init::zeroed()
    };

    /// # Safety
    ///
    /// Only for `fscache_cache_ops::acquire_volume` of a cache added with these operations.
    unsafe extern "C" fn acquire_volume(volume: *mut bindings::fscache_volume) {
        // SAFETY: The core calls this for a volume of our cache, which it keeps from being
        // withdrawn meanwhile. A volume's key is a length byte, then that many bytes.
        let (shared, key) = unsafe {
            let shared = (*(*volume).cache).cache_priv.cast::<Shared<B>>();
            let key = (*volume).key.cast::<u8>();
            (
                ArcBorrow::from_raw(shared.cast_const()),
                core::slice::from_raw_parts(key.add(1), usize::from(*key)),
            )
        };
        let Some(data) = shared.backend.as_arc_borrow().acquire_volume(key) else {
            return;
        };
        let Ok(module) = ModuleRef::new::<B::OwnerModule>() else {
            return;
        };
        let slot = VolumeSlot::<B> {
            volume: data,
            shared: shared.into(),
            _module: module,
        };
        // Without memory the volume is declined, as the core tries again at the next lookup.
        let Ok(slot) = KBox::new(slot, GFP_KERNEL) else {
            return;
        };
        let mut members = shared.members.lock();
        let address = volume.expose_provenance();
        if members.closed
            || members
                .volumes
                .try_create_and_insert(address, false, GFP_KERNEL)
                .is_err()
        {
            return;
        }
        // SAFETY: The core calls this once at a time for a volume, and while it has no private
        // data. The extra access is taken back by `fscache_withdraw_volume`.
        unsafe {
            bindings::vfs_helper_fscache_volume_pin(volume);
            (*volume).cache_priv = KBox::into_raw(slot).cast();
        }
    }

    /// # Safety
    ///
    /// Only for `fscache_cache_ops::free_volume` of a cache added with these operations.
    unsafe extern "C" fn free_volume(volume: *mut bindings::fscache_volume) {
        // SAFETY: The core calls this for a volume with private data, when nobody uses it.
        unsafe { Self::detach_volume(volume) };
    }

    /// # Safety
    ///
    /// `volume` must have private data of ours, and nobody may be using it.
    pub(super) unsafe fn detach_volume(volume: *mut bindings::fscache_volume) {
        // SAFETY: By the safety requirement.
        let slot = unsafe {
            let slot = ptr::replace(&raw mut (*volume).cache_priv, ptr::null_mut());
            if slot.is_null() {
                return;
            }
            KBox::into_inner(KBox::from_raw(slot.cast::<VolumeSlot<B>>()))
        };
        let VolumeSlot {
            volume: data,
            shared,
            _module,
        } = slot;
        drop(data);
        let unused = {
            let mut members = shared.members.lock();
            members.volumes.remove(&volume.addr());
            members.volumes.is_empty()
        };
        shared.volume_gone.notify_all();
        if unused {
            shared.backend.as_arc_borrow().unused();
        }
    }

    /// # Safety
    ///
    /// Only for `fscache_cache_ops::lookup_cookie` of a cache added with these operations.
    unsafe extern "C" fn lookup_cookie(cookie: *mut bindings::fscache_cookie) -> bool {
        // SAFETY: The core calls this from the cookie's own work item, with the volume pinned and
        // its private data set. A cookie's key is as long as it says.
        let (volume, key) = unsafe {
            let volume = (*(*cookie).volume).cache_priv.cast::<VolumeSlot<B>>();
            let key = bindings::vfs_helper_fscache_get_key(cookie).cast::<u8>();
            (
                &*volume,
                core::slice::from_raw_parts(key, usize::from((*cookie).key_len)),
            )
        };
        // Memory first: once there is an object, it must get attached.
        let (Ok(slot), Ok(node)) = (
            KBox::<ObjectSlot<B>>::new_uninit(GFP_KERNEL),
            RBTreeNodeReservation::new(GFP_KERNEL),
        ) else {
            return false;
        };
        let looked_up =
            B::lookup(&volume.volume, key).and_then(|(object, size)| match i64::try_from(size) {
                Ok(size) => Ok((object, size)),
                Err(e) => {
                    B::withdraw(object);
                    Err(e.into())
                }
            });
        let Ok((object, size)) = looked_up else {
            return false;
        };
        let shared = volume.shared.clone();
        let slot = KBox::write(slot, ObjectSlot { object, shared });
        let mut members = volume.shared.members.lock();
        let node = node.into_node(cookie.expose_provenance(), ());
        members.cookies.insert(node);
        // SAFETY: The cookie is being looked up by this task alone. Both counts are given back in
        // `withdraw_cookie`.
        unsafe {
            (*cookie).object_size = size;
            bindings::vfs_helper_fscache_count_object(volume.shared.raw.as_ptr());
            bindings::fscache_get_cookie(
                cookie,
                bindings::fscache_cookie_trace_fscache_cookie_get_attach_object,
            );
            (*cookie).cache_priv = KBox::into_raw(slot).cast();
        }
        true
    }

    /// # Safety
    ///
    /// Only for `fscache_cache_ops::withdraw_cookie` of a cache added with these operations.
    unsafe extern "C" fn withdraw_cookie(cookie: *mut bindings::fscache_cookie) {
        // SAFETY: The core calls this from the cookie's own work item, for a cookie with private
        // data and without accesses.
        let slot = unsafe {
            let slot = ptr::replace(&raw mut (*cookie).cache_priv, ptr::null_mut());
            KBox::into_inner(KBox::from_raw(slot.cast::<ObjectSlot<B>>()))
        };
        slot.shared.members.lock().cookies.remove(&cookie.addr());
        B::withdraw(slot.object);
        // SAFETY: Counted by `lookup_cookie`. The core's work item has a reference of its own to
        // the cookie. `slot.shared` is dropped before the count, as the last to go may end the
        // owner's wait.
        unsafe {
            let raw = slot.shared.raw.as_ptr();
            drop(slot.shared);
            bindings::vfs_helper_fscache_uncount_object(raw);
            bindings::fscache_put_cookie(
                cookie,
                bindings::fscache_cookie_trace_fscache_cookie_put_object,
            );
        }
    }

    /// Objects do not change, so what is cached stays valid; but the client says that it does not
    /// want what it has asked for.
    ///
    /// # Safety
    ///
    /// Only for `fscache_cache_ops::invalidate_cookie` of a cache added with these operations.
    unsafe extern "C" fn invalidate_cookie(cookie: *mut bindings::fscache_cookie) -> bool {
        // SAFETY: The core calls this from the cookie's own work item, with an access to it, so
        // that the object stays.
        unsafe {
            if let Some(slot) = (*cookie).cache_priv.cast::<ObjectSlot<B>>().as_ref() {
                B::abort(&slot.object);
            }
            bindings::fscache_resume_after_invalidation(cookie);
        }
        true
    }

    /// The cache is written by its daemon, not by clients.
    ///
    /// # Safety
    ///
    /// Only for `fscache_cache_ops::prepare_to_write` of a cache added with these operations.
    unsafe extern "C" fn prepare_to_write(_: *mut bindings::fscache_cookie) {}

    /// # Safety
    ///
    /// Only for `fscache_cache_ops::begin_operation` of a cache added with these operations.
    unsafe extern "C" fn begin_operation(
        resources: *mut bindings::netfs_cache_resources,
        _: bindings::fscache_want_state,
    ) -> bool {
        // SAFETY: The core has a cookie access, so the object stays until `end_operation`.
        unsafe {
            let resources = &mut *resources;
            if resources.cache_priv2.is_null() {
                let cookie = resources.cache_priv.cast::<bindings::fscache_cookie>();
                let slot = (*cookie).cache_priv.cast::<ObjectSlot<B>>();
                let Some(slot) = slot.as_ref() else {
                    return false;
                };
                resources.ops = &Self::IO;
                resources.cache_priv2 = Arc::into_raw(slot.object.clone()).cast_mut().cast();
            }
        }
        true
    }

    /// # Safety
    ///
    /// Only for `netfs_cache_ops::end_operation`, once after [`Self::begin_operation`].
    unsafe extern "C" fn end_operation(resources: *mut bindings::netfs_cache_resources) {
        // SAFETY: `begin_operation` set the pointers; an operation is ended once.
        unsafe {
            let object = (*resources).cache_priv2.cast::<B::Object>().cast_const();
            drop(Arc::from_raw(object));
            bindings::fscache_end_cookie_access(
                (*resources).cache_priv.cast(),
                bindings::fscache_access_trace_fscache_access_io_end,
            );
        }
    }

    /// # Safety
    ///
    /// `resources` must be of an operation that has begun and not ended.
    unsafe fn object<'a>(
        resources: *mut bindings::netfs_cache_resources,
    ) -> ArcBorrow<'a, B::Object> {
        // SAFETY: `begin_operation` put it there.
        unsafe { ArcBorrow::from_raw((*resources).cache_priv2.cast::<B::Object>().cast_const()) }
    }

    /// # Safety
    ///
    /// Only for `netfs_cache_ops::read`, between the begin and the end of an operation. `iter` is valid,
    /// and its memory is until `done` is called.
    unsafe extern "C" fn read(
        resources: *mut bindings::netfs_cache_resources,
        start: bindings::loff_t,
        iter: *mut bindings::iov_iter,
        _: bindings::netfs_read_from_hole,
        done: bindings::netfs_io_terminated_t,
        private: *mut ffi::c_void,
    ) -> ffi::c_int {
        // A read without a callback would have to wait here, perhaps for a daemon. Nobody whose
        // volumes we accept asks for that.
        let Some(done) = done else {
            return EOPNOTSUPP.to_errno();
        };
        // SAFETY: The iterator is valid; its copy is used as long as the memory that it describes
        // is, which is until the callback.
        let read = unsafe { CacheRead::new(ptr::read(iter), done, private) };
        match u64::try_from(start) {
            Ok(start) => {
                // SAFETY: The operation has begun, and ends after the callback.
                let object = unsafe { Self::object(resources) };
                B::read(object.into(), start, read);
            }
            Err(_) => read.complete(Err(EINVAL)),
        }
        0
    }

    /// # Safety
    ///
    /// Only for `netfs_cache_ops::query_occupancy`, between the begin and the end of an operation.
    unsafe extern "C" fn query_occupancy(
        resources: *mut bindings::netfs_cache_resources,
        start: bindings::loff_t,
        len: usize,
        granularity: usize,
        data_start: *mut bindings::loff_t,
        data_len: *mut usize,
    ) -> ffi::c_int {
        // SAFETY: The operation has begun.
        let object = unsafe { Self::object(resources) };
        let result = occupancy::<B>(&object, start, len, granularity);
        let (answer, errno) = match result {
            Ok(answer) => (answer, 0),
            Err(e) => ((-1, 0), e.to_errno()),
        };
        // SAFETY: The caller gives room for the answer.
        unsafe { (*data_start, *data_len) = answer };
        errno
    }
}

/// Occupancy in whole granules.
fn occupancy<B: Backend>(
    object: &B::Object,
    start: i64,
    len: usize,
    granularity: usize,
) -> Result<(i64, usize)> {
    let granule = u64::try_from(granularity)?.max(1);
    let start = u64::try_from(start)?;
    let (data, len) = B::occupancy(object, start, u64::try_from(len)?)?;
    let end = data.checked_add(len).ok_or(EINVAL)? / granule * granule;
    let data = data.checked_next_multiple_of(granule).ok_or(EINVAL)?;
    match end.checked_sub(data) {
        Some(len) if len > 0 => Ok((i64::try_from(data)?, usize::try_from(len)?)),
        _ => Err(ENODATA),
    }
}
