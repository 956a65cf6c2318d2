// SPDX-License-Identifier: GPL-2.0

//! The client side: volumes and cookies, and reads of what the cookies name.
//!
//! C header: [`include/linux/fscache.h`](srctree/include/linux/fscache.h)

use core::{ptr, ptr::NonNull};
use kernel::{
    error::from_err_ptr,
    prelude::*,
    str::CString,
    sync::{rcu, Arc},
};
use vfs::{bindings, iomap::FolioRead, u64_from};

mod read;

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
        operation.size()
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
    ///
    /// Bytes that are missing delay only the folios that they belong to. Each folio is completed
    /// once; with [`EIO`] when the object is in no cache any more.
    pub fn read(&self, start: u64, folios: FolioRead) {
        read::read(self, start, folios);
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

/// An operation on an object, which keeps the object in the cache. Dropping it ends it.
///
/// # Invariants
///
/// The resources were set up by `fscache_begin_read_operation`, and `ops` is not null. Nothing but
/// the end of the operation, and a read that has it to itself, changes them.
struct Operation {
    resources: bindings::netfs_cache_resources,
}

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
        Ok(Self { resources })
    }

    /// Asks the backend about the object, for the error that it answers with.
    fn probe(&self) -> Result {
        match self.occupancy(0, 1) {
            // Nothing is there yet, which is what a new object looks like; or nobody answers, or
            // not now.
            Err(e) if e == ENODATA || e == EOPNOTSUPP || e == EAGAIN => Ok(()),
            result => result.map(drop),
        }
    }

    /// Where the first bytes are that are present, of the `len` from `start` on, and how many.
    ///
    /// [`ENODATA`] when none are, [`EOPNOTSUPP`] when the backend does not tell, [`EAGAIN`] when it
    /// would have to wait; else the reason why the object cannot be used. May sleep.
    fn occupancy(&self, start: u64, len: u64) -> Result<(u64, u64)> {
        // SAFETY: By the invariants.
        let query = unsafe { (*self.resources.ops).query_occupancy }.ok_or(EOPNOTSUPP)?;
        let (mut data_start, mut data_len) = (0, 0);
        let mut resources = self.resources;
        // SAFETY: The resources are those of an operation that has begun.
        let result = unsafe {
            query(
                &mut resources,
                i64::try_from(start)?,
                usize::try_from(len)?,
                1,
                &mut data_start,
                &mut data_len,
            )
        };
        if result < 0 {
            return Err(Error::from_errno(result));
        }
        Ok((u64::try_from(data_start)?, u64_from(data_len)))
    }

    /// Size of the object in bytes.
    fn size(&self) -> Result<u64> {
        // SAFETY: The cookie is valid for as long as the operation is. The backend set the size
        // during the lookup, which is over.
        let size = unsafe {
            let cookie = self.resources.cache_priv.cast::<bindings::fscache_cookie>();
            (*cookie).object_size
        };
        u64::try_from(size).map_err(|_| EIO)
    }
}

impl Drop for Operation {
    fn drop(&mut self) {
        // SAFETY: By the invariants; an operation is ended once.
        unsafe { bindings::vfs_helper_fscache_end_operation(&mut self.resources) };
    }
}
