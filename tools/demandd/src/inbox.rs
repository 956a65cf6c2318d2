// SPDX-License-Identifier: GPL-2.0
//! Where workers get requests from: each waits for the device itself, and the kernel wakes one of them for each that
//! comes. So no request is handed from one thread to another while its reader waits.

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::{bail, Context, Error, Result};
use rustix::buffer::spare_capacity;
use rustix::event::{epoll, eventfd, EventfdFlags, Timespec};
use rustix::io::{retry_on_intr, write};

use crate::abi::Request;
use crate::blobs::Blobs;
use crate::device::{Device, Requests, BATCH};

/// What an event is about.
const DEVICE: u64 = 0;
const BELL: u64 = 1;
const END: u64 = 2;

/// The requests of a bound device.
pub struct Inbox<'a> {
    device: &'a dyn Device,
    blobs: &'a Blobs,
    epoll: OwnedFd,
    /// Rung when there is something to take that no event of the device tells of.
    bell: OwnedFd,
    /// Readable for ever once something has failed.
    failed: OwnedFd,
    read: Mutex<Read>,
}

/// What was read from the device, and not taken by a worker yet.
#[derive(Default)]
struct Read {
    requests: Requests,
    taken: VecDeque<Request>,
    /// The last read was full: there may be more.
    more: bool,
    /// No more requests are read.
    ended: bool,
    /// Why, if it is not because it was time. For the worker that finds nothing left to take.
    failure: Option<Error>,
}

impl<'a> Inbox<'a> {
    /// No more requests are read once `stop` can be read.
    pub fn new(device: &'a dyn Device, blobs: &'a Blobs, stop: BorrowedFd<'_>) -> Result<Self> {
        let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
        let inbox = Self {
            device,
            blobs,
            epoll: epoll::create(epoll::CreateFlags::CLOEXEC)?,
            bell: eventfd(0, flags)?,
            failed: eventfd(0, flags)?,
            read: Mutex::default(),
        };
        // Edge-triggered: what wakes one worker does not wake the next one. An end is told to all of them.
        let level = epoll::EventFlags::IN;
        let edge = level | epoll::EventFlags::ET;
        for (fd, data, flags) in [
            (device.fd(), DEVICE, edge),
            (inbox.bell.as_fd(), BELL, edge),
            (inbox.failed.as_fd(), END, level),
            (stop, END, level),
        ] {
            epoll::add(&inbox.epoll, fd, epoll::EventData::new_u64(data), flags)?;
        }
        Ok(inbox)
    }

    /// The next request, or none when it is time to end. If that is because of a failure, one worker gets the reason.
    pub fn next(&self) -> Result<Option<Request>> {
        loop {
            if let Some(next) = self.take()? {
                return Ok(next);
            }
            if let Err(error) = self.wait() {
                self.fail(&mut self.lock(), error)?;
            }
        }
    }

    /// Whatever fails, the others need not try again.
    fn fail(&self, read: &mut Read, error: Error) -> Result<()> {
        read.ended = true;
        read.failure = Some(error);
        ring(&self.failed)
    }

    /// What is at hand: a request, or that it is time to end. None if there is something to wait for.
    fn take(&self) -> Result<Option<Option<Request>>> {
        let mut read = self.lock();
        if read.taken.is_empty() && read.more && !read.ended {
            if let Err(error) = self.receive(&mut read) {
                self.fail(&mut read, error)?;
            }
        }
        let request = read.taken.pop_front();
        if !read.taken.is_empty() {
            ring(&self.bell)?;
        }
        match request {
            Some(request) => Ok(Some(Some(request))),
            None if read.ended => read.failure.take().map_or(Ok(Some(None)), Err),
            None => Ok(None),
        }
    }

    /// One read of the device.
    fn receive(&self, read: &mut Read) -> Result<()> {
        let before = read.taken.len();
        read.requests.read(self.device, &mut read.taken)?;
        read.more = read.taken.len().saturating_sub(before) >= BATCH;
        Ok(())
    }

    /// Waits until there is something to do.
    fn wait(&self) -> Result<()> {
        // Even when nothing is open: another worker may be about to open a blob.
        let timeout = Timespec::try_from(self.blobs.close_idle())?;
        let mut events = Vec::with_capacity(4);
        retry_on_intr(|| epoll::wait(&self.epoll, spare_capacity(&mut events), Some(&timeout)))
            .context("cannot wait for requests")?;
        for event in events {
            match event.data.u64() {
                DEVICE => self.device_event(event.flags)?,
                END => self.lock().ended = true,
                _ => {}
            }
        }
        Ok(())
    }

    fn device_event(&self, flags: epoll::EventFlags) -> Result<()> {
        let mut read = self.lock();
        if flags.contains(epoll::EventFlags::IN) {
            self.receive(&mut read)?;
        }
        let gone = epoll::EventFlags::HUP | epoll::EventFlags::ERR;
        if read.taken.is_empty() && flags.intersects(gone) {
            bail!("the device is gone");
        }
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Read> {
        self.read.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn ring(bell: &OwnedFd) -> Result<()> {
    retry_on_intr(|| write(bell, &1u64.to_ne_bytes())).context("cannot wake the other workers")?;
    Ok(())
}
