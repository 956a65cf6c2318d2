// SPDX-License-Identifier: GPL-2.0
//! The gate that everything has to pass that nobody waits for: it is open while no reader waits, and lets through no more
//! bytes per second than it was told.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::source::mirror::Mirrors;

/// How long whoever waits for readers looks away, at most: it may be time to end.
const LOOK: Duration = Duration::from_millis(200);

/// A gate.
#[derive(Debug)]
pub struct Gate {
    /// In bytes per second.
    rate: Option<u64>,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// How many readers wait.
    readers: usize,
    /// How many wait for those. To wake nobody would be a system call for each miss.
    waiting: usize,
    /// When all that has passed has been paid for.
    paid: Option<Instant>,
}

/// A reader waits as long as this lives.
#[derive(Debug)]
#[must_use]
pub struct Reader<'a>(&'a Gate);

impl Gate {
    /// Makes a gate that lets through so many bytes per second, or as many as come.
    pub fn new(rate: Option<u64>) -> Self {
        Self {
            rate,
            state: Mutex::default(),
            changed: Condvar::new(),
        }
    }

    /// A reader begins to wait.
    pub fn reader(&self) -> Reader<'_> {
        self.lock().readers += 1;
        Reader(self)
    }

    /// Waits until so many bytes may pass. Fails if it is time to end.
    pub fn pass(&self, bytes: u64, mirrors: &Mirrors) -> Result<()> {
        mirrors.check_time()?;
        mirrors.sleep_while_quiet()?;
        mirrors.sleep_until(self.pay(bytes))?;
        loop {
            let mut state = self.lock();
            state.waiting += 1;
            let wait = self
                .changed
                .wait_timeout_while(state, LOOK, |state| state.readers > 0);
            let (mut state, _) = wait.unwrap_or_else(PoisonError::into_inner);
            state.waiting = state.waiting.saturating_sub(1);
            if state.readers == 0 {
                return Ok(());
            }
            drop(state);
            mirrors.check_time()?;
        }
    }

    /// Takes part of what may pass. Tells from when on it may.
    fn pay(&self, bytes: u64) -> Option<Instant> {
        let rate = self.rate?;
        let time = Duration::from_secs_f64(bytes as f64 / rate.max(1) as f64);
        let now = Instant::now();
        let mut state = self.lock();
        // What was not used before is lost: there are no bursts but the bytes of one call.
        let from = state.paid.map_or(now, |paid| paid.max(now));
        state.paid = Some(from + time);
        Some(from)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Reader<'_> {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.readers = state.readers.saturating_sub(1);
        if state.readers == 0 && state.waiting > 0 {
            self.0.changed.notify_all();
        }
    }
}
