// SPDX-License-Identifier: GPL-2.0

//! From a range of a blob to runs of bytes that are in the cache and runs that are not.

/// What a sparse cache file holds, asked as `lseek(2)` asks.
///
/// The answers need not be consistent: the file may be filled or punched between two questions, and
/// the file system may be wrong. [`Runs`] then errs towards "missing", which costs a fetch; an
/// error towards "present" would hand zeros to the reader.
pub trait Presence {
    /// Why a query can fail.
    type Error;

    /// The first byte at or after `pos` that holds data, `None` if there is none (`SEEK_DATA` and
    /// its `ENXIO`).
    fn next_data(&self, pos: u64) -> Result<Option<u64>, Self::Error>;

    /// The first byte at or after `pos` that is in a hole (`SEEK_HOLE`); the file's end counts as
    /// one.
    fn next_hole(&self, pos: u64) -> Result<u64, Self::Error>;
}

/// Neighbouring bytes of a blob that are all in the cache, or all not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// First byte, as an offset in the blob.
    pub start: u64,
    /// Length in bytes, never 0 in a run of [`Runs`].
    pub len: u64,
    /// Whether the bytes are in the cache.
    pub present: bool,
}

/// The runs of a blob's range, in order, without gaps or overlaps.
///
/// Each run takes at most two queries, and each is at least one byte long, so the iteration ends
/// whatever the answers are. Two neighbours may be of the same kind if the file changed between the
/// queries. After an error it ends.
#[derive(Debug)]
#[must_use = "an iterator does nothing unless it is consumed"]
pub struct Runs<'p, P> {
    presence: &'p P,
    start: u64,
    end: u64,
    /// Where the query for the run before has already found data.
    data: Option<u64>,
}

impl<'p, P: Presence> Runs<'p, P> {
    /// Cuts the range of `len` bytes at `start` of a blob; a range that would pass [`u64::MAX`]
    /// ends there.
    pub fn new(presence: &'p P, start: u64, len: u64) -> Self {
        Runs {
            presence,
            start,
            end: start.saturating_add(len),
            data: None,
        }
    }

    /// The end of the run at `self.start`, and whether it is present.
    fn find(&mut self) -> Result<(u64, bool), P::Error> {
        let data = match self.data.take() {
            Some(data) => Some(data),
            None => self.presence.next_data(self.start)?,
        };
        match data {
            Some(data) if data > self.start => {
                self.data = Some(data);
                Ok((data, false))
            }
            Some(data) if data == self.start => match self.presence.next_hole(self.start)? {
                hole if hole > self.start => Ok((hole, true)),
                // The data went away between the two queries, or one of them is wrong.
                _ => Ok((self.end, false)),
            },
            // No more data, or data before the place where the search began, which says nothing
            // about this one.
            _ => Ok((self.end, false)),
        }
    }
}

impl<P: Presence> Iterator for Runs<'_, P> {
    type Item = Result<Run, P::Error>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.start >= self.end {
            return None;
        }
        let start = self.start;
        Some(match self.find() {
            Ok((end, present)) => {
                self.start = end.min(self.end);
                Ok(Run {
                    start,
                    len: self.start.saturating_sub(start),
                    present,
                })
            }
            Err(error) => {
                self.start = self.end;
                Err(error)
            }
        })
    }
}

impl<P: Presence> core::iter::FusedIterator for Runs<'_, P> {}

/// What to fetch so that the missing bytes `start..start + len` of a blob become present: `(start,
/// len)`.
///
/// The range grows outwards to multiples of `granule` and is then clipped to `blob_size`: no fetch
/// ever asks for a byte past the blob's end (bugs T62 and T66), be it because of the granule or
/// because of the asked range. Without anything to fetch (`len` is 0, or the range begins at or
/// after the blob's end), and for a `granule` that is not a power of two, the answer is `None`.
pub fn widen(start: u64, len: u64, granule: u64, blob_size: u64) -> Option<(u64, u64)> {
    if len == 0 || start >= blob_size || !granule.is_power_of_two() {
        return None;
    }
    let below = granule.checked_sub(1)?;
    let from = start & !below;
    let to = start
        .saturating_add(len)
        .checked_next_multiple_of(granule)
        .map_or(blob_size, |end| end.min(blob_size));
    Some((from, to.checked_sub(from)?))
}
