// SPDX-License-Identifier: GPL-2.0
//! Copying a range of a blob from its source into its cache file.
//!
//! What the cache file has of a block counts as present, so a block is written whole or not at all. The source is read
//! first, a piece at a time, and a write that ends inside a block is continued. If it cannot be, because the disk is
//! full, then on a file system with smaller blocks the rest is a hole and the block still counts as missing. A block
//! that is neither whole nor missing is punched out.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use anyhow::{bail, Context, Result};
use rustix::fs::{fallocate, FallocateFlags};

use crate::abi::BLOCK;
use crate::cache::next_missing;

/// How much is copied at a time, in bytes: whole blocks, so that every piece but a blob's last ends where a block ends.
pub const PIECE: usize = 1 << 20;

const BLOCK_SIZE: usize = BLOCK as usize;

/// What copying does to a cache file, or to a stand-in of a test.
pub trait CacheFile {
    /// One `pwrite(2)`: how many bytes were written.
    fn write_at(&self, bytes: &[u8], pos: u64) -> io::Result<usize>;

    /// Reads exactly so many bytes.
    fn read_exact_at(&self, bytes: &mut [u8], pos: u64) -> io::Result<()>;

    /// Whether a part of the block at `pos` is missing.
    fn is_missing(&self, pos: u64) -> io::Result<bool>;

    /// Makes a range of whole blocks a hole; the last one may be a short one, where the file ends.
    fn punch(&self, pos: u64, len: u64) -> io::Result<()>;
}

impl CacheFile for File {
    fn write_at(&self, bytes: &[u8], pos: u64) -> io::Result<usize> {
        FileExt::write_at(self, bytes, pos)
    }

    fn read_exact_at(&self, bytes: &mut [u8], pos: u64) -> io::Result<()> {
        FileExt::read_exact_at(self, bytes, pos)
    }

    fn is_missing(&self, pos: u64) -> io::Result<bool> {
        let missing = next_missing(self, pos, self.metadata()?.len())?;
        Ok(missing.is_some_and(|missing| missing.start == pos))
    }

    fn punch(&self, pos: u64, len: u64) -> io::Result<()> {
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        // ext4 fills a part of a block with zeros, and keeps it as data, also if the file ends there.
        let len = len.next_multiple_of(BLOCK);
        Ok(fallocate(self, flags, pos, len)?)
    }
}

/// Memory for what is being copied, a piece or a chunk; kept from one copy to the next, since new memory is
/// slow to come by.
#[derive(Debug, Default)]
pub struct Buffer(Vec<u8>);

impl Buffer {
    pub(crate) fn of(&mut self, size: usize) -> &mut [u8] {
        if self.0.len() < size {
            self.0.resize(size, 0);
        }
        self.0.split_at_mut(size).0
    }
}

/// Copies `off..off + len`, which begins where a block begins and ends where a block or the blob ends.
pub fn copy(
    source: &File,
    cache: &impl CacheFile,
    off: u64,
    len: u64,
    buffer: &mut Buffer,
) -> Result<()> {
    let mut pos = off;
    let mut left = len;
    while left > 0 {
        let size = usize::try_from(left).map_or(PIECE, |left| left.min(PIECE));
        let piece = buffer.of(size);
        match FileExt::read_exact_at(source, piece, pos) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                bail!(
                    "the source ends before byte {}",
                    pos.saturating_add(size as u64)
                )
            }
            Err(error) => return Err(error).context("cannot read the source"),
        }
        write(cache, piece, pos)?;
        pos = pos.saturating_add(size as u64);
        left -= size as u64;
    }
    Ok(())
}

/// Writes a piece; leaves no block half written.
pub(crate) fn write(cache: &impl CacheFile, piece: &[u8], pos: u64) -> Result<()> {
    let mut done = 0;
    while let Some(rest) = piece.get(done..).filter(|rest| !rest.is_empty()) {
        let error = match cache.write_at(rest, pos.saturating_add(done as u64)) {
            Ok(0) => io::Error::from(io::ErrorKind::WriteZero),
            Ok(n) => {
                done += n;
                continue;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => error,
        };
        let torn = done - done % BLOCK_SIZE;
        if torn < done {
            let block = piece.get(torn..).unwrap_or_default();
            let block = block.get(..BLOCK_SIZE).unwrap_or(block);
            let pos = pos.saturating_add(torn as u64);
            mend(cache, block, pos).with_context(|| {
                format!("half a block was written at {pos}, and cannot be taken back: the cache file is damaged, remove it once it is not mounted")
            })?;
        }
        return Err(error).context("cannot write the cache file");
    }
    Ok(())
}

/// Takes care that a block of which only the beginning could be written is missing, or right.
fn mend(cache: &impl CacheFile, block: &[u8], pos: u64) -> io::Result<()> {
    if cache.is_missing(pos)? {
        return Ok(());
    }
    // The block may have been there before, or somebody else may have brought it: readers count on it then.
    let mut have = vec![0; block.len()];
    cache.read_exact_at(&mut have, pos)?;
    if have == block {
        return Ok(());
    }
    cache.punch(pos, block.len() as u64)
}
