// SPDX-License-Identifier: GPL-2.0
//! Calls that a read-only file system refuses, and calls that not every file system has.
//!
//! Those that would change something are made only if the mount is read-only: then the kernel refuses them whatever
//! the file system does.

use std::ffi::{CStr, CString};
use std::fs::File;
use std::io::{IoSliceMut, Write};
use std::os::fd::BorrowedFd;

use anyhow::Result;
use rustix::fs::{
    accessat, chmodat, chownat, fstatvfs, fsync, linkat, lsetxattr, mkdirat, mknodat, openat,
    renameat, seek, sendfile, symlinkat, unlinkat, utimensat, Access, AtFlags, FileType, Gid, Mode,
    OFlags, SeekFrom, StatVfsMountFlags, Timespec, Timestamps, Uid, XattrFlags,
};
use rustix::io::{preadv2, read, Errno, ReadWriteFlags};

use crate::output::{Outcome, Output, Value};
use crate::sys;

/// A name that should not be there.
const NEW: &CStr = c"mount-digest.new";

/// `RWF_DONTCACHE`
const DONTCACHE: u32 = 0x80;

pub(crate) fn is_read_only(root: BorrowedFd<'_>) -> bool {
    fstatvfs(root).is_ok_and(|fs| fs.f_flag.contains(StatVfsMountFlags::RDONLY))
}

/// What is tried with the name of something.
pub(crate) fn print_by_name<W: Write>(
    read_only: bool,
    dir: BorrowedFd<'_>,
    name: &CStr,
    file_type: FileType,
    out: &mut Output<W>,
) -> Result<()> {
    if !read_only || name == c"." {
        return Ok(());
    }
    let link = AtFlags::SYMLINK_NOFOLLOW;
    let remove = if file_type == FileType::Directory {
        AtFlags::REMOVEDIR
    } else {
        AtFlags::empty()
    };
    let mut opens = String::new();
    if file_type == FileType::RegularFile {
        for (what, flags) in [
            ("write", OFlags::WRONLY),
            ("both", OFlags::RDWR),
            ("append", OFlags::WRONLY | OFlags::APPEND),
            ("truncate", OFlags::RDONLY | OFlags::TRUNC),
        ] {
            let flags = flags | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
            let opened = openat(dir, name, flags, Mode::empty());
            opens += &format!(" open-{what}={}", Outcome(opened));
        }
    }
    out.line(
        "refused",
        format_args!(
            "chmod={} chown={} utimens={} setxattr={} link={} rename={} remove={}{opens}",
            match file_type {
                // It would be that of what the link leads to.
                FileType::Symlink => "-".into(),
                _ => Outcome(chmodat(dir, name, Mode::RUSR, AtFlags::empty())).to_string(),
            },
            Outcome(chownat(dir, name, Some(Uid::ROOT), Some(Gid::ROOT), link)),
            Outcome(utimensat(dir, name, &EPOCH, link)),
            // The name is one in the working directory.
            Outcome(lsetxattr(name, c"user.new", b"1", XattrFlags::empty())),
            Outcome(linkat(dir, name, dir, NEW, AtFlags::empty())),
            Outcome(renameat(dir, name, dir, NEW)),
            Outcome(unlinkat(dir, name, remove)),
        ),
    )
}

const EPOCH: Timestamps = Timestamps {
    last_access: ZERO,
    last_modification: ZERO,
};
const ZERO: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 0,
};

/// What is tried in a directory: names that are not there, and making them.
pub(crate) fn print_in_directory<W: Write>(
    read_only: bool,
    dir: BorrowedFd<'_>,
    out: &mut Output<W>,
) -> Result<()> {
    let absent = |length: usize| {
        let name = CString::new(vec![b'~'; length]).unwrap_or_default();
        Outcome(accessat(
            dir,
            &name,
            Access::EXISTS,
            AtFlags::SYMLINK_NOFOLLOW,
        ))
    };
    out.line(
        "lookup",
        format_args!(
            "absent={} of-255={} of-256={}",
            Outcome(accessat(
                dir,
                NEW,
                Access::EXISTS,
                AtFlags::SYMLINK_NOFOLLOW
            )),
            absent(255),
            absent(256)
        ),
    )?;
    if !read_only {
        return Ok(());
    }
    let create = OFlags::WRONLY | OFlags::CREATE | OFlags::CLOEXEC;
    let temporary = OFlags::WRONLY | OFlags::TMPFILE | OFlags::CLOEXEC;
    out.line(
        "refused-in",
        format_args!(
            "create={} mkdir={} mknod={} symlink={} unlink={} rmdir={} tmpfile={}",
            Outcome(openat(dir, NEW, create, Mode::RUSR)),
            Outcome(mkdirat(dir, NEW, Mode::RUSR)),
            Outcome(mknodat(dir, NEW, FileType::Fifo, Mode::RUSR, 0)),
            Outcome(symlinkat(c"target", dir, NEW)),
            Outcome(unlinkat(dir, NEW, AtFlags::empty())),
            Outcome(unlinkat(dir, NEW, AtFlags::REMOVEDIR)),
            Outcome(openat(dir, c".", temporary, Mode::RUSR)),
        ),
    )
}

/// What is tried with an open file or directory.
pub(crate) fn print_by_descriptor<W: Write>(
    fd: BorrowedFd<'_>,
    is_file: bool,
    out: &mut Output<W>,
) -> Result<()> {
    let largest = seek(fd, SeekFrom::Start(i64::MAX as u64));
    let end = seek(fd, SeekFrom::End(1));
    let back = seek(fd, SeekFrom::Start(0));
    out.line(
        "calls",
        format_args!(
            "seek-max={} seek-beyond={} seek-start={} fsync={} lease={} readahead={} ioctl={} map={} map-shared={} \
             map-executable={}",
            Value(largest),
            Value(end),
            Value(back),
            Outcome(fsync(fd)),
            Outcome(sys::lease(fd)),
            Outcome(sys::readahead(fd)),
            Outcome(sys::unknown_ioctl(fd)),
            Outcome(sys::map(fd, false, libc::PROT_READ | libc::PROT_WRITE)),
            Outcome(sys::map(fd, true, libc::PROT_READ)),
            Outcome(sys::map(fd, false, libc::PROT_READ | libc::PROT_EXEC)),
        ),
    )?;
    if !is_file {
        return out.line("read", format_args!("{}", Value(read(fd, &mut [0; 1][..]))));
    }
    out.line(
        "read",
        format_args!(
            "sendfile={} dontcache={} nowait={}",
            Value(send(fd)),
            Value(read_with(fd, DONTCACHE)),
            // Whether it would have to wait is a matter of luck.
            match read_with(fd, ReadWriteFlags::NOWAIT.bits()) {
                Err(Errno::OPNOTSUPP) => "EOPNOTSUPP",
                _ => "known",
            }
        ),
    )
}

fn send(fd: BorrowedFd<'_>) -> Result<usize, Errno> {
    let null = File::options()
        .write(true)
        .open("/dev/null")
        .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
    sendfile(null, fd, Some(&mut 0), 1)
}

fn read_with(fd: BorrowedFd<'_>, flags: u32) -> Result<usize, Errno> {
    let flags = ReadWriteFlags::from_bits_retain(flags);
    preadv2(fd, &mut [IoSliceMut::new(&mut [0])], 0, flags)
}
