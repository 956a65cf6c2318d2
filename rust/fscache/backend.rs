// SPDX-License-Identifier: GPL-2.0

//! The backend side: a cache that the fscache core gives volumes and cookies to.
//!
//! A cache is *prepared* under a tag, then *activated* with a [`Backend`]; dropping the [`Cache`]
//! withdraws it. The core calls back for volumes and objects as clients use them, and for each
//! [`CacheRead`].
//!
//! C header: [`include/linux/fscache-cache.h`](srctree/include/linux/fscache-cache.h)

use kernel::{
    prelude::*,
    sync::{Arc, ArcBorrow},
};
use vfs::workqueue::{StartedQueue, StaticQueue};

mod cache;
mod callbacks;
mod read;

pub use cache::{Cache, Preparing};
pub use read::CacheRead;

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
    /// [`ENODATA`] when there is none; [`EAGAIN`] when it cannot be told without waiting long; the
    /// reason when the object could not be opened. May sleep.
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
