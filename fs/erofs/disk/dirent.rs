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

/// What a search for a name in one block tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Search<'a> {
    /// This is the entry.
    Found(DirEntry<'a>),
    /// The name sorts before the first one of the block.
    Before,
    /// The name would be in this block, and is not.
    Absent,
    /// The name sorts after the last one of the block.
    After,
}

impl<'a> DirBlock<'a> {
    /// Takes the bytes of one block of a directory, cut off at the directory's size.
    pub fn new(bytes: &'a [u8]) -> Result<Self> {
        let (first, _) = RawDirent::ref_from_prefix(bytes)
            .map_err(|_| Error::Corrupt("directory block: too short"))?;
        let names = usize::from(first.name_offset.get());
        let count = names / DIRENT_SIZE;
        if count == 0 || names % DIRENT_SIZE != 0 || names >= bytes.len() {
            return Err(Error::Corrupt("nameoff of a directory's first entry"));
        }
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

    /// The first name of the block: no name in the blocks before sorts after it.
    pub fn first_name(&self) -> Result<&'a [u8]> {
        self.read(0).map(|entry| entry.name)
    }

    /// Looks for a name.
    ///
    /// In a block that is not sorted a name may be missed, nothing worse.
    pub fn search(&self, name: &[u8]) -> Result<Search<'a>> {
        let (mut low, mut high) = (0, self.count);
        while low < high {
            let middle = low.midpoint(high);
            let entry = self.read(middle)?;
            match entry.name.cmp(name) {
                Ordering::Equal => return Ok(Search::Found(entry)),
                Ordering::Less => low = middle.saturating_add(1),
                Ordering::Greater => high = middle,
            }
        }
        Ok(match low {
            0 => Search::Before,
            last if last == self.count => Search::After,
            _ => Search::Absent,
        })
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
        if name.is_empty() || name.len() > NAME_MAX {
            return Err(Error::Corrupt("length of a name in a directory"));
        }
        if name.iter().any(|&byte| byte == 0 || byte == b'/') {
            return Err(Error::Corrupt("NUL or slash in a name in a directory"));
        }
        Ok(DirEntry {
            nid: raw.nid.get(),
            file_type: if raw.file_type <= FILE_TYPE_MAX {
                raw.file_type
            } else {
                0
            },
            name,
        })
    }
}

/// A binary search for one name over the blocks of a directory, each of which is read at most once.
///
/// ```
/// # use erofs_disk::{BlockSearch, DirBlock, Result, Step};
/// # fn find(blocks: &[&[u8]], name: &[u8]) -> Result<Option<u64>> {
/// let mut search = BlockSearch::new(blocks.len() as u64);
/// while let Some(index) = search.next_block() {
///     let block = DirBlock::new(blocks[index as usize])?;
///     match search.step(&block, name)? {
///         Step::Found(entry) => return Ok(Some(entry.nid)),
///         Step::Continue => (),
///     }
/// }
/// Ok(None)
/// # }
/// # assert_eq!(find(&[], b"a"), Ok(None));
/// ```
#[derive(Clone, Debug)]
pub struct BlockSearch {
    low: u64,
    high: u64,
}

/// What one block told a [`BlockSearch`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step<'a> {
    /// This is the entry.
    Found(DirEntry<'a>),
    /// Not in this block: ask [`BlockSearch::next_block`] whether there is another one.
    Continue,
}

impl BlockSearch {
    /// Begins a search in a directory of `blocks` blocks.
    pub fn new(blocks: u64) -> Self {
        BlockSearch {
            low: 0,
            high: blocks,
        }
    }

    /// The number of the block to read next, or `None`: the name does not exist.
    pub fn next_block(&self) -> Option<u64> {
        (self.low < self.high).then(|| self.low.midpoint(self.high))
    }

    /// Looks for `name` in the block that [`Self::next_block`] told.
    pub fn step<'a>(&mut self, block: &DirBlock<'a>, name: &[u8]) -> Result<Step<'a>> {
        let middle = self.low.midpoint(self.high);
        match block.search(name)? {
            Search::Found(entry) => return Ok(Step::Found(entry)),
            Search::Before => self.high = middle,
            Search::After => self.low = middle.saturating_add(1),
            Search::Absent => self.high = self.low,
        }
        Ok(Step::Continue)
    }
}
