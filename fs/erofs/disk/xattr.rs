// SPDX-License-Identifier: GPL-2.0

//! Extended attributes of an inode: those that are its own, and those that it shares with others.
//!
//! Its own attributes are behind the inode, after a header. Shared ones are in one place for the
//! whole image, and an inode lists the ids of those that it has. Both are stored in the same form.
//!
//! | offset in the header | size | field |
//! | --- | --- | --- |
//! | 0 | 4 | name filter |
//! | 4 | 1 | number of shared attributes |
//! | 5 | 7 | reserved |
//! | 12 | 4 each | ids of the shared attributes, their offset in units of 4 bytes |
//!
//! | offset in an attribute | size | field |
//! | --- | --- | --- |
//! | 0 | 1 | length of the name |
//! | 1 | 1 | number of the prefix; with bit 7 set, of a long one |
//! | 2 | 2 | length of the value |
//! | 4 | | name without its prefix, then the value |
//!
//! An attribute begins at a multiple of 4 bytes. One with a prefix that is not known is skipped;
//! the zeroes with which an area of attributes is filled up are such ones.
//!
//! The filter has a bit for each name, chosen by a hash; it is set if the inode has no attribute
//! with such a name.

use crate::xxh32::xxh32;
use crate::{Area, Error, Inode, LongPrefix, Namespace, ReadError, SuperBlock};

/// Size of the header without the ids.
const HEADER_SIZE: usize = 12;

/// Size of an id of a shared attribute.
const ID_SIZE: u64 = 4;

/// Size of an attribute without name and value.
const ENTRY_SIZE: u64 = 4;

/// Bit of the number of a prefix: it is a long one.
const LONG_PREFIX: u8 = 0x80;

/// Seed of the filter's hash, to which the number of the well-known prefix is added.
const FILTER_SEED: u32 = 0x25bb_e08f;

/// How many bytes of a name are looked at together.
const PIECE: usize = 64;

/// The extended attributes of one inode.
///
/// Nothing of the image is kept but the header: attributes are read when they are asked for, with
/// the caller's function `read`, which fills a buffer with the bytes from a byte offset of an area
/// on. It is asked for 1 to 255 bytes.
///
/// ```
/// # use erofs_disk::{Area, Inode, LongPrefix, Namespace, ReadError, SuperBlock, Xattrs};
/// /// The value of `user.mime_type`, if the inode has it.
/// fn mime_type<E>(
///     super_block: &SuperBlock,
///     prefixes: &[LongPrefix],
///     inode: &Inode,
///     mut read: impl FnMut(Area, u64, &mut [u8]) -> Result<(), E>,
/// ) -> Result<Option<Vec<u8>>, ReadError<E>> {
///     let Some(xattrs) = Xattrs::open(super_block, prefixes, inode, &mut read)? else {
///         return Ok(None);
///     };
///     let Some(value) = xattrs.find(Namespace::User, b"mime_type", &mut read)? else {
///         return Ok(None);
///     };
///     let mut bytes = vec![0; value.len];
///     read(value.area, value.offset, &mut bytes).map_err(ReadError::Read)?;
///     Ok(Some(bytes))
/// }
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Xattrs<'a> {
    super_block: &'a SuperBlock,
    prefixes: &'a [LongPrefix],
    /// Where the inode's own attributes are.
    area: Area,
    /// Byte offset of the ids of the shared attributes.
    ids: u64,
    shared_count: u8,
    /// Byte offsets of the first own attribute, and of the end of the last one.
    own: u64,
    own_end: u64,
    /// Bits of the names that the inode does not have.
    filter: u32,
}

impl<'a> Xattrs<'a> {
    /// Reads the header. `None` if the inode has no attributes.
    ///
    /// `prefixes` are all the [`LongPrefixes`](crate::LongPrefixes) of the image, in order.
    ///
    /// # Errors
    ///
    /// [`ReadError::Image`] for a header without anything behind it, which is unsupported, and for
    /// more shared attributes than there is room for.
    pub fn open<E>(
        super_block: &'a SuperBlock,
        prefixes: &'a [LongPrefix],
        inode: &Inode,
        mut read: impl FnMut(Area, u64, &mut [u8]) -> Result<(), E>,
    ) -> Result<Option<Self>, ReadError<E>> {
        if inode.xattrs.is_empty() {
            return Ok(None);
        }
        let mut header = [0; HEADER_SIZE];
        read(inode.area, inode.xattrs.start, &mut header).map_err(ReadError::Read)?;
        let [f0, f1, f2, f3, shared_count, ..] = header;

        // An inode's attributes end within the range of file offsets: nothing overflows.
        let ids = inode.xattrs.start.saturating_add(12);
        if ids >= inode.xattrs.end {
            let what = "i_xattr_icount: a header without attributes";
            return Err(Error::Unsupported(what).into());
        }
        let own = ids.saturating_add(u64::from(shared_count).saturating_mul(ID_SIZE));
        if own > inode.xattrs.end {
            let what = "h_shared_count: more than i_xattr_icount has room for";
            return Err(Error::Corrupt(what).into());
        }
        Ok(Some(Xattrs {
            super_block,
            prefixes,
            area: inode.area,
            ids,
            shared_count,
            own,
            own_end: inode.xattrs.end,
            filter: if super_block.xattr_filter_usable() {
                u32::from_le_bytes([f0, f1, f2, f3])
            } else {
                0
            },
        }))
    }

    /// Whether there may be an attribute of this name, as far as can be told without looking at the
    /// attributes. `name` is without the prefix of the namespace.
    pub fn may_have(&self, namespace: Namespace, name: &[u8]) -> bool {
        let seed = FILTER_SEED.wrapping_add(u32::from(namespace.index()));
        // The lower 5 bits of the hash are the number of the bit.
        let bit = 1u32.wrapping_shl(xxh32(seed, name));
        self.filter & bit == 0
    }

    /// Finds the value of an attribute. `name` is without the prefix of the namespace.
    ///
    /// An inode's own attributes come before shared ones, and the first one counts.
    ///
    /// # Errors
    ///
    /// [`ReadError::Image`] if one of the attributes that were looked at is not where it can be.
    pub fn find<E>(
        &self,
        namespace: Namespace,
        name: &[u8],
        mut read: impl FnMut(Area, u64, &mut [u8]) -> Result<(), E>,
    ) -> Result<Option<XattrValue>, ReadError<E>> {
        if !self.may_have(namespace, name) {
            return Ok(None);
        }
        let mut entries = self.entries();
        while let Some(entry) = entries.next(&mut read)? {
            if entry.namespace == namespace && entry.is_named(name, &mut read)? {
                return Ok(Some(entry.value));
            }
        }
        Ok(None)
    }

    /// All attributes: the inode's own ones, then the shared ones.
    ///
    /// There are at most 65534 and 255 of them.
    pub fn entries(&self) -> XattrEntries<'a> {
        XattrEntries {
            xattrs: *self,
            next_own: self.own,
            next_shared: 0,
        }
    }
}

/// Goes through the attributes of an inode.
#[derive(Clone, Debug)]
pub struct XattrEntries<'a> {
    xattrs: Xattrs<'a>,
    /// Byte offset of the next one of the inode's own attributes.
    next_own: u64,
    /// Number of the next shared attribute.
    next_shared: u8,
}

impl<'a> XattrEntries<'a> {
    /// Reads the next attribute, or says that there is none. After an error there is none.
    ///
    /// # Errors
    ///
    /// [`ReadError::Image`] if it goes beyond the room for attributes behind the inode, or is in a
    /// metabox that does not exist.
    pub fn next<E>(
        &mut self,
        mut read: impl FnMut(Area, u64, &mut [u8]) -> Result<(), E>,
    ) -> Result<Option<XattrEntry<'a>>, ReadError<E>> {
        let next = self.advance(&mut read);
        if next.is_err() {
            self.next_own = self.xattrs.own_end;
            self.next_shared = self.xattrs.shared_count;
        }
        next
    }

    fn advance<E>(
        &mut self,
        read: &mut impl FnMut(Area, u64, &mut [u8]) -> Result<(), E>,
    ) -> Result<Option<XattrEntry<'a>>, ReadError<E>> {
        let xattrs = self.xattrs;
        while self.next_own < xattrs.own_end {
            let (entry, end) = xattrs.entry(xattrs.area, self.next_own, read)?;
            if end > xattrs.own_end {
                let what = "e_value_size: the attribute goes beyond i_xattr_icount";
                return Err(Error::Corrupt(what).into());
            }
            self.next_own = end;
            if entry.is_some() {
                return Ok(entry);
            }
        }
        while self.next_shared < xattrs.shared_count {
            let nth = u64::from(self.next_shared);
            let mut id = [0; 4];
            // The ids end before the own attributes, so nothing overflows.
            let offset = xattrs.ids.saturating_add(nth.saturating_mul(ID_SIZE));
            read(xattrs.area, offset, &mut id).map_err(ReadError::Read)?;
            self.next_shared = self.next_shared.saturating_add(1);

            // The area begins below 2^44, and an id adds less than 2^34.
            let offset = u64::from(u32::from_le_bytes(id)).saturating_mul(ID_SIZE);
            let offset = xattrs
                .super_block
                .shared_xattrs_offset()
                .saturating_add(offset);
            let area = xattrs.super_block.shared_xattrs_area()?;
            let (entry, _) = xattrs.entry(area, offset, read)?;
            if entry.is_some() {
                return Ok(entry);
            }
        }
        Ok(None)
    }
}

impl<'a> Xattrs<'a> {
    /// Reads the attribute at a place; `None` if nobody knows its prefix. Also tells where the next
    /// one would begin.
    fn entry<E>(
        &self,
        area: Area,
        offset: u64,
        read: &mut impl FnMut(Area, u64, &mut [u8]) -> Result<(), E>,
    ) -> Result<(Option<XattrEntry<'a>>, u64), ReadError<E>> {
        let mut raw = [0; 4];
        read(area, offset, &mut raw).map_err(ReadError::Read)?;
        let [name_len, prefix, value_low, value_high] = raw;
        let value_len = u16::from_le_bytes([value_low, value_high]);

        // All offsets are far below the largest number, and an attribute adds less than 2^17.
        let name_offset = offset.saturating_add(ENTRY_SIZE);
        let value_offset = name_offset.saturating_add(u64::from(name_len));
        let end = value_offset
            .saturating_add(u64::from(value_len))
            .next_multiple_of(ENTRY_SIZE);

        let (namespace, infix) = if prefix & LONG_PREFIX == 0 {
            (Namespace::from_index(prefix), &[][..])
        } else {
            match self.prefixes.get(usize::from(prefix & !LONG_PREFIX)) {
                Some(long) => (long.namespace(), long.infix()),
                None => (None, &[][..]),
            }
        };
        let entry = namespace.map(|namespace| XattrEntry {
            namespace,
            infix,
            name_len,
            name_offset,
            value: XattrValue {
                area,
                offset: value_offset,
                len: usize::from(value_len),
            },
        });
        Ok((entry, end))
    }
}

/// Where the value of an attribute is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct XattrValue {
    /// Where its bytes are.
    pub area: Area,
    /// Byte offset of the first one in the area.
    pub offset: u64,
    /// Size in bytes, at most 65535. A shared value may go on behind the end of its area.
    pub len: usize,
}

/// An attribute.
#[derive(Clone, Copy, Debug)]
pub struct XattrEntry<'a> {
    /// What its name begins with.
    pub namespace: Namespace,
    /// Where its value is.
    pub value: XattrValue,
    /// What comes between the prefix and the stored name; empty without a long prefix.
    pub infix: &'a [u8],
    /// The stored name, in the area of the value.
    name_len: u8,
    name_offset: u64,
}

impl XattrEntry<'_> {
    /// Whether this is the attribute's name, without the prefix of the namespace.
    pub fn is_named<E>(
        &self,
        name: &[u8],
        mut read: impl FnMut(Area, u64, &mut [u8]) -> Result<(), E>,
    ) -> Result<bool, ReadError<E>> {
        let Some(name) = name.strip_prefix(self.infix) else {
            return Ok(false);
        };
        if name.len() != usize::from(self.name_len) {
            return Ok(false);
        }
        let mut buffer = [0; PIECE];
        let offsets = (self.name_offset..).step_by(PIECE);
        for (expected, offset) in name.chunks(PIECE).zip(offsets) {
            let piece = buffer.get_mut(..expected.len()).unwrap_or_default();
            read(self.value.area, offset, piece).map_err(ReadError::Read)?;
            if piece != expected {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Size in bytes that the name takes in a list of names: with its prefix, and with the NUL at
    /// the end.
    pub fn list_len(&self) -> usize {
        // At most 24 + 255 + 255 + 1.
        self.namespace
            .prefix()
            .len()
            .saturating_add(self.infix.len())
            .saturating_add(usize::from(self.name_len))
            .saturating_add(1)
    }

    /// Writes the name to the beginning of `list` as `listxattr(2)` wants it: with its prefix, and
    /// with a NUL at the end. Returns [`Self::list_len`], or `None` if `list` is shorter.
    ///
    /// # Errors
    ///
    /// [`ReadError::Image`] for a name with a NUL in it, which a list cannot hold.
    pub fn list<E>(
        &self,
        list: &mut [u8],
        mut read: impl FnMut(Area, u64, &mut [u8]) -> Result<(), E>,
    ) -> Result<Option<usize>, ReadError<E>> {
        let len = self.list_len();
        let prefix = self.namespace.prefix();
        let parts = list.get_mut(..len).and_then(|list| {
            let (for_prefix, list) = list.split_at_mut_checked(prefix.len())?;
            let (for_infix, list) = list.split_at_mut_checked(self.infix.len())?;
            let (for_name, end) = list.split_at_mut_checked(usize::from(self.name_len))?;
            Some((for_prefix, for_infix, for_name, end))
        });
        let Some((for_prefix, for_infix, for_name, end)) = parts else {
            return Ok(None);
        };
        for_prefix.copy_from_slice(prefix);
        for_infix.copy_from_slice(self.infix);
        if !for_name.is_empty() {
            read(self.value.area, self.name_offset, for_name).map_err(ReadError::Read)?;
        }
        end.fill(0);
        if self.infix.contains(&0) || for_name.contains(&0) {
            return Err(Error::Corrupt("e_name: NUL in the name of an attribute").into());
        }
        Ok(Some(len))
    }
}
