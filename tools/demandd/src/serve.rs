// SPDX-License-Identifier: GPL-2.0
//! Serving: workers take requests from the inbox, fetch what is asked for, and answer.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{anyhow, Context, Result};
use rustix::event::{poll, PollFd, PollFlags};
use rustix::io::{retry_on_intr, Errno};

use crate::abi::{Command, Request};
use crate::blobs::Blobs;
use crate::copy::Buffer;
use crate::counts::{Counts, Summary};
use crate::cull::{cull, When};
use crate::device::{command, errno_of, Device};
use crate::fetch::Urgency;
use crate::gate::Gate;
use crate::inbox::Inbox;
use crate::log;
use crate::prefetch::{Prefetch, Queue, Target};
use crate::source::mirror::Stopped;

/// How long to wait before an answer is tried once more.
const RETRY: Duration = Duration::from_millis(20);

/// How to serve.
#[derive(Debug)]
pub struct Options {
    /// How many requests are fetched at a time.
    pub workers: usize,
    /// How long every request waits first: a slow network, for demonstrations.
    pub delay: Duration,
    /// Gets one line per request.
    pub trace: Option<File>,
    /// When blobs are removed from the cache, if ever.
    pub cull: Option<When>,
    /// Where to count what is served.
    pub counts: Arc<Counts>,
    /// What to prefetch.
    pub prefetch: Plan,
}

/// What a daemon prefetches.
#[derive(Debug, Default)]
pub struct Plan {
    /// In this order; others may be added while the daemon serves.
    pub queue: Arc<Queue>,
    /// How many pieces at a time.
    pub workers: usize,
    /// How many bytes per second, at most.
    pub rate: Option<u64>,
}

struct Server<'a> {
    device: &'a dyn Device,
    blobs: &'a Blobs,
    delay: Duration,
    trace: Option<Mutex<File>>,
    counts: &'a Counts,
    gate: Gate,
}

/// Serves a bound device until `stop` can be read. Every request that was read is answered before this returns, but for
/// those that wait for a source that is down: the next daemon gets them.
pub fn serve(
    device: &dyn Device,
    blobs: &Blobs,
    options: Options,
    stop: BorrowedFd<'_>,
) -> Result<Summary> {
    let server = Server {
        device,
        blobs,
        delay: options.delay,
        trace: options.trace.map(Mutex::new),
        counts: &options.counts,
        gate: Gate::new(options.prefetch.rate),
    };
    let Plan { queue, workers, .. } = options.prefetch;
    let prefetch = Prefetch {
        blobs,
        gate: &server.gate,
        // Nobody waits for it, so it can wait.
        patience: None,
        counts: &options.counts,
        report: &tell_prefetched,
        queue: &queue,
    };
    let full = || match queue.clear() {
        0 => {}
        _ => log!("the disk of the cache gets full: nothing more is prefetched"),
    };
    if options.cull.is_some_and(|when| when.is_full(device)) {
        full();
    }
    let inbox = Inbox::new(device, blobs, stop).context("cannot wait for requests")?;
    let (ended, end) = UnixStream::pair().context("cannot make a socket")?;
    thread::scope(|scope| {
        let ended = ended.as_fd();
        let counts = &options.counts;
        if let Some(when) = &options.cull {
            let full = &full;
            scope.spawn(move || cull(device, blobs, counts, when, full, ended));
        }
        // Whoever waits for a source that is down does so until it is time to end.
        let queue = &queue;
        scope.spawn(move || {
            let _ = wait_for_either(stop, ended);
            blobs.mirrors().stop();
            queue.clear();
            queue.close();
        });
        scope.spawn(|| blobs.mirrors().watch());
        let prefetch = &prefetch;
        for worker in std::iter::repeat_n(prefetch, workers) {
            // What went wrong with a target was reported, and the end is no error.
            scope.spawn(move || worker.work());
        }
        let workers: Vec<_> = (0..options.workers.max(1))
            .map(|_| scope.spawn(|| server.work(&inbox)))
            .collect();
        let result = workers.into_iter().try_for_each(|worker| {
            worker
                .join()
                .unwrap_or_else(|_| Err(anyhow!("a worker panicked")))
        });
        drop(end);
        result
    })?;
    Ok(options.counts.summary())
}

impl Server<'_> {
    fn work(&self, inbox: &Inbox<'_>) -> Result<()> {
        let mut buffer = Buffer::default();
        while let Some(request) = inbox.next()? {
            self.answer(&request, &mut buffer);
        }
        Ok(())
    }

    fn answer(&self, request: &Request, buffer: &mut Buffer) {
        self.counts.begin();
        let start = Instant::now();
        thread::sleep(self.delay);
        let reader = self.gate.reader();
        let result = self.fetch(request, buffer);
        drop(reader);
        self.counts.end(start.elapsed());
        let answer = match &result {
            Ok(()) => Command::Done(request.id),
            Err(error) if error.is::<Stopped>() => {
                log!(
                    "request {} of {} is left to the next daemon",
                    request.id,
                    name(request)
                );
                return;
            }
            Err(error) => {
                let errno = reader_errno(error);
                log!(
                    "request {} of {}, {}+{}, failed: {error:#}",
                    request.id,
                    name(request),
                    request.off,
                    request.len
                );
                Command::Fail(request.id, errno.raw_os_error())
            }
        };
        // Before the answer: whoever has seen a read end can count on its line.
        self.record(request, answer);
        if result.is_ok() {
            self.counts.served(request.len);
        } else {
            self.counts.failed();
        }
        match give(self.device, answer) {
            Ok(()) => {}
            Err(error) if errno_of(&error) == Some(Errno::INVAL) => log!(
                "request {}: its reader did not wait for the answer",
                request.id
            ),
            Err(error) => log!("cannot answer request {}: {error:#}", request.id),
        }
    }

    fn fetch(&self, request: &Request, buffer: &mut Buffer) -> Result<()> {
        let file_name = request.file_name()?;
        let blob = self.blobs.get(file_name)?;
        request.check_range(blob.size())?;
        blob.fetch(request.off, request.len, Urgency::Demand, buffer)
            .inspect_err(|_| self.blobs.forget(file_name))
    }

    fn record(&self, request: &Request, answer: Command<'_>) {
        let Some(trace) = &self.trace else { return };
        let result = match answer {
            Command::Fail(_, errno) => format!("fail {errno}"),
            _ => "done".to_owned(),
        };
        let Request { id, off, len, .. } = request;
        let line = format!("{id}\t{}\t{off}\t{len}\t{result}\n", name(request));
        // One write per line, so that lines of several workers, or daemons, do not mix.
        let mut file = trace.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(error) = file.write_all(line.as_bytes()) {
            log!("cannot write the trace: {error}");
        }
    }
}

/// Tells what has become of a target that was to be prefetched.
fn tell_prefetched(target: &Target, result: Result<u64>) {
    match result {
        Ok(0) => {}
        Ok(bytes) => log!(
            "prefetched {}: {bytes} bytes",
            target.blob.to_string_lossy().escape_debug()
        ),
        Err(error) => log!("{error:#}"),
    }
}

/// Waits until one of two descriptors can be read.
fn wait_for_either(a: BorrowedFd<'_>, b: BorrowedFd<'_>) -> io::Result<()> {
    let mut fds = [a, b].map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN));
    retry_on_intr(|| poll(&mut fds, None))?;
    Ok(())
}

/// Gives an answer. What passes, passes: without the answer the reader would wait for ever.
fn give(device: &dyn Device, answer: Command<'_>) -> Result<()> {
    let mut told = false;
    loop {
        match command(device, answer) {
            Err(error) if matches!(errno_of(&error), Some(Errno::AGAIN | Errno::NOMEM)) => {
                if !told {
                    log!("cannot say `{answer}` yet: {error:#}");
                    told = true;
                }
                thread::sleep(RETRY);
            }
            result => return result,
        }
    }
}

/// The blob's name for a log line or a trace: printable, whatever the request holds.
fn name(request: &Request) -> String {
    match request.file_name() {
        Ok(name) => crate::cache::blob_name(name)
            .unwrap_or(name)
            .to_string_lossy()
            .escape_debug()
            .to_string(),
        Err(_) => "?".to_owned(),
    }
}

/// What the reader is told. That the cache's disk is full is something that its user can mend; everything else is the
/// daemon's own trouble (a source that is missing must not look like a file that is missing), and is told as EIO.
fn reader_errno(error: &anyhow::Error) -> Errno {
    match errno_of(error) {
        Some(Errno::NOSPC | Errno::DQUOT) => Errno::NOSPC,
        _ => Errno::IO,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_full_disk_is_told_to_the_reader() {
        let told = |errno: Errno| {
            let error = anyhow::Error::from(io::Error::from(errno))
                .context("cannot write")
                .context("x");
            reader_errno(&error)
        };
        assert_eq!(told(Errno::NOSPC), Errno::NOSPC);
        assert_eq!(told(Errno::DQUOT), Errno::NOSPC);
        for errno in [Errno::NOENT, Errno::ACCESS, Errno::IO, Errno::STALE] {
            assert_eq!(told(errno), Errno::IO);
        }
        assert_eq!(reader_errno(&anyhow::anyhow!("no errno at all")), Errno::IO);
    }
}
