// SPDX-License-Identifier: GPL-2.0
//! Where the bytes come from.
//!
//! A source has files: blobs, and beside them manifests and lists of chunks. What it says is not trusted: whoever reads
//! a blob verifies it, unless the source is a directory and the blob has no manifest.

pub mod directory;
pub mod http;
pub mod mirror;
pub mod oci;
pub mod place;
pub mod s3;

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs::File;
use std::ops::Range;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{anyhow, Error, Result};

use crate::digest::Digest;
use crate::manifest::Wanted;

/// A place that has blobs.
pub trait Source: fmt::Debug + Send + Sync {
    /// Its name for messages.
    fn label(&self) -> &str;

    /// Reads a small file, of at most so many bytes, before it is `until`.
    fn file(&self, name: &str, most: u64, until: Instant) -> Result<Vec<u8>, Failure>;

    /// Opens a blob, which has to have this size.
    fn blob(&self, name: &OsStr, size: u64) -> Result<Box<dyn Ranges>, Failure>;

    /// The image that the source is, if it is one rather than a place for many.
    fn itself(&self, _until: Instant) -> Result<Itself, Failure> {
        Err(is_no_image(self.label()))
    }

    /// Looks whether the source answers at all.
    fn probe(&self, until: Instant) -> Result<(), Failure>;

    /// Opens a blob as a file of this machine, which is as good as verified; tells its size. Nothing if the source has
    /// no such files.
    fn local(&self, _name: &OsStr) -> Option<Result<(File, u64)>> {
        None
    }

    /// The blob whose cache file has this name, if the source can tell.
    fn blob_of(&self, _file_name: &OsStr) -> Option<OsString> {
        None
    }

    /// Reads credentials again. Whether there are other ones.
    fn reload(&self) -> Result<bool> {
        Ok(false)
    }
}

/// An image that is a source of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Itself {
    /// The image.
    pub image: Wanted,
    /// What the source knows it by, whatever names it has there.
    pub digest: Digest,
}

fn is_no_image(label: &str) -> Failure {
    Failure::lasting(anyhow!("{label} is a place for images: name one of them"))
}

/// Opens what is at a place: a directory, or the address of one.
pub struct Opener(Box<Open>);

type Open = dyn Fn(&OsStr) -> Result<Box<dyn Source>> + Send + Sync;

impl Opener {
    /// Opens with this.
    pub fn new(open: impl Fn(&OsStr) -> Result<Box<dyn Source>> + Send + Sync + 'static) -> Self {
        Self(Box::new(open))
    }

    /// Opens what is at a place. Nobody is asked yet.
    pub fn open(&self, place: &OsStr) -> Result<Box<dyn Source>> {
        (self.0)(place)
    }
}

/// Opens directories only.
impl Default for Opener {
    fn default() -> Self {
        Self::new(|place| Ok(Box::new(directory::Directory::new(Path::new(place))?)))
    }
}

impl fmt::Debug for Opener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Opener")
    }
}

/// A blob of a source.
pub trait Ranges: fmt::Debug + Send + Sync {
    /// Begins to read a range of the blob.
    fn range(&self, range: Range<u64>, how: &How) -> Result<Box<dyn Stream + '_>, Failure>;
}

/// How to read a range.
#[derive(Clone, Copy, Debug)]
pub struct How {
    /// When all of it has to be there.
    pub until: Instant,
    /// What came before was wrong: no cache on the way may answer.
    pub fresh: bool,
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
    /// What that says about the next time.
    pub kind: Kind,
}

/// What a failure says about the next time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It is of no use to ask this source for the same again.
    Lasting,
    /// It may go well the next time.
    Passing,
    /// The source has too much to do. Perhaps it says for how long it wants to be left alone.
    Overload(Option<Duration>),
}

impl Failure {
    /// It is of no use to ask the source for this again.
    pub fn lasting(error: impl Into<Error>) -> Self {
        Self {
            error: error.into(),
            kind: Kind::Lasting,
        }
    }

    /// It may go well the next time.
    pub fn passing(error: impl Into<Error>) -> Self {
        Self {
            error: error.into(),
            kind: Kind::Passing,
        }
    }
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        failure.error
    }
}
