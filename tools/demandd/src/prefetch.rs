// SPDX-License-Identifier: GPL-2.0
//! Prefetching: bringing what is missing before somebody reads it.
//!
//! It may run within the daemon that serves the same blobs, or beside it. Within, every piece has to pass the gate, and a
//! chunk is fetched once for both. Beside, both write the same bytes, and a range becomes present once.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::ops::Range;
use std::os::unix::ffi::OsStrExt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{ensure, Context, Error, Result};

use crate::abi::BLOCK;
use crate::blobs::{Blob, Blobs};
use crate::cache::{file_name, next_missing, Volume};
use crate::copy::{Buffer, PIECE};
use crate::counts::Counts;
use crate::fetch::{Later, Urgency};
use crate::gate::Gate;
use crate::source::mirror::{Mirrors, Stopped};

/// A blob, or a range of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The blob's name.
    pub blob: OsString,
    /// The range in bytes; all of the blob without it.
    pub range: Option<Range<u64>>,
}

impl Target {
    /// Reads `NAME` or `NAME:OFF+LEN`. A name may have colons of its own.
    pub fn parse(text: &OsStr) -> Self {
        let parsed = text.to_str().and_then(|text| {
            let (name, range) = text.rsplit_once(':')?;
            let (off, len) = range.split_once('+')?;
            let off: u64 = off.parse().ok()?;
            let end = off.checked_add(len.parse().ok()?)?;
            Some(Self {
                blob: name.into(),
                range: Some(off..end),
            })
        });
        parsed.unwrap_or_else(|| Self {
            blob: text.to_owned(),
            range: None,
        })
    }

    /// Reads a list, with a target in each line, or a line of a trace that `serve` has written; but for those that are
    /// empty, begin with `#`, or are about a request that failed.
    pub fn list(text: &[u8]) -> Vec<Self> {
        let lines = text.split(|&byte| byte == b'\n');
        let lines = lines.filter(|line| !line.is_empty() && !line.starts_with(b"#"));
        lines.filter_map(Self::line).collect()
    }

    fn line(line: &[u8]) -> Option<Self> {
        let fields: Vec<&[u8]> = line.split(|&byte| byte == b'\t').collect();
        let [_, blob, off, len, result] = fields[..] else {
            return Some(Self::parse(OsStr::from_bytes(line)));
        };
        let number = |text| std::str::from_utf8(text).ok()?.parse::<u64>().ok();
        let (off, len) = (number(off)?, number(len)?);
        (result == b"done").then_some(Self {
            blob: OsStr::from_bytes(blob).to_owned(),
            range: Some(off..off.checked_add(len)?),
        })
    }

    /// Every blob that has a cache file.
    pub fn all(volume: &Volume, mirrors: &Mirrors) -> Result<Vec<Self>> {
        let mut targets = Vec::new();
        for entry in volume.list()? {
            let file = entry.path.file_name().unwrap_or(OsStr::from_bytes(b""));
            targets.push(Self {
                blob: mirrors.blob_of(file)?,
                range: None,
            });
        }
        Ok(targets)
    }
}

/// Brings targets, one after the other, with as many threads as call [`Prefetch::work`].
pub struct Prefetch<'a> {
    /// Where the blobs are.
    pub blobs: &'a Blobs,
    /// What every piece has to pass.
    pub gate: &'a Gate,
    /// How long a piece is tried to be had while no source is up; for ever without it.
    pub patience: Option<Duration>,
    /// Where to count what was brought.
    pub counts: &'a Counts,
    /// Is told of each target how many bytes were brought, or why not all.
    pub report: &'a (dyn Fn(&Target, Result<u64>) + Sync),
    /// What is to do.
    pub queue: &'a Queue,
}

/// The most targets that wait.
const TARGETS: usize = 1 << 16;

/// Targets that are to be brought.
#[derive(Debug, Default)]
pub struct Queue {
    /// The first of them, once it was begun. Whoever has this looks for the next piece, which may take long.
    current: Mutex<Option<Current>>,
    waiting: Mutex<Waiting>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Waiting {
    targets: VecDeque<Target>,
    /// The blob of the one that was begun.
    blob: Option<OsString>,
    /// How often all was thrown away.
    cleared: u64,
    closed: bool,
}

#[derive(Debug)]
struct Current {
    job: Arc<Job>,
    /// Where to go on.
    pos: u64,
    /// How often all had been thrown away when it was begun.
    cleared: u64,
}

/// A target of which pieces are being brought. When the last of them lets go of it, it is done.
#[derive(Debug)]
struct Job {
    target: Target,
    blob: Arc<Blob>,
    end: u64,
    bytes: AtomicU64,
    failed: Mutex<Option<Error>>,
}

impl Queue {
    /// Targets in the order in which they are to be brought.
    pub fn new(targets: Vec<Target>) -> Self {
        let waiting = Waiting {
            targets: targets.into(),
            ..Waiting::default()
        };
        Self {
            waiting: waiting.into(),
            ..Self::default()
        }
    }

    /// Adds one behind the others, unless too many wait, or it was closed.
    pub fn add(&self, target: Target) -> bool {
        let mut waiting = self.lock();
        let has_room = waiting.targets.len() < TARGETS && !waiting.closed;
        if has_room {
            waiting.targets.push_back(target);
            self.changed.notify_one();
        }
        has_room
    }

    /// Throws away what has not been brought; pieces that are under way still come. Returns how many targets it was.
    pub fn clear(&self) -> usize {
        let mut waiting = self.lock();
        let begun = usize::from(waiting.blob.take().is_some());
        let count = waiting.targets.len().saturating_add(begun);
        waiting.targets.clear();
        waiting.cleared = waiting.cleared.wrapping_add(1);
        count
    }

    /// No more come: who works ends once nothing is left.
    pub fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_all();
    }

    /// The blob that is being brought, and how many targets wait behind it.
    pub fn state(&self) -> (Option<OsString>, usize) {
        let waiting = self.lock();
        (waiting.blob.clone(), waiting.targets.len())
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for a target; `None` if no more come. Also tells how often all had been thrown away by then.
    fn pop(&self) -> Option<(Target, u64)> {
        let mut waiting = self.lock();
        waiting.blob = None;
        loop {
            if let Some(target) = waiting.targets.pop_front() {
                waiting.blob = Some(target.blob.clone());
                return Some((target, waiting.cleared));
            }
            if waiting.closed {
                return None;
            }
            let woken = self.changed.wait(waiting);
            waiting = woken.unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Prefetch<'_> {
    /// Brings pieces until the queue is closed and nothing is left, or it is time to end.
    pub fn work(&self) -> Result<()> {
        let mut buffer = Buffer::default();
        while let Some((job, piece)) = self.next() {
            let result = self.bring(&job, &piece, &mut buffer);
            match result {
                Ok(()) => {
                    let bytes = piece.end.saturating_sub(piece.start);
                    job.bytes.fetch_add(bytes, Ordering::Relaxed);
                    self.counts.prefetched(bytes);
                }
                Err(error) if error.is::<Stopped>() => return Err(error),
                Err(error) => {
                    let name = job.target.blob.to_string_lossy();
                    let error = error.context(format!("cannot prefetch {name}, {}", piece.start));
                    job.fail(error);
                }
            }
            self.let_go(job);
        }
        Ok(())
    }

    /// The next piece that is missing. Waits for one.
    fn next(&self) -> Option<(Arc<Job>, Range<u64>)> {
        let current = self.queue.current.lock();
        let mut current = current.unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(Current { job, pos, cleared }) = current.take() {
                let thrown_away = self.queue.lock().cleared != cleared;
                match job.piece(pos) {
                    Ok(Some(piece)) if !thrown_away => {
                        *current = Some(Current {
                            job: Arc::clone(&job),
                            pos: piece.end,
                            cleared,
                        });
                        return Some((job, piece));
                    }
                    Ok(_) => {}
                    Err(error) => job.fail(error),
                }
                self.let_go(job);
            }
            let (target, cleared) = self.queue.pop()?;
            match self.begin(&target) {
                Ok((job, pos)) => {
                    let job = Arc::new(job);
                    *current = Some(Current { job, pos, cleared });
                }
                Err(error) => (self.report)(&target, Err(error)),
            }
        }
    }

    /// Opens the blob of a target.
    fn begin(&self, target: &Target) -> Result<(Job, u64)> {
        let blob = self.blobs.get(&file_name(&target.blob)?)?;
        let size = blob.size();
        let range = target.range.clone().unwrap_or(0..size);
        ensure!(
            range.start <= range.end && range.end <= size,
            "{} has {size} bytes: it ends before {}",
            target.blob.to_string_lossy(),
            range.end
        );
        // Whole blocks only.
        let end = range.end.checked_next_multiple_of(BLOCK);
        let job = Job {
            target: target.clone(),
            blob,
            end: end.map_or(size, |end| end.min(size)),
            bytes: AtomicU64::new(0),
            failed: Mutex::default(),
        };
        Ok((job, range.start - range.start % BLOCK))
    }

    /// Brings one piece. While no source is up, waits, but for nothing that somebody else might want.
    fn bring(&self, job: &Job, piece: &Range<u64>, buffer: &mut Buffer) -> Result<()> {
        let mirrors = self.blobs.mirrors();
        let deadline = self.patience.map(|patience| Instant::now() + patience);
        let len = piece.end.saturating_sub(piece.start);
        loop {
            self.gate.pass(len, mirrors)?;
            let Err(error) = job.blob.fetch(piece.start, len, Urgency::Prefetch, buffer) else {
                return Ok(());
            };
            match error.downcast_ref::<Later>() {
                Some(&Later(when)) if deadline.is_none_or(|deadline| when < deadline) => {
                    mirrors.sleep_until(Some(when))?;
                }
                _ => return Err(error),
            }
        }
    }

    /// Reports a target when nobody works on it any more.
    fn let_go(&self, job: Arc<Job>) {
        if let Some(job) = Arc::into_inner(job) {
            let bytes = job.bytes.into_inner();
            let failed = job.failed.into_inner();
            let failed = failed.unwrap_or_else(PoisonError::into_inner);
            (self.report)(&job.target, failed.map_or(Ok(bytes), Err));
        }
    }
}

impl Job {
    /// The first piece at or behind `pos` that is missing: what the daemon has brought in the meantime is not.
    fn piece(&self, pos: u64) -> Result<Option<Range<u64>>> {
        if self.lock().is_some() {
            return Ok(None);
        }
        let missing = next_missing(self.blob.cache(), pos, self.blob.size())
            .context("cannot tell what is missing")?;
        let missing = missing.filter(|missing| missing.start < self.end);
        Ok(missing.map(|missing| {
            let most = missing.start.saturating_add(PIECE as u64);
            missing.start..missing.end.min(self.end).min(most)
        }))
    }

    fn fail(&self, error: Error) {
        self.lock().get_or_insert(error);
    }

    fn lock(&self) -> MutexGuard<'_, Option<Error>> {
        self.failed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
