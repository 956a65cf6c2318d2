// SPDX-License-Identifier: GPL-2.0
//! The list of a blob's chunks: a digest for each, so that every piece of the blob can be verified by itself.

use std::io::{self, Read};
use std::ops::Range;

use anyhow::{ensure, Result};

use crate::abi::BLOCK;
use crate::digest::{Digest, Hasher, SIZE};

/// The smallest chunk in bytes.
pub const CHUNK_MIN: u64 = BLOCK;

/// The largest chunk in bytes. One has to be in memory, whole, for each connection.
pub const CHUNK_MAX: u64 = 4 << 20;

/// The longest list in bytes.
pub const LIST_MAX: u64 = 64 << 20;

/// Whether chunks can have this size.
pub fn is_chunk_size(size: u64) -> bool {
    size.is_power_of_two() && (CHUNK_MIN..=CHUNK_MAX).contains(&size)
}

/// How many chunks a blob has, if a list can be so long.
pub fn count(blob_size: u64, chunk_size: u64) -> Option<u64> {
    let count = blob_size.checked_next_multiple_of(chunk_size)? / chunk_size;
    let fits = count.checked_mul(SIZE as u64)? <= LIST_MAX;
    (blob_size > 0 && fits).then_some(count)
}

/// The digests of a blob's chunks.
#[derive(Debug)]
pub struct Chunks {
    blob_size: u64,
    chunk_size: u64,
    /// A digest after the other.
    list: Vec<u8>,
}

impl Chunks {
    /// Takes a list as it is stored. It has to be of the length that the sizes ask for.
    pub fn new(blob_size: u64, chunk_size: u64, list: Vec<u8>) -> Result<Self> {
        ensure!(
            is_chunk_size(chunk_size),
            "no chunk has {chunk_size} bytes: it is a power of two from {CHUNK_MIN} to {CHUNK_MAX}"
        );
        let count = count(blob_size, chunk_size);
        ensure!(
            count.and_then(|count| count.checked_mul(SIZE as u64)) == Some(list.len() as u64),
            "a list of {} bytes is not that of a blob of {blob_size} bytes in chunks of {chunk_size}",
            list.len()
        );
        Ok(Self {
            blob_size,
            chunk_size,
            list,
        })
    }

    /// Reads a blob to its end and makes its list. Also returns the digest of all of the blob.
    pub fn of(blob: &mut impl Read, chunk_size: u64) -> Result<(Self, Digest)> {
        ensure!(is_chunk_size(chunk_size), "no chunk has {chunk_size} bytes");
        let mut buffer = vec![0; usize::try_from(chunk_size)?];
        let mut whole = Hasher::default();
        let mut list = Vec::new();
        let mut blob_size: u64 = 0;
        loop {
            let chunk = read_full(blob, &mut buffer)?;
            if chunk.is_empty() {
                break;
            }
            whole.update(chunk);
            list.extend(Digest::of(chunk).as_bytes());
            blob_size = blob_size.saturating_add(chunk.len() as u64);
            ensure!(
                list.len() as u64 <= LIST_MAX,
                "the blob has too many chunks: they must be larger"
            );
        }
        ensure!(blob_size > 0, "a blob of 0 bytes cannot be mounted");
        Ok((Self::new(blob_size, chunk_size, list)?, whole.finish()))
    }

    /// The list as it is stored.
    pub fn list(&self) -> &[u8] {
        &self.list
    }

    /// The size of the blob in bytes.
    pub fn blob_size(&self) -> u64 {
        self.blob_size
    }

    /// The size in bytes of every chunk but the last one, which may be smaller.
    pub fn chunk_size(&self) -> u64 {
        self.chunk_size
    }

    /// How many chunks there are.
    pub fn count(&self) -> u64 {
        (self.list.len() / SIZE) as u64
    }

    /// The chunks that a range of the blob touches.
    pub fn touched(&self, range: Range<u64>) -> Range<u64> {
        range.start / self.chunk_size..range.end.div_ceil(self.chunk_size).min(self.count())
    }

    /// The bytes of the blob that some chunks make up.
    pub fn bytes(&self, chunks: Range<u64>) -> Range<u64> {
        let start = |chunk: u64| chunk.saturating_mul(self.chunk_size).min(self.blob_size);
        start(chunks.start)..start(chunks.end)
    }

    /// Whether these are the bytes of a chunk.
    pub fn verify(&self, chunk: u64, bytes: &[u8]) -> bool {
        let digest = usize::try_from(chunk)
            .ok()
            .and_then(|at| self.list.chunks_exact(SIZE).nth(at));
        digest == Some(Digest::of(bytes).as_bytes())
    }
}

/// Reads until a buffer is full or nothing comes any more.
fn read_full<'b>(from: &mut impl Read, buffer: &'b mut [u8]) -> io::Result<&'b [u8]> {
    let mut have = 0;
    while let Some(room) = buffer.get_mut(have..).filter(|room| !room.is_empty()) {
        match from.read(room) {
            Ok(0) => break,
            Ok(n) => have += n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(buffer.get(..have).unwrap_or_default())
}
