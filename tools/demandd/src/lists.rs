// SPDX-License-Identifier: GPL-2.0
//! The lists of chunks that a cache keeps: with them, its blobs are verified whoever serves them, and without a source
//! that has to be asked first.
//!
//! `ROOT/chunks/I<volume>/<cache file>` is a manifest of one blob, and directly behind it the list of its chunks. Such a
//! file is there before the cache file is, and stays when that is culled.

use std::ffi::OsStr;
use std::fs::{self, DirBuilder, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use anyhow::{ensure, Context, Result};

use crate::cache::{file_name, missing_bytes, Prepared, Volume};
use crate::chunks::{Chunks, LIST_MAX};
use crate::manifest::{Entry, Manifest};

/// The most that the line of a blob and the one before it take, with room to spare.
const HEAD_MAX: u64 = 1024;

impl Volume {
    /// Where the list of a blob lies.
    fn list_path(&self, blob: &OsStr) -> Result<PathBuf> {
        Ok(self.lists().join(file_name(blob)?))
    }

    /// What a blob is verified with, if it is.
    pub fn verified_with(&self, blob: &OsStr) -> Result<Option<(Entry, Chunks)>> {
        let path = self.list_path(blob)?;
        let mut bytes = Vec::new();
        match File::open(&path) {
            Ok(file) => file
                .take(LIST_MAX + HEAD_MAX)
                .read_to_end(&mut bytes)
                .map(drop),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => Err(error),
        }
        .map_err(anyhow::Error::from)
        .and_then(|()| parse(bytes))
        .and_then(|(entry, chunks)| {
            ensure!(
                OsStr::new(&entry.name) == blob,
                "it is that of {}",
                entry.name
            );
            Ok(Some((entry, chunks)))
        })
        .with_context(|| format!("cannot use the list of chunks {}", path.display()))
    }

    /// Makes the cache file of a blob that is verified from now on.
    pub fn prepare_verified(&self, entry: &Entry, chunks: &Chunks) -> Result<Prepared> {
        let blob = OsStr::new(&entry.name);
        let path = self.path(blob)?;
        let kept = self.verified_with(blob)?.map(|(entry, _)| entry);
        if kept.as_ref() != Some(entry) {
            // Whatever is present is believed. So it must have been verified, with this list.
            match File::open(&path) {
                Ok(file) => {
                    let size = file.metadata()?.len();
                    ensure!(
                        missing_bytes(&file, size)? == size,
                        "{} has data that was not verified with this manifest: remove it once it is not mounted, or choose another name",
                        path.display()
                    );
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => {
                    return Err(error).with_context(|| format!("cannot look at {}", path.display()))
                }
            }
            self.keep_list(entry, chunks)
                .with_context(|| format!("cannot keep the list of chunks of {}", entry.name))?;
        }
        self.prepare(blob, entry.size)
    }

    fn keep_list(&self, entry: &Entry, chunks: &Chunks) -> Result<()> {
        let path = self.list_path(OsStr::new(&entry.name))?;
        let head = Manifest::new(vec![entry.clone()])?.to_string();
        keep(self.lists(), &path, &[head.as_bytes(), chunks.list()])
    }
}

/// Puts a file into a directory of the cache. Half of it is never seen, also after a power cut.
pub(crate) fn keep(dir: &Path, path: &Path, parts: &[&[u8]]) -> Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    let new = dir.join(format!("new.{}", std::process::id()));
    let mut file = File::create(&new)?;
    parts.iter().try_for_each(|part| file.write_all(part))?;
    file.sync_all()?;
    fs::rename(new, path)?;
    Ok(File::open(dir)?.sync_all()?)
}

fn parse(mut bytes: Vec<u8>) -> Result<(Entry, Chunks)> {
    let mut ends = bytes.iter().enumerate().filter(|(_, byte)| **byte == b'\n');
    let head = ends.nth(1).map_or(0, |(at, _)| at.saturating_add(1));
    let list = bytes.split_off(head);
    let manifest = Manifest::parse(&bytes)?;
    let [entry] = manifest.entries() else {
        anyhow::bail!("it is not about one blob");
    };
    let chunks = entry.chunks(list)?;
    Ok((entry.clone(), chunks))
}
