// SPDX-License-Identifier: GPL-2.0
//! The blobs that are open: sources and cache file, kept from one request to the next, a bounded number of them.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{ensure, Context, Result};
use rustix::process::{getrlimit, Resource};

use crate::cache::{next_missing, Volume};
use crate::copy::{copy, Buffer};
use crate::fetch::{Remote, Urgency};
use crate::flight::{Flights, Next};
use crate::source::mirror::Mirrors;

/// A blob with its cache file open, and what its bytes come from.
#[derive(Debug)]
pub struct Blob {
    cache: File,
    size: u64,
    data: Data,
}

/// What the bytes of a blob come from.
#[derive(Debug)]
enum Data {
    /// A file of this machine, which is believed.
    Local(File),
    /// Sources that are not believed.
    Verified {
        mirrors: Arc<Mirrors>,
        remote: Remote,
        flights: Flights,
    },
}

impl Blob {
    /// Opens a blob. Its cache file and what the source has are of the same size, or they are not the same blob.
    pub fn open(volume: &Volume, mirrors: &Arc<Mirrors>, name: &OsStr) -> Result<Self> {
        let (cache, size) = volume.open(name)?;
        let data = match volume.verified_with(name)? {
            Some((entry, chunks)) => {
                check_size(name, "manifest", entry.size, size)?;
                Data::Verified {
                    mirrors: Arc::clone(mirrors),
                    remote: Remote::open(mirrors, entry.name, chunks, &volume.places(name)?)?,
                    flights: Flights::default(),
                }
            }
            None => {
                let (file, have) = mirrors.local(name)?;
                check_size(name, "source", have, size)?;
                Data::Local(file)
            }
        };
        // A write that is cut short at the limit would leave half a block behind.
        let limit = getrlimit(Resource::Fsize).current;
        ensure!(
            limit.is_none_or(|limit| limit >= size),
            "{name:?} has {size} bytes, and this process must not write so large a file: raise its limit (ulimit -f)"
        );
        Ok(Self { cache, size, data })
    }

    /// The blob's size in bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The cache file.
    pub fn cache(&self) -> &File {
        &self.cache
    }

    /// Whether the cache file still has a name. One that was culled, or removed or replaced by hand, has none.
    fn is_current(&self) -> bool {
        self.cache.metadata().is_ok_and(|open| open.nlink() > 0)
    }

    /// Brings a range into the cache file; if the blob is verified, all of the chunks that it touches.
    pub fn fetch(&self, off: u64, len: u64, urgency: Urgency, buffer: &mut Buffer) -> Result<()> {
        let (mirrors, remote, flights) = match &self.data {
            Data::Local(source) => return copy(source, &self.cache, off, len, buffer),
            Data::Verified {
                mirrors,
                remote,
                flights,
            } => (mirrors, remote, flights),
        };
        let wanted = off..off.saturating_add(len);
        let deadline = mirrors.deadline();
        let mut chunks = remote.chunks.touched(wanted.clone());
        while !chunks.is_empty() {
            match flights.next(chunks.clone(), deadline)? {
                Next::Fly(flight) => {
                    chunks.start = flight.chunks().end;
                    remote.fetch(mirrors, flight, (urgency, deadline), &self.cache, buffer)?;
                }
                Next::Landed(landed) => {
                    let bytes = remote.chunks.bytes(landed.clone());
                    let (start, end) = (bytes.start.max(wanted.start), bytes.end.min(wanted.end));
                    let missing = next_missing(&self.cache, start, self.size)
                        .context("cannot tell what is missing")?;
                    if missing.is_some_and(|missing| missing.start < end) {
                        flights.lost(landed);
                    } else {
                        chunks.start = landed.end;
                    }
                }
            }
        }
        Ok(())
    }
}

fn check_size(name: &OsStr, what: &str, size: u64, cached: u64) -> Result<()> {
    ensure!(
        size == cached,
        "the {what} of {name:?} has {size} bytes and its cache file {cached}: they are not the same blob"
    );
    Ok(())
}

/// Open blobs by the name of their cache file; the one that was not used for longest goes first.
///
/// An open file keeps its space even when it has been removed, so none stays open for long without being used.
#[derive(Debug)]
pub struct Blobs {
    volume: Volume,
    mirrors: Arc<Mirrors>,
    limit: usize,
    idle: Duration,
    open: Mutex<Open>,
}

#[derive(Debug, Default)]
struct Open {
    blobs: HashMap<OsString, (Instant, Arc<Blob>)>,
    /// When a blob was used, of all that were not culled since.
    used: HashMap<OsString, SystemTime>,
}

impl Blobs {
    /// Keeps at most `limit` blobs open, and none that was not used for `idle`, besides those that are being copied.
    pub fn new(volume: Volume, mirrors: Arc<Mirrors>, limit: usize, idle: Duration) -> Self {
        Self {
            volume,
            mirrors,
            limit,
            idle,
            open: Mutex::default(),
        }
    }

    /// The volume that has the cache files.
    pub fn volume(&self) -> &Volume {
        &self.volume
    }

    /// Where the bytes come from.
    pub fn mirrors(&self) -> &Mirrors {
        &self.mirrors
    }

    /// The blob whose cache file has this name.
    pub fn get(&self, file_name: &OsStr) -> Result<Arc<Blob>> {
        let open = self.lock().touch(file_name);
        if let Some(blob) = open {
            if blob.is_current() {
                return Ok(blob);
            }
            self.forget(file_name);
        }
        // Opening may take long, so not under the lock. Two workers may both open a blob; both use that of the first one.
        let name = self.mirrors.blob_of(file_name)?;
        let blob = Arc::new(Blob::open(&self.volume, &self.mirrors, &name)?);
        Ok(self.lock().keep(file_name, blob, self.limit))
    }

    /// Closes a blob, so that the next request opens it anew: its files may have been replaced.
    pub fn forget(&self, file_name: &OsStr) {
        self.lock().blobs.remove(file_name);
    }

    /// Closes a blob whose cache file was removed.
    pub fn forget_culled(&self, file_name: &OsStr) {
        let mut open = self.lock();
        open.blobs.remove(file_name);
        open.used.remove(file_name);
    }

    /// Closes what was not used for long. Returns after how long that should be done again.
    pub fn close_idle(&self) -> Duration {
        self.lock()
            .blobs
            .retain(|_, (used, _)| used.elapsed() < self.idle);
        self.idle
    }

    /// Notes that somebody uses a blob at this moment.
    pub fn mark_used(&self, file_name: &OsStr) {
        self.lock()
            .used
            .insert(file_name.to_owned(), SystemTime::now());
    }

    /// When a blob was last used, as far as is known.
    pub fn last_used(&self, file_name: &OsStr) -> Option<SystemTime> {
        self.lock().used.get(file_name).copied()
    }

    /// How many blobs are kept open.
    pub fn count(&self) -> usize {
        self.lock().blobs.len()
    }

    fn lock(&self) -> MutexGuard<'_, Open> {
        // The maps are whole between any two statements that could panic.
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Open {
    fn touch(&mut self, file_name: &OsStr) -> Option<Arc<Blob>> {
        let (used, blob) = self.blobs.get_mut(file_name)?;
        *used = Instant::now();
        let blob = Arc::clone(blob);
        if let Some(used) = self.used.get_mut(file_name) {
            *used = SystemTime::now();
        }
        Some(blob)
    }

    fn keep(&mut self, file_name: &OsStr, blob: Arc<Blob>, limit: usize) -> Arc<Blob> {
        let entry = self.blobs.entry(file_name.to_owned());
        let (used, blob) = entry.or_insert_with(|| (Instant::now(), blob));
        *used = Instant::now();
        let blob = Arc::clone(blob);
        self.used.insert(file_name.to_owned(), SystemTime::now());
        while self.blobs.len() > limit {
            let oldest = self
                .blobs
                .iter()
                .min_by_key(|(_, (used, _))| *used)
                .map(|(name, _)| name.clone());
            match oldest {
                Some(name) => self.blobs.remove(&name),
                None => break,
            };
        }
        blob
    }
}
