// SPDX-License-Identifier: GPL-2.0

//! Reads from a blob: hits at once, misses after the daemon has answered.
//!
//! A hit is read past the backing file's page cache into the reader's, so that nothing is cached
//! twice. What was just filled is still in the backing file's page cache, perhaps not on disk yet,
//! and is read from there; a little later it is dropped from it.

use crate::{behind, object::Object, presence::BLOCK, request, table::Waiter};
use fscache::backend::{queue, CacheRead};
use kernel::{
    new_mutex,
    prelude::*,
    sync::{
        atomic::{ordering, Atomic},
        Arc, Mutex,
    },
};
use vfs::{cred, kfile::WriteErrors, u64_from};

/// Requests that one read makes at most for its holes. If it has more of them, the last request
/// takes in what lies between: fetching a little twice is better than a thousand requests.
const RUNS_MAX: usize = 8;

/// How a backing file is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// From its page cache what is there, the rest past it.
    Auto,
    /// Always past its page cache.
    Direct,
    /// Always through its page cache.
    Buffered,
}

/// Reads from `start` of the object. Waits neither for bytes that are missing, nor for somebody who
/// writes to the file. May sleep.
pub(crate) fn read(object: Arc<Object>, start: u64, read: CacheRead) {
    if would_wait(&object, start, read.len()) {
        // Without memory the read is dropped, which fails it.
        let _ = queue().try_spawn(GFP_KERNEL, move || read_here(object, start, read));
    } else {
        read_here(object, start, read);
    }
}

/// Whether the file has to be asked or read past its page cache, and somebody writes to it.
fn would_wait(object: &Object, start: u64, len: usize) -> bool {
    let len = u64_from(len).min(object.size().saturating_sub(start));
    object.file().is_ok_and(|file| {
        file.busy() && !(object.known().covers(file, start, len) && file.in_page_cache(start, len))
    })
}

fn read_here(object: Arc<Object>, start: u64, read: CacheRead) {
    let len = u64_from(read.len()).min(object.size().saturating_sub(start));
    let known = match object.confirm() {
        Ok(known) => known,
        Err(e) => return read.complete(Err(e)),
    };
    // What is known takes no second look.
    let holes = match object.covers(start, len) {
        true => Ok(KVec::new()),
        false => missing(&object, start, len),
    };
    let present = matches!(&holes, Ok(holes) if holes.is_empty());
    object.count(present);
    trace::presence(object.name(), start, len, present);
    match holes {
        Ok(_) if present => hit(&object, start, known, read),
        Ok(_) if object.cache.out_of_space() => {
            if object.cache.requests.may_print() {
                pr_warn!(
                    "cache {:?}: file {:?}: no space is left to fetch {len} bytes at {start} into\n",
                    object.cache.tag(),
                    object.name()
                );
            }
            read.complete(Err(ENOSPC));
        }
        Ok(holes) => match Miss::new(object, start, known, read) {
            Ok(miss) => miss.begin(&holes),
            // The read was dropped, which failed it.
            Err(_) => {}
        },
        Err(e) => read.complete(Err(e)),
    }
}

/// Reads what is present as long as nothing is lost after `known`.
fn hit(object: &Arc<Object>, start: u64, known: WriteErrors, read: CacheRead) {
    let file = match object.file() {
        Ok(file) => file,
        Err(e) => return read.complete(Err(e)),
    };
    // Readers need no right to the cache.
    let _as_daemon = cred::Override::new(object.cache.cred());
    let len = u64_from(read.len()).min(object.size().saturating_sub(start));
    let direct = match object.cache.io_mode() {
        Mode::Auto => !file.in_page_cache(start, len),
        Mode::Direct => true,
        Mode::Buffered => false,
    };
    // What is not on disk cannot be read from there.
    let direct = direct && object.known().is_settled(start, len);
    if !direct || !file.can_read_direct() {
        return read_buffered(object, start, known, read);
    }
    // The device below may want an alignment that the read does not have.
    if let Err((_, read)) = file.read_direct(start, Some(known), read, queue()) {
        read_buffered(object, start, known, read);
    }
}

/// Reads through the backing file's page cache, and sees to it that nothing stays there.
fn read_buffered(object: &Arc<Object>, start: u64, known: WriteErrors, read: CacheRead) {
    let end = start.saturating_add(u64_from(read.len()));
    match object.file() {
        Ok(file) => {
            // Noted first: once the read is over, the object may go.
            let cache = &object.cache;
            if cache.behind.note(object, start, end) {
                cache.behind.start(behind::WAIT_MS);
            }
            let _as_daemon = cred::Override::new(cache.cred());
            file.read_buffered(start, Some(known), read, queue());
        }
        Err(e) => read.complete(Err(e)),
    }
}

/// The missing parts of a range, widened to what is asked from the daemon.
fn missing(object: &Object, start: u64, len: u64) -> Result<KVec<(u64, u64)>> {
    let mut holes = holes(object, start, len)?;
    let granule = object.cache.granule();
    if let (Some(first), Some(last)) = (holes.first(), holes.last()) {
        if granule > BLOCK {
            let len = last.1.saturating_sub(first.0);
            let (start, len) =
                netfs_split::widen(first.0, len, granule, object.size()).ok_or(EIO)?;
            holes = self::holes(object, start, len)?;
        }
    }
    Ok(holes)
}

/// The missing parts of a range, in whole blocks.
fn holes(object: &Object, start: u64, len: u64) -> Result<KVec<(u64, u64)>> {
    let mut holes: KVec<(u64, u64)> = KVec::new();
    object.for_each_missing(start, len, |run| {
        let (start, len) =
            netfs_split::widen(run.start, run.len, BLOCK, object.size()).ok_or(EIO)?;
        let end = start.checked_add(len).ok_or(EIO)?;
        let full = holes.len() >= RUNS_MAX;
        match holes.last_mut() {
            // Widened runs may touch or overlap.
            Some(last) if full || start <= last.1 => last.1 = last.1.max(end),
            _ => holes.push((start, end), GFP_KERNEL)?,
        }
        Ok(())
    })?;
    Ok(holes)
}

/// A read that waits for the daemon.
#[pin_data]
pub(crate) struct Miss {
    object: Arc<Object>,
    start: u64,
    /// The disk's errors that had come before the daemon was asked.
    known: WriteErrors,
    #[pin]
    read: Mutex<Option<CacheRead>>,
    /// Requests without an answer, and one while they are being made.
    pending: Atomic<i32>,
    /// The first error that was the answer, or zero.
    errno: Atomic<i32>,
}

impl Miss {
    fn new(
        object: Arc<Object>,
        start: u64,
        known: WriteErrors,
        read: CacheRead,
    ) -> Result<Arc<Self>> {
        Arc::pin_init(
            pin_init!(Self {
                object,
                start,
                known,
                read <- new_mutex!(Some(read)),
                pending: Atomic::new(1),
                errno: Atomic::new(0),
            }),
            GFP_KERNEL,
        )
    }

    /// The blob that is read.
    pub(crate) fn object(&self) -> &Arc<Object> {
        &self.object
    }

    fn begin(self: Arc<Self>, holes: &[(u64, u64)]) {
        let requests = &self.object.cache.requests;
        let result = holes.iter().try_for_each(|(start, end)| {
            let (watch, result) = requests.add(&self, *start, *end);
            if watch {
                requests.start(request::WATCH_MS);
            }
            result
        });
        self.answered(result);
    }

    /// An answer came. If it was the last one, the read goes on: here, as what the daemon has just
    /// written is in memory, and waking somebody else to copy it would cost more than the copy.
    /// May sleep.
    pub(crate) fn answered(&self, result: Result) {
        if let Err(e) = result {
            // Only the first error is kept.
            let _ = self.errno.cmpxchg(0, e.to_errno(), ordering::Full);
        }
        if self.pending.fetch_sub(1, ordering::Full) == 1 {
            self.go_on();
        }
    }

    /// All answers have come.
    fn go_on(&self) {
        let Some(read) = self.read.lock().take() else {
            return;
        };
        match self.check(read.len()) {
            Ok(known) if self.object.cache.io_mode() == Mode::Direct => {
                hit(&self.object, self.start, known, read)
            }
            Ok(known) => read_buffered(&self.object, self.start, known, read),
            Err(e) => read.complete(Err(e)),
        }
    }

    /// Looks once more whether the bytes are there: what the daemon says is not believed.
    fn check(&self, len: usize) -> Result<WriteErrors> {
        match self.errno.load(ordering::Acquire) {
            0 => {}
            errno => return Err(Error::from_errno(errno)),
        }
        let len = u64_from(len).min(self.object.size().saturating_sub(self.start));
        let known = self.object.confirm()?;
        self.object.for_each_missing(self.start, len, |run| {
            // Bytes that the disk has lost meanwhile are not the daemon's fault, and the log tells
            // of them.
            if known == self.known && self.object.cache.requests.may_print() {
                pr_err!(
                    "cache {:?}: file {:?}: the daemon said done, but {} bytes at {} are missing\n",
                    self.object.cache.tag(),
                    self.object.name(),
                    run.len,
                    run.start
                );
            }
            Err(EIO)
        })?;
        Ok(known)
    }
}

impl Waiter for Arc<Miss> {
    fn expect_answer(&self) {
        self.pending.fetch_add(1, ordering::Relaxed);
    }
}
