// SPDX-License-Identifier: GPL-2.0
//! What goes on beside serving: questions are answered, the service manager is told how the daemon is, and the configuration is read again when
//! somebody asks for it.

use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use demandd::api::Api;
use demandd::blobs::Blobs;
use demandd::counts::Counts;
use demandd::log;
use demandd::notify::Manager;
use rustix::event::{poll, PollFd, PollFlags, Timespec};
use rustix::io::retry_on_intr;
use rustix::time::{clock_gettime, ClockId};

use crate::reload::Reload;

/// How often the state is told at least.
const PERIOD: Duration = Duration::from_secs(10);

/// Keeps a daemon that serves.
pub(crate) struct Upkeep<'a> {
    pub(crate) manager: Option<&'a Manager>,
    /// Who answers, and where.
    pub(crate) api: Option<(&'a Api<'a>, &'a UnixListener)>,
    pub(crate) blobs: &'a Blobs,
    pub(crate) counts: &'a Counts,
    /// Can be read once the daemon has been told to end.
    pub(crate) stop: BorrowedFd<'a>,
    /// Can be read when the configuration is to be read again.
    pub(crate) hangup: &'a UnixStream,
    pub(crate) reload: &'a Reload<'a>,
}

impl Upkeep<'_> {
    /// Serves, and sees to everything else until that ends.
    pub(crate) fn during<T>(&self, serve: impl FnOnce() -> Result<T>) -> Result<T> {
        let (ended, end) = UnixStream::pair().context("cannot make a socket")?;
        let ended = ended.as_fd();
        thread::scope(|scope| {
            scope.spawn(move || {
                if let Err(error) = self.keep(ended) {
                    log!("no service manager is told anything, and nothing reloaded, any more: {error:#}");
                }
            });
            if let Some((api, socket)) = self.api {
                scope.spawn(move || api.serve(socket, ended));
            }
            let result = serve();
            drop(end);
            result
        })
    }

    fn keep(&self, ended: BorrowedFd<'_>) -> Result<()> {
        // Twice as often as has to be.
        let wish = self.manager.and_then(Manager::watchdog);
        let period = wish.map_or(PERIOD, |time| PERIOD.min(time / 2));
        self.tell("READY=1");
        let mut stopping = false;
        loop {
            self.tell(&self.state());
            match self.wait(ended, stopping, period)? {
                Woken::TimeOut => {}
                Woken::Ended => return Ok(()),
                Woken::Stopped => {
                    stopping = true;
                    self.tell("STOPPING=1");
                }
                Woken::HungUp => self.reload(),
            }
        }
    }

    fn tell(&self, lines: &str) {
        if let Some(manager) = self.manager {
            manager.tell(lines);
        }
    }

    fn reload(&self) {
        // As many as have come: once is enough for all of them.
        let _ = (&mut &*self.hangup).read(&mut [0; 64]);
        // The time tells the service manager whether this is about its wish or about one before.
        let now = clock_gettime(ClockId::Monotonic);
        let micros = i128::from(now.tv_sec) * 1_000_000 + i128::from(now.tv_nsec) / 1000;
        self.tell(&format!("RELOADING=1\nMONOTONIC_USEC={micros}"));
        match self.reload.reload() {
            Ok(changed) if changed.is_empty() => log!("reloaded; nothing has changed"),
            Ok(changed) => log!("reloaded; changed: {}", changed.join(", ")),
            Err(error) => log!("the configuration stays as it was: {error:#}"),
        }
        self.tell("READY=1");
    }

    /// That all is well: what the workers share can be had.
    fn state(&self) -> String {
        let open = self.blobs.count();
        let summary = self.counts.summary();
        format!("WATCHDOG=1\nSTATUS={summary}; {open} blobs open")
    }

    fn wait(&self, ended: BorrowedFd<'_>, stopping: bool, time: Duration) -> Result<Woken> {
        let ended = PollFd::from_borrowed_fd(ended, PollFlags::IN);
        let stop = PollFd::from_borrowed_fd(self.stop, PollFlags::IN);
        let hangup = PollFd::new(self.hangup, PollFlags::IN);
        let mut fds = [ended, hangup, stop];
        // What is known already would wake at once.
        let count = if stopping { 2 } else { 3 };
        let fds = fds.split_at_mut(count).0;
        let time = Timespec::try_from(time)?;
        retry_on_intr(|| poll(fds, Some(&time))).context("cannot wait")?;
        let woken = |at: usize| fds.get(at).is_some_and(|fd| !fd.revents().is_empty());
        Ok(match (woken(0), woken(1), woken(2)) {
            // Before the end, which may have come meanwhile, too.
            (.., true) => Woken::Stopped,
            (true, ..) => Woken::Ended,
            (_, true, _) => Woken::HungUp,
            _ => Woken::TimeOut,
        })
    }
}

enum Woken {
    TimeOut,
    HungUp,
    Stopped,
    Ended,
}
