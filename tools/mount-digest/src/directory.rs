// SPDX-License-Identifier: GPL-2.0
//! Entries of directories, as getdents64(2) gives them.

use std::ffi::CString;
use std::io::Write;
use std::mem::MaybeUninit;
use std::os::fd::BorrowedFd;

use anyhow::Result;
use rustix::fs::{fstat, seek, FileType, RawDir, RawDirEntry, SeekFrom};
use rustix::io::Errno;

use crate::group::{Group, Groups};
use crate::output::{Error, Escaped, Outcome, Output, Value};
use crate::sha256::Sha256;
use crate::status::type_name;

/// To so many cookies of a directory, at most, is sought.
const COOKIES: usize = 24;

struct Entry {
    name: CString,
    ino: u64,
    file_type: FileType,
    /// Where the next entry is.
    cookie: u64,
}

impl Entry {
    fn is(&self, other: &RawDirEntry<'_>) -> bool {
        self.name.as_c_str() == other.file_name()
            && self.ino == other.ino()
            && self.file_type == other.file_type()
            && self.cookie == other.next_entry_cookie()
    }
}

/// Prints what `dir` has, and returns the names but `.` and `..`.
pub(crate) fn print<W: Write>(
    groups: Groups,
    dir: BorrowedFd<'_>,
    out: &mut Output<W>,
) -> Result<Vec<CString>> {
    let mut entries = Vec::new();
    seek(dir, SeekFrom::Start(0))?;
    let end = each(dir, |entry| {
        entries.push(Entry {
            name: entry.file_name().to_owned(),
            ino: entry.ino(),
            file_type: entry.file_type(),
            cookie: entry.next_entry_cookie(),
        });
    });
    if groups.has(Group::Readdir) {
        for (n, entry) in entries.iter().enumerate() {
            out.line(
                "entry",
                format_args!(
                    "#{n} type={} ino={} cookie={} {}",
                    type_name(entry.file_type),
                    entry.ino,
                    entry.cookie,
                    Escaped(entry.name.to_bytes())
                ),
            )?;
        }
    }
    // Also without the group: names that are missing must be seen to be.
    if groups.has(Group::Readdir) || end.is_err() {
        out.line(
            "entries",
            format_args!("count={} end={}", entries.len(), Outcome(end)),
        )?;
    }
    if groups.has(Group::Seekdir) {
        print_seeks(dir, &entries, out)?;
    }
    Ok(entries
        .into_iter()
        .map(|entry| entry.name)
        .filter(|name| !matches!(name.to_bytes(), b"." | b".."))
        .collect())
}

/// Calls `f` with the entries from where the descriptor is now.
fn each(dir: BorrowedFd<'_>, mut f: impl FnMut(&RawDirEntry<'_>)) -> Result<(), Errno> {
    let mut buffer = [MaybeUninit::uninit(); 32768];
    let mut entries = RawDir::new(dir, &mut buffer);
    while let Some(entry) = entries.next() {
        f(&entry?);
    }
    Ok(())
}

fn print_seeks<W: Write>(
    dir: BorrowedFd<'_>,
    entries: &[Entry],
    out: &mut Output<W>,
) -> Result<()> {
    let probes = entries.len().min(COOKIES);
    let mut same = 0;
    for probe in 0..probes {
        // The first and the last one, and in between in equal steps.
        let at = probe * (entries.len() - 1) / (probes - 1).max(1);
        let cookie = entries[at].cookie;
        match remainder(dir, cookie, &entries[at + 1..]) {
            Ok(None) => same += 1,
            Ok(Some(n)) => out.line(
                "seek",
                format_args!("cookie={cookie} differs from #{} on", at + 1 + n),
            )?,
            Err(errno) => out.line("seek", format_args!("cookie={cookie} {}", Error(errno)))?,
        }
    }
    out.line("seek", format_args!("cookies={probes} same={same}"))?;
    // Positions that nobody was given: seekdir must not be used so, and yet it must not do harm.
    let size = fstat(dir).map_or(0, |stat| stat.st_size.unsigned_abs());
    for position in [
        0,
        1,
        11,
        13,
        size / 2 + 1,
        size - size.min(1),
        size,
        size + 1,
        1 << 40,
        i64::MAX as u64,
    ] {
        print_from(dir, position, out)?;
    }
    out.line(
        "seek-end",
        format_args!("{}", Value(seek(dir, SeekFrom::End(0)))),
    )
}

/// The first of the entries from `cookie` on that is not as in `wanted`.
fn remainder(dir: BorrowedFd<'_>, cookie: u64, wanted: &[Entry]) -> Result<Option<usize>, Errno> {
    seek(dir, SeekFrom::Start(cookie))?;
    let (mut n, mut first) = (0, None);
    each(dir, |entry| {
        if first.is_none() && !wanted.get(n).is_some_and(|wanted| wanted.is(entry)) {
            first = Some(n);
        }
        n += 1;
    })?;
    Ok(first.or((n < wanted.len()).then_some(n)))
}

fn print_from<W: Write>(dir: BorrowedFd<'_>, position: u64, out: &mut Output<W>) -> Result<()> {
    let mut hash = Sha256::new();
    let (mut count, mut first) = (0_u64, None);
    let end = seek(dir, SeekFrom::Start(position)).and_then(|_| {
        each(dir, |entry| {
            count += 1;
            hash.update(entry.file_name().to_bytes_with_nul());
            hash.update(&entry.next_entry_cookie().to_le_bytes());
            first.get_or_insert_with(|| Escaped(entry.file_name().to_bytes()).to_string());
        })
    });
    out.line(
        "seek-odd",
        format_args!(
            "position={position} end={} count={count} first={} sha256={}",
            Outcome(end),
            first.as_deref().unwrap_or("-"),
            hash.finish()
        ),
    )
}
