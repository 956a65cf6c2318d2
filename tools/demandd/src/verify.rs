// SPDX-License-Identifier: GPL-2.0
//! Verifying what a cache has: every chunk that is wholly present, with the list that the cache keeps of its blob.
//!
//! Nothing but the cache is needed for that. Chunks are read from the disk where the file system lets go of what it has
//! in memory, one at a time, and leave nothing there.
//!
//! A chunk that is wrong can be made absent. What the kernel has seen of a file that it has open it counts on: a hole that
//! comes later would be read as zeros. So a file is repaired only under a lease, which nobody else has it open for, and
//! which lets whoever opens it wait. Under the lease the chunk is read once more, since nobody can be writing it then.

use std::cell::Cell;
use std::ffi::OsString;
use std::fmt;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{ensure, Context, Result};
use lease::Lease;
use rustix::fs::{fadvise, Advice, OFlags};
use serde_json::{json, Value};

use crate::cache::{missing_bytes, next_missing, open_file, regular, Entry, Volume};
use crate::chunks::Chunks;
use crate::copy::{Buffer, CacheFile};

/// How many wrong chunks of a blob are named.
const NAMED: usize = 8;

/// How often it is tried to be alone with a file.
const RETRY: Duration = Duration::from_millis(200);

/// How to verify.
pub struct Work<'a> {
    /// How many bytes are read per second, at most.
    pub rate: Option<u64>,
    /// Make what is wrong absent; wait so long for others to close the file.
    pub repair: Option<Duration>,
    /// Is told of each blob how far it has been looked at: name, bytes, and size.
    pub progress: &'a dyn Fn(&str, u64, u64),
}

/// What a cache has of one blob.
#[derive(Debug)]
pub struct Row {
    /// The blob's name, printable.
    pub name: String,
    /// Its size in bytes.
    pub size: u64,
    /// How many of them were present.
    pub present: u64,
    /// How many of those are as the list says.
    pub verified: u64,
    /// The size of its chunks; 0 if it has no manifest.
    pub chunk_size: u64,
    /// The chunks that are not as the list says.
    pub wrong: Vec<u64>,
    /// How many bytes those have.
    pub wrong_bytes: u64,
    /// They were made absent.
    pub repaired: bool,
    /// Why it could not be looked at, or not be repaired.
    pub problem: Option<String>,
}

/// What a cache has, a row for each blob.
#[derive(Debug)]
pub struct Report(pub Vec<Row>);

/// Looks at blobs, or at all of them if none are named.
pub fn verify(volume: &Volume, names: &[OsString], work: &Work<'_>) -> Result<Report> {
    let mut entries = volume.list()?;
    for name in names {
        let there = entries.iter().any(|entry| entry.name == *name);
        ensure!(there, "{name:?} is not prepared");
    }
    entries.retain(|entry| names.is_empty() || names.contains(&entry.name));
    let pace = Pace::new(work.rate);
    let mut buffer = Buffer::default();
    let rows = entries.iter().map(|entry| {
        let mut row = Row::new(entry);
        if let Err(error) = look(volume, entry, &mut row, work, &pace, &mut buffer) {
            row.problem = Some(format!("{error:#}"));
        }
        row
    });
    Ok(Report(rows.collect()))
}

fn look(
    volume: &Volume,
    entry: &Entry,
    row: &mut Row,
    work: &Work<'_>,
    pace: &Pace,
    buffer: &mut Buffer,
) -> Result<()> {
    let access = match work.repair {
        Some(_) => OFlags::RDWR,
        None => OFlags::RDONLY,
    };
    let (file, size) = match open_file(&entry.path, access) {
        // It was culled meanwhile.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        file => regular(file?)?,
    };
    row.size = size;
    row.present = size.saturating_sub(missing_bytes(&file, size)?);
    let Some((_, chunks)) = volume.verified_with(&entry.name)? else {
        return Ok(());
    };
    ensure!(
        chunks.blob_size() == size,
        "it has {size} bytes, and {} by its list of chunks: remove it, and prepare the image again",
        chunks.blob_size()
    );
    row.chunk_size = chunks.chunk_size();
    let blob = Blob {
        file: &file,
        chunks: &chunks,
    };
    for chunk in 0..chunks.count() {
        let range = blob.range(chunk);
        (work.progress)(&row.name, range.start, size);
        let len = range.end.saturating_sub(range.start);
        match blob.state(chunk, buffer)? {
            State::Absent => continue,
            State::Right => row.verified = row.verified.saturating_add(len),
            // Somebody may have been writing it.
            State::Wrong => match blob.state(chunk, buffer)? {
                State::Absent => {}
                State::Right => row.verified = row.verified.saturating_add(len),
                State::Wrong => {
                    row.wrong.push(chunk);
                    row.wrong_bytes = row.wrong_bytes.saturating_add(len);
                }
            },
        }
        pace.pay(len);
    }
    match work.repair {
        Some(patience) if !row.wrong.is_empty() => {
            blob.repair(&row.wrong, patience, buffer)?;
            row.repaired = true;
        }
        _ => {}
    }
    Ok(())
}

/// What is in the place of a chunk.
enum State {
    /// A part of it is missing.
    Absent,
    Right,
    Wrong,
}

/// A cache file with the list of its chunks.
struct Blob<'a> {
    file: &'a File,
    chunks: &'a Chunks,
}

impl Blob<'_> {
    fn range(&self, chunk: u64) -> Range<u64> {
        self.chunks.bytes(chunk..chunk.saturating_add(1))
    }

    fn state(&self, chunk: u64, buffer: &mut Buffer) -> Result<State> {
        let range = self.range(chunk);
        let missing = next_missing(self.file, range.start, self.chunks.blob_size())
            .context("cannot tell what is missing")?;
        if missing.is_some_and(|missing| missing.start < range.end) {
            return Ok(State::Absent);
        }
        let len = range.end.saturating_sub(range.start);
        let bytes = buffer.of(usize::try_from(len)?);
        self.forget(&range)?;
        let read = FileExt::read_exact_at(self.file, bytes, range.start);
        self.forget(&range)?;
        match read {
            Ok(()) if self.chunks.verify(chunk, bytes) => Ok(State::Right),
            Ok(()) => Ok(State::Wrong),
            // What the disk cannot read any more is as good as wrong.
            Err(error) if error.raw_os_error() == Some(rustix::io::Errno::IO.raw_os_error()) => {
                Ok(State::Wrong)
            }
            Err(error) => Err(error).with_context(|| format!("cannot read chunk {chunk}")),
        }
    }

    /// Lets the file system forget what it has in memory and on the disk.
    fn forget(&self, range: &Range<u64>) -> io::Result<()> {
        let len = std::num::NonZeroU64::new(range.end.saturating_sub(range.start));
        Ok(fadvise(self.file, range.start, len, Advice::DontNeed)?)
    }

    /// Makes chunks absent that are still wrong when nobody else has the file open.
    fn repair(&self, wrong: &[u64], patience: Duration, buffer: &mut Buffer) -> Result<()> {
        let lease = self.lease(patience)?;
        for &chunk in wrong {
            if let State::Wrong = self.state(chunk, buffer)? {
                let range = self.range(chunk);
                let len = range.end.saturating_sub(range.start);
                CacheFile::punch(self.file, range.start, len)
                    .with_context(|| format!("cannot make chunk {chunk} absent"))?;
            }
        }
        // Before anybody counts on it.
        self.file.sync_data().context("cannot write to the disk")?;
        drop(lease);
        Ok(())
    }

    fn lease(&self, patience: Duration) -> Result<Lease<'_>> {
        let end = Instant::now() + patience;
        loop {
            match Lease::take(self.file) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    ensure!(
                        Instant::now() < end,
                        "it is in use and was left as it is: unmount it, and verify it again"
                    );
                    thread::sleep(RETRY);
                }
                lease => return lease.context("cannot make sure that nobody uses it"),
            }
        }
    }
}

/// Sees to it that no more bytes are read per second than may be.
struct Pace {
    rate: Option<u64>,
    due: Cell<Instant>,
}

impl Pace {
    fn new(rate: Option<u64>) -> Self {
        Self {
            rate,
            due: Cell::new(Instant::now()),
        }
    }

    /// So many bytes were read. Waits until more may be.
    fn pay(&self, bytes: u64) {
        let Some(rate) = self.rate else { return };
        let time = Duration::from_secs_f64(bytes as f64 / rate.max(1) as f64);
        let now = Instant::now();
        let due = self.due.get().max(now) + time;
        self.due.set(due);
        thread::sleep(due.saturating_duration_since(now));
    }
}

impl Row {
    fn new(entry: &Entry) -> Self {
        Self {
            name: entry.name.to_string_lossy().escape_debug().to_string(),
            size: 0,
            present: 0,
            verified: 0,
            chunk_size: 0,
            wrong: Vec::new(),
            wrong_bytes: 0,
            repaired: false,
            problem: None,
        }
    }

    /// How many bytes are present, but cannot be verified.
    pub fn unverifiable(&self) -> u64 {
        let looked_at = self.verified.saturating_add(self.wrong_bytes);
        self.present.saturating_sub(looked_at)
    }

    /// Whether nothing that is wrong is left.
    pub fn is_good(&self) -> bool {
        self.problem.is_none() && (self.wrong.is_empty() || self.repaired)
    }

    fn json(&self) -> Value {
        json!({
            "name": self.name,
            "size": self.size,
            "present": self.present,
            "verified": self.verified,
            "unverifiable": self.unverifiable(),
            "chunk_size": self.chunk_size,
            "wrong": self.wrong,
            "repaired": self.repaired,
            "problem": self.problem,
        })
    }
}

impl Report {
    /// How many blobs are not good.
    pub fn bad(&self) -> usize {
        self.0.iter().filter(|row| !row.is_good()).count()
    }

    /// For programs.
    pub fn json(&self) -> Value {
        json!({ "blobs": self.0.iter().map(Row::json).collect::<Vec<_>>() })
    }
}

/// For people.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (present, verified, unverifiable) = ("present", "verified", "not verifiable");
        writeln!(f, "{present:>15} {verified:>15} {unverifiable:>15}  blob")?;
        for row in &self.0 {
            let unverifiable = row.unverifiable();
            writeln!(
                f,
                "{:>15} {:>15} {unverifiable:>15}  {}",
                row.present, row.verified, row.name
            )?;
        }
        for row in &self.0 {
            let Row {
                name,
                wrong,
                chunk_size,
                ..
            } = row;
            if !wrong.is_empty() {
                let named: Vec<_> = wrong.iter().take(NAMED).map(u64::to_string).collect();
                let named = named.join(" ");
                let more = if wrong.len() > NAMED { " ..." } else { "" };
                let done = if row.repaired { "; absent now" } else { "" };
                let count = wrong.len();
                writeln!(
                    f,
                    "{name}: {count} wrong chunks of {chunk_size} bytes: {named}{more}{done}"
                )?;
            }
            if let Some(problem) = &row.problem {
                writeln!(f, "{name}: {problem}")?;
            }
        }
        Ok(())
    }
}
