// SPDX-License-Identifier: GPL-2.0

//! Prefixes of attribute names: the well-known ones, which an image stores as a number, and the
//! long ones, of which each image has its own table.
//!
//! The table is a sequence of records, each at a multiple of 4 bytes. They are numbered from 0 on.
//!
//! | offset in a record | size | field |
//! | --- | --- | --- |
//! | 0 | 2 | size of what follows in bytes, 1 to 256 |
//! | 2 | 1 | number of the well-known prefix that the long one begins with |
//! | 3 | | infix: the rest of the long prefix |

use crate::{Area, Error, ReadError, SuperBlock};

/// Longest infix in bytes.
const INFIX_MAX: usize = 255;

/// A well-known prefix of attribute names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Namespace {
    /// `user.`
    User,
    /// `system.posix_acl_access`: the whole name, and nothing comes behind it.
    PosixAclAccess,
    /// `system.posix_acl_default`: the whole name, and nothing comes behind it.
    PosixAclDefault,
    /// `trusted.`
    Trusted,
    /// `security.`
    Security,
}

impl Namespace {
    /// The prefix with this number in an image, or `None` for a number that no reader knows.
    pub(crate) fn from_index(index: u8) -> Option<Self> {
        match index {
            1 => Some(Namespace::User),
            2 => Some(Namespace::PosixAclAccess),
            3 => Some(Namespace::PosixAclDefault),
            4 => Some(Namespace::Trusted),
            // 5 is for Lustre, and no reader lists it.
            6 => Some(Namespace::Security),
            _ => None,
        }
    }

    /// The number of the prefix in an image.
    pub(crate) fn index(self) -> u8 {
        match self {
            Namespace::User => 1,
            Namespace::PosixAclAccess => 2,
            Namespace::PosixAclDefault => 3,
            Namespace::Trusted => 4,
            Namespace::Security => 6,
        }
    }

    /// The text of the prefix.
    pub fn prefix(self) -> &'static [u8] {
        match self {
            Namespace::User => b"user.",
            Namespace::PosixAclAccess => b"system.posix_acl_access",
            Namespace::PosixAclDefault => b"system.posix_acl_default",
            Namespace::Trusted => b"trusted.",
            Namespace::Security => b"security.",
        }
    }
}

/// A long prefix of attribute names: a well-known one, and more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LongPrefix {
    namespace: Option<Namespace>,
    infix_len: u8,
    infix: [u8; INFIX_MAX],
}

impl LongPrefix {
    /// The well-known prefix that it begins with. `None` if that one is not known: then attributes
    /// with this prefix are as good as not there.
    pub fn namespace(&self) -> Option<Namespace> {
        self.namespace
    }

    /// What comes after the well-known prefix, up to 255 bytes.
    pub fn infix(&self) -> &[u8] {
        self.infix
            .get(..usize::from(self.infix_len))
            .unwrap_or_default()
    }
}

/// Reads the table of long prefixes, record by record, in the order of their numbers.
///
/// The caller keeps them for [`Xattrs`](crate::Xattrs), which finds them by their position. There
/// are up to 255; attributes can name the first 128 of them.
#[derive(Clone, Debug)]
pub struct LongPrefixes {
    area: Area,
    offset: u64,
    left: u8,
}

impl LongPrefixes {
    /// Begins with the first record.
    pub fn new(super_block: &SuperBlock) -> Self {
        LongPrefixes {
            area: super_block.xattr_prefix_area(),
            offset: super_block.xattr_prefix_offset(),
            left: super_block.xattr_prefix_count(),
        }
    }

    /// Number of records that are left.
    pub fn left(&self) -> u8 {
        self.left
    }

    /// Reads the next record, or says that there is none. After an error there is none.
    ///
    /// `read` fills the buffer with the bytes from a byte offset of an area on.
    ///
    /// # Errors
    ///
    /// [`ReadError::Image`] for a record of a size that none can have.
    pub fn next<E>(
        &mut self,
        mut read: impl FnMut(Area, u64, &mut [u8]) -> Result<(), E>,
    ) -> Result<Option<LongPrefix>, ReadError<E>> {
        let Some(left) = self.left.checked_sub(1) else {
            return Ok(None);
        };
        self.left = 0;
        let mut read =
            |offset, bytes: &mut [u8]| read(self.area, offset, bytes).map_err(ReadError::Read);

        // The first record is below 2^34, and none takes more than 260 bytes: nothing overflows.
        let mut size = [0; 2];
        read(self.offset, &mut size)?;
        let size = u16::from_le_bytes(size);
        let infix_len = size
            .checked_sub(1)
            .and_then(|len| u8::try_from(len).ok())
            .ok_or(Error::Corrupt("long prefix of attributes: wrong size"))?;
        let mut index = [0];
        read(self.offset.saturating_add(2), &mut index)?;
        let mut infix = [0; INFIX_MAX];
        match infix.get_mut(..usize::from(infix_len)) {
            None | Some([]) => (),
            Some(infix) => read(self.offset.saturating_add(3), infix)?,
        }

        self.offset = self
            .offset
            .saturating_add(2)
            .saturating_add(u64::from(size))
            .next_multiple_of(4);
        self.left = left;
        let [index] = index;
        Ok(Some(LongPrefix {
            namespace: Namespace::from_index(index),
            infix_len,
            infix,
        }))
    }
}
