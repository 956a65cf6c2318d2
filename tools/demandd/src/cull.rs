// SPDX-License-Identifier: GPL-2.0
//! Culling: removing whole blobs from the cache when the kernel says that its disk is getting full.
//!
//! The device can be written (`POLLOUT`) from when free space falls below the kernel's limit `cull` until it is above
//! `run`. For as long the blobs go, the one that was not used for longest first. The time of a blob's use is that of
//! its last request, or of a culling that found it mounted; of blobs that this daemon has not met it is that of the
//! last change of the cache file. Blobs that a mount uses are refused by the kernel, and blobs of which nothing is
//! present are left alone: they take no space, and somebody may be about to mount them.
//!
//! The kernel takes a name in the working directory of the thread that gives the command, so this takes a thread of its
//! own, whose working directory is its own, too.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::BorrowedFd;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};
use rustix::event::{poll, PollFd, PollFlags, Timespec};
use rustix::io::{retry_on_intr, Errno};

use crate::abi::Command;
use crate::blobs::Blobs;
use crate::cache::Volume;
use crate::device::{command, errno_of, Device};
use crate::{log, working_directory};

/// The pause after a blob. Some file systems free space in the background, and what goes for nothing is fetched again.
const SETTLE: Duration = Duration::from_millis(50);

/// Culls whenever the kernel wants it, until `ended` can be read. When nothing is left to cull it waits for `patience`
/// before it looks again.
pub fn cull(device: &dyn Device, blobs: &Blobs, ended: BorrowedFd<'_>, patience: Duration) {
    let culler = Culler {
        device,
        blobs,
        ended,
    };
    if let Err(error) = culler.run(patience) {
        log!("no more blobs are culled: {error:#}");
    }
}

struct Culler<'a> {
    device: &'a dyn Device,
    blobs: &'a Blobs,
    ended: BorrowedFd<'a>,
}

/// What may be culled.
#[derive(Debug)]
pub struct Candidate {
    /// When it was last used.
    pub used: SystemTime,
    /// The directory that has its file.
    pub fan: PathBuf,
    /// The name of its file.
    pub file_name: OsString,
    /// What it takes of the disk.
    pub bytes: u64,
}

/// Every blob of which something is present, the one that was not used for longest first. For one whose last use is not
/// known that is the last change of its file.
pub fn candidates(
    volume: &Volume,
    last_used: impl Fn(&OsStr) -> Option<SystemTime>,
) -> Result<Vec<Candidate>> {
    let mut candidates = Vec::new();
    for entry in volume.list()? {
        // A file that goes meanwhile is none.
        let Ok(meta) = entry.path.symlink_metadata() else {
            continue;
        };
        let (Some(fan), Some(file_name)) = (entry.path.parent(), entry.path.file_name()) else {
            continue;
        };
        let bytes = meta.blocks().saturating_mul(512);
        if bytes == 0 {
            continue;
        }
        let changed = meta.modified()?;
        candidates.push(Candidate {
            used: last_used(file_name).unwrap_or(changed),
            fan: fan.to_owned(),
            file_name: file_name.to_owned(),
            bytes,
        });
    }
    candidates.sort_by(|a, b| a.used.cmp(&b.used).then(a.file_name.cmp(&b.file_name)));
    Ok(candidates)
}

/// Why waiting came to an end.
#[derive(PartialEq, Eq)]
enum Woken {
    Wanted,
    TimeOut,
    Ended,
}

impl Culler<'_> {
    fn run(&self, patience: Duration) -> Result<()> {
        working_directory::own().context("cannot have a working directory of its own")?;
        let mut told = false;
        while self.wait(None)? == Woken::Wanted {
            let culled = self.round();
            // Not in a directory that somebody may want to remove or unmount.
            rustix::process::chdir("/").map_err(io::Error::from)?;
            // After a round that culled something the next one may find more.
            if culled? > 0 {
                told = false;
                continue;
            }
            if self.wait(Some(Duration::ZERO))? != Woken::Wanted {
                continue;
            }
            if !told {
                log!("the disk of the cache is nearly full, and nothing is left to cull: what is present is in use");
                told = true;
            }
            if self.pause(patience)? == Woken::Ended {
                break;
            }
        }
        Ok(())
    }

    /// Culls until the kernel is content or nothing is left. Returns how many blobs went.
    fn round(&self) -> Result<usize> {
        let mut culled = 0;
        let last_used = |file_name: &OsStr| self.blobs.last_used(file_name);
        for candidate in candidates(self.blobs.volume(), last_used)? {
            if self.wait(Some(Duration::ZERO))? != Woken::Wanted {
                break;
            }
            if self.try_cull(&candidate)? {
                culled += 1;
                if self.pause(SETTLE)? == Woken::Ended {
                    break;
                }
            }
        }
        Ok(culled)
    }

    /// Culls one blob, unless it is in use. Fails only if the next one would fail as well.
    fn try_cull(&self, candidate: &Candidate) -> Result<bool> {
        let Candidate {
            fan,
            file_name,
            bytes,
            ..
        } = candidate;
        let result = working_directory::enter(fan)
            .and_then(|()| command(self.device, Command::Cull(file_name)));
        let Err(error) = result else {
            self.blobs.forget_culled(file_name);
            log!("culled {}: {bytes} bytes", printable(file_name));
            return Ok(true);
        };
        match errno_of(&error) {
            Some(Errno::BUSY) => self.blobs.mark_used(file_name),
            // Somebody else removed it.
            Some(Errno::NOENT) => self.blobs.forget_culled(file_name),
            Some(Errno::OPNOTSUPP) => {
                return Err(error.context("the kernel module cannot cull: it is older than demandd"))
            }
            _ => log!("cannot cull {}: {error:#}", printable(file_name)),
        }
        Ok(false)
    }

    /// Waits until culling is wanted, or it is time to end.
    fn wait(&self, timeout: Option<Duration>) -> Result<Woken> {
        let device = PollFd::from_borrowed_fd(self.device.fd(), PollFlags::OUT);
        let ended = PollFd::from_borrowed_fd(self.ended, PollFlags::IN);
        let mut fds = [device, ended];
        poll_for(&mut fds, timeout)?;
        let [device, ended] = fds.map(|fd| fd.revents());
        // That the device is gone is for those to tell who wait for requests.
        let gone = device.intersects(PollFlags::HUP | PollFlags::ERR | PollFlags::NVAL);
        Ok(if gone || !ended.is_empty() {
            Woken::Ended
        } else if device.contains(PollFlags::OUT) {
            Woken::Wanted
        } else {
            Woken::TimeOut
        })
    }

    /// Does nothing for a while.
    fn pause(&self, time: Duration) -> Result<Woken> {
        let mut fds = [PollFd::from_borrowed_fd(self.ended, PollFlags::IN)];
        Ok(match poll_for(&mut fds, Some(time))? {
            0 => Woken::TimeOut,
            _ => Woken::Ended,
        })
    }
}

fn poll_for(fds: &mut [PollFd<'_>], timeout: Option<Duration>) -> Result<usize> {
    let timeout = timeout.map(Timespec::try_from).transpose()?;
    retry_on_intr(|| poll(fds, timeout.as_ref())).context("cannot wait for the device")
}

/// The name of a blob for a line of text.
pub fn printable(file_name: &OsStr) -> String {
    let name = crate::cache::blob_name(file_name).unwrap_or(file_name);
    name.to_string_lossy().escape_debug().to_string()
}
