// SPDX-License-Identifier: GPL-2.0
//! What a daemon answers on its socket.

use std::ffi::{OsStr, OsString};
use std::ops::Range;
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::net::UnixListener;
use std::path::Path;

use anyhow::{Context, Result};
use rustix::io::Errno;
use serde_json::json;

use crate::abi::Command;
use crate::blobs::Blobs;
use crate::counts::Counts;
use crate::device::{command, errno_of, Device};
use crate::http::{error, json as answer, serve, Response};
use crate::kernel::{Kernel, DIR};
use crate::prefetch::{Queue, Target};
use crate::{cull, log, metrics, status, working_directory};

/// Reads the configuration again; returns what has changed.
pub type Reload<'a> = &'a (dyn Fn() -> Result<Vec<String>> + Sync);

/// A daemon, as its socket shows it.
pub struct Api<'a> {
    /// Where requests are counted.
    pub counts: &'a Counts,
    /// The blobs that it fills.
    pub blobs: &'a Blobs,
    /// What is to be prefetched.
    pub queue: &'a Queue,
    /// The device, to remove blobs.
    pub device: &'a dyn Device,
    /// What to do when it is to reload.
    pub reload: Reload<'a>,
}

impl Api<'_> {
    /// Answers until `ended` can be read. Takes a thread of its own.
    pub fn serve(&self, listener: &UnixListener, ended: BorrowedFd<'_>) {
        // For evictions: the kernel looks names up in the working directory.
        let result = working_directory::own()
            .context("cannot have a working directory of its own")
            .and_then(|()| serve(listener, ended, |method, path| self.respond(method, path)));
        if let Err(error) = result {
            log!("the socket is not served any more: {error:#}");
        }
    }

    fn respond(&self, method: &str, target: &str) -> Response {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let result = match (method, path) {
            ("GET", "/v1/health") => Ok(self.health()),
            ("GET", "/v1/blobs") => self.blobs(),
            ("GET", "/metrics") => Ok(self.metrics()),
            ("POST", "/v1/reload") => {
                (self.reload)().map(|changed| answer(&json!({ "changed": changed })))
            }
            ("GET", "/v1/prefetch") => Ok(self.prefetching()),
            ("DELETE", "/v1/prefetch") => Ok(answer(&json!({ "forgotten": self.queue.clear() }))),
            (method, path) => {
                let rest = path.strip_prefix("/v1/blobs/");
                let (name, verb) = rest.map_or(("", None), |rest| match rest.split_once('/') {
                    Some((name, verb)) => (name, Some(verb)),
                    None => (rest, None),
                });
                match (method, decoded(name), verb) {
                    ("GET", Some(name), None) => self.blob(&name),
                    ("DELETE", Some(name), None) => self.evict(&name),
                    ("POST", Some(name), Some("prefetch")) => self.prefetch(name, query),
                    (_, Some(_), None) => Ok(error(405, "GET or DELETE")),
                    (_, Some(_), Some("prefetch")) => Ok(error(405, "POST")),
                    (_, _, _) => Ok(error(404, "there is nothing of that name")),
                }
            }
        };
        result.unwrap_or_else(|reason| error(500, &format!("{reason:#}")))
    }

    fn health(&self) -> Response {
        let summary = self.counts.summary();
        answer(&json!({
            "status": "serving",
            "version": env!("CARGO_PKG_VERSION"),
            "served": summary.served,
            "bytes": summary.bytes,
            "failed": summary.failed,
            "in_flight": self.counts.in_flight(),
            "open_blobs": self.blobs.count(),
        }))
    }

    fn metrics(&self) -> Response {
        let blobs = cull::candidates(self.blobs.volume(), |_| None);
        let taken = blobs.ok().map(|blobs| cull::taken(&blobs));
        Response {
            status: 200,
            kind: "text/plain; version=0.0.4",
            body: metrics::text(self.counts, taken, &Kernel::read(Path::new(DIR))),
        }
    }

    fn blobs(&self) -> Result<Response> {
        let rows = status::rows(self.blobs.volume())?;
        Ok(answer(&status::json_rows(&rows)))
    }

    fn blob(&self, name: &OsStr) -> Result<Response> {
        let shown = name.to_string_lossy().escape_debug().to_string();
        let rows = status::rows(self.blobs.volume())?;
        let row = rows.iter().find(|row| row.name == shown);
        Ok(row.map_or_else(
            || error(404, "it is not prepared"),
            |row| answer(&row.json()),
        ))
    }

    fn prefetching(&self) -> Response {
        let (blob, waiting) = self.queue.state();
        let blob = blob.map(|blob| blob.to_string_lossy().escape_debug().to_string());
        answer(&json!({
            "blob": blob,
            "waiting": waiting,
            "bytes": self.counts.housekeeping().prefetched,
        }))
    }

    /// Brings a blob, or the range of it that is asked for, once what waits already has come.
    fn prefetch(&self, blob: OsString, query: &str) -> Result<Response> {
        let Some(range) = range(query) else {
            return Ok(error(400, "a range is off=OFFSET&len=LENGTH, in bytes"));
        };
        if !self.blobs.volume().path(&blob)?.exists() {
            return Ok(error(404, "it is not prepared"));
        }
        let told = json!({ "queued": blob.to_string_lossy() });
        Ok(match self.queue.add(Target { blob, range }) {
            true => Response {
                status: 202,
                ..answer(&told)
            },
            false => error(503, "too much waits already"),
        })
    }

    /// Removes a blob from the cache, unless a mount uses it.
    fn evict(&self, name: &OsStr) -> Result<Response> {
        let path = self.blobs.volume().path(name)?;
        let (Some(fan), Some(file_name)) = (path.parent(), path.file_name()) else {
            return Ok(error(404, "it is not prepared"));
        };
        if !path.exists() {
            return Ok(error(404, "it is not prepared"));
        }
        let culled = working_directory::enter(fan)
            .and_then(|()| command(self.device, Command::Cull(file_name)));
        // Not in a directory that somebody may want to remove or unmount.
        rustix::process::chdir("/").context("cannot leave the cache")?;
        match culled {
            Ok(()) => {
                self.blobs.forget_culled(file_name);
                Ok(answer(&json!({ "evicted": name.to_string_lossy() })))
            }
            Err(reason) if errno_of(&reason) == Some(Errno::BUSY) => {
                Ok(error(409, "a mount uses it"))
            }
            Err(reason) if errno_of(&reason) == Some(Errno::NOENT) => {
                Ok(error(404, "it is not prepared"))
            }
            Err(reason) => Err(reason),
        }
    }
}

/// The range of a query; the inner `None` if it has none, the outer one if it makes no sense.
fn range(query: &str) -> Option<Option<Range<u64>>> {
    if query.is_empty() {
        return Some(None);
    }
    let (off, len) = query.strip_prefix("off=")?.split_once("&len=")?;
    let off: u64 = off.parse().ok()?;
    let end = off.checked_add(len.parse().ok()?)?;
    Some(Some(off..end))
}

/// A name out of a path, where "%2f" is a slash.
fn decoded(text: &str) -> Option<OsString> {
    let mut name = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((&byte, behind)) = rest.split_first() {
        rest = behind;
        if byte != b'%' {
            name.push(byte);
            continue;
        }
        let digits = std::str::from_utf8(behind.get(..2)?).ok()?;
        name.push(u8::from_str_radix(digits, 16).ok()?);
        rest = behind.get(2..)?;
    }
    (!name.is_empty()).then(|| OsString::from_vec(name))
}
