// SPDX-License-Identifier: GPL-2.0

//! A read into folios that are locked for it, from when it is put together until it is complete.
//!
//! Each part of a folio is in one read at a time and is completed once, by `iomap_finish_folio_read`;
//! iomap unlocks a folio when all of its parts are complete.
//!
//! C header: [`include/linux/iomap.h`](srctree/include/linux/iomap.h)

use crate::{bindings, sync::Completion};
use core::ptr::NonNull;
use kernel::{
    prelude::*,
    sync::{
        atomic::{ordering, Atomic},
        Arc,
    },
};

/// A part of a locked folio that is being read.
struct Part {
    folio: *mut bindings::folio,
    offset: usize,
    len: usize,
}

impl Part {
    /// The part that a segment of a [`FolioRead`] describes.
    fn of(segment: &bindings::bio_vec) -> Self {
        let mut offset = 0;
        // SAFETY: The segment was made by `FolioRead::push`, and so lies in a folio that is valid.
        let folio = unsafe { bindings::vfs_helper_bvec_folio(segment, &raw mut offset) };
        Self {
            folio,
            offset,
            len: usize::try_from(segment.bv_len).unwrap_or(0),
        }
    }
}

/// A read of parts of folios that are neighbours, from one contiguous range of a device.
///
/// Must be completed; dropping it fails the read with [`EIO`]. It can be cut into several, which
/// are then completed each on its own, see [`FolioRead::split_front`].
pub struct FolioRead {
    // The parts. The first `given` have gone to other reads.
    segments: KVec<bindings::bio_vec>,
    given: usize,
    len: usize,
    // Bytes that must come; the rest lies behind the end of the file and is zeroed.
    wanted: usize,
    waiter: Option<Arc<Waiter>>,
}

/// One folio's share of a [`FolioRead`].
#[derive(Clone, Copy, Debug)]
pub struct FolioSpan {
    /// Number of parts, not zero.
    pub parts: usize,
    /// Their length in bytes.
    pub len: usize,
}

// SAFETY: The folios are locked for this read, and whoever owns it may fill and unlock them.
unsafe impl Send for FolioRead {}

impl FolioRead {
    /// A read of nothing, which parts are added to.
    pub(super) fn new(waiter: Option<Arc<Waiter>>) -> Self {
        Self {
            segments: KVec::new(),
            given: 0,
            len: 0,
            wanted: 0,
            waiter,
        }
    }

    /// Adds a part at the end. `left` is how many bytes the file has from there on.
    ///
    /// # Safety
    ///
    /// The folio must be locked for this read, and the part lie within it.
    pub(super) unsafe fn push(
        &mut self,
        folio: NonNull<bindings::folio>,
        offset: usize,
        len: usize,
        left: usize,
    ) -> Result {
        let mut segment = bindings::bio_vec::default();
        // SAFETY: By the safety requirement.
        unsafe {
            bindings::vfs_helper_bvec_set_folio(&mut segment, folio.as_ptr(), len, offset);
        }
        self.segments.push(segment, GFP_KERNEL)?;
        if self.wanted == self.len {
            self.wanted = self.len.saturating_add(left.min(len));
        }
        self.len = self.len.saturating_add(len);
        Ok(())
    }

    /// Length of the whole read in bytes, a multiple of the block size.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is nothing to read.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// How many bytes from the start must be read. What is behind them is past the end of the file:
    /// it may be read or not, and is zeroed.
    pub fn wanted(&self) -> usize {
        self.wanted
    }

    /// The memory to fill, valid until the read is completed.
    #[doc(hidden)]
    pub fn segments(&self) -> &[bindings::bio_vec] {
        self.segments.get(self.given..).unwrap_or(&[])
    }

    /// The span of the folio that the part `index` belongs to, from that part on; none behind the
    /// last part.
    pub fn folio_at(&self, index: usize) -> Option<FolioSpan> {
        let parts = self.segments().get(index..)?;
        let folio = Part::of(parts.first()?).folio;
        let same = parts
            .iter()
            .map(Part::of)
            .take_while(|part| part.folio == folio);
        Some(
            same.fold(FolioSpan { parts: 0, len: 0 }, |span, part| FolioSpan {
                parts: span.parts.saturating_add(1),
                len: span.len.saturating_add(part.len),
            }),
        )
    }

    /// Cuts off the first `parts` parts, as a read of their own of the bytes that they cover. With
    /// all parts this read becomes empty, and dropping it does nothing. May sleep.
    ///
    /// [`EINVAL`] for none or more than there are, [`ENOMEM`]; this read is unchanged then.
    pub fn split_front(&mut self, parts: usize) -> Result<Self> {
        if parts == self.segments().len() {
            return Ok(core::mem::replace(self, Self::new(None)));
        }
        let Some(front @ [_, ..]) = self.segments().get(..parts) else {
            return Err(EINVAL);
        };
        let len = front
            .iter()
            .map(Part::of)
            .fold(0usize, |len, part| len.saturating_add(part.len));
        let mut read = Self::new(None);
        // All of them or none, and nothing fails after that.
        read.segments.extend_from_slice(front, GFP_KERNEL)?;
        read.len = len;
        read.wanted = self.wanted.min(len);
        read.waiter = self.waiter.clone();
        if let Some(waiter) = &read.waiter {
            waiter.get();
        }
        self.given = self.given.saturating_add(parts);
        self.len = self.len.saturating_sub(len);
        self.wanted = self.wanted.saturating_sub(read.wanted);
        Ok(read)
    }

    /// Ends the read with bytes that are in memory: the first ones of `bytes`, as many as are
    /// wanted. Too few are an [`EIO`].
    pub fn copy_from(self, bytes: &[u8]) {
        let mut rest = bytes;
        for part in self.segments().iter().map(Part::of) {
            let len = part.len.min(rest.len());
            let Some((copy, after)) = rest.split_at_checked(len) else {
                break;
            };
            // SAFETY: The folio is locked for this read, and the part, which is at least as long as
            // what is copied, lies within it.
            unsafe {
                bindings::vfs_helper_memcpy_to_folio(
                    part.folio,
                    part.offset,
                    copy.as_ptr().cast(),
                    copy.len(),
                );
            }
            rest = after;
        }
        self.complete(Ok(bytes.len().saturating_sub(rest.len())));
    }

    /// Ends the read: `Ok(n)` when the first `n` bytes are there. Too few are an [`EIO`].
    ///
    /// May be called from interrupt context when the result is good; a failure is reported to
    /// observers of the file system, which needs process context.
    pub fn complete(mut self, result: Result<usize>) {
        self.finish(result);
    }

    fn finish(&mut self, result: Result<usize>) {
        let result = result.and_then(|n| if n < self.wanted { Err(EIO) } else { Ok(()) });
        let errno = crate::to_errno(result);
        let waiter = self.waiter.take();
        if let Some(waiter) = &waiter {
            // Before the folios are unlocked, so that the one who waits finds it.
            waiter.note(errno);
        }
        let mut at = 0usize;
        for part in self.segments().iter().map(Part::of) {
            let end = at.saturating_add(part.len);
            let good = self.wanted.clamp(at, end) - at;
            // SAFETY: The folio is locked for this read, and the part lies within it.
            unsafe {
                if errno == 0 && good < part.len {
                    bindings::vfs_helper_folio_zero_range(
                        part.folio,
                        part.offset + good,
                        part.len - good,
                    );
                }
                bindings::iomap_finish_folio_read(part.folio, part.offset, part.len, errno);
            }
            at = end;
        }
        self.given = self.segments.len();
        if let Some(waiter) = waiter {
            waiter.put();
        }
    }
}

impl Drop for FolioRead {
    fn drop(&mut self) {
        if !self.segments().is_empty() || self.waiter.is_some() {
            self.finish(Err(EIO));
        }
    }
}

/// Somebody who waits for the reads of one folio.
#[pin_data]
pub(super) struct Waiter {
    #[pin]
    done: Completion,
    // Reads under way, and one for the submission itself.
    pending: Atomic<i32>,
    // The first error, or zero.
    errno: Atomic<i32>,
}

impl Waiter {
    pub(super) fn new() -> Result<Arc<Self>> {
        Arc::pin_init(
            pin_init!(Self {
                done <- Completion::new(),
                pending: Atomic::new(1),
                errno: Atomic::new(0),
            }),
            GFP_KERNEL,
        )
    }

    pub(super) fn get(&self) {
        self.pending.fetch_add(1, ordering::Relaxed);
    }

    pub(super) fn put(&self) {
        if self.pending.fetch_sub(1, ordering::Full) == 1 {
            self.done.complete_all();
        }
    }

    pub(super) fn note(&self, errno: i32) {
        if errno != 0 {
            // Only the first error is kept.
            let _ = self.errno.cmpxchg(0, errno, ordering::Full);
        }
    }

    pub(super) fn wait(&self) -> Result {
        self.done.wait_killable()?;
        match self.errno.load(ordering::Acquire) {
            0 => Ok(()),
            errno => Err(Error::from_errno(errno)),
        }
    }
}
