// SPDX-License-Identifier: GPL-2.0
//! Requests and commands of `/dev/cachefiles_demand`, as the header `linux/cachefiles_demand.h` defines them.

use std::ffi::OsStr;
use std::fmt;
use std::mem::{offset_of, size_of};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// What bindgen made of the header. The documentation is in the header.
#[allow(missing_docs, non_camel_case_types)]
pub mod header {
    include!(concat!(env!("OUT_DIR"), "/cachefiles_demand.rs"));
}

use header::cachefiles_demand_req as Raw;

/// The size of a request's record in bytes.
pub const RECORD_SIZE: usize = size_of::<Raw>();

/// The longest command in bytes.
pub const COMMAND_MAX: usize = header::CACHEFILES_DEMAND_COMMAND_MAX as usize;

/// The unit in which data is missing, asked for and written, in bytes.
pub const BLOCK: u64 = header::CACHEFILES_DEMAND_BLOCK as u64;

const PATH_LEN: usize = header::CACHEFILES_DEMAND_PATH_LEN as usize;

/// One request: a range of a cache file that a reader waits for.
///
/// The fields are what the device said. Only [`Request::file_name`] and [`Request::check_range`] give what may be acted
/// upon, because a daemon that runs as root should not trust even the kernel with its file names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Names the request in the answer.
    pub id: u64,
    /// Where the range starts, in bytes.
    pub off: u64,
    /// How long it is, in bytes.
    pub len: u64,
    path: [u8; PATH_LEN],
}

/// What is wrong with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadRequest {
    /// The name is not terminated, empty, `.` or `..`, or has a slash.
    Name,
    /// The range is empty, not made of whole blocks, or not inside a file of `size` bytes.
    Range {
        /// Where the range starts.
        off: u64,
        /// How long it is.
        len: u64,
        /// The size of the cache file.
        size: u64,
    },
}

impl fmt::Display for BadRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name => f.write_str("the request does not name a file"),
            Self::Range { off, len, size } => {
                write!(
                    f,
                    "the range {off}+{len} is not made of whole blocks of a file of {size} bytes"
                )
            }
        }
    }
}

impl std::error::Error for BadRequest {}

impl Request {
    /// Reads one record. A record of any content gives a request: even one that makes no sense has an id to answer.
    pub fn parse(record: &[u8; RECORD_SIZE]) -> Self {
        Self {
            id: u64::from_ne_bytes(field(record, offset_of!(Raw, id))),
            off: u64::from_ne_bytes(field(record, offset_of!(Raw, off))),
            len: u64::from_ne_bytes(field(record, offset_of!(Raw, len))),
            path: field(record, offset_of!(Raw, path)),
        }
    }

    /// The name of the cache file: never a path.
    pub fn file_name(&self) -> Result<&OsStr, BadRequest> {
        let end = self.path.iter().position(|&byte| byte == 0);
        match end.and_then(|end| self.path.get(..end)) {
            None | Some(b"" | b"." | b"..") => Err(BadRequest::Name),
            Some(name) if name.contains(&b'/') => Err(BadRequest::Name),
            Some(name) => Ok(OsStr::from_bytes(name)),
        }
    }

    /// Checks the range against the size of the cache file.
    pub fn check_range(&self, size: u64) -> Result<(), BadRequest> {
        let Self { off, len, .. } = *self;
        match off.checked_add(len) {
            Some(end)
                if len > 0
                    && end <= size
                    && off % BLOCK == 0
                    && (end == size || len % BLOCK == 0) =>
            {
                Ok(())
            }
            _ => Err(BadRequest::Range { off, len, size }),
        }
    }
}

/// Copies a field out of a record. Offset and size come from the same structure as the record's size, so the field is
/// always inside.
fn field<const N: usize>(record: &[u8; RECORD_SIZE], offset: usize) -> [u8; N] {
    let mut bytes = [0; N];
    bytes.copy_from_slice(&record[offset..offset + N]);
    bytes
}

/// How the kernel reads cache files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Io {
    /// The kernel chooses, read by read.
    Auto,
    /// Past the cache file's page cache.
    Direct,
    /// Through the cache file's page cache.
    Buffered,
}

/// A limit on the free space of the cache's file system, in per cent of its blocks (`B`) or of its files (`F`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// Above this many free blocks culling ends.
    Brun,
    /// Below this many free blocks culling begins.
    Bcull,
    /// Below this many free blocks nothing is fetched.
    Bstop,
    /// As [`Limit::Brun`], of files.
    Frun,
    /// As [`Limit::Bcull`], of files.
    Fcull,
    /// As [`Limit::Bstop`], of files.
    Fstop,
}

/// A command to the kernel.
#[derive(Clone, Copy, Debug)]
pub enum Command<'a> {
    /// The root of the cache.
    Dir(&'a Path),
    /// The name of the cache.
    Tag(&'a str),
    /// How much space has to be free, in per cent.
    Limit(Limit, u8),
    /// Put the cache into service.
    Bind,
    /// How many seconds requests wait for the next daemon once this one is gone.
    Linger(u32),
    /// After how many seconds a request that has no answer fails; 0 for never.
    Timeout(u32),
    /// What misses are widened to, in bytes.
    Granule(u64),
    /// How cache files are read.
    Io(Io),
    /// The request's bytes are in the cache file.
    Done(u64),
    /// The request's bytes cannot be had: the reader gets this errno.
    Fail(u64, i32),
    /// Deliver once more what was delivered and has no answer.
    Restore,
    /// Remove the cache file of this name from the working directory of the thread that gives the command.
    Cull(&'a OsStr),
    /// Tell whether the cache file of this name in the working directory of the thread is in use.
    InUse(&'a OsStr),
    /// Take the cache out of service.
    Unbind,
}

/// The text of a command cannot be written to the device: it is too long, or holds a NUL byte or a line break.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadCommand;

impl fmt::Display for BadCommand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "a command has at most {COMMAND_MAX} bytes, no line break and no NUL byte"
        )
    }
}

impl std::error::Error for BadCommand {}

impl Command<'_> {
    /// The bytes of the one write that gives the command, with the newline that ends it.
    pub fn to_bytes(self) -> Result<Vec<u8>, BadCommand> {
        let mut text = self.text();
        if text.len() >= COMMAND_MAX || text.iter().any(|byte| matches!(byte, 0 | b'\n')) {
            return Err(BadCommand);
        }
        text.push(b'\n');
        Ok(text)
    }

    fn text(self) -> Vec<u8> {
        match self {
            Self::Dir(path) => [b"dir ", path.as_os_str().as_bytes()].concat(),
            Self::Tag(name) => format!("tag {name}").into_bytes(),
            Self::Limit(limit, percent) => {
                let word = match limit {
                    Limit::Brun => "brun",
                    Limit::Bcull => "bcull",
                    Limit::Bstop => "bstop",
                    Limit::Frun => "frun",
                    Limit::Fcull => "fcull",
                    Limit::Fstop => "fstop",
                };
                format!("{word} {percent}%").into_bytes()
            }
            Self::Bind => b"bind".to_vec(),
            Self::Linger(seconds) => format!("linger {seconds}").into_bytes(),
            Self::Timeout(seconds) => format!("timeout {seconds}").into_bytes(),
            Self::Granule(bytes) => format!("granule {bytes}").into_bytes(),
            Self::Io(Io::Auto) => b"io auto".to_vec(),
            Self::Io(Io::Direct) => b"io direct".to_vec(),
            Self::Io(Io::Buffered) => b"io buffered".to_vec(),
            Self::Done(id) => format!("done {id}").into_bytes(),
            Self::Fail(id, errno) => format!("fail {id} {errno}").into_bytes(),
            Self::Restore => b"restore".to_vec(),
            Self::Cull(name) => [b"cull ", name.as_bytes()].concat(),
            Self::InUse(name) => [b"inuse ", name.as_bytes()].concat(),
            Self::Unbind => b"unbind".to_vec(),
        }
    }
}

impl fmt::Display for Command<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from_utf8_lossy(&self.text()))
    }
}
