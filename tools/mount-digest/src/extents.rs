// SPDX-License-Identifier: GPL-2.0
//! Where the data of a file are: data and holes, extents, blocks.

use std::io::Write;
use std::os::fd::BorrowedFd;

use anyhow::Result;
use rustix::fs::{seek, FileType, SeekFrom, Statx};
use rustix::io::Errno;

use crate::content;
use crate::group::{Group, Groups};
use crate::output::{Error, Output, Value};
use crate::status;
use crate::sys::{self, Extent, EXTENT_LAST, FIEMAP_XATTR};

pub(crate) fn print<W: Write>(
    groups: Groups,
    fd: BorrowedFd<'_>,
    stat: &Statx,
    out: &mut Output<W>,
) -> Result<()> {
    let is_file = status::file_type(stat) == FileType::RegularFile;
    if is_file && groups.has(Group::Map) {
        print_map(fd, stat.stx_size, out)?;
    }
    if groups.has(Group::Fiemap) || groups.has(Group::Physical) {
        print_extents(groups, fd, out)?;
    }
    if is_file && groups.has(Group::Physical) {
        let blocks = [0, 1].map(|n| Value(sys::fibmap(fd, n)));
        out.line("fibmap", format_args!("0:{} 1:{}", blocks[0], blocks[1]))?;
    }
    Ok(())
}

fn print_map<W: Write>(fd: BorrowedFd<'_>, size: u64, out: &mut Output<W>) -> Result<()> {
    let mut data = content::Data::new(fd, size);
    let mut position = 0;
    loop {
        match next_data(fd, position) {
            Ok((start, end)) if end > start && start >= position => {
                out.line("data", format_args!("{start}+{}", end - start))?;
                data.add(start, end);
                position = end;
            }
            Ok((start, end)) => {
                out.line(
                    "data",
                    format_args!("{start}..{end} after {position}: no way on"),
                )?;
                break;
            }
            // There are no data after the position.
            Err(Errno::NXIO) => break,
            Err(errno) => {
                out.line("data", format_args!("{} after {position}", Error(errno)))?;
                break;
            }
        }
    }
    data.print(out)?;
    let odd = [
        1,
        size / 2 + 1,
        size - size.min(1),
        size,
        size + 1,
        u64::MAX,
    ];
    let mut text = String::new();
    for position in odd {
        text += &format!(
            " {position}:{},{}",
            Value(seek(fd, SeekFrom::Data(position))),
            Value(seek(fd, SeekFrom::Hole(position)))
        );
    }
    out.line("data-and-hole-from", format_args!("{}", text.trim_start()))
}

fn next_data(fd: BorrowedFd<'_>, position: u64) -> Result<(u64, u64), Errno> {
    let start = seek(fd, SeekFrom::Data(position))?;
    Ok((start, seek(fd, SeekFrom::Hole(start))?))
}

fn print_extents<W: Write>(groups: Groups, fd: BorrowedFd<'_>, out: &mut Output<W>) -> Result<()> {
    if groups.has(Group::Fiemap) {
        out.line(
            "extents",
            format_args!(
                "of-xattrs={}",
                Value(sys::fiemap(fd, 0, FIEMAP_XATTR, true).map(|(mapped, _)| mapped))
            ),
        )?;
    }
    let mut start = 0;
    // Where one ends and the next one like it begins is the file system's to choose.
    let mut merged: Option<Extent> = None;
    let mut end_before = None;
    loop {
        let extents = match sys::fiemap(fd, start, 0, false) {
            Ok((_, extents)) => extents,
            Err(errno) => {
                print_extent(groups, merged, out)?;
                if groups.has(Group::Fiemap) {
                    out.line("extent", format_args!("{}", Error(errno)))?;
                }
                return Ok(());
            }
        };
        for extent in &extents {
            match &mut merged {
                Some(before) if before.goes_on_with(extent) => {
                    before.length += extent.length;
                    before.flags = extent.flags;
                }
                before => {
                    print_extent(groups, before.replace(*extent), out)?;
                }
            }
            let begin = (extent.logical, extent.physical);
            let end = (begin.0 + extent.length, begin.1.wrapping_add(extent.length));
            let goes_on = end_before.replace(end) == Some(begin);
            if groups.has(Group::Physical) && !goes_on {
                out.line(
                    "extent-at",
                    format_args!("{}:{}", extent.logical, extent.physical),
                )?;
            }
        }
        match extents.last() {
            Some(last) if last.flags & EXTENT_LAST == 0 && last.logical + last.length > start => {
                start = last.logical + last.length;
            }
            _ => return print_extent(groups, merged, out),
        }
    }
}

fn print_extent<W: Write>(
    groups: Groups,
    extent: Option<Extent>,
    out: &mut Output<W>,
) -> Result<()> {
    match extent {
        Some(extent) if groups.has(Group::Fiemap) => out.line(
            "extent",
            format_args!(
                "{}+{} flags={:#x}",
                extent.logical, extent.length, extent.flags
            ),
        ),
        _ => Ok(()),
    }
}

impl Extent {
    fn goes_on_with(&self, next: &Self) -> bool {
        self.logical + self.length == next.logical
            && self.flags & !EXTENT_LAST == next.flags & !EXTENT_LAST
    }
}
