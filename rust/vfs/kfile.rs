// SPDX-License-Identifier: GPL-2.0

//! Files that the kernel opened for itself, and reads from them into kernel memory.
//!
//! A read goes into whatever a [`ReadTarget`] describes. It is either *direct*, past the file's
//! page cache and finished by the device's interrupt, or *buffered*, through the page cache and
//! finished when the call returns.
//!
//! C headers: [`include/linux/fs.h`](srctree/include/linux/fs.h),
//! [`include/linux/file.h`](srctree/include/linux/file.h)

use crate::{bindings, in_use::InUse, lockdep::Untracked};
use core::cell::UnsafeCell;
use kernel::{
    container_of,
    cred::Credential,
    error::to_result,
    fs::File,
    impl_has_work, new_work,
    prelude::*,
    sync::{
        aref::ARef,
        atomic::{ordering, Atomic},
        Arc,
    },
    types::Opaque,
    workqueue::{Queue, Work, WorkItem},
};

mod open;

pub use open::BlockDevice;

/// Where the bytes of a read go, and who is told when they are there.
///
/// # Safety
///
/// [`ReadTarget::iter`] must return a pointer to an initialised destination iterator over kernel
/// memory, and both must stay valid until [`ReadTarget::complete`] is called. A target that is
/// dropped must tell its owner that the read failed, as `complete` with an error does.
pub unsafe trait ReadTarget: Send + 'static {
    /// The iterator that describes the memory.
    fn iter(&mut self) -> *mut bindings::iov_iter;

    /// The read is over: so many bytes were read, or none because of an error. Called from any
    /// context with a good result, from process context with an error.
    fn complete(self, result: Result<usize>);
}

/// A file system whose way to tell data from holes is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileSystem {
    /// ext4, and older ones that its module reads.
    Ext4,
    /// XFS.
    Xfs,
    /// btrfs.
    Btrfs,
}

/// A file opened by the kernel.
pub struct KFile(ARef<File>);

/// Up to which one the failed writes of a file to the disk are known: a value of its mapping's
/// `wb_err`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WriteErrors(u32);

impl WriteErrors {
    /// The value as a number, to be kept in an atomic variable.
    pub fn to_u32(self) -> u32 {
        self.0
    }

    /// The other way round.
    pub fn from_u32(errors: u32) -> Self {
        Self(errors)
    }
}

/// A direct read that the file system works on.
///
/// Referenced by the submitter until the submission returns, because file systems touch the kiocb
/// after they have queued it, and by the I/O until it is complete.
#[pin_data]
struct DirectRead<R> {
    #[pin]
    iocb: Opaque<bindings::kiocb>,
    #[pin]
    work: Work<DirectRead<R>>,
    /// Where a failure, which an interrupt reports, is told from.
    queue: &'static Queue,
    errno: Atomic<i32>,
    file: KFile,
    known: Option<WriteErrors>,
    // Taken once, by whoever completes the read.
    target: UnsafeCell<Option<R>>,
}

impl_has_work! {
    impl{R: ReadTarget} HasWork<DirectRead<R>> for DirectRead<R> { self.work }
}

impl<R: ReadTarget> WorkItem for DirectRead<R> {
    type Pointer = Arc<Self>;

    /// The read failed.
    fn run(this: Arc<Self>) {
        // SAFETY: The I/O is over, and its callback has left the right to complete to this.
        if let Some(target) = unsafe { (*this.target.get()).take() } {
            target.complete(Err(Error::from_errno(this.errno.load(ordering::Acquire))));
        }
    }
}

// SAFETY: The kiocb is handed between contexts by the block layer; the target is `Send` and only
// accessed by the one who holds the right to complete the read.
unsafe impl<R: Send> Send for DirectRead<R> {}
// SAFETY: As above: shared references give access to nothing but the right to complete.
unsafe impl<R: Send> Sync for DirectRead<R> {}

impl KFile {
    /// Sets the size in bytes; what is added is a hole. May sleep.
    pub fn set_size(&self, size: u64) -> Result {
        // SAFETY: The file is open, so it has a path.
        to_result(unsafe {
            bindings::vfs_truncate(
                &(*self.0.as_ptr()).__bindgen_anon_1.f_path,
                i64::try_from(size)?,
            )
        })
    }

    /// Size in bytes.
    pub fn size(&self) -> u64 {
        // SAFETY: An open file has an inode.
        let size = unsafe { bindings::vfs_helper_i_size_read((*self.0.as_ptr()).f_inode) };
        u64::try_from(size).unwrap_or(0)
    }

    /// The rights that the file was opened with.
    pub fn cred(&self) -> &Credential {
        self.0.cred()
    }

    /// Whether the file system can read this file past its page cache.
    pub fn can_read_direct(&self) -> bool {
        // SAFETY: The file is open; its mode does not change.
        unsafe { (*self.0.as_ptr()).f_mode & bindings::VFS_CONST_FMODE_CAN_ODIRECT != 0 }
    }

    /// Marks the file as one that the kernel uses, until what is returned is dropped. May sleep.
    ///
    /// [`EBUSY`] when it is marked already, also while it is being removed; [`ENOENT`] when it has
    /// no name any more.
    pub fn mark_in_use(&self) -> Result<InUse> {
        InUse::new(self.0.clone())
    }

    /// Whether any page of the `len` bytes from `start` is in the file's page cache. Does not
    /// sleep.
    pub fn in_page_cache(&self, start: u64, len: u64) -> bool {
        let Some(last) = len.checked_sub(1) else {
            return false;
        };
        let offset = |pos: u64| i64::try_from(pos).unwrap_or(i64::MAX);
        // SAFETY: An open file has a mapping. The end is inclusive.
        unsafe {
            bindings::filemap_range_has_page(
                (*self.0.as_ptr()).f_mapping,
                offset(start),
                offset(start.saturating_add(last)),
            )
        }
    }

    /// Takes the `len` bytes from `start` out of the page cache: starts to write back what is dirty
    /// there and drops the whole pages that are clean. What is dirty stays until a later call.
    /// Errors are those of posix_fadvise(2) with `POSIX_FADV_DONTNEED`. May sleep, but does not
    /// wait for the writes.
    pub fn drop_behind(&self, start: u64, len: u64) -> Result {
        // The call takes a length of zero for all the rest.
        if len == 0 {
            return Ok(());
        }
        let start = i64::try_from(start).map_err(|_| EINVAL)?;
        let len = i64::try_from(len).unwrap_or(i64::MAX);
        // SAFETY: The file is open.
        to_result(unsafe {
            bindings::vfs_fadvise(
                self.0.as_ptr(),
                start,
                len,
                bindings::VFS_CONST_POSIX_FADV_DONTNEED,
            )
        })
    }

    /// Whether somebody writes to the file just now, or waits to. Seeks, and reads that the page
    /// cache does not serve, would wait for that, and nothing could end the wait. If the current
    /// task itself is within such a write, and got here by a page fault, it would wait for ever. So
    /// whoever acts for a reader asks first, and leaves it to a work item if need be. Does not
    /// sleep.
    pub fn busy(&self) -> bool {
        // SAFETY: An open file has an inode.
        unsafe {
            let inode = (*self.0.as_ptr()).f_inode;
            let free = bindings::vfs_helper_inode_trylock_shared(inode);
            if free {
                bindings::vfs_helper_inode_unlock_shared(inode);
            }
            !free
        }
    }

    /// The first byte at or after `pos` that is not in a hole; none when all the rest is a hole.
    /// May sleep.
    pub fn seek_data(&self, pos: u64) -> Result<Option<u64>> {
        match self.seek(pos, bindings::SEEK_DATA) {
            Ok(data) => Ok(Some(data)),
            Err(e) if e == ENXIO => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// The first byte at or after `pos` that is in a hole, or the size of the file. May sleep.
    pub fn seek_hole(&self, pos: u64) -> Result<u64> {
        self.seek(pos, bindings::SEEK_HOLE)
    }

    fn seek(&self, pos: u64, whence: u32) -> Result<u64> {
        let pos = i64::try_from(pos).map_err(|_| EINVAL)?;
        // A write that is under way is waited for, since XFS shows its whole range as data from
        // the beginning, and takes back what it could not write. The others wait by themselves.
        let lock = self.file_system() == Some(FileSystem::Xfs);
        let _untracked = Untracked::new();
        // SAFETY: The file is open. The call moves its position, which nobody uses. On XFS it takes
        // no lock that comes before the inode's.
        let at = unsafe {
            let inode = (*self.0.as_ptr()).f_inode;
            if lock {
                bindings::vfs_helper_inode_lock_shared(inode);
            }
            let at = bindings::vfs_llseek(self.0.as_ptr(), pos, crate::int(whence));
            if lock {
                bindings::vfs_helper_inode_unlock_shared(inode);
            }
            at
        };
        u64::try_from(at).map_err(|_| Error::from_errno(i32::try_from(at).unwrap_or(-5)))
    }

    /// Which of the file systems that are known here the file is on.
    pub fn file_system(&self) -> Option<FileSystem> {
        // SAFETY: An open file has an inode, and that a super block, whose magic never changes.
        let magic = unsafe { (*(*(*self.0.as_ptr()).f_inode).i_sb).s_magic };
        match magic {
            bindings::VFS_CONST_EXT4_SUPER_MAGIC => Some(FileSystem::Ext4),
            bindings::VFS_CONST_XFS_SUPER_MAGIC => Some(FileSystem::Xfs),
            bindings::VFS_CONST_BTRFS_SUPER_MAGIC => Some(FileSystem::Btrfs),
            _ => None,
        }
    }

    /// Whether the file may have blocks that are data although no bytes were written to them: ext4
    /// reserves blocks when a write begins, and keeps them when the write dies. May sleep.
    ///
    /// As long as blocks are reserved for other reasons, because written bytes are not on disk yet,
    /// this is true as well.
    pub fn has_reserved_blocks(&self) -> Result<bool> {
        if self.file_system() != Some(FileSystem::Ext4) {
            return Ok(false);
        }
        let mut stat = bindings::kstat::default();
        // SAFETY: The file is open, so it has a path and an inode; `stat` has room for the answer.
        // ext4 adds reserved blocks to those that the inode has.
        unsafe {
            to_result(bindings::vfs_getattr_nosec(
                &(*self.0.as_ptr()).__bindgen_anon_1.f_path,
                &raw mut stat,
                bindings::VFS_CONST_STATX_BLOCKS,
                0,
            ))?;
            Ok(stat.blocks != (*(*self.0.as_ptr()).f_inode).i_blocks)
        }
    }

    /// How many of the `len` bytes from `pos` are on disk, without a gap from the first one on.
    /// What is in memory only is written first. For file systems with `bmap`. May sleep.
    pub fn on_disk(&self, pos: u64, len: u64) -> u64 {
        // SAFETY: An open file has an inode.
        let inode = unsafe { (*self.0.as_ptr()).f_inode };
        // SAFETY: As above; the size of a block never changes.
        let bits = u32::from(unsafe { (*inode).i_blkbits });
        let end = pos.saturating_add(len);
        let mut at = pos;
        let _untracked = Untracked::new();
        while at < end {
            let mut block = at >> bits;
            // SAFETY: The inode is valid. Answers are zero for what is not on disk.
            if unsafe { bindings::bmap(inode, &raw mut block) } != 0 || block == 0 {
                break;
            }
            at = ((at >> bits).saturating_add(1)).saturating_mul(1 << bits);
        }
        at.min(end).saturating_sub(pos)
    }

    /// Whether bytes of the file could not be written to the disk since `known`. They are gone once
    /// they leave the page cache, and what is read there then may be zeros. Does not sleep.
    pub fn write_failed(&self, known: WriteErrors) -> bool {
        // SAFETY: An open file has a mapping.
        unsafe {
            bindings::errseq_check(&raw mut (*(*self.0.as_ptr()).f_mapping).wb_err, known.0) != 0
        }
    }

    /// Notes the failed writes so far, so that the next one can be told from them. Does not sleep.
    pub fn write_errors(&self) -> WriteErrors {
        // SAFETY: The file is open. The call marks the last error as seen, without which the same
        // one once more could not be told from it, and keeps its value in the file.
        unsafe {
            let _ = bindings::file_check_and_advance_wb_err(self.0.as_ptr());
            WriteErrors((*self.0.as_ptr()).f_wb_err)
        }
    }

    /// Takes the pages of the `len` bytes from `start` out of the page cache, after writing what is
    /// not on disk. May sleep.
    ///
    /// [`EBUSY`] when somebody uses a page just now, or one cannot be written.
    pub fn forget_pages(&self, start: u64, len: u64) -> Result {
        let Some(last) = len.checked_sub(1) else {
            return Ok(());
        };
        let start = i64::try_from(start).map_err(|_| EINVAL)?;
        let last = start.saturating_add(i64::try_from(last).unwrap_or(i64::MAX));
        let index = |pos: i64| usize::try_from(pos).map(|pos| pos / kernel::page::PAGE_SIZE);
        // SAFETY: An open file has a mapping. An error of the write is noted in the mapping, and
        // then what was not written is gone.
        unsafe {
            let mapping = (*self.0.as_ptr()).f_mapping;
            let _ = bindings::filemap_write_and_wait_range(mapping, start, last);
            to_result(bindings::invalidate_inode_pages2_range(
                mapping,
                index(start)?,
                index(last)?,
            ))
        }
    }

    /// Reads at `pos` through the page cache. `target` is completed before this returns, unless the
    /// task is being killed: then the read goes on from `queue`, since whoever waits for it has
    /// nothing to do with that. May sleep.
    ///
    /// With `known`, it is [`EIO`] when writing the file to the disk has failed since then, and what
    /// the read itself brings into the page cache is dropped again. Without, it is a read like any
    /// other.
    pub fn read_buffered<R: ReadTarget>(
        &self,
        pos: u64,
        known: Option<WriteErrors>,
        mut target: R,
        queue: &Queue,
    ) {
        let mut done = 0;
        let flags = known.map_or(0, |_| bindings::VFS_CONST_IOCB_DONTCACHE);
        match self.read_on(pos, flags, &mut done, &mut target) {
            Err(e) if e == EINTR => {
                let file = Self(self.0.clone());
                // Without memory the target is dropped, which is told so by that.
                let _ = queue.try_spawn(GFP_KERNEL, move || {
                    let result = file.read_on(pos, flags, &mut done, &mut target);
                    target.complete(file.unless_write_failed(known, result));
                });
            }
            result => target.complete(self.unless_write_failed(known, result)),
        }
    }

    fn unless_write_failed(
        &self,
        known: Option<WriteErrors>,
        result: Result<usize>,
    ) -> Result<usize> {
        match (result, known) {
            (Ok(_), Some(known)) if self.write_failed(known) => Err(EIO),
            (result, _) => result,
        }
    }

    /// Reads what is left after `done` bytes of those from `pos` on; returns how many there are in
    /// all.
    fn read_on<R: ReadTarget>(
        &self,
        pos: u64,
        flags: i32,
        done: &mut u64,
        target: &mut R,
    ) -> Result<usize> {
        let pos = i64::try_from(pos).map_err(|_| EINVAL)?;
        let _untracked = Untracked::new();
        // A buffered read may stop early, at the end of a folio for instance.
        loop {
            let mut iocb = bindings::kiocb::default();
            let at = pos.checked_add_unsigned(*done).ok_or(EINVAL)?;
            // SAFETY: The kiocb lives on the stack and is without a completion callback, so the
            // read is over when the call returns. The iterator is valid by the trait's contract.
            let n = unsafe {
                bindings::vfs_helper_init_kiocb(&mut iocb, self.0.as_ptr(), at, flags);
                if bindings::vfs_helper_iov_iter_count(target.iter()) == 0 {
                    break;
                }
                bindings::vfs_iocb_iter_read(self.0.as_ptr(), &mut iocb, target.iter())
            };
            match usize::try_from(n) {
                Ok(0) => break,
                Ok(n) => *done = done.saturating_add(crate::u64_from(n)),
                // The file system below does not know IOCB_DONTCACHE for instance.
                Err(_) => return Err(errno(n)),
            }
        }
        usize::try_from(*done).map_err(|_| EIO)
    }

    /// Starts to read at `pos` past the page cache; `target` is completed when the device is done,
    /// or here. May sleep.
    ///
    /// A failure that an interrupt reports is told from `queue`. [`EIO`] is also told when writing
    /// the file to the disk has failed since `known`.
    ///
    /// Gives the target back when the file system refuses the read before it has begun, because it
    /// is not aligned as the device wants it for instance ([`EINVAL`]).
    pub fn read_direct<R: ReadTarget>(
        &self,
        pos: u64,
        known: Option<WriteErrors>,
        target: R,
        queue: &'static Queue,
    ) -> Result<(), (Error, R)> {
        let Ok(pos) = i64::try_from(pos) else {
            return Err((EINVAL, target));
        };
        let read = Arc::pin_init(
            pin_init!(DirectRead {
                iocb <- Opaque::ffi_init(|slot| {
                    // SAFETY: `slot` points at memory for a kiocb; the file is open.
                    unsafe {
                        bindings::vfs_helper_init_kiocb(
                            slot,
                            self.0.as_ptr(),
                            pos,
                            bindings::VFS_CONST_IOCB_DIRECT,
                        );
                        (*slot).ki_complete = Some(direct_read_done::<R>);
                    }
                }),
                work <- new_work!("DirectRead"),
                queue,
                errno: Atomic::new(0),
                file: Self(self.0.clone()),
                known,
                target: UnsafeCell::new(Some(target)),
            }),
            GFP_KERNEL,
        );
        let read = match read {
            Ok(read) => read,
            // The initialiser was dropped and the target with it, which is told so by that.
            Err(_) => return Ok(()),
        };

        // SAFETY: Nobody else has the read yet.
        let iter = match unsafe { &mut *read.target.get() } {
            Some(target) => target.iter(),
            None => return Ok(()),
        };
        let in_flight = read.clone().into_raw();
        let untracked = Untracked::new();
        // SAFETY: The kiocb is initialised, and kept by the reference in `in_flight` until its
        // callback has run and by `read` until after this call. The iterator is valid until the
        // target is completed.
        let n = unsafe {
            bindings::vfs_iocb_iter_read(read.file.0.as_ptr(), (*in_flight).iocb.get(), iter)
        };
        drop(untracked);
        if n == EIOCBQUEUED {
            return Ok(());
        }

        // SAFETY: The I/O is not queued, so the callback does not run: the reference is ours.
        let read = unsafe { Arc::from_raw(in_flight) };
        // SAFETY: So is the right to complete.
        let Some(target) = (unsafe { (*read.target.get()).take() }) else {
            return Ok(());
        };
        match usize::try_from(n) {
            Ok(n) => target.complete(read.file.unless_write_failed(known, Ok(n))),
            Err(_) if errno(n) == EINVAL => return Err((EINVAL, target)),
            Err(_) => target.complete(Err(errno(n))),
        }
        Ok(())
    }
}

/// What `vfs_iocb_iter_read` returns for a read that is under way (include/linux/errno.h).
const EIOCBQUEUED: isize = -(bindings::EIOCBQUEUED as isize);

/// The errno of a failed read. A signal cannot restart it, since other parts of the same read may
/// be done already: the reader is told to try again.
fn errno(n: isize) -> Error {
    match i32::try_from(n) {
        Ok(n @ -4095..0) => match Error::from_errno(n) {
            e if e == ERESTARTSYS || e == ERESTARTNOINTR || e == ERESTARTNOHAND => EINTR,
            e => e,
        },
        _ => EIO,
    }
}

/// `ki_complete` of a direct read. Called from any context.
///
/// # Safety
///
/// `iocb` must be the one in a `DirectRead<R>` of which the I/O owns a reference.
unsafe extern "C" fn direct_read_done<R: ReadTarget>(
    iocb: *mut bindings::kiocb,
    n: kernel::ffi::c_long,
) {
    // SAFETY: By the safety requirement the kiocb is that of a `DirectRead`, and the reference that
    // `read_direct` gave to the I/O is ours now.
    let read = unsafe {
        let read: *const DirectRead<R> =
            container_of!(Opaque::cast_from(iocb), DirectRead<R>, iocb);
        Arc::from_raw(read)
    };
    let result = usize::try_from(n).map_err(|_| errno(n));
    match read.file.unless_write_failed(read.known, result) {
        Ok(n) => {
            // SAFETY: The callback runs once, and it is the one that may complete.
            if let Some(target) = unsafe { (*read.target.get()).take() } {
                target.complete(Ok(n));
            }
        }
        Err(e) => {
            read.errno.store(e.to_errno(), ordering::Release);
            // The only time that this is queued.
            let _ = read.queue.enqueue(read.clone());
        }
    }
}
