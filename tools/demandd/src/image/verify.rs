// SPDX-License-Identifier: GPL-2.0
//! Verifying what a source has of an image, chunk by chunk.

use std::fmt;

use anyhow::{anyhow, Context, Result};

use crate::chunks::{Chunks, LIST_MAX};
use crate::digest::Digest;
use crate::fetch::Remote;
use crate::manifest::{list_file, manifest_file, Entry, Manifest, Wanted, MANIFEST_MAX};
use crate::source::mirror::Mirrors;
use crate::source::How;

/// How many wrong chunks of a blob are named.
const NAMED: usize = 8;

/// What a source has of one blob.
#[derive(Debug)]
pub struct Verdict {
    /// The blob.
    pub entry: Entry,
    /// The chunks that are not as the manifest says, and how many there are.
    pub wrong: Vec<u64>,
}

/// What a source has of an image.
#[derive(Debug)]
pub struct Report {
    /// The digest of the manifest.
    pub digest: Digest,
    /// The blobs, as in the manifest.
    pub blobs: Vec<Verdict>,
}

impl Report {
    /// Whether all is as the manifest says.
    pub fn is_good(&self) -> bool {
        self.blobs.iter().all(|blob| blob.wrong.is_empty())
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for Verdict { entry, wrong } in &self.blobs {
            let Entry { name, size, .. } = entry;
            if wrong.is_empty() {
                writeln!(f, "{name}\t{size}\tgood")?;
                continue;
            }
            let named: Vec<_> = wrong.iter().take(NAMED).map(u64::to_string).collect();
            let more = if wrong.len() > NAMED { " ..." } else { "" };
            let wrong = wrong.len();
            let named = named.join(" ");
            writeln!(
                f,
                "{name}\t{size}\t{wrong} wrong chunks of {} bytes: {named}{more}",
                entry.chunk_size
            )?;
        }
        writeln!(f, "manifest\t{}", self.digest)
    }
}

/// Gets the manifest of an image, from the first source that has the right one.
pub fn manifest(mirrors: &Mirrors, wanted: &Wanted) -> Result<Manifest> {
    let file = manifest_file(&wanted.name);
    mirrors.file(&file, MANIFEST_MAX as u64, |bytes| wanted.parse(&bytes))
}

/// Gets the list of a blob's chunks, from the first source that has the right one.
pub fn chunks(mirrors: &Mirrors, entry: &Entry) -> Result<Chunks> {
    mirrors.file(&list_file(&entry.name), LIST_MAX, |list| entry.chunks(list))
}

/// Reads all blobs of an image and compares them with the manifest.
pub fn verify(mirrors: &Mirrors, wanted: &Wanted) -> Result<Report> {
    let manifest = manifest(mirrors, wanted)?;
    let mut blobs = Vec::new();
    for entry in manifest.entries() {
        let wrong = wrong_chunks(mirrors, entry)
            .with_context(|| format!("cannot verify {}", entry.name))?;
        blobs.push(Verdict {
            entry: entry.clone(),
            wrong,
        });
    }
    Ok(Report {
        digest: manifest.digest(),
        blobs,
    })
}

/// Reads the blob from the first source that has it.
fn wrong_chunks(mirrors: &Mirrors, entry: &Entry) -> Result<Vec<u64>> {
    let remote = Remote::open(mirrors, entry.name.clone(), chunks(mirrors, entry)?, &[])?;
    let origin = remote.origins.values().next();
    let origin = origin.ok_or_else(|| anyhow!("no source has it"))?;
    let mut buffer = vec![0; usize::try_from(entry.chunk_size)?];
    let mut wrong = Vec::new();
    for chunk in 0..remote.chunks.count() {
        let range = remote.chunks.bytes(chunk..chunk.saturating_add(1));
        let size = usize::try_from(range.end.saturating_sub(range.start))?;
        let bytes = buffer.get_mut(..size).unwrap_or_default();
        let how = How {
            until: mirrors.deadline(),
            fresh: false,
        };
        origin.range(range, &how)?.read_exact(bytes)?;
        if !remote.chunks.verify(chunk, bytes) {
            wrong.push(chunk);
        }
    }
    Ok(wrong)
}
