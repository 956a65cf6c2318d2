// SPDX-License-Identifier: GPL-2.0
//! Single flight: whoever wants a chunk that somebody else is fetching waits for it.
//!
//! It is also known which chunks have landed since the blob was opened. A request for one of those was made before it
//! landed, as a rule; or the file system has lost it since. So whoever wants such a chunk looks before fetching it again.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use anyhow::{bail, Result};

/// Which chunks of a blob are being fetched.
#[derive(Debug, Default)]
pub struct Flights {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// Runs of chunks, by their end: where each has got to. They do not overlap.
    flying: BTreeMap<u64, u64>,
    /// A bit for each chunk that has landed.
    landed: Vec<u64>,
    /// How many wait for somebody else's chunk. To wake nobody would be a system call for each chunk.
    waiting: usize,
}

/// What to do about some chunks.
#[derive(Debug)]
pub enum Next<'a> {
    /// Fetch them: nobody else does.
    Fly(Flight<'a>),
    /// They have landed.
    Landed(Range<u64>),
}

/// Chunks that the owner of this fetches.
#[derive(Debug)]
pub struct Flight<'a> {
    flights: &'a Flights,
    chunks: Range<u64>,
}

impl Flights {
    /// What to do about the first of some chunks, and those behind it of which the same holds. Waits while somebody else
    /// fetches the first one, but not for ever.
    pub fn next(&self, chunks: Range<u64>, deadline: Instant) -> Result<Next<'_>> {
        let mut state = self.lock();
        while state.is_flying(chunks.start) {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                bail!("it did not come in time");
            }
            state.waiting += 1;
            state = self
                .changed
                .wait_timeout(state, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
            state.waiting = state.waiting.saturating_sub(1);
        }
        let landed = state.has_landed(chunks.start);
        let end = chunks
            .clone()
            .find(|&chunk| state.is_flying(chunk) || state.has_landed(chunk) != landed);
        let chunks = chunks.start..end.unwrap_or(chunks.end);
        if landed {
            return Ok(Next::Landed(chunks));
        }
        state.flying.insert(chunks.end, chunks.start);
        Ok(Next::Fly(Flight {
            flights: self,
            chunks,
        }))
    }

    /// Notes that chunks which had landed are not there any more.
    pub fn lost(&self, chunks: Range<u64>) {
        let mut state = self.lock();
        for chunk in chunks {
            if let Some((word, bit)) = state.bit(chunk) {
                *word &= !bit;
            }
        }
    }

    fn wake(&self, state: &State) {
        if state.waiting > 0 {
            self.changed.notify_all();
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn is_flying(&self, chunk: u64) -> bool {
        let mut behind = self.flying.range(chunk.saturating_add(1)..);
        behind.next().is_some_and(|(_, &start)| start <= chunk)
    }

    fn has_landed(&self, chunk: u64) -> bool {
        let word = usize::try_from(chunk / 64).ok();
        let word = word.and_then(|at| self.landed.get(at));
        word.is_some_and(|word| word & (1 << (chunk % 64)) != 0)
    }

    /// Where the bit of a chunk is.
    fn bit(&mut self, chunk: u64) -> Option<(&mut u64, u64)> {
        let at = usize::try_from(chunk / 64).ok()?;
        Some((self.landed.get_mut(at)?, 1 << (chunk % 64)))
    }
}

impl Flight<'_> {
    /// The chunks that have not landed yet.
    pub fn chunks(&self) -> Range<u64> {
        self.chunks.clone()
    }

    /// The first chunk has landed.
    pub fn land(&mut self) {
        let chunk = self.chunks.start;
        self.chunks.start = chunk.saturating_add(1);
        let mut state = self.flights.lock();
        state.flying.insert(self.chunks.end, self.chunks.start);
        let words = usize::try_from(chunk / 64).map_or(0, |at| at.saturating_add(1));
        if state.landed.len() < words {
            state.landed.resize(words, 0);
        }
        if let Some((word, bit)) = state.bit(chunk) {
            *word |= bit;
        }
        self.flights.wake(&state);
    }
}

/// Whoever waits for what has not landed has to fetch it.
impl Drop for Flight<'_> {
    fn drop(&mut self) {
        let mut state = self.flights.lock();
        state.flying.remove(&self.chunks.end);
        self.flights.wake(&state);
    }
}
