// SPDX-License-Identifier: GPL-2.0

//! Presence: which bytes of a blob are in its backing file.
//!
//! What is not a hole of the file is present, and stays so: nothing takes bytes out of a file while
//! it is in use. So the run of present bytes that was seen last is remembered, and reads within it
//! need not ask the file system. For a blob that is complete that is every read but the first.
//!
//! A file system may allocate a block, which makes it data, before the bytes of a pwrite(2) are in
//! it. That is never seen here: ext4 takes the inode's lock for the whole of a pwrite and for a
//! seek, XFS takes it for the pwrite and for the direct read that follows the seek, and what was
//! asked from the daemon is waited for until the daemon has answered. It is why the daemon must
//! write whole blocks with pwrite, and neither map nor preallocate the file.

use kernel::{new_spinlock, prelude::*, sync::SpinLock};
use netfs_split::{Presence, Run, Runs};
use vfs::kfile::KFile;

/// What is known to be present.
#[pin_data]
pub(crate) struct Known {
    /// Start and end of a run of present bytes.
    #[pin]
    run: SpinLock<(u64, u64)>,
}

impl Known {
    /// Nothing is known.
    pub(crate) fn new() -> impl PinInit<Self> {
        pin_init!(Self {
            run <- new_spinlock!((0, 0)),
        })
    }

    /// Calls `missing` for each run of the range that is not present in `file`, in order. May sleep.
    pub(crate) fn for_each_missing(
        &self,
        file: &KFile,
        start: u64,
        len: u64,
        mut missing: impl FnMut(Run) -> Result,
    ) -> Result {
        if self.covers(start, len) {
            return Ok(());
        }
        for run in Runs::new(&Holes { file, known: self }, start, len) {
            let run = run?;
            if !run.present {
                missing(run)?;
            }
        }
        Ok(())
    }

    /// The first run of the range that is present in `file`. May sleep.
    pub(crate) fn first_present(&self, file: &KFile, start: u64, len: u64) -> Result<Option<Run>> {
        for run in Runs::new(&Holes { file, known: self }, start, len) {
            let run = run?;
            if run.present {
                return Ok(Some(run));
            }
        }
        Ok(None)
    }

    fn covers(&self, start: u64, len: u64) -> bool {
        let (from, to) = *self.run.lock();
        from <= start && start.checked_add(len).is_some_and(|end| end <= to)
    }

    /// The bytes from `start` to `end` are present.
    fn note(&self, start: u64, end: u64) {
        let mut run = self.run.lock();
        // Runs that touch are one; of two that do not, the newer one is more likely to be asked for.
        if start <= run.1 && run.0 <= end {
            *run = (run.0.min(start), run.1.max(end));
        } else {
            *run = (start, end);
        }
    }
}

/// The holes of a backing file, and where to note what is not one.
struct Holes<'a> {
    file: &'a KFile,
    known: &'a Known,
}

impl Presence for Holes<'_> {
    type Error = Error;

    fn next_data(&self, pos: u64) -> Result<Option<u64>> {
        self.file.seek_data(pos)
    }

    fn next_hole(&self, pos: u64) -> Result<u64> {
        match self.file.seek_hole(pos) {
            Ok(hole) => {
                // There is data from here to the hole, unless the hole is here.
                if hole > pos {
                    self.known.note(pos, hole);
                }
                Ok(hole)
            }
            // The file ends before `pos`.
            Err(e) if e == ENXIO => Ok(pos),
            Err(e) => Err(e),
        }
    }
}
