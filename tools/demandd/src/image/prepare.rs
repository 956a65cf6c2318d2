// SPDX-License-Identifier: GPL-2.0
//! Making the cache files of an image that has a manifest.

use std::ffi::OsStr;

use anyhow::Result;

use super::verify::{chunks, manifest};
use crate::cache::{Prepared, Volume};
use crate::manifest::{Entry, Manifest, Wanted};
use crate::source::mirror::Mirrors;

/// Makes the cache files of all blobs of an image, and tells of each. The blobs will be fetched from `place` if there is
/// one: the sources are those at this place then.
pub fn prepare(
    volume: &Volume,
    mirrors: &Mirrors,
    wanted: &Wanted,
    place: Option<&OsStr>,
    mut tell: impl FnMut(&Entry, Prepared) -> Result<()>,
) -> Result<Manifest> {
    let manifest = manifest(mirrors, wanted)?;
    for entry in manifest.entries() {
        let blob = OsStr::new(&entry.name);
        let kept = volume.verified_with(blob)?.map(|(kept, _)| kept);
        let prepared = match kept.as_ref() == Some(entry) {
            true => volume.prepare(blob, entry.size)?,
            false => volume.prepare_verified(entry, &chunks(mirrors, entry)?)?,
        };
        if let Some(place) = place {
            volume.note_place(blob, place)?;
        }
        tell(entry, prepared)?;
    }
    Ok(manifest)
}
