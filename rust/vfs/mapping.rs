// SPDX-License-Identifier: GPL-2.0

//! Bytes of an inode, copied out of its page cache.
//!
//! The page cache is shared with whoever writes to the medium below, so its bytes are never lent:
//! they are copied, then checked, then used.
//!
//! C header: [`include/linux/pagemap.h`](srctree/include/linux/pagemap.h)

use crate::{bindings, fs::FileSystem, inode::INode, u64_from};
use kernel::{error::from_err_ptr, page::PAGE_SIZE, prelude::*};

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
        // SAFETY: The inode has a mapping with a `read_folio` operation.
        let folio = from_err_ptr(unsafe {
            bindings::vfs_helper_read_mapping_folio((*inode.as_raw()).i_mapping, index)
        })?;
        // SAFETY: We have a reference to the folio. It covers `at`, as that lies in its page
        // `index`, and the copy stays within it.
        let n = unsafe {
            let start = u64::try_from(bindings::vfs_helper_folio_pos(folio)).unwrap_or(u64::MAX);
            let into = usize::try_from(at.saturating_sub(start)).unwrap_or(usize::MAX);
            let n = bindings::vfs_helper_folio_size(folio)
                .saturating_sub(into)
                .min(rest.len());
            bindings::vfs_helper_memcpy_from_folio(rest.as_mut_ptr().cast(), folio, into, n);
            bindings::vfs_helper_folio_put(folio);
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
