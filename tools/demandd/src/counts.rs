// SPDX-License-Identifier: GPL-2.0
//! What was served, counted while it is.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// What takes longer than so many milliseconds is told from what does not.
pub const BOUNDS_MS: [u64; 10] = [1, 3, 10, 30, 100, 300, 1000, 3000, 10_000, 30_000];

/// Counts since the daemon began.
#[derive(Debug, Default)]
pub struct Counts {
    begun: AtomicU64,
    /// By the first bound that is not exceeded; the last one is beyond all.
    times: [AtomicU64; BOUNDS_MS.len() + 1],
    micros: AtomicU64,
    served: AtomicU64,
    bytes: AtomicU64,
    failed: AtomicU64,
    prefetched: AtomicU64,
    culled: AtomicU64,
    culled_bytes: AtomicU64,
}

impl Counts {
    /// A request of so many bytes has them.
    pub fn served(&self, bytes: u64) {
        self.served.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// A request has failed.
    pub fn failed(&self) {
        self.failed.fetch_add(1, Ordering::Relaxed);
    }

    /// A request has begun to be fetched.
    pub fn begin(&self) {
        self.begun.fetch_add(1, Ordering::Relaxed);
    }

    /// One has been fetched, or has failed, after this time.
    pub fn end(&self, time: Duration) {
        let millis = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let slot = BOUNDS_MS.partition_point(|bound| *bound < millis);
        if let Some(slot) = self.times.get(slot) {
            slot.fetch_add(1, Ordering::Relaxed);
        }
        let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        self.micros.fetch_add(micros, Ordering::Relaxed);
    }

    /// How many requests are being fetched.
    pub fn in_flight(&self) -> u64 {
        let begun = self.begun.load(Ordering::Relaxed);
        begun.saturating_sub(self.times().count)
    }

    /// How long requests took so far.
    pub fn times(&self) -> Times {
        let mut count = 0;
        let up_to = self.times.each_ref().map(|slot| {
            count += slot.load(Ordering::Relaxed);
            count
        });
        Times {
            up_to,
            count,
            sum: Duration::from_micros(self.micros.load(Ordering::Relaxed)),
        }
    }

    /// So many bytes were prefetched.
    pub fn prefetched(&self, bytes: u64) {
        self.prefetched.fetch_add(bytes, Ordering::Relaxed);
    }

    /// A blob that took so many bytes of the disk was culled.
    pub fn culled(&self, bytes: u64) {
        self.culled.fetch_add(1, Ordering::Relaxed);
        self.culled_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// What has become of the cache besides what was served.
    pub fn housekeeping(&self) -> Housekeeping {
        Housekeeping {
            prefetched: self.prefetched.load(Ordering::Relaxed),
            culled: self.culled.load(Ordering::Relaxed),
            culled_bytes: self.culled_bytes.load(Ordering::Relaxed),
        }
    }

    /// What was counted so far.
    pub fn summary(&self) -> Summary {
        Summary {
            served: self.served.load(Ordering::Relaxed),
            bytes: self.bytes.load(Ordering::Relaxed),
            failed: self.failed.load(Ordering::Relaxed),
        }
    }
}

/// How long requests took.
#[derive(Clone, Copy, Debug)]
pub struct Times {
    /// How many took no longer than each of [`BOUNDS_MS`]; last, all.
    pub up_to: [u64; BOUNDS_MS.len() + 1],
    /// How many there were.
    pub count: u64,
    /// How long they took together.
    pub sum: Duration,
}

/// What has become of the cache besides what was served.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Housekeeping {
    /// The bytes that were prefetched.
    pub prefetched: u64,
    /// How many blobs were culled.
    pub culled: u64,
    /// What those took of the disk, in bytes.
    pub culled_bytes: u64,
}

/// What was served.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Requests whose bytes arrived.
    pub served: u64,
    /// The bytes of those requests.
    pub bytes: u64,
    /// Requests that failed.
    pub failed: u64,
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            served,
            bytes,
            failed,
        } = self;
        write!(
            f,
            "served {served} requests, {bytes} bytes, {failed} failed"
        )
    }
}
