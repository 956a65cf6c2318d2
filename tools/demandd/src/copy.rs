// SPDX-License-Identifier: GPL-2.0
//! Copying a range of a blob from its source into its cache file.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use anyhow::{bail, Context, Result};

/// How much is copied at a time, in bytes: whole blocks, so that every piece but a blob's last ends where a block ends.
pub const PIECE: usize = 1 << 20;

/// Copies `off..off + len`. A piece is complete before any of it is written: what has been written in part would count
/// as present.
pub fn copy(source: &File, cache: &File, off: u64, len: u64) -> Result<()> {
    let mut buffer = vec![0; usize::try_from(len).map_or(PIECE, |len| len.min(PIECE))];
    let mut pos = off;
    let mut left = len;
    while left > 0 {
        let size = usize::try_from(left).map_or(buffer.len(), |left| left.min(buffer.len()));
        let (piece, _) = buffer.split_at_mut(size);
        match source.read_exact_at(piece, pos) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                bail!(
                    "the source ends before byte {}",
                    pos.saturating_add(size as u64)
                )
            }
            Err(error) => return Err(error).context("cannot read the source"),
        }
        cache
            .write_all_at(piece, pos)
            .context("cannot write the cache file")?;
        pos = pos.saturating_add(size as u64);
        left -= size as u64;
    }
    Ok(())
}
