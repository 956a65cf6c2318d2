// SPDX-License-Identifier: GPL-2.0
//! What goes on beside serving: the service manager is told how the daemon is.

use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use demandd::blobs::Blobs;
use demandd::counts::Counts;
use demandd::log;
use demandd::notify::Manager;
use rustix::event::{poll, PollFd, PollFlags, Timespec};
use rustix::io::retry_on_intr;

/// How often the state is told at least.
const PERIOD: Duration = Duration::from_secs(10);

/// Keeps a daemon that serves.
pub(crate) struct Upkeep<'a> {
    pub(crate) manager: Option<&'a Manager>,
    pub(crate) blobs: &'a Blobs,
    pub(crate) counts: &'a Counts,
    /// Can be read once the daemon has been told to end.
    pub(crate) stop: BorrowedFd<'a>,
}

impl Upkeep<'_> {
    /// Serves, and sees to everything else until that ends.
    pub(crate) fn during<T>(&self, serve: impl FnOnce() -> Result<T>) -> Result<T> {
        let Some(manager) = self.manager else {
            return serve();
        };
        let (ended, end) = UnixStream::pair().context("cannot make a socket")?;
        thread::scope(|scope| {
            scope.spawn(move || {
                if let Err(error) = self.keep(manager, ended.as_fd()) {
                    log!("the service manager is told nothing any more: {error:#}");
                }
            });
            let result = serve();
            drop(end);
            result
        })
    }

    fn keep(&self, manager: &Manager, ended: BorrowedFd<'_>) -> Result<()> {
        // Twice as often as has to be.
        let period = manager
            .watchdog()
            .map_or(PERIOD, |time| PERIOD.min(time / 2));
        manager.tell("READY=1");
        let mut stopping = false;
        loop {
            manager.tell(&self.state());
            match self.wait(ended, stopping, period)? {
                Woken::TimeOut => {}
                Woken::Ended => return Ok(()),
                Woken::Stopped => {
                    stopping = true;
                    manager.tell("STOPPING=1");
                }
            }
        }
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
        let mut fds = [ended, stop];
        // What is known already would wake at once.
        let count = if stopping { 1 } else { 2 };
        let fds = fds.split_at_mut(count).0;
        let time = Timespec::try_from(time)?;
        retry_on_intr(|| poll(fds, Some(&time))).context("cannot wait")?;
        let woken = |at: usize| fds.get(at).is_some_and(|fd| !fd.revents().is_empty());
        Ok(match (woken(0), woken(1)) {
            (true, _) => Woken::Ended,
            (_, true) => Woken::Stopped,
            _ => Woken::TimeOut,
        })
    }
}

enum Woken {
    TimeOut,
    Stopped,
    Ended,
}
