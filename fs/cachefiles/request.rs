// SPDX-License-Identifier: GPL-2.0

//! Requests: ranges of blobs that readers wait for and the daemon has to fetch.
//!
//! A request is in the table from when a reader misses until it is answered, and only there: the
//! table owns it. Whoever takes it out of the table, under the lock, is the one who completes it:
//! once, and for all who wait for it. What leads to it from elsewhere is its id, which is never
//! used again, so that an answer that comes late finds nothing.
//!
//! Whether there is a daemon is decided under the same lock: no request gets into the table after
//! all of them were failed because there is none.
//!
//! Lock order: the table's lock is the innermost one. No user memory is touched and nothing is
//! completed while it is held.

use crate::{
    cache::State,
    io::Miss,
    object::Object,
    table::{self, Table},
};
use kernel::{
    new_mutex,
    prelude::*,
    str::CString,
    sync::{
        atomic::{ordering, Atomic},
        lock::{mutex::MutexBackend, Guard},
        Arc, Mutex,
    },
    time::{Instant, Monotonic},
};
use vfs::{log, plug, workqueue::Tick};

/// A request that has had no answer for so long is hung, in milliseconds.
const HUNG_MS: u64 = 30_000;

/// How often requests are looked at for their age, in milliseconds.
pub(crate) const WATCH_MS: u32 = 1000;

type Request = table::Request<Arc<Object>, Arc<Miss>>;

/// The requests of one cache.
#[pin_data]
pub(crate) struct Requests {
    state: Arc<State>,
    tag: CString,
    #[pin]
    inner: Mutex<Inner>,
    /// Seconds after which a request fails; zero for never.
    timeout: Atomic<u32>,
    pub(crate) counts: Counts,
    /// What a bad daemon may cause in the log.
    #[pin]
    lines: log::Limit,
}

struct Inner {
    daemon: Daemon,
    table: Table<Arc<Object>, Arc<Miss>>,
}

/// Whether somebody is there to answer.
#[derive(Clone, Copy)]
pub(crate) enum Daemon {
    /// Requests are answered; the daemon came at that time.
    Connected(Instant<Monotonic>),
    /// The daemon is gone since then, and another one is waited for, for so many milliseconds.
    Lingering(Instant<Monotonic>, u64),
    /// Nobody answers: requests fail at once.
    Gone,
}

/// What has happened so far.
pub(crate) struct Counts {
    /// Requests that were answered with `done`.
    pub(crate) done: Atomic<u64>,
    /// Bytes of those.
    pub(crate) done_bytes: Atomic<u64>,
    /// Requests that failed, for whatever reason.
    pub(crate) failed: Atomic<u64>,
    /// Requests that were hung.
    pub(crate) hung: Atomic<u64>,
}

/// The table at one moment.
#[derive(Clone, Copy)]
pub(crate) struct Load {
    pub(crate) daemon: Daemon,
    pub(crate) queued: usize,
    pub(crate) delivered: usize,
    /// Age of the oldest request in milliseconds; zero when there is none.
    pub(crate) oldest_ms: u64,
}

/// A request as the daemon sees it.
pub(crate) struct Record {
    pub(crate) id: u64,
    pub(crate) start: u64,
    pub(crate) len: u64,
    pub(crate) object: Arc<Object>,
}

/// A request as whoever looks at the table sees it.
pub(crate) struct Row {
    pub(crate) record: Record,
    pub(crate) delivered: bool,
    pub(crate) age_ms: u64,
    /// How many reads wait for it.
    pub(crate) waiting: usize,
}

impl Requests {
    pub(crate) fn new(state: Arc<State>, tag: CString) -> impl PinInit<Self> {
        pin_init!(Self {
            state,
            tag,
            inner <- new_mutex!(Inner {
                daemon: Daemon::Connected(Instant::now()),
                table: Table::new(),
            }),
            timeout: Atomic::new(0),
            counts: Counts {
                done: Atomic::new(0),
                done_bytes: Atomic::new(0),
                failed: Atomic::new(0),
                hung: Atomic::new(0),
            },
            lines <- log::Limit::new(),
        })
    }

    /// A daemon is there: it gets all requests, also those that the one before it had read.
    /// [`EBUSY`] if there is one already.
    pub(crate) fn connect(&self) -> Result {
        let mut inner = self.inner.lock();
        if let Daemon::Connected(_) = inner.daemon {
            return Err(EBUSY);
        }
        inner.daemon = Daemon::Connected(Instant::now());
        inner.table.take_all_back();
        drop(inner);
        self.state.tell_readable();
        Ok(())
    }

    /// Whether a daemon is there.
    pub(crate) fn connected(&self) -> bool {
        matches!(self.inner.lock().daemon, Daemon::Connected(_))
    }

    /// The daemon is gone, but requests wait for the next one, for so many seconds.
    pub(crate) fn linger(&self, seconds: u32) {
        let ms = u64::from(seconds).saturating_mul(1000);
        self.inner.lock().daemon = Daemon::Lingering(Instant::now(), ms);
    }

    /// The daemon is gone: fails all requests with [`EIO`], and new ones from now on.
    pub(crate) fn disconnect(&self) {
        self.fail_all(self.inner.lock());
    }

    /// Nobody answers from now on.
    fn fail_all(&self, mut inner: Guard<'_, Inner, MutexBackend>) {
        inner.daemon = Daemon::Gone;
        let requests = inner.table.remove_all();
        drop(inner);
        for request in requests.values() {
            self.complete(request, Err(EIO));
        }
    }

    /// Nobody wants the bytes of `object` any more: fails its requests.
    pub(crate) fn abort(&self, object: &Object) {
        self.fail_each(ECANCELED, |inner| inner.table.remove_of(object.serial()));
    }

    /// Takes out requests, one at a time, and fails them.
    fn fail_each(&self, e: Error, mut next: impl FnMut(&mut Inner) -> Option<Request>) {
        loop {
            let request = next(&mut self.inner.lock());
            match request {
                Some(request) => self.complete(&request, Err(e)),
                None => return,
            }
        }
    }

    /// Requests fail after so many seconds without an answer; zero for never.
    pub(crate) fn set_timeout(&self, seconds: u32) {
        self.timeout.store(seconds, ordering::Relaxed);
    }

    /// See [`Requests::set_timeout`].
    pub(crate) fn timeout(&self) -> u32 {
        self.timeout.load(ordering::Relaxed)
    }

    /// Makes `miss` wait for the bytes from `start` to `end` of its object: joins the requests that
    /// cover parts of it, and makes new ones for the rest. [`EIO`] when there is no daemon. May
    /// sleep.
    ///
    /// The first value tells whether somebody has to watch the age of requests from now on, also
    /// when there was an error: then the miss may wait for a part of the range.
    pub(crate) fn add(&self, miss: &Arc<Miss>, start: u64, end: u64) -> (bool, Result) {
        let object = miss.object();
        let mut inner = self.inner.lock();
        if let Daemon::Gone = inner.daemon {
            return (false, Err(EIO));
        }
        let first = inner.table.is_empty();
        let mut added = false;
        let result = inner.table.add(
            (object, object.serial()),
            (start, end),
            miss,
            || self.state.new_id(),
            |request| {
                added = true;
                trace::request_queued(
                    &self.tag,
                    object.name(),
                    request.id,
                    request.start,
                    request.len(),
                );
            },
        );
        drop(inner);
        if added {
            self.notify();
        }
        (first && added, result)
    }

    /// Wakes the daemon, for what one reader asks for in one go once.
    fn notify(&self) {
        if !plug::when_unplugged(&self.state, State::tell_readable) {
            self.state.tell_readable();
        }
    }

    /// Whether a record waits for delivery.
    pub(crate) fn deliverable(&self) -> bool {
        self.inner.lock().table.queued() > 0
    }

    /// Takes the next record and counts it as delivered.
    pub(crate) fn deliver(&self) -> Option<Record> {
        let mut inner = self.inner.lock();
        let request = inner.table.deliver()?;
        trace::request_delivered(request.id);
        Some(Record::new(request))
    }

    /// The record did not reach the daemon: it is delivered again.
    pub(crate) fn take_back(&self, id: u64) {
        self.inner.lock().table.take_back(id);
        self.state.tell_readable();
    }

    /// Delivers everything again that has no answer.
    pub(crate) fn restore(&self) {
        if self.inner.lock().table.take_all_back() > 0 {
            self.state.tell_readable();
        }
    }

    /// The daemon answers a request that was delivered to it. [`EINVAL`] for any other id. May
    /// sleep.
    pub(crate) fn answer(&self, id: u64, result: Result) -> Result {
        let request = self.inner.lock().table.remove_delivered(id);
        let request = request.ok_or(EINVAL)?;
        let result = result.and_then(|()| request.object.filled(request.start, request.len()));
        self.complete(&request, result);
        Ok(())
    }

    /// Tells all who wait. The caller has taken the request out of the table.
    fn complete(&self, request: &Request, result: Result) {
        match result {
            Ok(()) => {
                self.counts.done.fetch_add(1, ordering::Relaxed);
                self.counts
                    .done_bytes
                    .fetch_add(request.len(), ordering::Relaxed);
            }
            Err(_) => {
                self.counts.failed.fetch_add(1, ordering::Relaxed);
            }
        }
        let errno = result.map_or_else(|e| e.to_errno(), |()| 0);
        trace::request_completed(request.id, errno, request.age_us(Instant::now()));
        for miss in &request.waiting {
            miss.answered(result);
        }
    }

    /// The state of the table.
    pub(crate) fn load(&self) -> Load {
        let inner = self.inner.lock();
        let now = Instant::now();
        Load {
            daemon: inner.daemon,
            queued: inner.table.queued(),
            delivered: inner.table.delivered(),
            oldest_ms: inner
                .table
                .oldest()
                .map_or(0, |request| request.age_ms(now)),
        }
    }

    /// The first request with an id of at least `id`.
    pub(crate) fn row(&self, id: u64) -> Option<Row> {
        let inner = self.inner.lock();
        let request = inner.table.first_from(id)?;
        Some(Row {
            record: Record::new(request),
            delivered: request.delivered(),
            age_ms: request.age_ms(Instant::now()),
            waiting: request.waiting.len(),
        })
    }

    /// Whether the log has room for one more line about the cache. Any context.
    pub(crate) fn may_print(&self) -> bool {
        self.lines.may_print()
    }

    fn log_hung(&self, request: &Request) {
        self.counts.hung.fetch_add(1, ordering::Relaxed);
        if self.may_print() {
            pr_warn!(
                "cache {:?}: file {:?}: request {} for {} bytes at {} has no answer for {} s\n",
                &*self.tag,
                request.object.name(),
                request.id,
                request.len(),
                request.start,
                HUNG_MS / 1000
            );
        }
    }
}

/// Looks at the age of requests, and whether the time to linger is over.
impl Tick for Requests {
    fn tick(&self) -> Option<u32> {
        let now = Instant::now();
        let mut inner = self.inner.lock();
        inner
            .table
            .for_each_hung(now, HUNG_MS, |request| self.log_hung(request));
        match inner.daemon {
            Daemon::Lingering(since, ms) if elapsed_ms(since, now) >= ms => {
                pr_warn!(
                    "cache {:?}: no new daemon has come: data that is missing gives EIO until one \
                     binds it\n",
                    &*self.tag
                );
                self.fail_all(inner);
            }
            // Without a daemon, the time to linger is the limit.
            Daemon::Connected(since) => {
                let limit = u64::from(self.timeout()).saturating_mul(1000);
                drop(inner);
                if limit > 0 && elapsed_ms(since, now) >= limit {
                    self.fail_each(ETIMEDOUT, |inner| inner.table.remove_older(now, limit));
                }
            }
            _ => drop(inner),
        }

        let inner = self.inner.lock();
        match inner.daemon {
            Daemon::Lingering(since, ms) => {
                let left = ms.saturating_sub(elapsed_ms(since, Instant::now()));
                let left = u32::try_from(left).unwrap_or(WATCH_MS);
                Some(left.clamp(1, WATCH_MS))
            }
            _ if !inner.table.is_empty() => Some(WATCH_MS),
            _ => None,
        }
    }
}

fn elapsed_ms(since: Instant<Monotonic>, now: Instant<Monotonic>) -> u64 {
    u64::try_from((now - since).as_millis()).unwrap_or(0)
}

impl Record {
    fn new(request: &Request) -> Self {
        Self {
            id: request.id,
            start: request.start,
            len: request.len(),
            object: request.object.clone(),
        }
    }
}
