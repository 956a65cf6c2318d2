// SPDX-License-Identifier: GPL-2.0
//! A working directory for one thread: the kernel takes names of cache files in that of who gives the command.

use std::io;
use std::path::Path;

use anyhow::{Context, Result};
use rustix::fs::{Mode, OFlags};
use rustix::thread::UnshareFlags;

/// Gives the calling thread a working directory of its own.
pub fn own() -> io::Result<()> {
    // Deprecated because other flags than this one can take open files from under other threads.
    #[allow(deprecated)]
    Ok(rustix::thread::unshare(UnshareFlags::FS)?)
}

/// Makes a directory the working directory of the thread.
pub fn enter(dir: &Path) -> Result<()> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::open(dir, flags, Mode::empty())
        .and_then(rustix::process::fchdir)
        .map_err(io::Error::from)
        .with_context(|| format!("cannot enter {}", dir.display()))
}
