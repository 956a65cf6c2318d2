// SPDX-License-Identifier: GPL-2.0

//! The client side: volumes, cookies, reads.
//!
//! C header: [`include/linux/fscache.h`](srctree/include/linux/fscache.h)

use core::{mem::MaybeUninit, ptr, ptr::NonNull};
use kernel::{
    error::from_err_ptr,
    ffi,
    prelude::*,
    str::CString,
    sync::{rcu, Arc},
};
use vfs::{bindings, iomap::FolioRead};

/// A volume: a name space of cookies in one cache.
///
/// # Invariants
///
/// The pointer is an acquired volume that is not relinquished yet.
pub struct Volume(NonNull<bindings::fscache_volume>);

// SAFETY: Volumes may be used and relinquished by any task.
unsafe impl Send for Volume {}
// SAFETY: As above; the core has its own locks.
unsafe impl Sync for Volume {}

/// Who provides the cache that a volume is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Provider {
    /// No cache is bound under the volume's tag.
    None,
    /// A cache of the kind that was asked about.
    Wanted,
    /// A cache of another kind.
    Other,
}

impl Volume {
    /// Acquires the volume `key` in the cache with the given tag, or without one in whatever cache
    /// there is. It need not be bound yet. May sleep.
    ///
    /// [`EBUSY`] when somebody else has acquired the same volume.
    pub fn acquire(key: &CStr, tag: Option<&CStr>) -> Result<Self> {
        let tag = tag.map_or(ptr::null(), |tag| tag.as_char_ptr());
        // SAFETY: The strings are NUL-terminated and copied; there is no coherency data.
        let volume = from_err_ptr(unsafe {
            bindings::__fscache_acquire_volume(key.as_char_ptr(), tag, ptr::null(), 0)
        })?;
        // INVARIANT: Just acquired.
        NonNull::new(volume).map(Self).ok_or(ENOMEM)
    }

    /// Whether the cache that the volume is in is of the kind `name`.
    pub fn provider(&self, name: &CStr) -> Provider {
        // The operations are static data of the backend's module. Whoever sees the pointer within
        // an RCU read section may use it until the section ends, because a module is freed after
        // the pointer is cleared and then a grace period.
        let _guard = rcu::read_lock();
        // SAFETY: The volume holds a reference to its cache.
        let cache = unsafe { (*self.0.as_ptr()).cache };
        // SAFETY: As above.
        if !unsafe { bindings::vfs_helper_fscache_cache_is_live(cache) } {
            return Provider::None;
        }
        // SAFETY: As above; the core writes the pointer in one store.
        let ops = unsafe { ptr::read_volatile(&raw const (*cache).ops) };
        if ops.is_null() {
            return Provider::None;
        }
        // SAFETY: See the top of the function; names are NUL-terminated.
        match unsafe { CStr::from_char_ptr((*ops).name) } == name {
            true => Provider::Wanted,
            false => Provider::Other,
        }
    }

    /// Copies the tag of the cache that the volume is in. [`ENODATA`] when it has none yet.
    pub fn tag(&self) -> Result<CString> {
        // SAFETY: The volume holds a reference to its cache. A name is set once and stays.
        let name = unsafe { ptr::read_volatile(&raw const (*(*self.0.as_ptr()).cache).name) };
        if name.is_null() {
            return Err(ENODATA);
        }
        // SAFETY: Names are NUL-terminated.
        Ok(CString::try_from(unsafe { CStr::from_char_ptr(name) })?)
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        // SAFETY: By the invariants.
        unsafe { bindings::__fscache_relinquish_volume(self.0.as_ptr(), ptr::null(), false) };
    }
}

/// An object of a volume, in use: its backing is looked up and stays.
///
/// # Invariants
///
/// The pointer is an acquired cookie in use, not relinquished yet.
pub struct Cookie {
    cookie: NonNull<bindings::fscache_cookie>,
    // A cookie needs its volume for as long as it exists.
    _volume: Arc<Volume>,
}

// SAFETY: Cookies may be used and relinquished by any task.
unsafe impl Send for Cookie {}
// SAFETY: As above; the core has its own locks.
unsafe impl Sync for Cookie {}

impl Cookie {
    /// Acquires the object `key` of the volume and begins to look it up. May sleep.
    ///
    /// [`EINVAL`] for a key that is empty or longer than 255 bytes. The core accepts a key once: to
    /// use an object twice, share the cookie.
    pub fn acquire(volume: Arc<Volume>, key: &[u8]) -> Result<Self> {
        if key.is_empty() || key.len() > 255 {
            return Err(EINVAL);
        }
        // The size is the backend's to say. Zero would mean that there is nothing to read.
        // SAFETY: The volume is acquired; the key is copied.
        let cookie = unsafe {
            bindings::__fscache_acquire_cookie(
                volume.0.as_ptr(),
                0,
                key.as_ptr().cast(),
                key.len(),
                ptr::null(),
                0,
                i64::MAX,
            )
        };
        let cookie = NonNull::new(cookie).ok_or(ENOMEM)?;
        // SAFETY: The cookie was just acquired.
        unsafe { bindings::__fscache_use_cookie(cookie.as_ptr(), false) };
        // INVARIANT: Acquired and in use.
        Ok(Self {
            cookie,
            _volume: volume,
        })
    }

    /// Waits until the object is looked up and returns its size in bytes. May sleep.
    ///
    /// [`ENOBUFS`] when no cache has it; the backend's own error when it could not be opened.
    pub fn size(&self) -> Result<u64> {
        let operation = Operation::begin(self)?;
        operation.probe()?;
        // SAFETY: The cookie is valid. The backend set the size during the lookup, which is over.
        u64::try_from(unsafe { (*self.cookie.as_ptr()).object_size }).map_err(|_| EIO)
    }

    /// Fails the reads that wait for bytes which are not in the cache. For somebody who knows that
    /// nobody else waits: at an unmount for instance, which would otherwise wait for them. May
    /// sleep, but does not wait for the reads.
    pub fn abort_reads(&self) {
        let cookie = self.cookie.as_ptr();
        // SAFETY: The cookie is in use. Invalidation is how the core tells a backend to abort what
        // it is doing for a client; the size stays the same.
        unsafe {
            if ptr::read_volatile(&raw const (*cookie).n_accesses.counter) != 0 {
                let size = (*cookie).object_size;
                bindings::__fscache_invalidate(cookie, ptr::null(), size, 0);
            }
        }
    }

    /// Reads bytes from `start` of the object into the folios. May sleep, but does not wait for
    /// bytes that are not in the cache.
    pub fn read(&self, start: u64, folios: FolioRead) {
        match Operation::begin(self).and_then(|operation| Read::new(operation, folios)) {
            Ok(read) => read.submit(start),
            // The folios were dropped, which failed the read.
            Err(_) => {}
        }
    }
}

impl Drop for Cookie {
    fn drop(&mut self) {
        // SAFETY: By the invariants.
        unsafe {
            bindings::__fscache_unuse_cookie(self.cookie.as_ptr(), ptr::null(), ptr::null());
            bindings::__fscache_relinquish_cookie(self.cookie.as_ptr(), false);
        }
    }
}

/// An operation on an object, which keeps the object in the cache.
///
/// # Invariants
///
/// The resources were set up by `fscache_begin_read_operation`, and `ops` is not null.
struct Operation(bindings::netfs_cache_resources);

impl Operation {
    fn begin(cookie: &Cookie) -> Result<Self> {
        let mut resources = bindings::netfs_cache_resources::default();
        // SAFETY: The cookie is in use.
        let result = unsafe {
            bindings::__fscache_begin_read_operation(&mut resources, cookie.cookie.as_ptr())
        };
        if result < 0 {
            return Err(Error::from_errno(result));
        }
        if resources.ops.is_null() {
            return Err(ENOBUFS);
        }
        // INVARIANT: As checked.
        Ok(Self(resources))
    }

    /// Asks the backend about the object, for the error that it answers with.
    fn probe(&self) -> Result {
        // SAFETY: By the invariants.
        let Some(query) = (unsafe { (*self.0.ops).query_occupancy }) else {
            return Ok(());
        };
        let (mut start, mut len) = (0, 0);
        let mut resources = self.0;
        // SAFETY: The resources are those of an operation that has begun.
        let result = unsafe { query(&mut resources, 0, 1, 1, &mut start, &mut len) };
        match result {
            // Nothing is there yet, which is what a new object looks like.
            e if e == ENODATA.to_errno() => Ok(()),
            e if e < 0 => Err(Error::from_errno(e)),
            _ => Ok(()),
        }
    }
}

impl Drop for Operation {
    fn drop(&mut self) {
        // SAFETY: By the invariants; an operation is ended once.
        unsafe { bindings::vfs_helper_fscache_end_operation(&mut self.0) };
    }
}

/// A read that the backend works on.
struct Read {
    operation: Operation,
    folios: FolioRead,
    iter: MaybeUninit<bindings::iov_iter>,
}

impl Read {
    fn new(operation: Operation, folios: FolioRead) -> Result<KBox<Self>> {
        let mut read = KBox::new(
            Self {
                operation,
                folios,
                iter: MaybeUninit::zeroed(),
            },
            GFP_KERNEL,
        )?;
        let segments = read.folios.segments();
        let (first, count, len) = (segments.as_ptr(), segments.len(), read.folios.len());
        // SAFETY: The segments live in the box, and longer than the iterator, which lives there too.
        unsafe {
            bindings::iov_iter_bvec(
                read.iter.as_mut_ptr(),
                bindings::ITER_DEST,
                first,
                count,
                len,
            )
        };
        Ok(read)
    }

    fn submit(self: KBox<Self>, start: u64) {
        let Ok(start) = i64::try_from(start) else {
            return;
        };
        // SAFETY: By the invariants of `Operation`.
        let Some(read) = (unsafe { (*self.operation.0.ops).read }) else {
            return;
        };
        let this = KBox::into_raw(self);
        // SAFETY: Ownership of the box goes to `done`, which is called once in any case. Resources
        // and iterator are in the box, and so live until then.
        unsafe {
            read(
                &raw mut (*this).operation.0,
                start,
                (*this).iter.as_mut_ptr(),
                bindings::netfs_read_from_hole_NETFS_READ_HOLE_FAIL,
                Some(Self::done),
                this.cast(),
            );
        }
    }

    /// # Safety
    ///
    /// `this` must be the box given to the read, and this must be called once.
    unsafe extern "C" fn done(this: *mut ffi::c_void, result: isize) {
        // SAFETY: By the safety requirement.
        let this = KBox::into_inner(unsafe { KBox::from_raw(this.cast::<Self>()) });
        let result = usize::try_from(result)
            .map_err(|_| Error::from_errno(i32::try_from(result).unwrap_or(-5)));
        // The object is let go first: once the folios are unlocked, the file system may be
        // unmounted.
        drop(this.operation);
        this.folios.complete(result);
    }
}
