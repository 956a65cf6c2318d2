// SPDX-License-Identifier: GPL-2.0
//! What statfs(2) and statx(2) say.

use std::ffi::CStr;
use std::io::Write;
use std::os::fd::BorrowedFd;

use anyhow::Result;
use rustix::fs::{fstatfs, fstatvfs, statx, AtFlags, FileType, Statx, StatxAttributes, StatxFlags};
use rustix::io::Errno;

use crate::group::{Group, Groups};
use crate::output::{Escaped, Hex, Outcome, Output, Value};
use crate::sys;

// From include/uapi/linux/stat.h.
/// `STATX_DIOALIGN` and `STATX_DIO_READ_ALIGN`.
const DIO: u32 = 0x2000 | 0x20000;
/// `STATX_SUBVOL` and `STATX_WRITE_ATOMIC`.
const NEWER: u32 = 0x8000 | 0x10000;
/// `STATX_MNT_ID` and `STATX_MNT_ID_UNIQUE`: of the mount, and not the file system's.
const OF_THE_MOUNT: u32 = 0x1000 | 0x4000;

/// `STATX_ATTR_MOUNT_ROOT`: something is mounted here.
pub(crate) const MOUNT_ROOT: u64 = StatxAttributes::MOUNT_ROOT.bits();

/// All that a file system can tell of `name`.
pub(crate) fn of(dir: BorrowedFd<'_>, name: &CStr) -> Result<Statx, Errno> {
    statx(
        dir,
        name,
        AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT,
        StatxFlags::BASIC_STATS | StatxFlags::BTIME | StatxFlags::from_bits_retain(DIO | NEWER),
    )
}

pub(crate) fn file_type(stat: &Statx) -> FileType {
    FileType::from_raw_mode(stat.stx_mode.into())
}

pub(crate) fn type_name(file_type: FileType) -> &'static str {
    match file_type {
        FileType::RegularFile => "file",
        FileType::Directory => "directory",
        FileType::Symlink => "link",
        FileType::Fifo => "fifo",
        FileType::Socket => "socket",
        FileType::CharacterDevice => "character-device",
        FileType::BlockDevice => "block-device",
        FileType::Unknown => "unknown",
    }
}

pub(crate) fn print<W: Write>(groups: Groups, stat: &Statx, out: &mut Output<W>) -> Result<()> {
    if groups.has(Group::Stat) {
        out.line(
            "stat",
            format_args!(
                "type={} mode={:04o} nlink={} uid={} gid={} size={} blocks={} blksize={} ino={} rdev={}:{} \
                 mask={:#x} subvol={} atomic-write={}..{}",
                type_name(file_type(stat)),
                stat.stx_mode & 0o7777,
                stat.stx_nlink,
                stat.stx_uid,
                stat.stx_gid,
                stat.stx_size,
                stat.stx_blocks,
                stat.stx_blksize,
                stat.stx_ino,
                stat.stx_rdev_major,
                stat.stx_rdev_minor,
                stat.stx_mask & !(DIO | OF_THE_MOUNT),
                stat.stx_subvol,
                stat.stx_atomic_write_unit_min,
                stat.stx_atomic_write_unit_max,
            ),
        )?;
    }
    if groups.has(Group::Times) {
        let time = |t: rustix::fs::StatxTimestamp| format!("{}.{:09}", t.tv_sec, t.tv_nsec);
        out.line(
            "times",
            format_args!(
                "mtime={} ctime={} atime={} btime={}",
                time(stat.stx_mtime),
                time(stat.stx_ctime),
                time(stat.stx_atime),
                time(stat.stx_btime)
            ),
        )?;
    }
    if groups.has(Group::Attributes) {
        out.line(
            "attributes",
            format_args!(
                "set={:#x} mask={:#x}",
                stat.stx_attributes.bits() & !MOUNT_ROOT,
                stat.stx_attributes_mask.bits() & !MOUNT_ROOT
            ),
        )?;
    }
    if groups.has(Group::Dio) {
        out.line(
            "dio",
            format_args!(
                "mask={:#x} memory={} offset={} read-offset={}",
                stat.stx_mask & DIO,
                stat.stx_dio_mem_align,
                stat.stx_dio_offset_align,
                stat.stx_dio_read_offset_align
            ),
        )?;
    }
    Ok(())
}

/// Flags of an open file or directory, as the older calls give them.
pub(crate) fn print_flags<W: Write>(fd: BorrowedFd<'_>, out: &mut Output<W>) -> Result<()> {
    let xflags = sys::fsxattr(fd).map(|bytes| Hex(&bytes).to_string());
    out.line(
        "flags",
        format_args!(
            "getflags={} fsgetxattr={}",
            Value(sys::flags(fd).map(|flags| format!("{flags:#x}"))),
            Value(xflags)
        ),
    )
}

pub(crate) fn print_statfs<W: Write>(
    groups: Groups,
    root: BorrowedFd<'_>,
    out: &mut Output<W>,
) -> Result<()> {
    let (fs, vfs) = match (fstatfs(root), fstatvfs(root)) {
        (Ok(fs), Ok(vfs)) => (fs, vfs),
        (Err(errno), _) | (_, Err(errno)) => {
            return out.line("statfs", format_args!("{}", Outcome(Err::<(), _>(errno))));
        }
    };
    if groups.has(Group::Statfs) {
        out.line(
            "statfs",
            format_args!(
                "type={:#x} bsize={} frsize={} blocks={} bfree={} bavail={} files={} ffree={} namelen={} flags={:#x}",
                fs.f_type,
                fs.f_bsize,
                vfs.f_frsize,
                fs.f_blocks,
                fs.f_bfree,
                fs.f_bavail,
                fs.f_files,
                fs.f_ffree,
                fs.f_namelen,
                vfs.f_flag.bits()
            ),
        )?;
    }
    if groups.has(Group::Fsid) {
        let label = sys::label(root);
        out.line(
            "fsid",
            format_args!(
                "fsid={:#x} uuid={} label={} sysfs={}",
                vfs.f_fsid,
                Value(sys::uuid(root).map(|bytes| Hex(&bytes).to_string())),
                Value(label.map(|bytes| format!("\"{}\"", Escaped(&bytes)))),
                // The path has the name of a device in it.
                Outcome(sys::sysfs_path(root)),
            ),
        )?;
    }
    Ok(())
}
