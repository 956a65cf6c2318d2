// SPDX-License-Identifier: GPL-2.0

//! Directory blocks: sorted names, and the inodes that they lead to.
//!
//! The data of a directory is a sequence of blocks that can each be understood alone: an array of
//! entries, and the names behind it, in the same order and without gaps. Names are sorted by their
//! bytes within a block and from block to block.
//!
//! | offset in an entry | size | field |
//! | --- | --- | --- |
//! | 0 | 8 | nid |
//! | 8 | 2 | offset of the name in the block; that of the first name is where the array ends |
//! | 10 | 1 | file type |
//! | 11 | 1 | reserved |
//!
//! A name ends where the next one begins; the last one at the first NUL or at the end of the block.

use core::cmp::Ordering;
use core::ops::Range;

use zerocopy::byteorder::little_endian::{U16, U64};
use zerocopy::FromBytes as _;
use zerocopy_derive::{FromBytes, Immutable, KnownLayout, Unaligned};

use crate::super_block::until_nul;
use crate::{Error, Result};

/// Longest name in bytes.
pub const NAME_MAX: usize = 255;

/// Size of an entry in bytes.
const DIRENT_SIZE: usize = 12;

/// File types above this one do not exist.
const FILE_TYPE_MAX: u8 = 7;

/// An entry as it is on disk; the table above has the offsets.
#[derive(FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawDirent {
    nid: U64,
    name_offset: U16,
    file_type: u8,
    _reserved: u8,
}

const _: () = assert!(size_of::<RawDirent>() == DIRENT_SIZE);

/// A directory entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DirEntry<'a> {
    /// Number of the inode.
    pub nid: u64,
    /// Type of the file: 0 unknown, 1 regular, 2 directory, 3 character device, 4 block device, 5
    /// FIFO, 6 socket, 7 symbolic link (the kernel's `FT_*`).
    pub file_type: u8,
    /// The name: 1 to [`NAME_MAX`] bytes, none of them NUL or a slash. It may be `.` or `..`.
    pub name: &'a [u8],
}

/// One block of a directory.
#[derive(Clone, Copy, Debug)]
pub struct DirBlock<'a> {
    bytes: &'a [u8],
    count: usize,
}

/// So many bytes at the front of a block tell where its first name is.
pub const DIR_HEAD_SIZE: usize = 2 * DIRENT_SIZE;

/// Where the first name of a block is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FirstName {
    /// The bytes of the block that hold it.
    place: Range<usize>,
    /// Whether there is no other name: then nothing but a NUL, or the block, ends it.
    is_last: bool,
}

impl FirstName {
    /// Finds it from the first [`DIR_HEAD_SIZE`] bytes of a block, which has `len` bytes. A shorter
    /// block is given as a whole.
    pub fn locate(head: &[u8], len: usize) -> Result<Self> {
        let raw = |index| {
            let rest = head.get(DIRENT_SIZE.checked_mul(index)?..)?;
            RawDirent::ref_from_prefix(rest).ok().map(|(raw, _)| raw)
        };
        let first = raw(0).ok_or(Error::Corrupt("directory block: too short"))?;
        let start = usize::from(first.name_offset.get());
        let is_last = count(first, len)? == 1;
        let end = match is_last {
            true => Some(len),
            false => raw(1).map(|second| usize::from(second.name_offset.get())),
        };
        let end = end
            .filter(|&end| start <= end && end <= len)
            .ok_or(Error::Corrupt("nameoff of a directory entry"))?;
        // A byte more shows that a name is too long.
        let place = start..end.min(start.saturating_add(NAME_MAX).saturating_add(1));
        Ok(FirstName { place, is_last })
    }

    /// The bytes of the block that hold the name; at most one more than [`NAME_MAX`].
    pub fn place(&self) -> Range<usize> {
        self.place.clone()
    }

    /// The name in those bytes. No name in the blocks before sorts after it.
    pub fn check<'a>(&self, bytes: &'a [u8]) -> Result<&'a [u8]> {
        check_name(match self.is_last {
            true => until_nul(bytes),
            false => bytes,
        })
    }
}

/// How many entries a block of `len` bytes has, at least 1.
fn count(first: &RawDirent, len: usize) -> Result<usize> {
    let names = usize::from(first.name_offset.get());
    let count = names / DIRENT_SIZE;
    if count == 0 || names % DIRENT_SIZE != 0 || names >= len {
        return Err(Error::Corrupt("nameoff of a directory's first entry"));
    }
    Ok(count)
}

fn check_name(name: &[u8]) -> Result<&[u8]> {
    if name.is_empty() || name.len() > NAME_MAX {
        return Err(Error::Corrupt("length of a name in a directory"));
    }
    if name.iter().any(|&byte| byte == 0 || byte == b'/') {
        return Err(Error::Corrupt("NUL or slash in a name in a directory"));
    }
    Ok(name)
}

impl<'a> DirBlock<'a> {
    /// Takes the bytes of one block of a directory, cut off at the directory's size.
    pub fn new(bytes: &'a [u8]) -> Result<Self> {
        let (first, _) = RawDirent::ref_from_prefix(bytes)
            .map_err(|_| Error::Corrupt("directory block: too short"))?;
        let count = count(first, bytes.len())?;
        Ok(DirBlock { bytes, count })
    }

    /// Number of entries, at least 1.
    pub fn count(&self) -> usize {
        self.count
    }

    /// The entry `index`; `None` if there are not as many.
    pub fn get(&self, index: usize) -> Option<Result<DirEntry<'a>>> {
        (index < self.count).then(|| self.read(index))
    }

    /// All entries, in order.
    pub fn entries(&self) -> impl Iterator<Item = Result<DirEntry<'a>>> + 'a {
        let block = *self;
        (0..block.count).map(move |index| block.read(index))
    }

    /// Looks for a name.
    ///
    /// In a block that is not sorted a name may be missed, nothing worse.
    pub fn find(&self, name: &[u8]) -> Result<Option<DirEntry<'a>>> {
        let (mut low, mut high) = (0, self.count);
        while low < high {
            let middle = low.midpoint(high);
            let entry = self.read(middle)?;
            match entry.name.cmp(name) {
                Ordering::Equal => return Ok(Some(entry)),
                Ordering::Less => low = middle.saturating_add(1),
                Ordering::Greater => high = middle,
            }
        }
        Ok(None)
    }

    fn raw(&self, index: usize) -> Option<&'a RawDirent> {
        let rest = self.bytes.get(index.checked_mul(DIRENT_SIZE)?..)?;
        RawDirent::ref_from_prefix(rest).ok().map(|(raw, _)| raw)
    }

    /// The entry `index`, which is less than the count.
    fn read(&self, index: usize) -> Result<DirEntry<'a>> {
        let raw = self.raw(index).ok_or(Error::Corrupt("directory entry"))?;
        let start = usize::from(raw.name_offset.get());
        let next = index.saturating_add(1);
        let name = if next < self.count {
            let end = self.raw(next).map(|raw| usize::from(raw.name_offset.get()));
            end.and_then(|end| self.bytes.get(start..end))
        } else {
            self.bytes.get(start..).map(until_nul)
        };
        let name = name
            // Names are behind the array of entries, which ends where the first name begins.
            .filter(|_| start >= self.count.saturating_mul(DIRENT_SIZE))
            .ok_or(Error::Corrupt("nameoff of a directory entry"))?;
        Ok(DirEntry {
            nid: raw.nid.get(),
            file_type: if raw.file_type <= FILE_TYPE_MAX {
                raw.file_type
            } else {
                0
            },
            name: check_name(name)?,
        })
    }
}

/// A binary search for the one block of a directory that can have a name, by the first names of
/// blocks.
///
/// ```
/// # use erofs_disk::{BlockSearch, DirBlock, FirstName, Result};
/// # fn find(blocks: &[&[u8]], name: &[u8]) -> Result<Option<u64>> {
/// let mut search = BlockSearch::new(blocks.len() as u64);
/// while let Some(index) = search.next_block() {
///     let block = blocks[index as usize];
///     let first = FirstName::locate(block, block.len())?;
///     search.step(first.check(&block[first.place()])?, name);
/// }
/// let Some(index) = search.result() else {
///     return Ok(None);
/// };
/// let found = DirBlock::new(blocks[index as usize])?.find(name)?;
/// Ok(found.map(|entry| entry.nid))
/// # }
/// # assert_eq!(find(&[], b"a"), Ok(None));
/// ```
#[derive(Clone, Debug)]
pub struct BlockSearch {
    /// The name is in none of the blocks before, and in none from `high` on.
    low: u64,
    high: u64,
}

impl BlockSearch {
    /// Begins a search in a directory of `blocks` blocks.
    pub fn new(blocks: u64) -> Self {
        BlockSearch {
            low: 0,
            high: blocks,
        }
    }

    /// The block whose first name is to be looked at next, each at most once; `None` at the end.
    pub fn next_block(&self) -> Option<u64> {
        let middle = self.low.midpoint(self.high);
        (self.low < middle).then_some(middle)
    }

    /// Goes on with the first name of the block that [`Self::next_block`] told.
    pub fn step(&mut self, first: &[u8], name: &[u8]) {
        let middle = self.low.midpoint(self.high);
        match first <= name {
            true => self.low = middle,
            false => self.high = middle,
        }
    }

    /// The only block that can have the name; `None` if the directory has none.
    pub fn result(&self) -> Option<u64> {
        (self.low < self.high).then_some(self.low)
    }
}
