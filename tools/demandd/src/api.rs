// SPDX-License-Identifier: GPL-2.0
//! What a daemon answers on its socket.

use std::ffi::{OsStr, OsString};
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
use crate::{log, metrics, status, working_directory};

/// Reads the configuration again; returns what has changed.
pub type Reload<'a> = &'a (dyn Fn() -> Result<Vec<String>> + Sync);

/// A daemon, as its socket shows it.
pub struct Api<'a> {
    /// Where requests are counted.
    pub counts: &'a Counts,
    /// The blobs that it fills.
    pub blobs: &'a Blobs,
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

    fn respond(&self, method: &str, path: &str) -> Response {
        let result = match (method, path) {
            ("GET", "/v1/health") => Ok(self.health()),
            ("GET", "/v1/blobs") => self.blobs(),
            ("GET", "/metrics") => Ok(Response {
                status: 200,
                kind: "text/plain; version=0.0.4",
                body: metrics::text(self.counts, &Kernel::read(Path::new(DIR))),
            }),
            ("POST", "/v1/reload") => {
                (self.reload)().map(|changed| answer(&json!({ "changed": changed })))
            }
            (method, path) => match (method, path.strip_prefix("/v1/blobs/").and_then(decoded)) {
                ("GET", Some(name)) => self.blob(&name),
                ("DELETE", Some(name)) => self.evict(&name),
                (_, Some(_)) => Ok(error(405, "GET or DELETE")),
                (_, None) => Ok(error(404, "there is nothing of that name")),
            },
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
