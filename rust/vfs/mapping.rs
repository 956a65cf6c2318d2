// SPDX-License-Identifier: GPL-2.0

//! Bytes of an inode, copied out of its page cache.
//!
//! The page cache is shared with whoever writes to the medium below, so its bytes are never lent:
//! they are copied, then checked, then used.
//!
//! C header: [`include/linux/pagemap.h`](srctree/include/linux/pagemap.h)

use crate::{bindings, fs::FileSystem, inode::INode, u64_from};
use core::ptr::{self, NonNull};
use kernel::{
    error::{from_err_ptr, to_result},
    page::PAGE_SIZE,
    prelude::*,
};

/// Pages that are read together when one of them is missing, a power of two. What is asked for next
/// is often near, and a request for a few pages costs about as much as one for one.
const CLUSTER: usize = 8;

/// A reference to a folio.
///
/// # Invariants
///
/// The folio is valid, and we own a reference to it.
struct FolioRef(NonNull<bindings::folio>);

impl FolioRef {
    /// Takes over a reference that C returned, or its error.
    ///
    /// # Safety
    ///
    /// `folio` must be an error pointer, or a folio with a reference for us.
    unsafe fn from_raw(folio: *mut bindings::folio) -> Result<Self> {
        NonNull::new(from_err_ptr(folio)?).map(Self).ok_or(ENOMEM)
    }

    fn as_raw(&self) -> *mut bindings::folio {
        self.0.as_ptr()
    }

    fn is_uptodate(&self) -> bool {
        // SAFETY: By the invariants.
        unsafe { bindings::vfs_helper_folio_test_uptodate(self.as_raw()) }
    }
}

impl Drop for FolioRef {
    fn drop(&mut self) {
        // SAFETY: By the invariants.
        unsafe { bindings::vfs_helper_folio_put(self.as_raw()) };
    }
}

/// The folio that covers the page `index`, with its bytes in.
///
/// The page cache has a function for this, `read_cache_folio`, but that waits for a folio which
/// somebody else is reading in a way that nothing can end, and here such a read may take as long
/// as a daemon likes.
fn folio<T: FileSystem>(inode: &INode<T>, index: usize) -> Result<FolioRef> {
    // SAFETY: The inode is valid.
    let mapping = unsafe { (*inode.as_raw()).i_mapping };
    loop {
        let folio = find_or_begin(mapping, index)?;
        if folio.is_uptodate() {
            return Ok(folio);
        }
        // SAFETY: By the invariants of the reference. Zero means that the folio is locked.
        if unsafe { bindings::vfs_helper_folio_lock_killable(folio.as_raw()) } != 0 {
            return Err(EINTR);
        }
        // SAFETY: The folio is locked by us, which keeps it in its mapping if it is in one. Reading
        // unlocks it, and the mapping has the operation.
        unsafe {
            if (*folio.as_raw()).__bindgen_anon_1.__bindgen_anon_1.mapping != mapping {
                // Thrown out of the cache meanwhile.
                bindings::folio_unlock(folio.as_raw());
                continue;
            }
            if folio.is_uptodate() {
                bindings::folio_unlock(folio.as_raw());
                return Ok(folio);
            }
            let read_folio = (*(*mapping).a_ops).read_folio.ok_or(EINVAL)?;
            to_result(read_folio(ptr::null_mut(), folio.as_raw()))?;
        }
        return match folio.is_uptodate() {
            true => Ok(folio),
            false => Err(EIO),
        };
    }
}

/// The folio that covers the page `index`. If it is not cached, a read of it and its neighbours is
/// begun.
fn find_or_begin(mapping: *mut bindings::address_space, index: usize) -> Result<FolioRef> {
    // SAFETY: The mapping is that of an inode in use, and has read operations.
    unsafe {
        let find = || FolioRef::from_raw(bindings::vfs_helper_filemap_get_folio(mapping, index));
        if let Ok(folio) = find() {
            return Ok(folio);
        }
        begin(mapping, index & !(CLUSTER - 1), CLUSTER);
        if let Ok(folio) = find() {
            return Ok(folio);
        }
        // Readahead gives up easily, for want of memory for instance.
        let folio = FolioRef::from_raw(bindings::vfs_helper_filemap_alloc_folio(mapping))?;
        match to_result(bindings::filemap_add_folio(
            mapping,
            folio.as_raw(),
            index,
            bindings::GFP_KERNEL,
        )) {
            Ok(()) => {
                // Added locked; the caller locks it again before it reads.
                bindings::folio_unlock(folio.as_raw());
                Ok(folio)
            }
            Err(e) if e == EEXIST => find(),
            Err(e) => Err(e),
        }
    }
}

/// Begins to read the pages of `len` bytes from `pos` on if the first of them is not cached; does not
/// wait for them. Does nothing past the end of the inode. May sleep.
pub fn read_ahead<T: FileSystem>(inode: &INode<T>, pos: u64, len: u64) {
    let page = u64_from(PAGE_SIZE);
    let end = pos.saturating_add(len).min(inode.size());
    let (first, end) = (pos / page, end.div_ceil(page));
    let (Ok(index), Ok(pages)) = (
        usize::try_from(first),
        usize::try_from(end.saturating_sub(first)),
    ) else {
        return;
    };
    // SAFETY: The inode is valid, and its mapping has read operations.
    unsafe {
        let mapping = (*inode.as_raw()).i_mapping;
        let found = FolioRef::from_raw(bindings::vfs_helper_filemap_get_folio(mapping, index));
        if pages > 0 && found.is_err() {
            begin(mapping, index, pages);
        }
    }
}

/// Begins a read of so many pages.
///
/// # Safety
///
/// The mapping must be that of an inode in use, and have read operations.
unsafe fn begin(mapping: *mut bindings::address_space, index: usize, pages: usize) {
    let mut ra = bindings::file_ra_state::default();
    // SAFETY: By the safety requirement.
    unsafe {
        bindings::file_ra_state_init(&mut ra, mapping);
        bindings::vfs_helper_page_cache_sync_readahead(mapping, &mut ra, index, pages);
    }
}

/// Copies the bytes from `pos` on into all of `buf`, reading what is not cached. May sleep; the
/// wait for a read ends when the task is being killed ([`EINTR`]).
///
/// [`EIO`] past the end of the inode; errors of the read with their own errno.
pub fn read_exact<T: FileSystem>(inode: &INode<T>, pos: u64, buf: &mut [u8]) -> Result {
    let end = pos.checked_add(u64_from(buf.len())).ok_or(EIO)?;
    if end > inode.size() {
        return Err(EIO);
    }
    let mut at = pos;
    let mut rest = buf;
    while !rest.is_empty() {
        let index = usize::try_from(at / u64_from(PAGE_SIZE))?;
        let folio = folio(inode, index)?;
        let raw = folio.as_raw();
        // SAFETY: We have a reference to the folio. It covers `at`, as that lies in its page
        // `index`, and the copy stays within it.
        let n = unsafe {
            let start = u64::try_from(bindings::vfs_helper_folio_pos(raw)).unwrap_or(u64::MAX);
            let into = usize::try_from(at.saturating_sub(start)).unwrap_or(usize::MAX);
            let n = bindings::vfs_helper_folio_size(raw)
                .saturating_sub(into)
                .min(rest.len());
            bindings::vfs_helper_memcpy_from_folio(rest.as_mut_ptr().cast(), raw, into, n);
            n
        };
        if n == 0 {
            return Err(EIO);
        }
        rest = rest.get_mut(n..).ok_or(EIO)?;
        at = at.checked_add(u64_from(n)).ok_or(EIO)?;
    }
    Ok(())
}
