// SPDX-License-Identifier: GPL-2.0
//! SHA-256 digests, written `sha256:` and 64 lower-case hexadecimal digits.

use std::fmt;
use std::str::FromStr;

use anyhow::{anyhow, Error, Result};
use sha2::{Digest as _, Sha256};

/// The size of a digest in bytes.
pub const SIZE: usize = 32;

const PREFIX: &str = "sha256:";

/// A SHA-256 digest.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Digest([u8; SIZE]);

impl Digest {
    /// The digest of some bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }

    /// The bytes of the digest.
    pub fn as_bytes(&self) -> &[u8; SIZE] {
        &self.0
    }
}

/// The digest of bytes that come in pieces.
#[derive(Default)]
pub struct Hasher(Sha256);

impl Hasher {
    /// Adds a piece.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The digest of all pieces.
    pub fn finish(self) -> Digest {
        Digest(self.0.finalize().into())
    }
}

impl FromStr for Digest {
    type Err = Error;

    /// Reads what [`fmt::Display`] writes, and nothing else: one digest has one spelling.
    fn from_str(text: &str) -> Result<Self> {
        let bad = || anyhow!("{text:?} is not sha256: and 64 lower-case hexadecimal digits");
        let digits = text.strip_prefix(PREFIX).ok_or_else(bad)?;
        if digits.len() != 2 * SIZE {
            return Err(bad());
        }
        let mut bytes = [0; SIZE];
        for (byte, pair) in bytes.iter_mut().zip(digits.as_bytes().chunks_exact(2)) {
            for digit in pair {
                *byte = (*byte << 4) | nibble(*digit).ok_or_else(bad)?;
            }
        }
        Ok(Self(bytes))
    }
}

fn nibble(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(PREFIX)?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The test vectors of the standard (FIPS 180-2, appendix B).
    #[test]
    fn digests_are_those_of_the_standard() {
        let abc = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(Digest::of(b"abc").to_string(), abc);
        let mut hasher = Hasher::default();
        hasher.update(b"a");
        hasher.update(b"bc");
        assert_eq!(hasher.finish(), abc.parse().unwrap());
    }

    #[test]
    fn a_digest_has_one_spelling() {
        let good = format!("sha256:{}", "0f".repeat(32));
        assert_eq!(good.parse::<Digest>().unwrap().to_string(), good);
        for bad in [
            good.to_uppercase(),
            good.replace("sha256", "sha512"),
            good.replace("sha256:", ""),
            format!("{good}0"),
            format!("{good}0f"),
            format!(" {good}"),
            good[..good.len() - 1].to_owned(),
            good[..good.len() - 2].to_owned(),
            good.replace("f0", "g0"),
            "sha256:".to_owned(),
            String::new(),
        ] {
            assert!(bad.parse::<Digest>().is_err(), "{bad}");
        }
    }
}
