// SPDX-License-Identifier: GPL-2.0
//! A directory as a source: every blob is a file of the blob's name.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{self, Read};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{anyhow, ensure, Context, Error, Result};
use rustix::fs::{Mode, OFlags};
use rustix::io::retry_on_intr;

use super::{Failure, How, Ranges, Source, Stream};
use crate::cache;

/// A directory of blobs.
#[derive(Clone, Debug)]
pub struct Directory {
    dir: PathBuf,
    label: String,
}

impl Directory {
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
            label: dir.display().to_string(),
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
            .map_err(Error::from)
            .and_then(|fd| cache::regular(File::from(fd)))
            .with_context(|| format!("cannot open the source {}", path.display()))
    }
}

impl Source for Directory {
    fn label(&self) -> &str {
        &self.label
    }

    fn file(&self, name: &str, most: u64, _until: Instant) -> Result<Vec<u8>, Failure> {
        let (file, size) = self.open(OsStr::new(name)).map_err(Failure::lasting)?;
        let mut bytes = Vec::new();
        let read = file
            .take(most.saturating_add(1))
            .read_to_end(&mut bytes)
            .with_context(|| format!("cannot read {name} in {}", self.label));
        match read {
            Ok(n) if n as u64 <= most => Ok(bytes),
            Ok(_) => Err(Failure::lasting(anyhow!(
                "{name} in {} has {size} bytes: more than {most} are not believed",
                self.label
            ))),
            Err(error) => Err(Failure::lasting(error)),
        }
    }

    fn blob(&self, name: &OsStr, size: u64) -> Result<Box<dyn Ranges>, Failure> {
        match self.open(name) {
            Ok((file, have)) if have == size => Ok(Box::new(file)),
            Ok((_, have)) => Err(Failure::lasting(anyhow!(
                "{name:?} in {} has {have} bytes, not {size}: it is another blob",
                self.label
            ))),
            Err(error) => Err(Failure::lasting(error)),
        }
    }

    fn probe(&self, _until: Instant) -> Result<(), Failure> {
        fs::metadata(&self.dir).map(drop).map_err(Failure::passing)
    }

    fn local(&self, name: &OsStr) -> Option<Result<(File, u64)>> {
        Some(self.open(name))
    }

    fn blob_of(&self, file_name: &OsStr) -> Option<OsString> {
        let names = fs::read_dir(&self.dir).ok()?;
        let mut names = names.filter_map(|entry| Some(entry.ok()?.file_name()));
        names.find(|blob| cache::file_name(blob).is_ok_and(|name| name == file_name))
    }
}

impl Ranges for File {
    fn range(&self, range: Range<u64>, _how: &How) -> Result<Box<dyn Stream + '_>, Failure> {
        Ok(Box::new(Piece {
            file: self,
            pos: range.start,
        }))
    }
}

/// Where in a file to read on.
struct Piece<'a> {
    file: &'a File,
    pos: u64,
}

impl Stream for Piece<'_> {
    fn read_exact(&mut self, bytes: &mut [u8]) -> Result<(), Failure> {
        let end = self.pos.saturating_add(bytes.len() as u64);
        self.file.read_exact_at(bytes, self.pos).map_err(|error| {
            Failure::lasting(match error.kind() {
                io::ErrorKind::UnexpectedEof => anyhow!("the source ends before byte {end}"),
                _ => Error::from(error).context("cannot read the source"),
            })
        })?;
        self.pos = end;
        Ok(())
    }
}
