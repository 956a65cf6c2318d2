// SPDX-License-Identifier: GPL-2.0
//! What was changed in an image.

use std::fmt;

/// One change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Edit {
    /// Other bytes in the place of some.
    Bytes {
        /// What was changed: the name of a field, or of a structure.
        what: &'static str,
        /// Whose it is, see [`crate::map::Field::owner`].
        owner: u64,
        /// Byte offset in the image.
        offset: usize,
        /// The bytes that were there.
        old: Vec<u8>,
        /// As many other ones.
        new: Vec<u8>,
    },
    /// The image ends earlier.
    Cut {
        /// Size in bytes before.
        old: usize,
        /// Size in bytes.
        new: usize,
    },
}

impl Edit {
    /// What was changed: the name of a field, or of a structure.
    pub fn what(&self) -> &'static str {
        match self {
            Edit::Bytes { what, .. } => what,
            Edit::Cut { .. } => "image.cut",
        }
    }

    /// Makes the change. False if the image is not as it is said to be.
    pub fn apply(&self, image: &mut Vec<u8>) -> bool {
        match self {
            Edit::Bytes {
                offset, old, new, ..
            } => match image.get_mut(*offset..offset.saturating_add(old.len())) {
                Some(bytes) if bytes == old && old.len() == new.len() => {
                    bytes.copy_from_slice(new);
                    true
                }
                _ => false,
            },
            Edit::Cut { old, new } => {
                let right = image.len() == *old && new < old;
                image.truncate(*new);
                right
            }
        }
    }
}

impl fmt::Display for Edit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Edit::Bytes {
                what,
                owner,
                offset,
                old,
                new,
            } => write!(
                f,
                "{what} of {owner} at {offset}: {} to {}",
                Value(old),
                Value(new)
            ),
            Edit::Cut { old, new } => write!(f, "image.cut: {old} to {new} bytes"),
        }
    }
}

/// Bytes as a number, or as a string of digits if they are too many.
struct Value<'a>(&'a [u8]);

impl fmt::Display for Value<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut number = [0; 8];
        if let Some(low) = number.get_mut(..self.0.len()) {
            low.copy_from_slice(self.0);
            return write!(f, "{:#x}", u64::from_le_bytes(number));
        }
        for byte in self.0.iter().take(64) {
            write!(f, "{byte:02x}")?;
        }
        match self.0.len() {
            0..=64 => Ok(()),
            len => write!(f, "... ({len} bytes)"),
        }
    }
}
