// SPDX-License-Identifier: GPL-2.0
//! Where the bytes come from: a directory in which every blob is a file of the blob's name.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{bail, ensure, Context, Result};
use rustix::fs::{Mode, OFlags};
use rustix::io::retry_on_intr;

use crate::cache;

/// A directory of blobs.
#[derive(Clone, Debug)]
pub struct Source {
    dir: PathBuf,
}

impl Source {
    /// Names the directory, which has to exist.
    pub fn new(dir: &Path) -> Result<Self> {
        let meta = fs::metadata(dir).with_context(|| format!("no source {}", dir.display()))?;
        ensure!(
            meta.is_dir(),
            "the source {} is not a directory",
            dir.display()
        );
        Ok(Self {
            dir: dir.to_owned(),
        })
    }

    /// Opens a blob and tells its size. The name must be one that a cache file can have, so it is never a path.
    pub fn open(&self, blob: &OsStr) -> Result<(File, u64)> {
        let path = self.dir.join(blob);
        ensure!(
            path.file_name() == Some(blob),
            "{blob:?} cannot name a blob of a directory"
        );
        // Without O_NONBLOCK a pipe that somebody left in the directory would hold up a worker for ever.
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
        retry_on_intr(|| rustix::fs::open(&path, flags, Mode::empty()))
            .map_err(io::Error::from)
            .map_err(anyhow::Error::from)
            .and_then(|fd| cache::regular(File::from(fd)))
            .with_context(|| format!("cannot open the source {}", path.display()))
    }

    /// The blob whose cache file has this name.
    pub fn blob_of(&self, file_name: &OsStr) -> Result<OsString> {
        let has_it = |blob: &OsStr| cache::file_name(blob).is_ok_and(|name| name == file_name);
        if let Some(blob) = cache::blob_name(file_name).filter(|blob| has_it(blob)) {
            return Ok(blob.to_owned());
        }
        // An encoded name: rather than to decode it, find the blob that has it.
        for entry in fs::read_dir(&self.dir)? {
            let blob = entry?.file_name();
            if has_it(&blob) {
                return Ok(blob);
            }
        }
        bail!(
            "no blob in {} has the cache file {file_name:?}",
            self.dir.display()
        )
    }
}
