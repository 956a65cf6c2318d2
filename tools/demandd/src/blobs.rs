// SPDX-License-Identifier: GPL-2.0
//! The blobs that are open: source and cache file, kept from one request to the next, a bounded number of them.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{ensure, Result};
use rustix::process::{getrlimit, Resource};

use crate::cache::Volume;
use crate::copy::{copy, Buffer};
use crate::source::directory::Directory;

/// A blob with both its files open.
#[derive(Debug)]
pub struct Blob {
    source: File,
    cache: File,
    size: u64,
}

impl Blob {
    /// Opens both files. They have the same size, or they are not the same blob.
    pub fn open(volume: &Volume, source: &Directory, name: &OsStr) -> Result<Self> {
        let (cache, size) = volume.open(name)?;
        let (source, source_size) = source.open(name)?;
        ensure!(
            source_size == size,
            "the source of {name:?} has {source_size} bytes and its cache file {size}: they are not the same blob"
        );
        // A write that is cut short at the limit would leave half a block behind.
        let limit = getrlimit(Resource::Fsize).current;
        ensure!(
            limit.is_none_or(|limit| limit >= size),
            "{name:?} has {size} bytes, and this process must not write so large a file: raise its limit (ulimit -f)"
        );
        Ok(Self {
            source,
            cache,
            size,
        })
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

    /// Copies a range from the source into the cache file.
    pub fn fetch(&self, off: u64, len: u64, buffer: &mut Buffer) -> Result<()> {
        copy(&self.source, &self.cache, off, len, buffer)
    }
}

/// Open blobs by the name of their cache file; the one that was not used for longest goes first.
///
/// An open file keeps its space even when it has been removed, so none stays open for long without being used.
#[derive(Debug)]
pub struct Blobs {
    volume: Volume,
    source: Directory,
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
    pub fn new(volume: Volume, source: Directory, limit: usize, idle: Duration) -> Self {
        Self {
            volume,
            source,
            limit,
            idle,
            open: Mutex::default(),
        }
    }

    /// The volume that has the cache files.
    pub fn volume(&self) -> &Volume {
        &self.volume
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
        // Opening may take long, so not under the lock. Two workers may both open a blob; one of the two is kept.
        let name = self.source.blob_of(file_name)?;
        let blob = Arc::new(Blob::open(&self.volume, &self.source, &name)?);
        self.lock().keep(file_name, &blob, self.limit);
        Ok(blob)
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

    fn keep(&mut self, file_name: &OsStr, blob: &Arc<Blob>, limit: usize) {
        let entry = (Instant::now(), Arc::clone(blob));
        self.blobs.insert(file_name.to_owned(), entry);
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
    }
}
