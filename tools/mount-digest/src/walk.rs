// SPDX-License-Identifier: GPL-2.0
//! The walk over the tree.
//!
//! One directory is open at a time, and is the working directory, so that calls that take a path can be given a name
//! however deep it is. Of the directories above, the names that are still to come are kept. The way up is `..`.

use std::collections::HashMap;
use std::ffi::{CStr, CString};
use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use anyhow::{bail, ensure, Context, Result};
use rustix::fs::{fstat, openat, readlinkat, FileType, Mode, OFlags, Statx, CWD};
use rustix::io::Errno;
use rustix::process::fchdir;

use crate::group::{Group, Groups};
use crate::output::{Escaped, Output, Value};
use crate::status::MOUNT_ROOT;
use crate::{access, content, directory, extents, handle, refusal, status, xattr};

/// A directory that is being walked.
struct Level {
    /// Names that are still to come, the next one last.
    names: Vec<CString>,
    /// How much of the path is its own.
    path_length: usize,
    /// Device and inode number, to know it by on the way up.
    identity: (u64, u64),
}

struct Walk<'a, W: Write> {
    groups: Groups,
    out: &'a mut Output<W>,
    /// The file system has been asked to be read-only.
    read_only: bool,
    /// The first path of inodes with several names.
    linked: HashMap<u64, Vec<u8>>,
}

/// Prints the tree below `root`.
pub(crate) fn walk<W: Write>(root: &Path, groups: Groups, out: &mut Output<W>) -> Result<()> {
    let mut dir = openat(CWD, root, DIRECTORY, Mode::empty())
        .with_context(|| format!("cannot open {}", root.display()))?;
    fchdir(&dir).with_context(|| format!("cannot enter {}", root.display()))?;
    let mut walk = Walk {
        groups,
        read_only: refusal::is_read_only(dir.as_fd()),
        linked: HashMap::new(),
        out,
    };
    walk.out.set_path(b".");
    status::print_statfs(groups, dir.as_fd(), walk.out)?;
    if groups.has(Group::Handles) {
        handle::print_cut(dir.as_fd(), walk.out)?;
    }
    let Some(top) = walk.item(dir.as_fd(), c".", b".", true)? else {
        bail!("{} cannot be read", root.display());
    };
    let mut levels = vec![walk.enter(&top, b"", b".")?];
    let mut path = Vec::new();
    while let Some(level) = levels.last_mut() {
        path.truncate(level.path_length);
        let Some(name) = level.names.pop() else {
            levels.pop();
            if let Some(above) = levels.last() {
                dir = up(&dir, above.identity)
                    .with_context(|| format!("on the way up from {}", Escaped(&path)))?;
            }
            continue;
        };
        if !path.is_empty() {
            path.push(b'/');
        }
        path.extend_from_slice(name.to_bytes());
        if let Some(below) = walk.item(dir.as_fd(), &name, &path, false)? {
            levels.push(walk.enter(&below, &path, &path)?);
            dir = below;
        }
    }
    Ok(())
}

const DIRECTORY: OFlags = OFlags::DIRECTORY.union(OFlags::CLOEXEC);

/// Goes to the directory above, which must be the one that the walk came from.
fn up(dir: &OwnedFd, identity: (u64, u64)) -> Result<OwnedFd> {
    let above = openat(dir, c"..", DIRECTORY, Mode::empty())?;
    ensure!(
        identity_of(&above)? == identity,
        "the directory above is another one: the tree has changed"
    );
    fchdir(&above)?;
    Ok(above)
}

fn identity_of(dir: &OwnedFd) -> Result<(u64, u64)> {
    let stat = fstat(dir)?;
    Ok((stat.st_dev, stat.st_ino))
}

impl<W: Write> Walk<'_, W> {
    /// Prints what is in a directory, and makes it the one that is walked.
    fn enter(&mut self, dir: &OwnedFd, path: &[u8], shown: &[u8]) -> Result<Level> {
        self.out.set_path(shown);
        let mut names = directory::print(self.groups, dir.as_fd(), self.out)?;
        names.sort_unstable_by(|a, b| b.cmp(a));
        fchdir(dir)?;
        Ok(Level {
            names,
            path_length: path.len(),
            identity: identity_of(dir)?,
        })
    }

    /// Prints all about `name` but the entries of a directory, which is returned if it is one to walk.
    fn item(
        &mut self,
        dir: BorrowedFd<'_>,
        name: &CStr,
        path: &[u8],
        is_root: bool,
    ) -> Result<Option<OwnedFd>> {
        self.out.set_path(path);
        let stat = match status::of(dir, name) {
            Ok(stat) => stat,
            Err(errno) => {
                self.out
                    .line("stat", format_args!("{}", Value(Err::<u8, _>(errno))))?;
                return Ok(None);
            }
        };
        if !is_root && stat.stx_attributes.bits() & MOUNT_ROOT != 0 {
            self.out.line("mount", format_args!("not entered"))?;
            return Ok(None);
        }
        let file_type = status::file_type(&stat);
        if file_type != FileType::Directory && stat.stx_nlink > 1 {
            if let Some(first) = self.linked.get(&stat.stx_ino) {
                return self
                    .out
                    .line("same-as", format_args!("{}", Escaped(first)))
                    .map(|()| None);
            }
            self.linked.insert(stat.stx_ino, path.to_vec());
        }
        status::print(self.groups, &stat, self.out)?;
        if self.groups.has(Group::Link) && file_type == FileType::Symlink {
            let target = readlinkat(dir, name, Vec::new());
            let target = target.map(|t| Escaped(t.as_bytes()).to_string());
            self.out.line("link", format_args!("{}", Value(target)))?;
        }
        if self.groups.has(Group::Xattrs) {
            xattr::print(name, self.out)?;
        }
        if self.groups.has(Group::Access) {
            access::print(dir, name, self.out)?;
        }
        if self.groups.has(Group::Handles) {
            handle::print(dir, name, &stat, self.out)?;
        }
        if self.groups.has(Group::Errors) {
            refusal::print_by_name(self.read_only, dir, name, file_type, self.out)?;
        }
        let opened = match file_type {
            FileType::RegularFile => openat(dir, name, FILE, Mode::empty()),
            FileType::Directory => openat(dir, name, DIRECTORY | OFlags::NOFOLLOW, Mode::empty()),
            // To open anything else may do something.
            _ => return Ok(None),
        };
        self.opened(opened, dir, name, &stat)
    }

    fn opened(
        &mut self,
        opened: Result<OwnedFd, Errno>,
        dir: BorrowedFd<'_>,
        name: &CStr,
        stat: &Statx,
    ) -> Result<Option<OwnedFd>> {
        let fd = match opened {
            Ok(fd) => fd,
            Err(errno) => {
                self.out
                    .line("open", format_args!("{}", Value(Err::<u8, _>(errno))))?;
                return Ok(None);
            }
        };
        let is_file = status::file_type(stat) == FileType::RegularFile;
        if self.groups.has(Group::Attributes) {
            status::print_flags(fd.as_fd(), self.out)?;
        }
        extents::print(self.groups, fd.as_fd(), stat, self.out)?;
        if self.groups.has(Group::Errors) {
            refusal::print_by_descriptor(fd.as_fd(), is_file, self.out)?;
        }
        if !is_file {
            if self.groups.has(Group::Errors) {
                refusal::print_in_directory(self.read_only, fd.as_fd(), self.out)?;
            }
            return Ok(Some(fd));
        }
        content::print(self.groups, fd.as_fd(), stat.stx_size, self.out)?;
        if self.groups.has(Group::Dio) {
            content::print_direct(
                openat(dir, name, FILE | OFlags::DIRECT, Mode::empty()),
                self.out,
            )?;
        }
        Ok(None)
    }
}

/// It says that it is a file; if it has become a fifo meanwhile, that must not block.
const FILE: OFlags = OFlags::NOFOLLOW
    .union(OFlags::NONBLOCK)
    .union(OFlags::NOCTTY)
    .union(OFlags::CLOEXEC);
