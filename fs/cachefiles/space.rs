// SPDX-License-Identifier: GPL-2.0

//! Free space of the file system below a cache, and what follows from it.
//!
//! Six limits, as cachefiles has them: when free blocks or files fall below *cull*, the daemon is
//! told that files should go, until there are more than *run*; below *stop* nothing more is
//! fetched. The file system is asked when there is a reason to, and at most every [`CHECK_MS`].

use kernel::{
    new_spinlock,
    prelude::*,
    sync::{
        atomic::{ordering, Atomic},
        SpinLock,
    },
    time::{Instant, Monotonic},
};
use vfs::path::{Path, Space};

/// How old an answer of the file system may be, in milliseconds.
const CHECK_MS: i64 = 500;

/// Limits on one kind of free space, in per cent of what the file system has of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Limits {
    pub(crate) run: u8,
    pub(crate) cull: u8,
    pub(crate) stop: u8,
}

impl Limits {
    /// What cachefiles takes when it is told nothing.
    pub(crate) const DEFAULT: Self = Self {
        run: 7,
        cull: 5,
        stop: 1,
    };

    /// Whether they are in order: each needs some room to the next one.
    pub(crate) fn valid(&self) -> bool {
        self.stop < self.cull && self.cull < self.run && self.run < 100
    }

    /// What follows when `free` of `all` are left, for somebody who culls already or does not.
    fn judge(&self, free: u64, all: u64, culling: bool) -> State {
        let below = |percent: u8| {
            u128::from(free).saturating_mul(100)
                < u128::from(all).saturating_mul(u128::from(percent))
        };
        State {
            culling: below(if culling { self.run } else { self.cull }),
            stopped: below(self.stop),
        }
    }
}

/// Limits on free blocks and on free files.
#[derive(Clone, Copy)]
pub(crate) struct SpaceLimits {
    pub(crate) blocks: Limits,
    pub(crate) files: Limits,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct State {
    culling: bool,
    stopped: bool,
}

/// What is known of the free space.
#[pin_data]
pub(crate) struct FreeSpace {
    #[pin]
    limits: SpinLock<SpaceLimits>,
    /// When the file system was asked the last time.
    #[pin]
    checked: SpinLock<Option<Instant<Monotonic>>>,
    culling: Atomic<bool>,
    stopped: Atomic<bool>,
}

impl FreeSpace {
    pub(crate) fn new() -> impl PinInit<Self> {
        pin_init!(Self {
            limits <- new_spinlock!(SpaceLimits {
                blocks: Limits::DEFAULT,
                files: Limits::DEFAULT,
            }),
            checked <- new_spinlock!(None),
            culling: Atomic::new(false),
            stopped: Atomic::new(false),
        })
    }

    /// Whether files should be culled.
    pub(crate) fn culling(&self) -> bool {
        self.culling.load(ordering::Relaxed)
    }

    /// Whether nothing more can be fetched.
    pub(crate) fn stopped(&self) -> bool {
        self.stopped.load(ordering::Relaxed)
    }

    /// Takes new limits, and looks at once. May sleep.
    pub(crate) fn set_limits(&self, root: &Path, limits: SpaceLimits) -> bool {
        *self.limits.lock() = limits;
        self.look(root)
    }

    /// Looks if the last look was long ago; true if culling has become necessary. May sleep.
    pub(crate) fn check(&self, root: &Path) -> bool {
        {
            let mut checked = self.checked.lock();
            if checked.is_some_and(|at| at.elapsed().as_millis() < CHECK_MS) {
                return false;
            }
            *checked = Some(Instant::now());
        }
        self.look(root)
    }

    /// Looks now; true if culling has become necessary. May sleep.
    pub(crate) fn look(&self, root: &Path) -> bool {
        // A file system that does not answer is left as it was.
        let Ok(space) = root.space() else {
            return false;
        };
        let limits = *self.limits.lock();
        let was = self.culling();
        let state = judge(&limits, &space, was);
        self.stopped.store(state.stopped, ordering::Relaxed);
        self.culling.store(state.culling, ordering::Relaxed);
        state.culling && !was
    }
}

fn judge(limits: &SpaceLimits, space: &Space, culling: bool) -> State {
    let blocks = limits.blocks.judge(space.available, space.blocks, culling);
    // Some file systems make files as they need them and count none.
    let files = limits.files.judge(space.free_files, space.files, culling);
    State {
        culling: blocks.culling || files.culling,
        stopped: blocks.stopped || files.stopped,
    }
}

#[kunit_tests(cachefiles_demand_space)]
mod tests {
    use super::*;

    fn state(culling: bool, stopped: bool) -> State {
        State { culling, stopped }
    }

    #[test]
    fn culling_begins_below_cull_and_ends_at_run() {
        let limits = Limits::DEFAULT;
        assert_eq!(limits.judge(50, 1000, false), state(false, false));
        assert_eq!(limits.judge(49, 1000, false), state(true, false));
        assert_eq!(limits.judge(69, 1000, true), state(true, false));
        assert_eq!(limits.judge(70, 1000, true), state(false, false));
    }

    #[test]
    fn t29_nothing_is_fetched_below_stop() {
        assert_eq!(Limits::DEFAULT.judge(9, 1000, true), state(true, true));
        assert_eq!(Limits::DEFAULT.judge(10, 1000, true), state(true, false));
    }

    #[test]
    fn a_file_system_without_a_count_is_never_short_of_it() {
        assert_eq!(Limits::DEFAULT.judge(0, 0, false), state(false, false));
    }

    #[test]
    fn the_largest_file_system_does_not_overflow() {
        assert_eq!(
            Limits::DEFAULT.judge(u64::MAX, u64::MAX, true),
            state(false, false)
        );
    }

    #[test]
    fn limits_must_be_in_order() {
        let limits = |run, cull, stop| Limits { run, cull, stop };
        assert!(limits(7, 5, 1).valid());
        assert!(limits(2, 1, 0).valid());
        assert!(!limits(5, 5, 1).valid());
        assert!(!limits(7, 1, 1).valid());
        assert!(!limits(100, 5, 1).valid());
    }
}
