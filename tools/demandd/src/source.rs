// SPDX-License-Identifier: GPL-2.0
//! Where the bytes come from.
//!
//! A source has files: blobs, and beside them manifests and lists of chunks. What it says is not trusted: whoever reads
//! a blob verifies it, unless the source is a directory and the blob has no manifest.

pub mod directory;

use std::ffi::OsStr;
use std::fmt;
use std::ops::Range;

use anyhow::Error;

/// A place that has blobs.
pub trait Source: fmt::Debug + Send + Sync {
    /// Its name for messages.
    fn label(&self) -> &str;

    /// Reads a small file, of at most so many bytes.
    fn file(&self, name: &str, most: u64) -> Result<Vec<u8>, Failure>;

    /// Opens a blob, which has to have this size.
    fn blob(&self, name: &OsStr, size: u64) -> Result<Box<dyn Ranges>, Failure>;
}

/// A blob of a source.
pub trait Ranges: fmt::Debug + Send + Sync {
    /// Begins to read a range of the blob.
    fn range(&self, range: Range<u64>) -> Result<Box<dyn Stream + '_>, Failure>;
}

/// The bytes of a range, in order.
pub trait Stream {
    /// Reads the next bytes: exactly so many.
    fn read_exact(&mut self, bytes: &mut [u8]) -> Result<(), Failure>;
}

/// Something could not be had from a source.
#[derive(Debug)]
pub struct Failure {
    /// Why.
    pub error: Error,
}

impl Failure {
    /// It is of no use to ask the source for this again.
    pub fn lasting(error: impl Into<Error>) -> Self {
        Self {
            error: error.into(),
        }
    }
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        failure.error
    }
}
