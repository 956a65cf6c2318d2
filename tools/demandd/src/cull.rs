// SPDX-License-Identifier: GPL-2.0
//! Culling: removing whole blobs from the cache when the kernel says that its disk is getting full, or when the blobs
//! take more of it than they may.
//!
//! The device can be written (`POLLOUT`) from when free space falls below the kernel's limit `cull` until it is above
//! `run`. For as long the blobs go, the one that was not used for longest first. The time of a blob's use is that of
//! its last request, or of a culling that found it mounted; of blobs that this daemon has not met it is that of the
//! last change of the cache file. Blobs that a mount uses are refused by the kernel, and blobs of which nothing is
//! present are left alone: they take no space, and somebody may be about to mount them.
//!
//! How much the blobs take is looked at from time to time, since other processes may fill the cache as well.
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
use crate::counts::Counts;
use crate::device::{command, errno_of, Device};
use crate::{log, working_directory};

/// The pause after a blob. Some file systems free space in the background, and what goes for nothing is fetched again.
const SETTLE: Duration = Duration::from_millis(50);

/// How often it is looked at what the blobs take, as long as that becomes more.
const LOOK: Duration = Duration::from_secs(1);

/// When to cull.
#[derive(Clone, Copy, Debug)]
pub struct When {
    /// Whenever the kernel says that the disk gets full.
    pub disk: bool,
    /// When the blobs take more of the disk than this, in bytes.
    pub size: Option<u64>,
    /// How long to wait before looking again when nothing is left to cull, or the blobs take no more than before.
    pub patience: Duration,
}

impl When {
    /// Whether the kernel says now that the disk gets full.
    pub fn is_full(&self, device: &dyn Device) -> bool {
        let mut fds = [PollFd::from_borrowed_fd(device.fd(), PollFlags::OUT)];
        let woken = self.disk && poll_for(&mut fds, Some(Duration::ZERO)).is_ok();
        woken && fds.iter().any(|fd| fd.revents().contains(PollFlags::OUT))
    }
}

/// Culls until `ended` can be read. Before anything goes, `full` is called: it is no time to bring what nobody reads.
pub fn cull(
    device: &dyn Device,
    blobs: &Blobs,
    counts: &Counts,
    when: &When,
    full: &dyn Fn(),
    ended: BorrowedFd<'_>,
) {
    let culler = Culler {
        device,
        blobs,
        counts,
        when,
        full,
        ended,
    };
    if let Err(error) = culler.run() {
        log!("no more blobs are culled: {error:#}");
    }
}

struct Culler<'a> {
    device: &'a dyn Device,
    blobs: &'a Blobs,
    counts: &'a Counts,
    when: &'a When,
    full: &'a dyn Fn(),
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

/// What candidates take of the disk.
pub fn taken(candidates: &[Candidate]) -> u64 {
    let bytes = candidates.iter().map(|candidate| candidate.bytes);
    bytes.fold(0, u64::saturating_add)
}

/// Why waiting came to an end.
#[derive(PartialEq, Eq)]
enum Woken {
    Wanted,
    TimeOut,
    Ended,
}

/// Why blobs have to go.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Reason {
    Disk,
    Size,
}

/// What a round has come to.
struct Round {
    /// How many blobs went.
    culled: usize,
    /// What the others take, in bytes.
    taken: u64,
    /// Why more would have to go.
    left: Option<Reason>,
}

impl Culler<'_> {
    fn run(&self) -> Result<()> {
        working_directory::own().context("cannot have a working directory of its own")?;
        let mut told = None;
        let mut before = 0;
        let mut look = LOOK;
        while self.wait(self.when.size.map(|_| look))? != Woken::Ended {
            let round = self.round();
            // Not in a directory that somebody may want to remove or unmount.
            rustix::process::chdir("/").map_err(io::Error::from)?;
            let Round {
                culled,
                taken,
                left,
            } = round?;
            let grows = taken > before;
            look = if grows { LOOK } else { self.when.patience };
            before = taken;
            // After a round that culled something the next one may find more.
            let Some(reason) = left.filter(|_| culled == 0) else {
                told = None;
                continue;
            };
            if told != left {
                let why = match reason {
                    Reason::Disk => "the disk of the cache is nearly full",
                    Reason::Size => "the blobs take more of the disk than they may",
                };
                log!("{why}, and nothing is left to cull: what is present is in use");
                told = left;
            }
            // The kernel would go on saying that it wants more.
            if reason == Reason::Disk && self.pause(self.when.patience)? == Woken::Ended {
                break;
            }
        }
        Ok(())
    }

    /// Culls until enough has gone or nothing is left.
    fn round(&self) -> Result<Round> {
        let last_used = |file_name: &OsStr| self.blobs.last_used(file_name);
        let candidates = candidates(self.blobs.volume(), last_used)?;
        let mut round = Round {
            culled: 0,
            taken: taken(&candidates),
            left: None,
        };
        round.left = self.reason(round.taken)?;
        if round.left.is_some() {
            (self.full)();
        }
        for candidate in candidates {
            if round.left.is_none() {
                break;
            }
            if self.try_cull(&candidate)? {
                round.culled += 1;
                round.taken = round.taken.saturating_sub(candidate.bytes);
                if self.pause(SETTLE)? == Woken::Ended {
                    break;
                }
            }
            round.left = self.reason(round.taken)?;
        }
        Ok(round)
    }

    /// Why blobs have to go, when they take so many bytes.
    fn reason(&self, taken: u64) -> Result<Option<Reason>> {
        Ok(if self.wait(Some(Duration::ZERO))? == Woken::Wanted {
            Some(Reason::Disk)
        } else {
            let size = self.when.size;
            size.is_some_and(|size| taken > size)
                .then_some(Reason::Size)
        })
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
            self.counts.culled(*bytes);
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

    /// Waits until the kernel wants culling, or it is time to end.
    fn wait(&self, timeout: Option<Duration>) -> Result<Woken> {
        let wanted = match self.when.disk {
            true => PollFlags::OUT,
            false => PollFlags::empty(),
        };
        let device = PollFd::from_borrowed_fd(self.device.fd(), wanted);
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
