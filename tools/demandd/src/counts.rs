// SPDX-License-Identifier: GPL-2.0
//! What was served, counted while it is.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

/// Counts since the daemon began.
#[derive(Debug, Default)]
pub struct Counts {
    served: AtomicU64,
    bytes: AtomicU64,
    failed: AtomicU64,
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

    /// What was counted so far.
    pub fn summary(&self) -> Summary {
        Summary {
            served: self.served.load(Ordering::Relaxed),
            bytes: self.bytes.load(Ordering::Relaxed),
            failed: self.failed.load(Ordering::Relaxed),
        }
    }
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
