// SPDX-License-Identifier: GPL-2.0

//! Why an image is refused.

use core::fmt;

/// Why an image, or a part of it, cannot be read. The text names the field or the feature, for one
/// log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// The device does not begin with an EROFS super block; this stands in the place of its magic
    /// number.
    BadMagic(u32),
    /// This field breaks a rule of the format, or contradicts another one.
    Corrupt(&'static str),
    /// The image is fine, but this crate cannot read it because of this feature.
    Unsupported(&'static str),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::BadMagic(magic) => write!(f, "not an EROFS image (magic {magic:#010x})"),
            Error::Corrupt(what) => write!(f, "corrupted image: {what}"),
            Error::Unsupported(what) => write!(f, "unsupported image: {what}"),
        }
    }
}

impl core::error::Error for Error {}

/// The result of reading a part of an image.
pub type Result<T> = core::result::Result<T, Error>;

/// Why bytes that this crate reads for itself do not come to anything: the image is to blame, or
/// the reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadError<E> {
    /// The bytes were read, and are refused.
    Image(Error),
    /// The caller's function could not read them, for this reason.
    Read(E),
}

impl<E> From<Error> for ReadError<E> {
    fn from(error: Error) -> Self {
        ReadError::Image(error)
    }
}

impl<E: fmt::Display> fmt::Display for ReadError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ReadError::Image(error) => error.fmt(f),
            ReadError::Read(error) => error.fmt(f),
        }
    }
}

impl<E: fmt::Debug + fmt::Display> core::error::Error for ReadError<E> {}
