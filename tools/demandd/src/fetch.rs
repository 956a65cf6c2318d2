// SPDX-License-Identifier: GPL-2.0
//! Fetching chunks: from one of several sources into the cache file, each verified before any of it is written.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::ops::Range;
use std::time::Instant;

use anyhow::{anyhow, bail, Context, Error, Result};

use crate::chunks::Chunks;
use crate::copy::{write, Buffer, CacheFile};
use crate::flight::Flight;
use crate::log;
use crate::source::mirror::{half_way, Mirrors};
use crate::source::{Failure, How, Kind, Ranges};

/// Who wants the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Urgency {
    /// A reader, who waits until they come.
    Demand,
    /// Nobody yet: if they cannot be had at once, not now.
    Prefetch,
}

/// No source is up, and what is wanted is not urgent: it may be tried again from then on.
#[derive(Clone, Copy, Debug)]
pub struct Later(pub Instant);

impl fmt::Display for Later {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("no source is up")
    }
}

impl std::error::Error for Later {}

/// A blob as the sources have it.
#[derive(Debug)]
pub struct Remote {
    /// The blob's name, for messages.
    pub name: String,
    /// The digests of its chunks.
    pub chunks: Chunks,
    /// The blob in the sources that have it, by the number of the source.
    pub origins: BTreeMap<usize, Box<dyn Ranges>>,
    /// The sources that are known to have it: they are asked first.
    known: Vec<usize>,
}

/// Why a source could not give all of what it was asked for.
enum Trouble {
    /// The source failed.
    Source(Failure),
    /// A chunk is not the right one.
    Wrong,
    /// The cache file could not be written, which no other source can mend.
    Cache(Error),
}

impl From<Failure> for Trouble {
    fn from(failure: Failure) -> Self {
        Self::Source(failure)
    }
}

/// How far one attempt to fetch chunks has got.
#[derive(Default)]
struct Attempts {
    /// Sources that need not be asked again.
    refused: Vec<usize>,
    /// The chunk that was wrong, and the source that had it.
    wrong: Option<(u64, usize)>,
    /// What went wrong last.
    last: Option<Error>,
}

impl Remote {
    /// Opens a blob in the sources, and in those at some places besides. One of them has to have it.
    pub fn open(
        mirrors: &Mirrors,
        name: String,
        chunks: Chunks,
        places: &[OsString],
    ) -> Result<Self> {
        let mut origins = BTreeMap::new();
        let mut last = None;
        let mut known = Vec::new();
        for place in places {
            match mirrors.at_place(place) {
                Ok(at) => known.push(at),
                Err(error) => last = Some(error),
            }
        }
        for at in (0..mirrors.sources().len()).chain(known.clone()) {
            match mirrors
                .source(at)?
                .blob(OsStr::new(&name), chunks.blob_size())
            {
                Ok(origin) => {
                    origins.insert(at, origin);
                }
                Err(failure) => last = Some(failure.error),
            }
        }
        if origins.is_empty() {
            return Err(last.unwrap_or_else(|| anyhow!("there is no source")));
        }
        Ok(Self {
            name,
            chunks,
            origins,
            known,
        })
    }

    /// Fetches chunks. A wrong one is fetched once more, from another source if there is one.
    pub fn fetch(
        &self,
        mirrors: &Mirrors,
        mut flight: Flight<'_>,
        (urgency, deadline): (Urgency, Instant),
        cache: &impl CacheFile,
        buffer: &mut Buffer,
    ) -> Result<()> {
        let mut attempts = Attempts::default();
        loop {
            let first = flight.chunks().start;
            if flight.chunks().is_empty() {
                return Ok(());
            }
            let at = self.choose(mirrors, &attempts, urgency, deadline)?;
            let began = Instant::now();
            let how = How {
                until: half_way(deadline),
                fresh: attempts.wrong.is_some_and(|(chunk, _)| chunk == first),
            };
            let result = self.stream(at, &mut flight, &how, cache, buffer);
            if flight.chunks().start > first {
                mirrors.went_well(at);
            }
            match result {
                Ok(()) => {}
                Err(Trouble::Cache(error)) => return Err(error),
                Err(Trouble::Source(failure)) => {
                    mirrors.went_wrong(at, began, &failure);
                    if failure.kind == Kind::Lasting {
                        attempts.refused.push(at);
                    }
                    let label = mirrors.source(at)?.label().to_owned();
                    attempts.last = Some(failure.error.context(label));
                }
                Err(Trouble::Wrong) => {
                    let chunk = flight.chunks().start;
                    let source = mirrors.source(at)?;
                    let label = source.label();
                    let range = self.chunks.bytes(chunk..chunk.saturating_add(1));
                    log!(
                        "chunk {chunk} of {}, {}+{}, is wrong: its digest is not that of the manifest; {label} had it",
                        self.name,
                        range.start,
                        range.end.saturating_sub(range.start)
                    );
                    if attempts.wrong.is_some_and(|(before, _)| before == chunk) {
                        bail!(
                            "chunk {chunk} of {} is wrong wherever it comes from, lastly {label}",
                            self.name
                        );
                    }
                    attempts.wrong = Some((chunk, at));
                }
            }
        }
    }

    /// The source to ask next. Waits for one.
    fn choose(
        &self,
        mirrors: &Mirrors,
        attempts: &Attempts,
        urgency: Urgency,
        deadline: Instant,
    ) -> Result<usize> {
        let now = Instant::now();
        let usable = |at: usize| self.origins.contains_key(&at) && !attempts.refused.contains(&at);
        // After a wrong chunk another source, if there is one that is up.
        if let Some((_, wrong)) = attempts.wrong {
            let other = mirrors.choose(&|at| at != wrong && usable(at));
            if let Some((at, None)) = other {
                return Ok(at);
            }
        }
        let known = mirrors.choose(&|at| self.known.contains(&at) && usable(at));
        if let Some((at, None)) = known.filter(|_| attempts.wrong.is_none() && deadline > now) {
            return Ok(at);
        }
        let last = || match &attempts.last {
            Some(error) => anyhow!("{error:#}"),
            None => anyhow!("no source has been up"),
        };
        let Some((at, when)) = mirrors.choose(&usable) else {
            return Err(last());
        };
        if deadline <= now || when > Some(deadline) {
            let patience = mirrors.patience().as_secs();
            return Err(last().context(format!("it cannot be had within {patience} seconds")));
        }
        if let Some(when) = when.filter(|when| *when > now && urgency == Urgency::Prefetch) {
            return Err(last().context(Later(when)));
        }
        mirrors.sleep_until(when)?;
        Ok(at)
    }

    /// Reads chunks from one source, as far as that goes well.
    fn stream(
        &self,
        at: usize,
        flight: &mut Flight<'_>,
        how: &How,
        cache: &impl CacheFile,
        buffer: &mut Buffer,
    ) -> Result<(), Trouble> {
        let origin = self.origins.get(&at);
        let origin = origin.ok_or_else(|| Failure::lasting(anyhow!("it has no such blob")))?;
        let mut stream = origin.range(self.chunks.bytes(flight.chunks()), how)?;
        while !flight.chunks().is_empty() {
            let chunk = flight.chunks().start;
            let Range { start, end } = self.chunks.bytes(chunk..chunk.saturating_add(1));
            let size = usize::try_from(end.saturating_sub(start)).map_err(Failure::lasting)?;
            let bytes = buffer.of(size);
            stream.read_exact(bytes)?;
            if !self.chunks.verify(chunk, bytes) {
                return Err(Trouble::Wrong);
            }
            write(cache, bytes, start)
                .with_context(|| format!("chunk {chunk} of {}", self.name))
                .map_err(Trouble::Cache)?;
            flight.land();
        }
        Ok(())
    }
}
