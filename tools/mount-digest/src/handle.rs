// SPDX-License-Identifier: GPL-2.0
//! File handles.

use std::ffi::CStr;
use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd};

use anyhow::Result;
use rustix::fs::{fstat, Statx};
use rustix::io::Errno;

use crate::output::{Error, Hex, Outcome, Output};
use crate::sys::{Handle, HANDLE_CONNECTABLE, HANDLE_FID};

const KINDS: [(&str, i32); 3] = [
    ("handle", 0),
    ("handle-fid", HANDLE_FID),
    ("handle-connectable", HANDLE_CONNECTABLE),
];

pub(crate) fn print<W: Write>(
    dir: BorrowedFd<'_>,
    name: &CStr,
    stat: &Statx,
    out: &mut Output<W>,
) -> Result<()> {
    for (item, flags) in KINDS {
        match Handle::of(dir, name, flags) {
            Ok(handle) => out.line(
                item,
                format_args!(
                    "type={:#x} bytes={} opens={}",
                    handle.kind(),
                    Hex(handle.bytes()),
                    opens(&handle, dir, stat)
                ),
            )?,
            Err(errno) => out.line(item, format_args!("{}", Error(errno)))?,
        }
    }
    Ok(())
}

/// Whether a handle opens, and what: what it was made of, one hopes.
fn opens(handle: &Handle, dir: BorrowedFd<'_>, stat: &Statx) -> String {
    match handle.open(dir).and_then(|fd| fstat(fd.as_fd())) {
        Ok(got) if got.st_ino == stat.stx_ino && got.st_mode == stat.stx_mode.into() => {
            "itself".into()
        }
        Ok(got) => format!("inode-{}", got.st_ino),
        Err(errno) => Error(errno).to_string(),
    }
}

/// What becomes of a handle that is too short.
pub(crate) fn print_cut<W: Write>(root: BorrowedFd<'_>, out: &mut Output<W>) -> Result<()> {
    let cut = |length| {
        Handle::of(root, c".", 0)
            .and_then(|handle| handle.cut(length).open(root))
            .map(drop)
    };
    let [four, none]: [Result<(), Errno>; 2] = [cut(4), cut(0)];
    out.line(
        "handle-cut",
        format_args!("to-4={} to-0={}", Outcome(four), Outcome(none)),
    )
}
