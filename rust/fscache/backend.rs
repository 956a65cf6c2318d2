// SPDX-License-Identifier: GPL-2.0

//! The backend side: a cache that the fscache core gives volumes and cookies to.
//!
//! A cache is *prepared* under a tag, then *activated* with a [`Backend`]; dropping the [`Cache`]
//! withdraws it. The core calls back for volumes and objects as clients use them.
//!
//! Withdrawing goes in the order that keeps everything alive that somebody may still use: no new
//! accesses to the cache, then no objects, then no volumes, then the cache.
//!
//! C header: [`include/linux/fscache-cache.h`](srctree/include/linux/fscache-cache.h)

use core::{
    marker::PhantomData,
    mem::ManuallyDrop,
    ptr::{self, NonNull},
};
use kernel::{
    error::{from_err_ptr, to_result},
    ffi,
    module::{this_module, ModuleMetadata},
    new_condvar, new_mutex,
    prelude::*,
    rbtree::RBTree,
    sync::{Arc, ArcBorrow, CondVar, Mutex},
};
use vfs::{
    bindings, kfile,
    workqueue::{StartedQueue, StaticQueue},
};

/// What a cache does for the volumes and objects in it.
#[vtable]
pub trait Backend: Send + Sync + Sized + 'static {
    /// Name of this kind of cache, by which clients can tell it from others.
    const NAME: &'static CStr;

    /// What the backend keeps for a volume.
    type Volume: Send + Sync + 'static;

    /// What the backend keeps for an object.
    type Object: Send + Sync + 'static;

    /// A client uses the volume `key` for the first time. `None` declines it: the client then runs
    /// without a cache. May sleep.
    fn acquire_volume(self: ArcBorrow<'_, Self>, key: &[u8]) -> Option<Self::Volume>;

    /// The last volume of the cache is gone. May sleep.
    fn unused(self: ArcBorrow<'_, Self>);

    /// Looks up the object `key`; returns it and its size in bytes. An object that cannot be opened
    /// is still an object: one whose operations fail with the reason. May sleep.
    fn lookup(volume: &Self::Volume, key: &[u8]) -> Result<(Arc<Self::Object>, u64)>;

    /// The client does not want what it is waiting for any more: fails the reads of the object that
    /// are not answered yet. May sleep.
    fn abort(object: &Arc<Self::Object>);

    /// The object is not used any more, and no operation on it is under way. May sleep.
    fn withdraw(object: Arc<Self::Object>);

    /// Where the first data at or after `start` and before `start + len` is, and how much.
    /// [`ENODATA`] when there is none; the reason when the object could not be opened. May sleep.
    fn occupancy(object: &Self::Object, start: u64, len: u64) -> Result<(u64, u64)>;

    /// Reads from `start` of the object and completes `read`, now or later. May sleep.
    fn read(object: Arc<Self::Object>, start: u64, read: CacheRead);
}

static QUEUE: StaticQueue = StaticQueue::new();

/// Starts the queue that reads are completed on. A module that has caches keeps what is returned
/// and drops it after the last of them.
pub fn start_queue(name: &'static CStr) -> Result<StartedQueue> {
    QUEUE.start(name)
}

/// The queue for work of the backend's own.
pub fn queue() -> &'static kernel::workqueue::Queue {
    QUEUE.get()
}

/// A tag that is reserved for a cache that is being set up.
///
/// # Invariants
///
/// The cache is in the state PREPARING, and we own the reference that put it there.
pub struct Preparing(NonNull<bindings::fscache_cache>);

impl Preparing {
    /// Reserves `tag`; [`EBUSY`] when a cache of that tag is bound. May sleep.
    pub fn new(tag: &CStr) -> Result<Self> {
        // SAFETY: The tag is NUL-terminated and copied.
        let cache = from_err_ptr(unsafe { bindings::fscache_acquire_cache(tag.as_char_ptr()) })?;
        // INVARIANT: Just acquired.
        NonNull::new(cache).map(Self).ok_or(ENOMEM)
    }

    /// Opens the cache for clients. May sleep.
    pub fn activate<B: Backend>(self, backend: Arc<B>) -> Result<Cache<B>> {
        let shared = Arc::pin_init(
            try_pin_init!(Shared {
                raw: self.0,
                backend,
                members <- new_mutex!(Members::default()),
                volume_gone <- new_condvar!(),
            }? Error),
            GFP_KERNEL,
        )?;
        let private = Arc::into_raw(shared.clone());
        // SAFETY: The cache is being prepared. The core keeps `private` until the cache is
        // relinquished, and so does `Cache`.
        let added = to_result(unsafe {
            bindings::fscache_add_cache(
                self.0.as_ptr(),
                &Table::<B>::OPS,
                private.cast_mut().cast(),
            )
        });
        if let Err(e) = added {
            // SAFETY: The core did not take it.
            drop(unsafe { Arc::from_raw(private) });
            return Err(e);
        }
        // The reference moves to the `Cache`.
        let _ = ManuallyDrop::new(self);
        // INVARIANT: The cache is added.
        Ok(Cache(shared))
    }
}

impl Drop for Preparing {
    fn drop(&mut self) {
        // SAFETY: By the invariants.
        unsafe { bindings::fscache_relinquish_cache(self.0.as_ptr()) };
    }
}

/// What the core's callbacks and the owner of a cache share.
#[pin_data]
struct Shared<B: Backend> {
    raw: NonNull<bindings::fscache_cache>,
    backend: Arc<B>,
    #[pin]
    members: Mutex<Members>,
    #[pin]
    volume_gone: CondVar,
}

// SAFETY: The core's cache may be used by any task, the rest is `Send` and `Sync`.
unsafe impl<B: Backend> Send for Shared<B> {}
// SAFETY: As above.
unsafe impl<B: Backend> Sync for Shared<B> {}

/// Addresses of the volumes and cookies that have something of ours attached.
#[derive(Default)]
struct Members {
    // The value tells whether the volume was withdrawn already.
    volumes: RBTree<usize, bool>,
    cookies: RBTree<usize, ()>,
}

/// A cache that clients can use; withdrawn when dropped.
///
/// # Invariants
///
/// The cache was added to the core with the `Shared` as its private data.
pub struct Cache<B: Backend>(Arc<Shared<B>>);

impl<B: Backend> Cache<B> {
    /// The backend of the cache.
    pub fn backend(&self) -> &Arc<B> {
        &self.0.backend
    }

    /// Whether any client has a volume in the cache.
    pub fn in_use(&self) -> bool {
        !self.0.members.lock().volumes.is_empty()
    }
}

impl<B: Backend> Drop for Cache<B> {
    fn drop(&mut self) {
        let shared = &self.0;
        let raw = shared.raw.as_ptr();
        // SAFETY: By the invariants the cache is active. This ends when no callback for a new
        // volume is running any more.
        unsafe { bindings::fscache_withdraw_cache(raw) };

        // Ends the lookups that are under way: there are no new objects after this.
        while let Some(volume) = self.next_volume(false) {
            // SAFETY: We have a reference to the volume, and this is done once for each.
            unsafe {
                bindings::fscache_withdraw_volume(volume);
                Self::put_volume(volume);
            }
        }
        {
            let members = shared.members.lock();
            for cookie in members.cookies.keys() {
                // SAFETY: A cookie with an object of ours is alive: the object has a reference,
                // and takes itself off the list, under the lock, before it gives that up.
                unsafe {
                    bindings::fscache_withdraw_cookie(ptr::with_exposed_provenance_mut(*cookie))
                };
            }
        }
        // SAFETY: The cache is valid.
        unsafe { bindings::vfs_helper_fscache_wait_for_objects(raw) };

        while let Some(volume) = self.next_volume(true) {
            // SAFETY: We have a reference to the volume, which nobody accesses any more.
            unsafe {
                Table::<B>::detach_volume(volume);
                Self::put_volume(volume);
            }
        }
        // SAFETY: Nothing of the cache is in use any more.
        unsafe {
            let private = (*raw).cache_priv.cast::<Shared<B>>().cast_const();
            bindings::fscache_relinquish_cache(raw);
            drop(Arc::from_raw(private));
        }
    }
}

impl<B: Backend> Cache<B> {
    /// A reference to some volume that is still attached and has, or has not, been withdrawn; one
    /// that has not is marked as if it had. Waits for those that somebody else is about to free.
    fn next_volume(&self, withdrawn: bool) -> Option<*mut bindings::fscache_volume> {
        let mut members = self.0.members.lock();
        loop {
            let mut busy = false;
            for (volume, state) in members.volumes.iter_mut() {
                if *state != withdrawn {
                    continue;
                }
                busy = true;
                // SAFETY: A volume on the list is not freed before it has taken itself off, for
                // which it needs the lock. The reference is refused if that is about to happen.
                let volume = unsafe {
                    bindings::fscache_try_get_volume(
                        ptr::with_exposed_provenance_mut(*volume),
                        bindings::fscache_volume_trace_fscache_volume_get_withdraw,
                    )
                };
                if !volume.is_null() {
                    *state = true;
                    return Some(volume);
                }
            }
            if !busy {
                return None;
            }
            self.0.volume_gone.wait(&mut members);
        }
    }
}

impl<B: Backend> Cache<B> {
    /// # Safety
    ///
    /// The caller must own a reference to `volume`.
    unsafe fn put_volume(volume: *mut bindings::fscache_volume) {
        // SAFETY: By the safety requirement.
        unsafe {
            bindings::fscache_put_volume(
                volume,
                bindings::fscache_volume_trace_fscache_volume_put_withdraw,
            );
        }
    }
}

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
struct Table<B>(PhantomData<B>);

impl<B: Backend> Table<B> {
    const OPS: bindings::fscache_cache_ops = bindings::fscache_cache_ops {
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
        if members
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
    unsafe fn detach_volume(volume: *mut bindings::fscache_volume) {
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
        let looked_up = B::lookup(&volume.volume, key).and_then(|(object, size)| {
            let size = i64::try_from(size)?;
            let slot = ObjectSlot::<B> {
                object,
                shared: volume.shared.clone(),
            };
            Ok((KBox::new(slot, GFP_KERNEL)?, size))
        });
        let Ok((slot, size)) = looked_up else {
            return false;
        };
        let mut members = volume.shared.members.lock();
        let address = cookie.expose_provenance();
        if members
            .cookies
            .try_create_and_insert(address, (), GFP_KERNEL)
            .is_err()
        {
            return false;
        }
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

/// A client's read, to be completed once. Dropping it, in process context, fails it with [`EIO`].
pub struct CacheRead {
    iter: bindings::iov_iter,
    len: usize,
    /// The client's callback and what it wants back; none once it was called.
    done: Option<(Done, *mut ffi::c_void)>,
}

type Done = unsafe extern "C" fn(*mut ffi::c_void, isize);

// SAFETY: The client expects its callback from any task, and the memory may be filled by any.
unsafe impl Send for CacheRead {}

impl CacheRead {
    /// # Safety
    ///
    /// `iter` must be a destination iterator, whose memory stays until `done` is called with
    /// `private`, which must be sound to do once from any context.
    unsafe fn new(iter: bindings::iov_iter, done: Done, private: *mut ffi::c_void) -> Self {
        Self {
            // SAFETY: The iterator is initialised.
            len: unsafe { bindings::vfs_helper_iov_iter_count(&raw const iter) },
            iter,
            done: Some((done, private)),
        }
    }

    /// Length in bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether nothing is asked for.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Ends the read: so many bytes are there, or none because of an error. With an error it must
    /// be called from process context, else from any.
    pub fn complete(mut self, result: Result<usize>) {
        self.finish(result);
    }

    fn finish(&mut self, result: Result<usize>) {
        let Some((done, private)) = self.done.take() else {
            return;
        };
        let n = match result {
            Ok(n) => isize::try_from(n.min(self.len)).unwrap_or(0),
            Err(e) => isize::try_from(e.to_errno()).unwrap_or(-5),
        };
        // SAFETY: By the promise in `new`, and this is the one time.
        unsafe { done(private, n) };
    }
}

impl Drop for CacheRead {
    fn drop(&mut self) {
        self.finish(Err(EIO));
    }
}

// SAFETY: The iterator and its memory stay until the read is completed, by the promise in
// `CacheRead::new`; dropping completes with an error.
unsafe impl kfile::ReadTarget for CacheRead {
    fn iter(&mut self) -> *mut bindings::iov_iter {
        &raw mut self.iter
    }

    fn complete(mut self, result: Result<usize>) {
        self.finish(result);
    }
}
