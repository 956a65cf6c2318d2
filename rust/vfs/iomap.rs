// SPDX-License-Identifier: GPL-2.0

//! File data through iomap: readahead and single folios, with folios of any size.
//!
//! A file system says where bytes are ([`Operations::map`]) and fetches them
//! ([`Operations::read`]); iomap walks the folios, zeroes holes, copies inline data and keeps track
//! of which parts of a folio have come in. Reads of neighbouring folios within a mapping are given
//! to the file system as one [`FolioRead`].
//!
//! A read never blocks the thread that submits readahead. A single folio is read for somebody who
//! waits for it: that wait ends when the task is being killed, and what went wrong is returned with
//! its errno, which the page cache alone would turn into `EIO`.
//!
//! Direct reads of a volume on block devices go to the device by themselves; the file system tells
//! which one it is ([`Operations::location`]).
//!
//! C header: [`include/linux/iomap.h`](srctree/include/linux/iomap.h)

use crate::{bindings, fs::FileSystem, inode::INode, kfile::BlockDevice, u64_from};
use core::{
    marker::PhantomData,
    ptr::{self, NonNull},
};
use kernel::{error::from_result, ffi, page::PAGE_SIZE, prelude::*, sync::Arc};

mod file;
mod folio_read;
mod from_file;

use folio_read::Waiter;
pub use folio_read::{FolioRead, FolioSpan};

/// What lies at a position of a file.
pub enum Mapping {
    /// Zeros.
    Hole {
        /// Length in bytes, not zero.
        len: u64,
    },
    /// Bytes to copy: the last ones of the file.
    Inline {
        /// The bytes, in room made by [`inline_room`].
        data: KVec<u8>,
        /// Where they are, if that is on a device: its number and the position there, in bytes.
        place: Option<(usize, u64)>,
    },
    /// Bytes of a device.
    Mapped {
        /// Device, in the file system's own counting.
        device: usize,
        /// Position in the device, in bytes.
        start: u64,
        /// Length in bytes, not zero.
        len: u64,
    },
}

impl Mapping {
    /// What lies at `pos` of a file whose bytes are those of a device, from the first to the last.
    /// `len` is how much is asked for.
    pub fn of_device<T: FileSystem>(inode: &INode<T>, device: usize, pos: u64, len: u64) -> Self {
        let left = inode.size().saturating_sub(pos);
        // At the end of the file the page cache asks for all of the block.
        match left.checked_next_multiple_of(u64_from(PAGE_SIZE)) {
            Some(0) | None => Self::Hole { len },
            Some(len) => Self::Mapped {
                device,
                start: pos,
                len,
            },
        }
    }
}

/// Room for inline data of so many bytes, at most a page, zeroed. It lies within one page, which
/// direct reads rely on.
pub fn inline_room(len: usize) -> Result<KVec<u8>> {
    if len > PAGE_SIZE {
        return Err(EFSCORRUPTED);
    }
    // Allocations of a power of two do not cross a multiple of it.
    let mut room = crate::zeroed(len.next_power_of_two())?;
    room.truncate(len);
    Ok(room)
}

/// Where the bytes of a device are, for whoever does not read them through the file system.
pub struct Location<'a> {
    /// The block device, if they are on one.
    pub device: Option<BlockDevice<'a>>,
    /// Where they begin there, or in the file that they are in, in bytes.
    pub start: u64,
}

/// How file data is found and fetched.
pub trait Operations: Sized + 'static {
    /// The file system whose files these are.
    type FileSystem: FileSystem;

    /// Says what lies at `pos`. `len` is how much is asked for, not zero; a shorter or longer
    /// mapping may be returned. Lengths must be multiples of the block size unless they reach the
    /// end of the file. May sleep.
    fn map(inode: &INode<Self::FileSystem>, pos: u64, len: u64) -> Result<Mapping>;

    /// Where the bytes of a device are. Direct reads are of the block device, and `FS_IOC_FIEMAP`
    /// and `FIBMAP` tell it. [`EOPNOTSUPP`] when they have no place that could be told.
    fn location(_inode: &INode<Self::FileSystem>, _device: usize) -> Result<Location<'_>> {
        Err(EOPNOTSUPP)
    }

    /// Fetches the bytes from `start` of the device for `read`, now or later. May sleep, but
    /// should not wait for the bytes.
    fn read(inode: &INode<Self::FileSystem>, device: usize, start: u64, read: FolioRead);
}

/// A read that is being put together, behind `iomap_read_folio_ctx::read_ctx`.
struct Batch {
    device: usize,
    start: u64,
    read: FolioRead,
}

/// The operations of a file inode, see [`table`].
pub struct Table<T> {
    address_space: &'static bindings::address_space_operations,
    inode: &'static bindings::inode_operations,
    file: &'static bindings::file_operations,
    _fs: PhantomData<T>,
}

impl<T> Table<T> {
    pub(crate) fn address_space_operations(&self) -> *const bindings::address_space_operations {
        self.address_space
    }

    pub(crate) fn inode_operations(&self) -> *const bindings::inode_operations {
        self.inode
    }

    pub(crate) fn file_operations(&self) -> *const bindings::file_operations {
        self.file
    }
}

/// The table for files whose data `O` maps and reads.
pub const fn table<O: Operations>() -> Table<O::FileSystem> {
    Table {
        address_space: &Callbacks::<O>::ADDRESS_SPACE,
        inode: &Callbacks::<O>::INODE,
        file: &Callbacks::<O>::FILE,
        _fs: PhantomData,
    }
}

/// `IOMAP_NULL_ADDR`: the mapping has no position on a device.
const NULL_ADDR: u64 = u64::MAX;

pub(crate) struct Callbacks<O>(PhantomData<O>);

impl<O: Operations> Callbacks<O> {
    const ADDRESS_SPACE: bindings::address_space_operations = bindings::address_space_operations {
        bmap: Some(Self::bmap),
        // So that files can be opened for direct reads, see `read_iter`.
        direct_IO: Some(bindings::noop_direct_IO),
        read_folio: Some(Self::read_folio),
        readahead: Some(Self::readahead),
        release_folio: Some(bindings::iomap_release_folio),
        invalidate_folio: Some(bindings::iomap_invalidate_folio),
        ..pin_init::zeroed()
    };

    const IOMAP: bindings::iomap_ops = bindings::iomap_ops {
        iomap_next: Some(Self::next),
        ..pin_init::zeroed()
    };

    /// The same, with the block device of what is mapped, and its address there.
    const LOCATED: bindings::iomap_ops = bindings::iomap_ops {
        iomap_next: Some(Self::next_located),
        ..pin_init::zeroed()
    };

    const READ: bindings::iomap_read_ops = bindings::iomap_read_ops {
        read_folio_range: Some(Self::read_folio_range),
        submit_read: Some(Self::submit_read),
        ..pin_init::zeroed()
    };

    /// # Safety
    ///
    /// Only for `address_space_operations::readahead` of a file of this file system.
    unsafe extern "C" fn readahead(rac: *mut bindings::readahead_control) {
        let mut context = bindings::iomap_read_folio_ctx {
            ops: &Self::READ,
            rac,
            ..pin_init::zeroed()
        };
        // SAFETY: The VFS gives a valid readahead control for a file of ours.
        unsafe { bindings::iomap_readahead(&Self::IOMAP, &mut context, ptr::null_mut()) };
    }

    /// # Safety
    ///
    /// Only for `address_space_operations::read_folio` of a file of this file system.
    unsafe extern "C" fn read_folio(
        _: *mut bindings::file,
        folio: *mut bindings::folio,
    ) -> ffi::c_int {
        let waiter = match Waiter::new() {
            Ok(waiter) => waiter,
            Err(e) => {
                // SAFETY: The VFS gives a locked folio, which a failed read unlocks.
                unsafe { bindings::folio_unlock(folio) };
                return e.to_errno();
            }
        };
        let mut context = bindings::iomap_read_folio_ctx {
            ops: &Self::READ,
            cur_folio: folio,
            ..pin_init::zeroed()
        };
        // SAFETY: As above. The callbacks below know that the pointer is a waiter, which lives
        // until the end of this function.
        unsafe {
            bindings::iomap_read_folio(
                &Self::IOMAP,
                &mut context,
                Arc::as_ptr(&waiter).cast_mut().cast(),
            )
        };
        waiter.put();
        super::to_errno(waiter.wait())
    }

    /// The waiter of this iteration, if somebody waits.
    ///
    /// # Safety
    ///
    /// `iter` must be of an iteration started above.
    unsafe fn waiter<'a>(iter: *const bindings::iomap_iter) -> Option<&'a Waiter> {
        // SAFETY: `private` is null or the waiter that `read_folio` keeps.
        unsafe { (*iter).private.cast::<Waiter>().as_ref() }
    }

    /// # Safety
    ///
    /// Only for `iomap_ops::iomap_next` of an iteration over a file of this file system, whose
    /// private data is null or a waiter.
    unsafe extern "C" fn next(
        iter: *const bindings::iomap_iter,
        iomap: *mut bindings::iomap,
        srcmap: *mut bindings::iomap,
    ) -> ffi::c_int {
        // SAFETY: The same as for this function.
        unsafe { Self::step(iter, iomap, srcmap, |_, _| Ok(())) }
    }

    /// # Safety
    ///
    /// As for [`Self::next`].
    unsafe extern "C" fn next_located(
        iter: *const bindings::iomap_iter,
        iomap: *mut bindings::iomap,
        srcmap: *mut bindings::iomap,
    ) -> ffi::c_int {
        // SAFETY: The same as for this function.
        unsafe { Self::step(iter, iomap, srcmap, Self::locate) }
    }

    /// Goes on to the next mapping, which `complete` may add to.
    ///
    /// # Safety
    ///
    /// As for [`Self::next`].
    unsafe fn step(
        iter: *const bindings::iomap_iter,
        iomap: *mut bindings::iomap,
        srcmap: *mut bindings::iomap,
        complete: impl FnOnce(&INode<O::FileSystem>, &mut bindings::iomap) -> Result,
    ) -> ffi::c_int {
        // SAFETY: iomap gives the iteration and the two maps in it. The map holds what this
        // function stored there the last time, or zeros.
        unsafe {
            if (*iomap).length != 0 {
                let inline = ptr::replace(&raw mut (*iomap).private, ptr::null_mut());
                if !inline.is_null() {
                    drop(KBox::from_raw(inline.cast::<KVec<u8>>()));
                }
                let more = bindings::iomap_iter_continue(iter, iomap, srcmap, 0);
                if more <= 0 {
                    return more;
                }
            }
        }
        // Whoever only asks where the bytes are may do so for a map of any size, and not wait once.
        // SAFETY: As above; the task is the current one.
        unsafe {
            if (*iter).flags & bindings::IOMAP_REPORT != 0
                && bindings::vfs_helper_fatal_signal_pending()
            {
                return EINTR.to_errno();
            }
        }
        // SAFETY: As above.
        let result = unsafe {
            Self::map(&*iter, &mut *iomap)
                .and_then(|()| complete(INode::from_raw((*iter).inode), &mut *iomap))
        };
        if let Err(e) = result {
            // SAFETY: As above.
            if let Some(waiter) = unsafe { Self::waiter(iter) } {
                waiter.note(e.to_errno());
            }
        }
        from_result(|| result.map(|()| 1))
    }

    /// Adds to a mapping where its device is.
    fn locate(inode: &INode<O::FileSystem>, iomap: &mut bindings::iomap) -> Result {
        if iomap.addr != NULL_ADDR {
            let location = O::location(inode, usize::try_from(iomap.validity_cookie)?)?;
            let addr = iomap.addr.checked_add(location.start);
            iomap.addr = addr.ok_or(EFSCORRUPTED)?;
            if let Some(device) = location.device {
                iomap.bdev = device.as_raw();
            }
        }
        Ok(())
    }

    /// Fills in the map for where the iteration is.
    ///
    /// # Safety
    ///
    /// `iter` must be of an iteration over a file of ours.
    unsafe fn map(iter: &bindings::iomap_iter, iomap: &mut bindings::iomap) -> Result {
        let pos = u64::try_from(iter.pos).map_err(|_| EINVAL)?;
        // SAFETY: By the safety requirement.
        let inode = unsafe { INode::from_raw(iter.inode) };
        iomap.offset = iter.pos;
        iomap.addr = NULL_ADDR;
        match O::map(inode, pos, iter.len)? {
            Mapping::Hole { len } => {
                iomap.type_ = u16::try_from(bindings::IOMAP_HOLE)?;
                iomap.length = len;
            }
            Mapping::Inline { data, place } => {
                iomap.type_ = u16::try_from(bindings::IOMAP_INLINE)?;
                iomap.length = u64_from(data.len());
                let mut data = KBox::new(data, GFP_KERNEL)?;
                iomap.inline_data = data.as_mut_ptr().cast();
                iomap.private = KBox::into_raw(data).cast();
                if let Some((device, start)) = place {
                    iomap.addr = start;
                    iomap.validity_cookie = u64_from(device);
                }
            }
            Mapping::Mapped { device, start, len } => {
                iomap.type_ = u16::try_from(bindings::IOMAP_MAPPED)?;
                iomap.length = len;
                iomap.addr = start;
                // The device's number travels in a field that only we look at.
                iomap.validity_cookie = u64_from(device);
            }
        }
        if iomap.length == 0 || iomap.offset.checked_add_unsigned(iomap.length).is_none() {
            return Err(EFSCORRUPTED);
        }
        Ok(())
    }

    /// # Safety
    ///
    /// Only for `iomap_read_ops::read_folio_range` of a read started by this type.
    unsafe extern "C" fn read_folio_range(
        iter: *const bindings::iomap_iter,
        context: *mut bindings::iomap_read_folio_ctx,
        len: usize,
    ) -> ffi::c_int {
        // SAFETY: iomap gives the iteration and the context of a read started above.
        let result = unsafe { Self::add(&*iter, &mut *context, len) };
        if let Err(e) = result {
            // SAFETY: As above.
            if let Some(waiter) = unsafe { Self::waiter(iter) } {
                waiter.note(e.to_errno());
            }
        }
        super::to_errno(result)
    }

    /// Adds a part of the current folio to the read that is being put together.
    ///
    /// # Safety
    ///
    /// Both must be of one read started above, with a folio that is locked for it.
    unsafe fn add(
        iter: &bindings::iomap_iter,
        context: &mut bindings::iomap_read_folio_ctx,
        len: usize,
    ) -> Result {
        let iomap = &iter.iomap;
        let folio = NonNull::new(context.cur_folio).ok_or(EINVAL)?;
        // SAFETY: The folio is valid.
        let offset = iter.pos - unsafe { bindings::vfs_helper_folio_pos(folio.as_ptr()) };
        let offset = usize::try_from(offset)?;
        let into = u64::try_from(iter.pos - iomap.offset)?;
        let start = iomap.addr.checked_add(into).ok_or(EFSCORRUPTED)?;

        // A part that does not follow the one before it begins another read.
        // SAFETY: `read_ctx` is null or the batch stored below.
        let pending = unsafe { context.read_ctx.cast::<Batch>().as_ref() };
        if pending
            .is_some_and(|batch| batch.start.checked_add(u64_from(batch.read.len())) != Some(start))
        {
            // SAFETY: As for this function.
            unsafe { Self::submit_read(iter, context) };
        }

        if context.read_ctx.is_null() {
            // SAFETY: `private` is null or a waiter that an `Arc` in `read_folio` keeps.
            let waiter = NonNull::new(iter.private.cast::<Waiter>()).map(|waiter| unsafe {
                waiter.as_ref().get();
                kernel::sync::ArcBorrow::from_raw(waiter.as_ptr()).into()
            });
            let batch = Batch {
                device: usize::try_from(iomap.validity_cookie)?,
                start,
                read: FolioRead::new(waiter),
            };
            context.read_ctx = KBox::into_raw(KBox::new(batch, GFP_KERNEL)?).cast();
        }
        // SAFETY: Just made or checked not to be null.
        let read = unsafe { &mut (*context.read_ctx.cast::<Batch>()).read };

        // SAFETY: The inode is valid.
        let size = unsafe { bindings::vfs_helper_i_size_read(iter.inode) };
        let left = usize::try_from(size.saturating_sub(iter.pos)).unwrap_or(0);
        // SAFETY: iomap has locked the folio for this read, and the part lies within it.
        unsafe { read.push(folio, offset, len, left) }
    }

    /// # Safety
    ///
    /// Only for `iomap_read_ops::submit_read` of a read started by this type.
    unsafe extern "C" fn submit_read(
        iter: *const bindings::iomap_iter,
        context: *mut bindings::iomap_read_folio_ctx,
    ) {
        // SAFETY: iomap gives the iteration and the context of a read started above, whose
        // `read_ctx` is null or the batch made by `add`.
        unsafe {
            let batch = ptr::replace(&raw mut (*context).read_ctx, ptr::null_mut());
            if batch.is_null() {
                return;
            }
            let Batch {
                device,
                start,
                read,
            } = KBox::into_inner(KBox::from_raw(batch.cast::<Batch>()));
            // Empty when memory ran out while it was begun.
            if !read.is_empty() {
                O::read(INode::from_raw((*iter).inode), device, start, read);
            }
        }
    }
}
