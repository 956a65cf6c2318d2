// SPDX-License-Identifier: GPL-2.0
//! The places that the cache knows to have a blob: an image that was mounted or prepared from an address of its own is
//! fetched from there, whatever sources the daemon was started with, and also after a restart.
//!
//! `ROOT/places/I<volume>/<cache file>` has a line for each, the last one that was named first. Only blobs with a
//! manifest have such a file: what a place says is verified.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

use anyhow::{ensure, Context, Result};

use crate::cache::{file_name, Volume};
use crate::lists::keep;

/// How many places of a blob are kept.
pub const PLACES_MAX: usize = 8;

impl Volume {
    /// Where the places of a blob lie.
    fn places_path(&self, blob: &OsStr) -> Result<PathBuf> {
        Ok(self.places_dir().join(file_name(blob)?))
    }

    /// The places that are known to have a blob, the last one that was named first.
    pub fn places(&self, blob: &OsStr) -> Result<Vec<OsString>> {
        let path = self.places_path(blob)?;
        let bytes = match fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            bytes => bytes.with_context(|| format!("cannot read {}", path.display()))?,
        };
        let lines = bytes.split(|&byte| byte == b'\n');
        let lines = lines.filter(|line| !line.is_empty());
        let places = lines.map(|line| OsString::from_vec(line.to_vec()));
        Ok(places.take(PLACES_MAX).collect())
    }

    /// Notes that a place has a blob.
    pub fn note_place(&self, blob: &OsStr, place: &OsStr) -> Result<()> {
        ensure!(
            !place.is_empty() && !place.as_bytes().contains(&b'\n'),
            "{place:?} cannot be kept as a place"
        );
        let mut places = self.places(blob)?;
        if places.first().is_some_and(|first| first == place) {
            return Ok(());
        }
        places.retain(|known| known != place);
        places.insert(0, place.to_owned());
        places.truncate(PLACES_MAX);
        let lines = places.iter();
        let lines: Vec<_> = lines
            .map(|place| [place.as_bytes(), b"\n"].concat())
            .collect();
        let path = self.places_path(blob)?;
        keep(self.places_dir(), &path, &[&lines.concat()])
            .with_context(|| format!("cannot keep {}", path.display()))
    }
}
