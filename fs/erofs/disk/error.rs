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
