// SPDX-License-Identifier: GPL-2.0
//! Calls that no crate wraps: ioctls, file handles, leases, mappings. The only place with unsafe code.
//!
//! Numbers and layouts are those of `include/uapi/linux/fs.h`, `fiemap.h`, `fcntl.h` and `exportfs.h`.

use std::ffi::CStr;
use std::mem::size_of;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr;

use rustix::io::Errno;

const FS_IOC_GETFLAGS: u64 = 0x8008_6601;
const FS_IOC_FSGETXATTR: u64 = 0x801c_581f;
const FS_IOC_GETFSLABEL: u64 = 0x8100_9431;
const FS_IOC_GETFSUUID: u64 = 0x8011_1500;
const FS_IOC_GETFSSYSFSPATH: u64 = 0x8081_1501;
const FS_IOC_FIEMAP: u64 = 0xc020_660b;
const FIBMAP: u64 = 1;
/// `_IOR('f', 255, int)`, which nothing has.
const NO_SUCH_IOCTL: u64 = 0x8004_66ff;

/// An ioctl whose argument is a structure, as bytes.
///
/// The structure must not have pointers in it, and not be longer than `N`.
fn ioctl<const N: usize>(
    fd: BorrowedFd<'_>,
    request: u64,
    argument: &mut [u8; N],
) -> Result<(), Errno> {
    // SAFETY: The descriptor is open, and the kernel reads and writes no more than the structure, for which there is
    // room. It takes it at any alignment.
    check(unsafe { libc::ioctl(fd.as_raw_fd(), request, argument.as_mut_ptr()) }.into()).map(drop)
}

/// A result of -1 is an error, and tells which.
fn check(result: i64) -> Result<i64, Errno> {
    if result < 0 {
        Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO))
    } else {
        Ok(result)
    }
}

/// The flags of `lsattr(1)`.
pub(crate) fn flags(fd: BorrowedFd<'_>) -> Result<u32, Errno> {
    // The kernel writes an int, though the number says long.
    let mut bytes = [0; 8];
    ioctl(fd, FS_IOC_GETFLAGS, &mut bytes)?;
    Ok(u32::from_ne_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
}

/// `struct fsxattr`.
pub(crate) fn fsxattr(fd: BorrowedFd<'_>) -> Result<[u8; 28], Errno> {
    let mut bytes = [0; 28];
    ioctl(fd, FS_IOC_FSGETXATTR, &mut bytes)?;
    Ok(bytes)
}

/// The label of the file system.
pub(crate) fn label(fd: BorrowedFd<'_>) -> Result<Vec<u8>, Errno> {
    let mut bytes = [0; 256];
    ioctl(fd, FS_IOC_GETFSLABEL, &mut bytes)?;
    let length = bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len());
    Ok(bytes[..length].to_vec())
}

/// The UUID of the file system.
pub(crate) fn uuid(fd: BorrowedFd<'_>) -> Result<Vec<u8>, Errno> {
    let mut bytes = [0; 17];
    ioctl(fd, FS_IOC_GETFSUUID, &mut bytes)?;
    let length = usize::from(bytes[0]).min(16);
    Ok(bytes[1..1 + length].to_vec())
}

/// Whether the file system has a name in sysfs.
pub(crate) fn sysfs_path(fd: BorrowedFd<'_>) -> Result<(), Errno> {
    ioctl(fd, FS_IOC_GETFSSYSFSPATH, &mut [0; 129])
}

/// What an ioctl gets that nobody knows.
pub(crate) fn unknown_ioctl(fd: BorrowedFd<'_>) -> Result<(), Errno> {
    ioctl(fd, NO_SUCH_IOCTL, &mut [0; 8])
}

/// The block on the device of the block `index` of a file. Needs privileges.
pub(crate) fn fibmap(fd: BorrowedFd<'_>, index: u32) -> Result<u32, Errno> {
    let mut block = index.to_ne_bytes();
    ioctl(fd, FIBMAP, &mut block)?;
    Ok(u32::from_ne_bytes(block))
}

/// An extent of a file.
#[derive(Clone, Copy)]
pub(crate) struct Extent {
    pub(crate) logical: u64,
    pub(crate) physical: u64,
    pub(crate) length: u64,
    pub(crate) flags: u32,
}

/// `FIEMAP_FLAG_XATTR`: extents of the extended attributes.
pub(crate) const FIEMAP_XATTR: u32 = 2;
/// `FIEMAP_EXTENT_LAST`
pub(crate) const EXTENT_LAST: u32 = 1;

const FIEMAP_SIZE: usize = 32;
const EXTENT_SIZE: usize = 56;
const EXTENTS: usize = 64;

/// The first extents at or after `start`, and how many there are: at most 64, if `count_only` is not set.
pub(crate) fn fiemap(
    fd: BorrowedFd<'_>,
    start: u64,
    flags: u32,
    count_only: bool,
) -> Result<(u32, Vec<Extent>), Errno> {
    // start, length, flags, mapped extents, extent count, reserved; then the extents.
    let mut bytes = [0; FIEMAP_SIZE + EXTENTS * EXTENT_SIZE];
    bytes[0..8].copy_from_slice(&start.to_ne_bytes());
    bytes[8..16].copy_from_slice(&(u64::MAX - start).to_ne_bytes());
    bytes[16..20].copy_from_slice(&flags.to_ne_bytes());
    let count = if count_only { 0 } else { EXTENTS as u32 };
    bytes[24..28].copy_from_slice(&count.to_ne_bytes());
    ioctl(fd, FS_IOC_FIEMAP, &mut bytes)?;
    let mapped = u32_at(&bytes, 20);
    let extents = bytes[FIEMAP_SIZE..]
        .chunks_exact(EXTENT_SIZE)
        .take(mapped.min(count) as usize)
        .map(|extent| Extent {
            logical: u64_at(extent, 0),
            physical: u64_at(extent, 8),
            length: u64_at(extent, 16),
            flags: u32_at(extent, 40),
        })
        .collect();
    Ok((mapped, extents))
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes[at..at + 4]
        .iter()
        .rev()
        .fold(0, |n, b| (n << 8) | u32::from(*b))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | (u64::from(u32_at(bytes, at + 4)) << 32)
}

/// `AT_HANDLE_FID`: a handle to know a file by, which need not open.
pub(crate) const HANDLE_FID: i32 = 0x200;
/// `AT_HANDLE_CONNECTABLE`: a handle with the parent directory in it.
pub(crate) const HANDLE_CONNECTABLE: i32 = 2;

const MAX_HANDLE_SZ: usize = 128;

/// `struct file_handle`
#[repr(C)]
pub(crate) struct Handle {
    length: u32,
    kind: i32,
    bytes: [u8; MAX_HANDLE_SZ],
}

impl Handle {
    pub(crate) fn kind(&self) -> i32 {
        self.kind
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes[..(self.length as usize).min(MAX_HANDLE_SZ)]
    }

    /// The same with fewer bytes.
    pub(crate) fn cut(mut self, length: u32) -> Self {
        self.length = self.length.min(length);
        self
    }

    /// name_to_handle_at(2). Does not follow symbolic links.
    pub(crate) fn of(dir: BorrowedFd<'_>, name: &CStr, flags: i32) -> Result<Self, Errno> {
        let mut handle = Self {
            length: MAX_HANDLE_SZ as u32,
            kind: 0,
            bytes: [0; MAX_HANDLE_SZ],
        };
        // Has room for what the kernel writes with any of the flags.
        let mut mount: u64 = 0;
        // SAFETY: The pointers are to a string, a structure with as many bytes as it says, and a number.
        check(unsafe {
            libc::syscall(
                libc::SYS_name_to_handle_at,
                dir.as_raw_fd(),
                name.as_ptr(),
                ptr::from_mut(&mut handle),
                ptr::from_mut(&mut mount),
                flags,
            )
        })?;
        Ok(handle)
    }

    /// open_by_handle_at(2), with `O_PATH`, on the file system of `dir`. Needs privileges.
    pub(crate) fn open(&self, dir: BorrowedFd<'_>) -> Result<OwnedFd, Errno> {
        // SAFETY: The structure has as many bytes as it says.
        let fd = check(unsafe {
            libc::syscall(
                libc::SYS_open_by_handle_at,
                dir.as_raw_fd(),
                ptr::from_ref(self),
                libc::O_PATH | libc::O_CLOEXEC,
            )
        })?;
        // SAFETY: The descriptor is new and nobody else's.
        Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
    }
}

/// Takes a lease for reading, and gives it back.
pub(crate) fn lease(fd: BorrowedFd<'_>) -> Result<(), Errno> {
    let set = |kind: i32| {
        // SAFETY: The descriptor is open; no memory is involved.
        check(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_SETLEASE, kind) }.into()).map(drop)
    };
    set(libc::F_RDLCK)?;
    set(libc::F_UNLCK)
}

/// Maps a page, shared if `shared` is set, and unmaps it.
pub(crate) fn map(fd: BorrowedFd<'_>, shared: bool, protection: i32) -> Result<(), Errno> {
    let flags = if shared {
        libc::MAP_SHARED
    } else {
        libc::MAP_PRIVATE
    };
    // SAFETY: The kernel chooses a place where nothing is.
    let address = unsafe { libc::mmap(ptr::null_mut(), 1, protection, flags, fd.as_raw_fd(), 0) };
    if address == libc::MAP_FAILED {
        return check(-1).map(drop);
    }
    // SAFETY: It was mapped above, and nothing points to it.
    check(unsafe { libc::munmap(address, 1) }.into()).map(drop)
}

/// readahead(2) of the first bytes.
pub(crate) fn readahead(fd: BorrowedFd<'_>) -> Result<(), Errno> {
    // SAFETY: The descriptor is open; no memory is involved.
    check(unsafe { libc::readahead(fd.as_raw_fd(), 0, 4096) } as i64).map(drop)
}

const _: () = assert!(size_of::<Handle>() == 8 + MAX_HANDLE_SZ);
