// SPDX-License-Identifier: GPL-2.0
//! What is in files.

use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use anyhow::Result;
use rustix::io::{pread, read, Errno};

use crate::group::{Group, Groups};
use crate::output::{Error, Output, Value};
use crate::sha256::{sha256, Sha256};

/// A file of at most so many bytes is read as a whole.
const WHOLE: u64 = 16 << 20;

/// Of a larger one, so many pieces of this size are read, whatever is in them: a wrong map of its holes cannot hide
/// that its content is wrong, too.
const PIECES: u64 = 64;
const PIECE: u64 = 64 << 10;

/// Of what the map says to be data, so much is read.
const DATA: u64 = 256 << 20;

/// Data are read in blocks of this size; those of zeros do not count, so that the result does not depend on how
/// exact the map is.
const BLOCK: usize = 4096;
const BUFFER: usize = 64 * BLOCK;

pub(crate) fn print<W: Write>(
    groups: Groups,
    fd: BorrowedFd<'_>,
    size: u64,
    out: &mut Output<W>,
) -> Result<()> {
    if !groups.has(Group::Content) {
        return Ok(());
    }
    let mut hash = Sha256::new();
    let (item, bytes, end) = if size <= WHOLE {
        let (bytes, end) = range(fd, 0, u64::MAX, |_, bytes| hash.update(bytes));
        ("content", bytes, end)
    } else {
        let (bytes, end) = pieces(fd, size, &mut hash);
        ("content-pieces", bytes, end)
    };
    match end {
        Ok(()) => out.line(item, format_args!("bytes={bytes} sha256={}", hash.finish())),
        Err(errno) => out.line(item, format_args!("bytes={bytes} then={}", Error(errno))),
    }
}

fn pieces(fd: BorrowedFd<'_>, size: u64, hash: &mut Sha256) -> (u64, Result<(), Errno>) {
    let mut bytes = 0;
    for n in 0..PIECES {
        // The last one ends where the file does.
        let start =
            (size - PIECE) / (PIECES - 1) * n + (size - PIECE) % (PIECES - 1) * n / (PIECES - 1);
        let (got, end) = range(fd, start, start + PIECE, |_, bytes| hash.update(bytes));
        bytes += got;
        if end.is_err() {
            return (bytes, end);
        }
    }
    (bytes, Ok(()))
}

/// Reads from `start` to `end` or the end of the file, and calls `f` with offsets and bytes. Returns how many there
/// were.
fn range(
    fd: BorrowedFd<'_>,
    start: u64,
    end: u64,
    mut f: impl FnMut(u64, &[u8]),
) -> (u64, Result<(), Errno>) {
    let mut buffer = vec![0; BUFFER];
    let mut position = start;
    while position < end {
        let wanted = usize::try_from(end - position).map_or(BUFFER, |left| left.min(BUFFER));
        match pread(fd, &mut buffer[..wanted], position) {
            Ok(0) => break,
            Ok(got) => {
                f(position, &buffer[..got]);
                position += got as u64;
            }
            Err(Errno::INTR) => {}
            Err(errno) => return (position - start, Err(errno)),
        }
    }
    (position - start, Ok(()))
}

/// The data of a large file, as its map has them.
pub(crate) struct Data<'a> {
    fd: BorrowedFd<'a>,
    size: u64,
    hash: Sha256,
    left: u64,
    end: Result<(), Errno>,
}

impl<'a> Data<'a> {
    pub(crate) fn new(fd: BorrowedFd<'a>, size: u64) -> Self {
        Self {
            fd,
            size,
            hash: Sha256::new(),
            left: DATA,
            end: Ok(()),
        }
    }

    /// There are data from `start` to `end`.
    pub(crate) fn add(&mut self, start: u64, end: u64) {
        if self.size <= WHOLE || self.end.is_err() {
            return;
        }
        let first = start - start % BLOCK as u64;
        let end = end.min(first.saturating_add(self.left));
        let hash = &mut self.hash;
        let (bytes, result) = range(self.fd, first, end, |offset, bytes| {
            for (n, block) in bytes.chunks(BLOCK).enumerate() {
                if block.iter().any(|byte| *byte != 0) {
                    hash.update(&(offset + (n * BLOCK) as u64).to_le_bytes());
                    hash.update(block);
                }
            }
        });
        self.left = self.left.saturating_sub(bytes);
        self.end = result;
    }

    pub(crate) fn print<W: Write>(self, out: &mut Output<W>) -> Result<()> {
        if self.size <= WHOLE {
            return Ok(());
        }
        let rest = if self.left == 0 {
            " of the first data"
        } else {
            ""
        };
        let digest = self.end.map(|()| self.hash.finish());
        out.line(
            "content-data",
            format_args!("sha256={}{rest}", Value(digest)),
        )
    }
}

/// What direct I/O gets from the beginning of the file, if it can be opened for that.
pub(crate) fn print_direct<W: Write>(
    opened: Result<OwnedFd, Errno>,
    out: &mut Output<W>,
) -> Result<()> {
    let fd = match opened {
        Ok(fd) => fd,
        Err(errno) => return out.line("direct", format_args!("open={}", Error(errno))),
    };
    let mut memory = vec![0; BUFFER + BLOCK];
    let skip = memory.as_ptr().align_offset(BLOCK);
    let buffer = &mut memory[skip..skip + BUFFER];
    let got = read(fd.as_fd(), &mut buffer[..]);
    let hash = got.map(|got| format!("{got} sha256={}", sha256(&buffer[..got])));
    out.line("direct", format_args!("open=ok read={}", Value(hash)))
}
