// SPDX-License-Identifier: GPL-2.0

//! From a logical range of one file to slices, each with one source.

use core::fmt;

/// Where the bytes of a [`Slice`] come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source<B> {
    /// Zeros: a hole, or bytes beyond the end of the file.
    Zero,
    /// Bytes that lie beside the metadata.
    Inline {
        /// Byte offset in the device that holds the metadata.
        start: u64,
    },
    /// Bytes of a blob.
    Blob {
        /// The blob, as the [`Map`] names it.
        blob: B,
        /// Byte offset in that blob.
        start: u64,
    },
}

impl<B> Source<B> {
    /// The source of the bytes that lie `by` bytes further on, `None` when that offset does not
    /// exist.
    fn advance(self, by: u64) -> Option<Self> {
        Some(match self {
            Source::Zero => Source::Zero,
            Source::Inline { start } => Source::Inline {
                start: start.checked_add(by)?,
            },
            Source::Blob { blob, start } => Source::Blob {
                blob,
                start: start.checked_add(by)?,
            },
        })
    }
}

/// A range of a file that has one source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slice<B> {
    /// First logical byte.
    pub pos: u64,
    /// Length in bytes; never 0 in a slice that [`next_slice`] or [`Slices`] gives out.
    pub len: u64,
    /// Where byte `pos` comes from; the bytes after it follow there without a gap.
    pub source: Source<B>,
}

impl<B> Slice<B> {
    /// The logical byte after the last one.
    ///
    /// Exact for the slices of this crate, whose ends are checked; a hand-made one that overflows
    /// ends at [`u64::MAX`].
    pub fn end(&self) -> u64 {
        self.pos.saturating_add(self.len)
    }
}

impl<B: Copy> Slice<B> {
    /// What it has from the logical byte `pos` on, at most `len` bytes; `None` if it does not have
    /// that byte.
    pub fn part(&self, pos: u64, len: u64) -> Option<Self> {
        let skipped = pos.checked_sub(self.pos)?;
        let left = self.len.checked_sub(skipped).filter(|&left| left > 0)?;
        Some(Slice {
            pos,
            len: left.min(len),
            source: self.source.advance(skipped)?,
        })
    }
}

/// How a file's blocks are laid out: the part that only the file system knows.
pub trait Map {
    /// Names a blob.
    type Blob: Copy + Eq;

    /// Why a lookup can fail.
    type Error;

    /// Returns the extent that contains the logical byte `pos`, which is less than the file's size.
    ///
    /// The extent may start before `pos` and end after whatever the caller is interested in, even
    /// after the file's end. It starts at a block boundary, and it ends at one unless it ends at or
    /// after the file's end; blob bytes start at a block boundary of the blob. The answer is
    /// checked against these rules.
    fn extent(&self, pos: u64) -> Result<Slice<Self::Blob>, Self::Error>;
}

/// What splitting needs to know of a file besides its [`Map`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct File {
    /// Size in bytes.
    pub size: u64,
    /// Block size of the file system in bytes, a power of two.
    pub block_size: u32,
}

/// Why a range could not be split.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SplitError<E> {
    /// The map failed.
    Map(E),
    /// The asked range ends beyond [`u64::MAX`].
    RangeOverflow,
    /// [`File::block_size`] is not a power of two.
    BlockSize,
    /// The map gave an extent of length 0.
    EmptyExtent,
    /// The map gave an extent that does not contain the asked byte.
    WrongExtent,
    /// The map gave an extent whose logical or physical end is beyond [`u64::MAX`].
    ExtentOverflow,
    /// The map gave an extent that does not lie on block boundaries.
    UnalignedExtent,
}

impl<E: fmt::Display> fmt::Display for SplitError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            SplitError::Map(error) => return error.fmt(f),
            SplitError::RangeOverflow => "the range has no end",
            SplitError::BlockSize => "block size is not a power of two",
            SplitError::EmptyExtent => "extent of length 0",
            SplitError::WrongExtent => "extent does not contain the asked byte",
            SplitError::ExtentOverflow => "extent has no end",
            SplitError::UnalignedExtent => "extent is not on block boundaries",
        })
    }
}

impl<E: fmt::Debug + fmt::Display> core::error::Error for SplitError<E> {}

/// A slice of a file with the map `M`, or why there is none.
pub type SplitResult<M> = Result<Slice<<M as Map>::Blob>, SplitError<<M as Map>::Error>>;

/// Returns the first slice of the range of `len` bytes at `pos`, or `None` when `len` is 0.
///
/// The slice starts at `pos` and ends within the range. It also ends at the file's size, exactly:
/// whoever fills a page cache must find zeros beyond it, so the rest of the range is one
/// [`Source::Zero`] slice, whatever the blob holds there.
///
/// # Errors
///
/// The map's own, and a [`SplitError`] that names the rule that its answer breaks. The file system
/// should report the image as corrupted then.
pub fn next_slice<M: Map>(
    file: File,
    map: &M,
    pos: u64,
    len: u64,
) -> Result<Option<Slice<M::Blob>>, SplitError<M::Error>> {
    if len == 0 {
        return Ok(None);
    }
    let range_end = pos.checked_add(len).ok_or(SplitError::RangeOverflow)?;
    if pos >= file.size {
        return Ok(Some(Slice {
            pos,
            len,
            source: Source::Zero,
        }));
    }

    let extent = map.extent(pos).map_err(SplitError::Map)?;
    let extent_end = check_extent(file, &extent)?;
    let skipped = match pos.checked_sub(extent.pos) {
        Some(skipped) if pos < extent_end => skipped,
        _ => return Err(SplitError::WrongExtent),
    };
    let end = range_end.min(file.size).min(extent_end);
    Ok(Some(Slice {
        pos,
        // `pos` is less than each of the three ends.
        len: end.saturating_sub(pos),
        source: extent
            .source
            .advance(skipped)
            .ok_or(SplitError::ExtentOverflow)?,
    }))
}

/// Checks an answer of the map against the rules of [`Map::extent`] and returns its logical end.
fn check_extent<B: Copy, E>(file: File, extent: &Slice<B>) -> Result<u64, SplitError<E>> {
    if !file.block_size.is_power_of_two() {
        return Err(SplitError::BlockSize);
    }
    let in_block = u64::from(file.block_size).saturating_sub(1);

    if extent.len == 0 {
        return Err(SplitError::EmptyExtent);
    }
    let end = extent
        .pos
        .checked_add(extent.len)
        .ok_or(SplitError::ExtentOverflow)?;
    if extent.source.advance(extent.len).is_none() {
        return Err(SplitError::ExtentOverflow);
    }
    let whole_blocks = extent.pos & in_block == 0 && (end & in_block == 0 || end >= file.size);
    let source_on_block = match extent.source {
        Source::Blob { start, .. } => start & in_block == 0,
        Source::Zero | Source::Inline { .. } => true,
    };
    if whole_blocks && source_on_block {
        Ok(end)
    } else {
        Err(SplitError::UnalignedExtent)
    }
}

/// How many extents can make one slice.
const EXTENTS_MAX: usize = 1024;

/// The slices of a range, in order, as few as possible.
///
/// Neighbours are merged when the second continues the first in the same blob, and when both are
/// zeros. 1024 extents are the most that are merged: a slice takes limited time, whatever the map
/// answers. The slices cover the range without gaps or overlaps. After an error the iterator ends;
/// the slices before the error are right.
///
/// To know where a slice ends, the map is asked for the extent after it, within the range.
#[must_use = "an iterator does nothing unless it is consumed"]
pub struct Slices<'m, M: Map> {
    file: File,
    map: &'m M,
    pos: u64,
    len: u64,
    /// What the lookahead found behind the slice that was given out last.
    ahead: Option<SplitResult<M>>,
}

impl<'m, M: Map> Slices<'m, M> {
    /// Splits the range of `len` bytes at `pos`; see [`next_slice`] for what happens at the file's
    /// end.
    pub fn new(file: File, map: &'m M, pos: u64, len: u64) -> Self {
        Slices {
            file,
            map,
            pos,
            len,
            ahead: None,
        }
    }

    /// The next slice before merging.
    fn step(&mut self) -> Option<SplitResult<M>> {
        let result = next_slice(self.file, self.map, self.pos, self.len).transpose()?;
        match &result {
            Ok(slice) => {
                self.pos = slice.end();
                self.len = self.len.saturating_sub(slice.len);
            }
            Err(_) => self.len = 0,
        }
        Some(result)
    }
}

impl<M: Map> Iterator for Slices<'_, M> {
    type Item = SplitResult<M>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut slice = match self.ahead.take().or_else(|| self.step())? {
            Ok(slice) => slice,
            Err(error) => return Some(Err(error)),
        };
        for _ in 1..EXTENTS_MAX {
            match self.step() {
                Some(Ok(next)) if continues(&slice, &next) => {
                    slice.len = slice.len.saturating_add(next.len);
                }
                other => {
                    self.ahead = other;
                    break;
                }
            }
        }
        Some(Ok(slice))
    }
}

impl<M: Map> core::iter::FusedIterator for Slices<'_, M> {}

/// Whether `second`, which starts where `first` ends logically, also does so physically.
fn continues<B: Copy + Eq>(first: &Slice<B>, second: &Slice<B>) -> bool {
    match (first.source, second.source) {
        (Source::Zero, Source::Zero) => true,
        (Source::Blob { .. }, Source::Blob { .. }) => {
            first.source.advance(first.len) == Some(second.source)
        }
        _ => false,
    }
}
