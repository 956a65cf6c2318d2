// SPDX-License-Identifier: GPL-2.0

//! A cache from when its tag is reserved until it is withdrawn.
//!
//! Withdrawing goes in the order that keeps everything alive that somebody may still use: no new
//! accesses to the cache, then no objects, then no volumes, then the cache.

use super::{callbacks::Table, Backend};
use core::{
    mem::ManuallyDrop,
    ptr::{self, NonNull},
};
use kernel::{
    error::{from_err_ptr, to_result},
    new_condvar, new_mutex,
    prelude::*,
    rbtree::RBTree,
    sync::{Arc, CondVar, Mutex},
};
use vfs::bindings;

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
pub(super) struct Shared<B: Backend> {
    pub(super) raw: NonNull<bindings::fscache_cache>,
    pub(super) backend: Arc<B>,
    #[pin]
    pub(super) members: Mutex<Members>,
    #[pin]
    pub(super) volume_gone: CondVar,
}

// SAFETY: The core's cache may be used by any task, the rest is `Send` and `Sync`.
unsafe impl<B: Backend> Send for Shared<B> {}
// SAFETY: As above.
unsafe impl<B: Backend> Sync for Shared<B> {}

/// Addresses of the volumes and cookies that have something of ours attached.
#[derive(Default)]
pub(super) struct Members {
    // The value tells whether the volume was withdrawn already.
    pub(super) volumes: RBTree<usize, bool>,
    pub(super) cookies: RBTree<usize, ()>,
    /// The cache is about to be withdrawn, and takes no more volumes.
    pub(super) closed: bool,
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

    /// How many volumes clients have in the cache.
    pub fn volumes(&self) -> usize {
        self.0.members.lock().volumes.iter().count()
    }

    /// Whether any client has a volume in the cache.
    pub fn in_use(&self) -> bool {
        !self.0.members.lock().volumes.is_empty()
    }

    /// Takes no more volumes if no client has one; whether that is so. Then there will be no client
    /// that a withdrawal would surprise. May sleep.
    pub fn close_if_unused(&self) -> bool {
        let mut members = self.0.members.lock();
        members.closed |= members.volumes.is_empty();
        members.closed
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
