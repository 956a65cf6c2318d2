// SPDX-License-Identifier: GPL-2.0

//! Reads from a cookie into folios: what is present apart from what is missing.
//!
//! A read that is wholly present goes to the backend as it is. Else it is cut at the borders of
//! folios: neighbours that are present make one read, and each folio with bytes that are missing is
//! a read of its own. So a miss delays only the folios that it covers, as a folio is unlocked when
//! the read that it is in is done. The backend puts together again what it has to ask for.
//!
//! Each read has an operation of its own, begun and ended once: the core counts them.

use super::{Cookie, Operation};
use core::{mem::MaybeUninit, ops::Range};
use kernel::{ffi, prelude::*};
use vfs::{
    bindings,
    iomap::{FolioRead, FolioSpan},
    u64_from,
};

/// Reads bytes from `start` of the object into the folios, see [`Cookie::read`].
pub(super) fn read(cookie: &Cookie, start: u64, mut folios: FolioRead) {
    // Whatever is given up below is dropped, which fails it.
    let Ok(operation) = Operation::begin(cookie) else {
        return;
    };
    let mut start = start;
    let mut presence = Presence::new(&operation, start, u64_from(folios.len()));
    while let Some(span) = first_piece(&folios, start, &mut presence) {
        match folios.split_front(span.parts) {
            Ok(piece) => {
                if let Ok(operation) = Operation::begin(cookie) {
                    submit(operation, start, piece);
                }
            }
            Err(e) => {
                // The object is let go before the folios, see `Read::done`.
                drop(operation);
                return folios.complete(Err(e));
            }
        }
        start = start.saturating_add(u64_from(span.len));
    }
    submit(operation, start, folios);
}

fn submit(operation: Operation, start: u64, folios: FolioRead) {
    if let Ok(read) = Read::new(operation, folios) {
        read.submit(start);
    }
}

/// What is to be cut off the front of `folios`, which begin at `start` of the object: the folios
/// that are present, or else the first one. None when there is nothing to cut.
fn first_piece(folios: &FolioRead, start: u64, presence: &mut Presence<'_>) -> Option<FolioSpan> {
    let first = folios.folio_at(0)?;
    if first.len == folios.len() || presence.covers(start, u64_from(folios.len())) {
        return None;
    }
    let mut piece = FolioSpan { parts: 0, len: 0 };
    while let Some(folio) = folios.folio_at(piece.parts) {
        let at = start.saturating_add(u64_from(piece.len));
        if !presence.covers(at, u64_from(folio.len)) {
            break;
        }
        piece.parts = piece.parts.saturating_add(folio.parts);
        piece.len = piece.len.saturating_add(folio.len);
    }
    if piece.parts == 0 {
        piece = first;
    }
    (piece.len < folios.len()).then_some(piece)
}

/// What is present of a range of an object, asked from the backend as far as it is needed.
struct Presence<'a> {
    operation: &'a Operation,
    /// Where the range ends, or the object if it is shorter.
    end: u64,
    /// The first present bytes at or after where the backend was asked last.
    run: Range<u64>,
}

impl<'a> Presence<'a> {
    fn new(operation: &'a Operation, start: u64, len: u64) -> Self {
        let size = operation.size().unwrap_or(u64::MAX);
        Self {
            operation,
            end: start.saturating_add(len).min(size),
            run: 0..0,
        }
    }

    /// Whether the `len` bytes from `at` are present, as are those behind the end of the object.
    /// Must be called with rising positions.
    ///
    /// If the backend cannot tell, it counts as present: the read itself will learn the reason.
    fn covers(&mut self, at: u64, len: u64) -> bool {
        let end = at.saturating_add(len).min(self.end);
        if at >= end {
            return true;
        }
        if at >= self.run.end {
            self.run = match self.operation.occupancy(at, self.end.saturating_sub(at)) {
                Ok((start, len)) => start..start.saturating_add(len),
                Err(e) if e == ENODATA => self.end..self.end,
                Err(_) => at..self.end,
            };
        }
        self.run.start <= at && end <= self.run.end
    }
}

/// A read that the backend works on.
struct Read {
    operation: Operation,
    folios: FolioRead,
    iter: MaybeUninit<bindings::iov_iter>,
}

impl Read {
    fn new(operation: Operation, folios: FolioRead) -> Result<KBox<Self>> {
        let mut read = KBox::new(
            Self {
                operation,
                folios,
                iter: MaybeUninit::zeroed(),
            },
            GFP_KERNEL,
        )?;
        let segments = read.folios.segments();
        let (first, count, len) = (segments.as_ptr(), segments.len(), read.folios.len());
        // SAFETY: The segments live in the box, and longer than the iterator, which lives there too.
        unsafe {
            bindings::iov_iter_bvec(
                read.iter.as_mut_ptr(),
                bindings::ITER_DEST,
                first,
                count,
                len,
            )
        };
        Ok(read)
    }

    fn submit(self: KBox<Self>, start: u64) {
        let Ok(start) = i64::try_from(start) else {
            return;
        };
        // SAFETY: By the invariants of `Operation`.
        let Some(read) = (unsafe { (*self.operation.resources.ops).read }) else {
            return;
        };
        let this = KBox::into_raw(self);
        // SAFETY: Ownership of the box goes to `done`, which is called once in any case. Resources
        // and iterator are in the box, and so live until then.
        unsafe {
            read(
                &raw mut (*this).operation.resources,
                start,
                (*this).iter.as_mut_ptr(),
                bindings::netfs_read_from_hole_NETFS_READ_HOLE_FAIL,
                Some(Self::done),
                this.cast(),
            );
        }
    }

    /// # Safety
    ///
    /// `this` must be the box given to the read, and this must be called once.
    unsafe extern "C" fn done(this: *mut ffi::c_void, result: isize) {
        // SAFETY: By the safety requirement.
        let this = KBox::into_inner(unsafe { KBox::from_raw(this.cast::<Self>()) });
        let result = usize::try_from(result)
            .map_err(|_| Error::from_errno(i32::try_from(result).unwrap_or(-5)));
        // The object is let go first: once the folios are unlocked, the file system may be
        // unmounted.
        drop(this.operation);
        this.folios.complete(result);
    }
}
