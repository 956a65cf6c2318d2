// SPDX-License-Identifier: GPL-2.0
//! The blobs that are open: source and cache file, kept from one request to the next, a bounded number of them.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{ensure, Result};

use crate::cache::Volume;
use crate::copy::copy;
use crate::source::Source;

/// A blob with both its files open.
#[derive(Debug)]
pub struct Blob {
    source: File,
    cache: File,
    size: u64,
}

impl Blob {
    /// Opens both files. They have the same size, or they are not the same blob.
    pub fn open(volume: &Volume, source: &Source, name: &OsStr) -> Result<Self> {
        let (cache, size) = volume.open(name)?;
        let (source, source_size) = source.open(name)?;
        ensure!(
            source_size == size,
            "the source of {name:?} has {source_size} bytes and its cache file {size}: they are not the same blob"
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

    /// Copies a range from the source into the cache file.
    pub fn fetch(&self, off: u64, len: u64) -> Result<()> {
        copy(&self.source, &self.cache, off, len)
    }
}

/// Open blobs by the name of their cache file; the one that was not used for longest goes first.
#[derive(Debug)]
pub struct Blobs {
    volume: Volume,
    source: Source,
    limit: usize,
    open: Mutex<Open>,
}

#[derive(Debug, Default)]
struct Open {
    clock: u64,
    blobs: HashMap<OsString, (u64, Arc<Blob>)>,
}

impl Blobs {
    /// Keeps at most `limit` blobs open, besides those that are being copied.
    pub fn new(volume: Volume, source: Source, limit: usize) -> Self {
        Self {
            volume,
            source,
            limit,
            open: Mutex::default(),
        }
    }

    /// The blob whose cache file has this name.
    pub fn get(&self, file_name: &OsStr) -> Result<Arc<Blob>> {
        if let Some(blob) = self.lock().touch(file_name) {
            return Ok(blob);
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

    /// How many blobs are kept open.
    pub fn count(&self) -> usize {
        self.lock().blobs.len()
    }

    fn lock(&self) -> MutexGuard<'_, Open> {
        // The map is whole between any two statements that could panic.
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Open {
    fn tick(&mut self) -> u64 {
        self.clock += 1;
        self.clock
    }

    fn touch(&mut self, file_name: &OsStr) -> Option<Arc<Blob>> {
        let now = self.tick();
        let (used, blob) = self.blobs.get_mut(file_name)?;
        *used = now;
        Some(Arc::clone(blob))
    }

    fn keep(&mut self, file_name: &OsStr, blob: &Arc<Blob>, limit: usize) {
        let now = self.tick();
        self.blobs
            .insert(file_name.to_owned(), (now, Arc::clone(blob)));
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
