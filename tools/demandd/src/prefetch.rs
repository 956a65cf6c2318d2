// SPDX-License-Identifier: GPL-2.0
//! Prefetching: copying what is missing before somebody reads it.
//!
//! It may run while the daemon serves the same blob. Both then write the same bytes, and a range becomes present once.

use std::ffi::{OsStr, OsString};
use std::ops::Range;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;

use anyhow::{ensure, Context, Result};

use crate::abi::BLOCK;
use crate::blobs::Blob;
use crate::cache::{next_missing, Volume};
use crate::copy::{Buffer, PIECE};
use crate::fetch::Urgency;
use crate::source::mirror::Mirrors;

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
}

/// Copies what is missing of a target; returns how many bytes that were.
pub fn prefetch(volume: &Volume, mirrors: &Arc<Mirrors>, target: &Target) -> Result<u64> {
    let name = target.blob.to_string_lossy();
    let blob = Blob::open(volume, mirrors, &target.blob)?;
    let size = blob.size();
    let range = target.range.clone().unwrap_or(0..size);
    ensure!(
        range.start <= range.end && range.end <= size,
        "{name} has {size} bytes: it ends before {}",
        range.end
    );
    // Whole blocks only.
    let mut pos = range.start - range.start % BLOCK;
    let end = range
        .end
        .checked_next_multiple_of(BLOCK)
        .map_or(size, |end| end.min(size));
    let mut buffer = Buffer::default();
    let mut fetched = 0;
    while pos < end {
        let missing = next_missing(blob.cache(), pos, size)
            .with_context(|| format!("cannot tell what is missing of {name}"))?;
        let Some(missing) = missing.filter(|missing| missing.start < end) else {
            break;
        };
        // One piece at a time: what the daemon has brought in the meantime is not fetched again.
        let len = (missing.end.min(end) - missing.start).min(PIECE as u64);
        blob.fetch(missing.start, len, Urgency::Demand, &mut buffer)
            .with_context(|| format!("cannot prefetch {name}, {}+{len}", missing.start))?;
        fetched += len;
        pos = missing.start + len;
    }
    Ok(fetched)
}

/// The targets of `--all`: every blob that has a cache file.
pub fn all(volume: &Volume, mirrors: &Mirrors) -> Result<Vec<Target>> {
    let mut targets = Vec::new();
    for entry in volume.list()? {
        let file = entry.path.file_name().unwrap_or(OsStr::from_bytes(b""));
        targets.push(Target {
            blob: mirrors.blob_of(file)?,
            range: None,
        });
    }
    Ok(targets)
}
