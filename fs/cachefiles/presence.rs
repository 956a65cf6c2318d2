// SPDX-License-Identifier: GPL-2.0

//! Presence: which bytes of a blob are in its backing file.
//!
//! What is not a hole of the file is present, and stays so: nothing takes bytes out of a file while
//! it is in use. So whatever was seen to be present is remembered, block by block, and reads of it
//! need not ask the file system again. A blob that is complete takes no memory and costs one test.
//!
//! One thing does take bytes out of a file: a disk that fails to store them, or a file system that
//! fails to note that it did. The kernel keeps them in the page cache for a while, and what is read
//! later are zeros. So what the daemon has just brought is *unsettled*: present as long as its pages
//! are in memory. Once they are gone the file system is asked again, and what it then has as data,
//! with nothing in memory, is on disk: *settled*. Most such errors also leave a mark in the file.
//! Every look compares it, and after an error nothing counts as known any more; a read compares it
//! once more when it ends.
//!
//! A file system may count a block as data before the bytes of a pwrite(2) are in it. A seek waits
//! for writes that are under way (see [`KFile::seek_data`]), so that is seen only of a write that
//! died: btrfs and XFS take back what it did not write; ext4 does not. There, as long as the file
//! has blocks that are reserved but not on disk, only what the daemon has answered for counts as
//! present, and what is on disk. What this does not catch is a write that dies while the page that
//! it writes from is not in memory: ext4 then has zeros as data. It is why the daemon must write
//! whole blocks with pwrite, from memory that stays where it is, and neither map nor preallocate
//! the file.

use crate::block_maps::{Maps, State};
use kernel::{
    new_spinlock,
    prelude::*,
    sync::{
        atomic::{ordering, Atomic},
        SpinLock,
    },
};
use netfs_split::{Presence, Run, Runs};
use vfs::kfile::{KFile, WriteErrors};

/// Unit of what is remembered, in bytes: what requests are made of, and daemons write.
pub(crate) const BLOCK: u64 = 4096;

/// What is known to be present of one file.
#[pin_data]
pub(crate) struct Known {
    /// Size of the file in bytes.
    size: u64,
    /// Set once the whole file is known to be present.
    complete: Atomic<bool>,
    #[pin]
    maps: SpinLock<Maps>,
    /// The [`WriteErrors`] that had come before what is known was asked for. Changed with `maps`
    /// locked.
    errors: Atomic<u32>,
    /// Questions that the file system was asked for readers and answers.
    seeks: Atomic<u64>,
}

impl Known {
    /// Nothing is known of a file of `size` bytes.
    pub(crate) fn new(size: u64) -> impl PinInit<Self> {
        pin_init!(Self {
            size,
            complete: Atomic::new(false),
            maps <- new_spinlock!(Maps::new()),
            // An error from before the first look is one to be looked into.
            errors: Atomic::new(WriteErrors::default().to_u32()),
            seeks: Atomic::new(0),
        })
    }

    /// Looks whether the file is complete, for which two questions are enough. May sleep.
    pub(crate) fn look(&self, file: &KFile) -> Result {
        let holes = Holes::new(self, file, 0)?;
        let data = holes.next_data(0)? == Some(0) && file.seek_hole(0)? >= self.size;
        if !data || self.size == 0 || file.has_reserved_blocks()? {
            return Ok(());
        }
        // If that was because of pages, it is asked again without them.
        if file.in_page_cache(0, self.size)
            && (file.forget_pages(0, self.size).is_err() || file.seek_hole(0)? < self.size)
        {
            return Ok(());
        }
        self.note(holes.errors, 0, self.size);
        Ok(())
    }

    /// Forgets what is known if bytes of the file could not be written to the disk. What is asked
    /// and read from here on is right unless that happens again, which can be told by the value.
    /// May sleep.
    ///
    /// [`EIO`] when the bytes that are lost cannot be told from others yet.
    pub(crate) fn confirm(&self, file: &KFile) -> Result<WriteErrors> {
        let errors = self.errors();
        if !file.write_failed(errors) {
            return Ok(errors);
        }
        let errors = file.write_errors();
        // Pages of lost bytes look like data to the file system for as long as they are there.
        file.forget_pages(0, self.size).map_err(|_| EIO)?;
        let forgotten = {
            let mut maps = self.maps.lock();
            self.errors.store(errors.to_u32(), ordering::Relaxed);
            self.complete.store(false, ordering::Relaxed);
            core::mem::replace(&mut *maps, Maps::new())
        };
        drop(forgotten);
        Ok(errors)
    }

    /// The errors that had come before what is known was asked for.
    pub(crate) fn errors(&self) -> WriteErrors {
        WriteErrors::from_u32(self.errors.load(ordering::Relaxed))
    }

    /// Calls `missing` for each run of the range that is not present in `file`, in order. The range
    /// must end before the file does. May sleep.
    pub(crate) fn for_each_missing(
        &self,
        file: &KFile,
        start: u64,
        len: u64,
        mut missing: impl FnMut(Run) -> Result,
    ) -> Result {
        self.for_each_run(file, start, len, |run| match run.present {
            true => Ok(()),
            false => missing(run),
        })
    }

    /// The daemon says that it has filled the range: looks once, and notes what is there. May
    /// sleep.
    pub(crate) fn filled(&self, file: &KFile, start: u64, len: u64) -> Result {
        let mut holes = Holes::new(self, file, start.saturating_add(len))?;
        holes.answered = true;
        holes.next_hole(start)?;
        Ok(())
    }

    /// The first run of the range that is present in `file`, as long as it can be. May sleep.
    pub(crate) fn first_present(&self, file: &KFile, start: u64, len: u64) -> Result<Option<Run>> {
        let mut first: Option<Run> = None;
        let mut over = false;
        let result = self.for_each_run(file, start, len, |run| {
            match &mut first {
                Some(first) if run.present => first.len = first.len.saturating_add(run.len),
                // Nobody wants to know about the rest.
                Some(_) => {
                    over = true;
                    return Err(ECANCELED);
                }
                None if run.present => first = Some(run),
                None => {}
            }
            Ok(())
        });
        match result {
            Err(e) if !over => Err(e),
            _ => Ok(first),
        }
    }

    /// Whether the range is known to be present. Does not sleep.
    pub(crate) fn covers(&self, file: &KFile, start: u64, len: u64) -> bool {
        let end = start.saturating_add(len);
        let mut at = start;
        while at < end {
            let (state, to) = self.state(at, end);
            let present = match state {
                State::Settled => true,
                State::Unsettled => pages(file, at, to) == (true, to),
                State::Unknown => false,
            };
            if !present {
                return false;
            }
            at = to;
        }
        true
    }

    /// Whether the range is known to be on disk. Does not sleep.
    pub(crate) fn is_settled(&self, start: u64, len: u64) -> bool {
        let end = start.saturating_add(len);
        self.state(start, end) == (State::Settled, end)
    }

    /// Looks what of the range is on disk by now, of what was not. May sleep.
    pub(crate) fn settle(&self, file: &KFile, start: u64, len: u64) -> Result {
        let end = start.saturating_add(len).min(self.size);
        let mut at = start;
        while at < end {
            let (state, mut to) = self.state(at, end);
            let mut in_memory = true;
            if state == State::Unsettled {
                (in_memory, to) = pages(file, at, to);
            }
            if !in_memory {
                let mut holes = Holes::new(self, file, to)?;
                holes.counted = false;
                for run in Runs::new(&holes, at, to.saturating_sub(at)) {
                    self.forget_if_missing(run?);
                }
            }
            at = to;
        }
        Ok(())
    }

    /// Whether the whole file is known to be present.
    pub(crate) fn complete(&self) -> bool {
        self.complete.load(ordering::Relaxed)
    }

    /// How many blocks are known to be present; a last one that is shorter counts.
    pub(crate) fn blocks(&self) -> u64 {
        match self.complete() {
            true => self.size.div_ceil(BLOCK),
            false => {
                let maps = self.maps.lock();
                maps.settled.blocks.saturating_add(maps.unsettled.blocks)
            }
        }
    }

    /// How many of those are not known to be on disk.
    pub(crate) fn unsettled_blocks(&self) -> u64 {
        self.maps.lock().unsettled.blocks
    }

    /// How often the file system was asked, other than by [`Known::settle`].
    pub(crate) fn seeks(&self) -> u64 {
        self.seeks.load(ordering::Relaxed)
    }

    /// Runs of present and missing bytes: from memory what is known, from the file the rest.
    fn for_each_run(
        &self,
        file: &KFile,
        start: u64,
        len: u64,
        mut each: impl FnMut(Run) -> Result,
    ) -> Result {
        let end = start.saturating_add(len);
        let holes = Holes::new(self, file, end)?;
        let mut at = start;
        while at < end {
            let (known, to) = match self.state(at, end) {
                (State::Unsettled, to) => pages(file, at, to),
                (state, to) => (state == State::Settled, to),
            };
            let len = to.saturating_sub(at);
            if known || !can_tell(file, at, len) {
                each(Run {
                    start: at,
                    len,
                    present: known,
                })?;
            } else {
                for run in Runs::new(&Holes { end: to, ..holes }, at, len) {
                    let run = run?;
                    self.forget_if_missing(run);
                    each(run)?;
                }
            }
            at = to;
        }
        Ok(())
    }

    /// What is known of the byte at `at`, and up to where the same is true, at most `end`.
    fn state(&self, at: u64, end: u64) -> (State, u64) {
        if self.complete() {
            return (State::Settled, end);
        }
        let (state, to) = self.maps.lock().state(at / BLOCK, end.div_ceil(BLOCK));
        (state, to.saturating_mul(BLOCK).min(end))
    }

    /// What was unsettled and is a hole now is not present any more.
    fn forget_if_missing(&self, run: Run) {
        if !run.present {
            let end = run.start.saturating_add(run.len);
            let mut maps = self.maps.lock();
            maps.unsettled
                .remove(run.start / BLOCK, end.div_ceil(BLOCK));
        }
    }

    /// The whole blocks between two bytes. The last one of the file may be shorter than the others.
    fn blocks_between(&self, start: u64, end: u64) -> (u64, u64) {
        let to = match end >= self.size {
            true => self.size.div_ceil(BLOCK),
            false => end / BLOCK,
        };
        (start.div_ceil(BLOCK), to)
    }

    /// The bytes from `start` to `end` are on disk, unless there were more than these errors.
    fn note(&self, errors: WriteErrors, start: u64, end: u64) {
        let blocks = self.size.div_ceil(BLOCK);
        let (from, to) = self.blocks_between(start, end);
        let not_needed = {
            let mut maps = self.maps.lock();
            if self.errors() != errors {
                return;
            }
            if (from, to) != (0, blocks) {
                maps.settled.insert(from, to);
                maps.unsettled.remove(from, to);
                if maps.settled.blocks < blocks {
                    return;
                }
            }
            self.complete.store(true, ordering::Relaxed);
            core::mem::replace(&mut *maps, Maps::new())
        };
        drop(not_needed);
    }

    /// The daemon has brought the bytes from `start` to `end`, unless there were more than these
    /// errors.
    fn note_unsettled(&self, errors: WriteErrors, start: u64, end: u64) {
        let (from, to) = self.blocks_between(start, end);
        let mut maps = self.maps.lock();
        if self.complete() || self.errors() != errors {
            return;
        }
        let mut at = from;
        while at < to {
            let (settled, end) = maps.settled.run(at, to);
            if !settled {
                maps.unsettled.insert(at, end);
            }
            at = end;
        }
    }
}

/// Whether there is a page of the block at `at` in memory, and up to where the same is true, at most
/// `end`. Does not sleep.
fn pages(file: &KFile, at: u64, end: u64) -> (bool, u64) {
    let there = |pos: u64| file.in_page_cache(pos, BLOCK.min(end.saturating_sub(pos)));
    let first = there(at);
    let mut to = (at / BLOCK).saturating_add(1).saturating_mul(BLOCK);
    while to < end && there(to) == first {
        to = to.saturating_add(BLOCK);
    }
    (first, to.min(end))
}

/// Sees to it that the file system can tell what of the range is data; whether it can. May sleep.
///
/// Blocks that have a place on disk and were never written to, which a power cut or an error of the
/// disk leaves behind, are data for a file system if there is a page for them in memory, though it
/// may be one of zeros that somebody has read. So there must be no pages.
fn can_tell(file: &KFile, start: u64, len: u64) -> bool {
    !file.in_page_cache(start, len) || file.forget_pages(start, len).is_ok()
}

/// The holes of a backing file, and where to note what is not one.
#[derive(Clone, Copy)]
struct Holes<'a> {
    known: &'a Known,
    file: &'a KFile,
    /// Those that had come before the file is asked.
    errors: WriteErrors,
    /// Up to where somebody wants to know.
    end: u64,
    /// Whether the daemon says that the bytes are there.
    answered: bool,
    /// Whether the questions count.
    counted: bool,
}

impl<'a> Holes<'a> {
    fn new(known: &'a Known, file: &'a KFile, end: u64) -> Result<Self> {
        Ok(Self {
            known,
            file,
            errors: known.confirm(file)?,
            end,
            answered: false,
            counted: true,
        })
    }

    fn count(&self) {
        if self.counted {
            self.known.seeks.fetch_add(1, ordering::Relaxed);
        }
    }

    /// Where the data that begins at `pos` ends, if it is believed to be data. `hole` is what the
    /// file system says.
    fn believed(&self, pos: u64, hole: u64) -> Result<u64> {
        if self.answered {
            // Not for more than the answer was about.
            return Ok(hole.min(self.end.next_multiple_of(BLOCK)));
        }
        let behind = hole.saturating_sub(self.end);
        // See `can_tell`.
        let hole = match self.file.in_page_cache(self.end, behind) {
            true => self.end,
            false => hole,
        };
        if !self.file.has_reserved_blocks()? {
            return Ok(hole);
        }
        let len = hole.min(self.end).saturating_sub(pos);
        Ok(pos.saturating_add(self.file.on_disk(pos, len)))
    }
}

impl Presence for Holes<'_> {
    type Error = Error;

    fn next_data(&self, pos: u64) -> Result<Option<u64>> {
        self.count();
        self.file.seek_data(pos)
    }

    fn next_hole(&self, pos: u64) -> Result<u64> {
        self.count();
        match self.file.seek_hole(pos) {
            Ok(hole) => {
                let hole = self.believed(pos, hole)?;
                // There is data from here to the hole, unless the hole is here.
                match hole > pos {
                    true if self.answered => self.known.note_unsettled(self.errors, pos, hole),
                    true => self.known.note(self.errors, pos, hole),
                    false => {}
                }
                Ok(hole)
            }
            // The file ends before `pos`.
            Err(e) if e == ENXIO => Ok(pos),
            Err(e) => Err(e),
        }
    }
}
