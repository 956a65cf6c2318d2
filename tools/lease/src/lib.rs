// SPDX-License-Identifier: GPL-2.0
//! Leases of files, see "Leases" in fcntl(2).
//!
//! A lease for writing can be had only while nobody else has the file open, within the kernel or without. As long as it is
//! held, whoever opens the file waits; the holder is told with SIGIO, which ends a process that does not care for
//! it. After `/proc/sys/fs/lease-break-time` (45 seconds) the lease is taken away.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, RawFd};

/// A lease for writing. Dropping it gives it back.
#[derive(Debug)]
pub struct Lease<'a>(&'a File);

impl<'a> Lease<'a> {
    /// Takes the lease of a file that this process has opened for reading and writing, once. Does not wait.
    ///
    /// # Errors
    ///
    /// EAGAIN if somebody else has the file open; EACCES if the file belongs to somebody else and the process has no
    /// CAP_LEASE; EINVAL if the file system has no leases.
    pub fn take(file: &'a File) -> io::Result<Self> {
        set(file.as_raw_fd(), libc::F_WRLCK)?;
        Ok(Self(file))
    }
}

impl Drop for Lease<'_> {
    fn drop(&mut self) {
        // Closing the file gives it back as well.
        let _ = set(self.0.as_raw_fd(), libc::F_UNLCK);
    }
}

fn set(fd: RawFd, kind: libc::c_int) -> io::Result<()> {
    // SAFETY: The third argument of F_SETLEASE is a number: no memory is touched.
    match unsafe { libc::fcntl(fd, libc::F_SETLEASE, kind) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}
