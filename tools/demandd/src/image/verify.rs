// SPDX-License-Identifier: GPL-2.0
//! Verifying what a source has of an image, chunk by chunk.

use std::ffi::OsStr;
use std::fmt;

use anyhow::{Context, Result};

use crate::chunks::{Chunks, LIST_MAX};
use crate::digest::Digest;
use crate::manifest::{list_file, manifest_file, Entry, Manifest, Wanted, MANIFEST_MAX};
use crate::source::Source;

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

/// Gets the manifest of an image.
pub fn manifest(source: &dyn Source, wanted: &Wanted) -> Result<Manifest> {
    let file = manifest_file(&wanted.name);
    let bytes = source.file(&file, MANIFEST_MAX as u64)?;
    wanted
        .parse(&bytes)
        .with_context(|| format!("in {}", source.label()))
}

/// Gets the list of a blob's chunks.
pub fn chunks(source: &dyn Source, entry: &Entry) -> Result<Chunks> {
    let list = source.file(&list_file(&entry.name), LIST_MAX)?;
    entry
        .chunks(list)
        .with_context(|| format!("in {}", source.label()))
}

/// Reads all blobs of an image and compares them with the manifest.
pub fn verify(source: &dyn Source, wanted: &Wanted) -> Result<Report> {
    let manifest = manifest(source, wanted)?;
    let mut blobs = Vec::new();
    for entry in manifest.entries() {
        let wrong =
            wrong_chunks(source, entry).with_context(|| format!("cannot verify {}", entry.name))?;
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

fn wrong_chunks(source: &dyn Source, entry: &Entry) -> Result<Vec<u64>> {
    let chunks = chunks(source, entry)?;
    let blob = source.blob(OsStr::new(&entry.name), entry.size)?;
    let mut stream = blob.range(0..entry.size)?;
    let mut buffer = vec![0; usize::try_from(entry.chunk_size)?];
    let mut wrong = Vec::new();
    for chunk in 0..chunks.count() {
        let range = chunks.bytes(chunk..chunk.saturating_add(1));
        let size = usize::try_from(range.end.saturating_sub(range.start))?;
        let bytes = buffer.get_mut(..size).unwrap_or_default();
        stream.read_exact(bytes)?;
        if !chunks.verify(chunk, bytes) {
            wrong.push(chunk);
        }
    }
    Ok(wrong)
}
