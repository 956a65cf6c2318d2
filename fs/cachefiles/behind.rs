// SPDX-License-Identifier: GPL-2.0

//! Drop-behind: what was read from the page cache of a backing file is taken out of it again.
//!
//! A fill leaves its bytes in the page cache of the backing file, where the read that waited for
//! them finds them. The reader's own page cache has them then, so they are not needed twice. They
//! can go once they are on disk: so the ranges are noted, and a little later are written back and
//! dropped.

use crate::object::Object;
use kernel::{
    new_mutex, new_spinlock,
    prelude::*,
    sync::{Arc, Mutex, SpinLock},
};
use vfs::workqueue::Tick;

/// How long bytes stay at least, in milliseconds.
pub(crate) const WAIT_MS: u32 = 2000;

/// How often it is tried to drop a range. What is not on disk after all of them, or is used by
/// somebody else, is left to the kernel.
const TRIES: u32 = 4;

/// What is to be dropped of one object.
#[pin_data]
pub(crate) struct Behind {
    #[pin]
    state: SpinLock<State>,
}

#[derive(Clone, Copy, Default)]
struct State {
    range: Option<Range>,
    /// The object is in the list of its cache, or on its way there, or shall not get there.
    listed: bool,
    /// The object is not used any more.
    gone: bool,
}

/// A range in bytes, and how often it was tried to drop it.
#[derive(Clone, Copy)]
struct Range {
    start: u64,
    end: u64,
    tries: u32,
}

impl Range {
    /// One range of two: what lies between them and is in nobody's memory costs nothing.
    fn hull(self, other: Option<Self>) -> Self {
        other.map_or(self, |other| Self {
            start: self.start.min(other.start),
            end: self.end.max(other.end),
            tries: self.tries.min(other.tries),
        })
    }
}

impl Behind {
    pub(crate) fn new() -> impl PinInit<Self> {
        pin_init!(Self {
            state <- new_spinlock!(State::default()),
        })
    }
}

/// The objects of a cache that have something to drop.
///
/// Lock order: the list's lock, then that of an object's state.
#[pin_data]
pub(crate) struct DropBehind {
    #[pin]
    objects: Mutex<KVec<Arc<Object>>>,
}

impl DropBehind {
    pub(crate) fn new() -> impl PinInit<Self> {
        pin_init!(Self {
            objects <- new_mutex!(KVec::new()),
        })
    }

    /// Notes that bytes of the object were read from its page cache; true if somebody has to see
    /// to it. May sleep.
    pub(crate) fn note(&self, object: &Arc<Object>, start: u64, end: u64) -> bool {
        let range = Range {
            start,
            end,
            tries: 0,
        };
        {
            let mut state = object.behind.state.lock();
            state.range = Some(range.hull(state.range));
            if core::mem::replace(&mut state.listed, true) {
                return false;
            }
        }
        let mut objects = self.objects.lock();
        if objects.push(object.clone(), GFP_KERNEL).is_err() {
            // The next read tries again.
            object.behind.state.lock().listed = false;
            return false;
        }
        true
    }

    /// The object is not used any more: starts to write back what is left of it. May sleep.
    pub(crate) fn forget(&self, object: &Object) {
        let mut objects = self.objects.lock();
        let index = objects
            .iter()
            .position(|other| core::ptr::eq(&**other, object));
        let listed = index.and_then(|index| objects.remove(index).ok());
        drop(objects);
        {
            let mut state = object.behind.state.lock();
            state.gone = true;
            state.listed = true;
        }
        if listed.is_some() {
            drop_range(object);
        }
    }
}

impl Tick for DropBehind {
    fn tick(&self) -> Option<u32> {
        let mut objects = core::mem::take(&mut *self.objects.lock());
        objects.retain(|object| drop_range(object));
        let mut list = self.objects.lock();
        for object in objects {
            if object.behind.state.lock().gone {
                continue;
            }
            if list.push(object.clone(), GFP_KERNEL).is_err() {
                // The next read tries again.
                object.behind.state.lock().listed = false;
            }
        }
        (!list.is_empty()).then_some(WAIT_MS)
    }
}

/// Writes back and drops what can be dropped, and notes what is on disk then; whether it has to be
/// tried again. May sleep.
fn drop_range(object: &Object) -> bool {
    let range = object.behind.state.lock().range.take();
    let left = range.filter(|range| {
        let len = range.end.saturating_sub(range.start);
        object.file().is_ok_and(|file| {
            // An error is one of writing, which is the daemon's to learn.
            let _ = file.drop_behind(range.start, len);
            // Whoever reads what could not be looked at looks again.
            let _ = object.known().settle(file, range.start, len);
            range.tries < TRIES && file.in_page_cache(range.start, len)
        })
    });
    let mut state = object.behind.state.lock();
    if let Some(mut left) = left {
        left.tries = left.tries.saturating_add(1);
        state.range = Some(left.hull(state.range));
    }
    state.listed = state.gone || state.range.is_some();
    state.listed && !state.gone
}
