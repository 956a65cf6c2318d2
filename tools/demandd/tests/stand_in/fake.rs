// SPDX-License-Identifier: GPL-2.0
//! A source that does what a test tells it.

use std::collections::VecDeque;
use std::ffi::OsStr;
use std::ops::Range;
use std::sync::mpsc::Receiver;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::anyhow;
use demandd::source::{Failure, How, Kind, Ranges, Source, Stream};

use super::PATIENCE;

/// What a source does when it is asked for a range.
#[derive(Debug)]
pub enum Act {
    /// It gives the bytes.
    Give,
    /// It fails.
    Fail(Kind),
    /// It gives so many bytes, and then fails.
    Cut(usize),
    /// It gives bytes with the lowest bit of the one at this place flipped.
    Flip(u64),
    /// It tells that it was asked only once this says so.
    Wait(Receiver<()>),
}

/// A source with one blob, which it does not look at the name of.
#[derive(Clone, Debug)]
pub struct Fake(Arc<State>);

#[derive(Debug)]
struct State {
    label: String,
    bytes: Vec<u8>,
    acts: Mutex<VecDeque<Act>>,
    /// What is done when no act is left.
    then: fn() -> Act,
    asked: Mutex<Vec<(Range<u64>, bool)>>,
}

impl Fake {
    pub fn new(label: &str, bytes: &[u8], acts: Vec<Act>, then: fn() -> Act) -> Self {
        Self(Arc::new(State {
            label: label.to_owned(),
            bytes: bytes.to_vec(),
            acts: Mutex::new(acts.into()),
            then,
            asked: Mutex::default(),
        }))
    }

    /// The ranges that were asked for, and whether they had to be fresh.
    pub fn asked(&self) -> Vec<(Range<u64>, bool)> {
        self.0.asked.lock().unwrap().clone()
    }

    /// Waits until it was asked for something.
    pub fn wait_until_asked(&self) {
        let start = Instant::now();
        while self.asked().is_empty() {
            assert!(start.elapsed() < PATIENCE);
            thread::sleep(Duration::from_millis(1));
        }
    }
}

impl Source for Fake {
    fn label(&self) -> &str {
        &self.0.label
    }

    fn file(&self, _name: &str, _most: u64, _until: Instant) -> Result<Vec<u8>, Failure> {
        Err(Failure::lasting(anyhow!("it has no such file")))
    }

    fn blob(&self, _name: &OsStr, _size: u64) -> Result<Box<dyn Ranges>, Failure> {
        Ok(Box::new(self.clone()))
    }

    fn probe(&self, _until: Instant) -> Result<(), Failure> {
        Err(Failure::passing(anyhow!("it does not answer")))
    }
}

impl Ranges for Fake {
    fn range(&self, range: Range<u64>, how: &How) -> Result<Box<dyn Stream + '_>, Failure> {
        let state = &self.0;
        let mut bytes = state.bytes[range.start as usize..range.end as usize].to_vec();
        let act = state.acts.lock().unwrap().pop_front();
        let act = act.unwrap_or_else(state.then);
        state.asked.lock().unwrap().push((range.clone(), how.fresh));
        match act {
            Act::Give => {}
            Act::Fail(kind) => {
                let error = anyhow!("it fails on purpose");
                return Err(Failure { error, kind });
            }
            Act::Cut(left) => bytes.truncate(left),
            Act::Flip(at) if range.contains(&at) => bytes[(at - range.start) as usize] ^= 1,
            Act::Flip(_) => {}
            Act::Wait(go) => go.recv().unwrap(),
        }
        Ok(Box::new(Bytes(bytes.into())))
    }
}

struct Bytes(VecDeque<u8>);

impl Stream for Bytes {
    fn read_exact(&mut self, bytes: &mut [u8]) -> Result<(), Failure> {
        if self.0.len() < bytes.len() {
            return Err(Failure::passing(anyhow!("it was cut off")));
        }
        for byte in bytes {
            *byte = self.0.pop_front().unwrap();
        }
        Ok(())
    }
}
