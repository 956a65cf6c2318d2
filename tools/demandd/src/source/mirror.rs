// SPDX-License-Identifier: GPL-2.0
//! Sources that have the same: which of them to ask, and when.
//!
//! They are asked in the order in which they were given. One that fails is *down*: it is left alone for a time that
//! doubles with every failure, or for longer if it says so itself, within reason, and the next one is asked. Only when
//! all are down somebody waits, for the one whose time is over first.
//!
//! Beside them there are sources that have some blobs only, because an image was mounted from there. They are found as
//! their blobs are opened, and then treated alike.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};
use std::time::{Duration, Instant};

use anyhow::{anyhow, Context, Result};

use super::{Failure, Itself, Kind, Opener, Source};
use crate::{cache, log};

/// How long a source is left alone after its first failure.
const FIRST_PAUSE: Duration = Duration::from_millis(200);

/// The longest that a source is left alone if it does not say so itself.
const LONGEST_PAUSE: Duration = Duration::from_secs(15);

/// The longest that a source is left alone because it says so. A server may be wrong about the time, or about itself.
const LONGEST_WISH: Duration = Duration::from_secs(300);

/// How long nothing is prefetched after a source had too much to do and did not say for how long.
const QUIET: Duration = Duration::from_secs(3);

/// Sources in the order in which they are preferred.
#[derive(Debug)]
pub struct Mirrors {
    /// First those that have everything. None ever goes.
    mirrors: RwLock<Vec<Arc<Mirror>>>,
    /// How many have everything.
    general: usize,
    opener: Opener,
    patience: Duration,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug)]
struct Mirror {
    source: Arc<dyn Source>,
    /// Where it is, if it has some blobs only.
    place: Option<OsString>,
    health: Mutex<Health>,
}

/// What a source's failures say about it.
#[derive(Debug, Default)]
struct Health {
    /// In a row.
    failures: u32,
    /// When the last of them was noted.
    noted: Option<Instant>,
    /// Down until then.
    until: Option<Instant>,
}

#[derive(Debug, Default)]
struct State {
    stopped: bool,
    /// How often a source has failed, or come.
    changes: u64,
    /// Nothing is prefetched before.
    quiet_until: Option<Instant>,
}

impl Mirrors {
    /// Somebody who wants something waits for at most `patience` until it comes from one of the sources.
    pub fn new(sources: Vec<Box<dyn Source>>, patience: Duration) -> Self {
        Self::with_opener(sources, patience, Opener::default())
    }

    /// As [`Mirrors::new`]; more sources can be opened.
    pub fn with_opener(sources: Vec<Box<dyn Source>>, patience: Duration, opener: Opener) -> Self {
        let mirrors = sources.into_iter().map(|source| Mirror::new(source, None));
        let mirrors: Vec<_> = mirrors.collect();
        Self {
            general: mirrors.len(),
            mirrors: RwLock::new(mirrors),
            opener,
            patience,
            state: Mutex::default(),
            changed: Condvar::new(),
        }
    }

    /// The sources that have everything, in their order.
    pub fn sources(&self) -> Vec<Arc<dyn Source>> {
        let mirrors = self.mirrors();
        let general = mirrors.iter().filter(|mirror| mirror.place.is_none());
        general.map(|mirror| Arc::clone(&mirror.source)).collect()
    }

    /// The number of the source at a place that has some blobs only.
    pub fn at_place(&self, place: &OsStr) -> Result<usize> {
        let is_there = |mirror: &Arc<Mirror>| mirror.place.as_deref() == Some(place);
        if let Some(at) = self.mirrors().iter().position(is_there) {
            return Ok(at);
        }
        let source = self.opener.open(place)?;
        let mut mirrors = self.mirrors.write().unwrap_or_else(PoisonError::into_inner);
        // Somebody else may have been faster.
        let at = mirrors.iter().position(is_there).unwrap_or(mirrors.len());
        if at == mirrors.len() {
            mirrors.push(Mirror::new(source, Some(place.to_owned())));
        }
        drop(mirrors);
        self.change();
        Ok(at)
    }

    /// When somebody who asks now gives up.
    pub fn deadline(&self) -> Instant {
        Instant::now() + self.patience
    }

    /// How long somebody waits.
    pub fn patience(&self) -> Duration {
        self.patience
    }

    /// Reads a small file from one of the sources: from the first one whose file `take` takes.
    pub fn file<T>(&self, name: &str, most: u64, take: impl Fn(Vec<u8>) -> Result<T>) -> Result<T> {
        self.ask(|source, until| source.file(name, most, until), take)
            .with_context(|| format!("cannot get {name}"))
    }

    /// The image that the source is.
    pub fn itself(&self) -> Result<Itself> {
        self.ask(|source, until| source.itself(until), Ok)
    }

    /// Asks one of the sources: the first one whose answer `take` takes.
    fn ask<A, T>(
        &self,
        ask: impl Fn(&dyn Source, Instant) -> Result<A, Failure>,
        take: impl Fn(A) -> Result<T>,
    ) -> Result<T> {
        let deadline = self.deadline();
        let mut refused = Vec::new();
        let mut last = None;
        // An answer that is not the right one. The last of them is told by whoever asked.
        let mut wrong = None;
        loop {
            let chosen = self.choose(&|at| at < self.general && !refused.contains(&at));
            let Some((at, when)) = chosen.filter(|(_, when)| *when <= Some(deadline)) else {
                break;
            };
            self.sleep_until(when)?;
            if let Some(error) = wrong.take() {
                log!("{error:#}");
            }
            let source = self.source(at)?;
            let began = Instant::now();
            match ask(&*source, half_way(deadline)) {
                Ok(answer) => {
                    self.went_well(at);
                    match take(answer) {
                        Ok(taken) => return Ok(taken),
                        Err(error) => {
                            refused.push(at);
                            wrong = Some(error.context(format!("in {}", source.label())));
                        }
                    }
                }
                Err(failure) => {
                    self.went_wrong(at, began, &failure);
                    if failure.kind == Kind::Lasting {
                        refused.push(at);
                    }
                    last = Some(failure.error);
                }
            }
        }
        let error = wrong.or(last);
        Err(error.unwrap_or_else(|| anyhow!("no source can be asked now")))
    }

    /// Reads credentials again, of every source for which that goes well. Whether there are other ones: what was refused
    /// with the old ones may be had now.
    pub fn reload(&self) -> bool {
        let mut changed = false;
        let mirrors = self.mirrors().clone();
        for mirror in &mirrors {
            match mirror.source.reload() {
                Ok(false) => {}
                Ok(true) => {
                    changed = true;
                    mirror.lock().until = None;
                }
                Err(error) => log!(
                    "{} keeps the credentials that it has: {error:#}",
                    mirror.source.label()
                ),
            }
        }
        if changed {
            self.changed.notify_all();
        }
        changed
    }

    /// Opens a blob as a file of this machine.
    pub fn local(&self, name: &OsStr) -> Result<(File, u64)> {
        let mut last = None;
        for found in self
            .sources()
            .iter()
            .filter_map(|source| source.local(name))
        {
            match found {
                Ok(found) => return Ok(found),
                Err(error) => last = Some(error),
            }
        }
        Err(last.unwrap_or_else(|| {
            anyhow!("{name:?} has no manifest, and without one only a directory is believed: prepare its image, with `demandd prepare --image`")
        }))
    }

    /// The blob whose cache file has this name.
    pub fn blob_of(&self, file_name: &OsStr) -> Result<OsString> {
        let has_it = |blob: &&OsStr| cache::file_name(blob).is_ok_and(|name| name == file_name);
        if let Some(blob) = cache::blob_name(file_name).filter(has_it) {
            return Ok(blob.to_owned());
        }
        // An encoded name: rather than to decode it, find the blob that has it.
        let sources = self.sources();
        let found = sources.iter().find_map(|source| source.blob_of(file_name));
        found.ok_or_else(|| anyhow!("no blob of a source has the cache file {file_name:?}"))
    }

    /// The source of this number.
    pub fn source(&self, at: usize) -> Result<Arc<dyn Source>> {
        Ok(self
            .mirror(at)
            .context("there is no source")?
            .source
            .clone())
    }

    /// Which source to ask next, of those that are `usable`, and from when on: at once if it is up.
    pub fn choose(&self, usable: &dyn Fn(usize) -> bool) -> Option<(usize, Option<Instant>)> {
        let mirrors = self.mirrors();
        let usable = (0..).zip(&*mirrors).filter(|(at, _)| usable(*at));
        // None is less than any time, and of those that are up the first one is taken.
        usable
            .map(|(at, mirror)| (at, mirror.lock().until))
            .min_by_key(|(_, until)| *until)
    }

    /// Notes that a source has given what it was asked for.
    pub fn went_well(&self, at: usize) {
        let Some(mirror) = self.mirror(at) else {
            return;
        };
        let mut health = mirror.lock();
        if health.failures > 0 {
            log!("{} answers again", mirror.source.label());
            *health = Health::default();
        }
    }

    /// Notes that a source has not given what it was asked for when this `began`.
    pub fn went_wrong(&self, at: usize, began: Instant, failure: &Failure) {
        let now = Instant::now();
        let wish = match failure.kind {
            // That says nothing about other blobs.
            Kind::Lasting => return,
            Kind::Passing => None,
            Kind::Overload(wish) => {
                let wish = wish.map(|wish| wish.min(LONGEST_WISH));
                let quiet = now + wish.unwrap_or(jitter(QUIET));
                let mut state = self.lock();
                state.quiet_until = state.quiet_until.max(Some(quiet));
                wish
            }
        };
        let Some(mirror) = self.mirror(at) else {
            return;
        };
        let mut health = mirror.lock();
        let mut pause = wish.unwrap_or_default();
        // Somebody who began before the last failure has met the same trouble.
        if health.noted.is_none_or(|noted| began >= noted) {
            let doubled = 1_u32.checked_shl(health.failures.min(16)).unwrap_or(1);
            let doubled = FIRST_PAUSE.saturating_mul(doubled).min(LONGEST_PAUSE);
            // One that wants to be asked at once is not asked all the time.
            pause = pause.max(jitter(doubled));
            if health.failures == 0 {
                log!("{} fails: {:#}", mirror.source.label(), failure.error);
            }
            health.failures = health.failures.saturating_add(1);
            health.noted = Some(now);
        }
        health.until = health.until.max(Some(now + pause));
        drop(health);
        self.change();
    }

    fn change(&self) {
        let mut state = self.lock();
        state.changes = state.changes.wrapping_add(1);
        self.changed.notify_all();
    }

    /// Asks sources that are down whether they are up again, until it is time to end: as long as another one is up,
    /// nobody else would.
    pub fn watch(&self) {
        let mut state = self.lock();
        while !state.stopped {
            let changes = state.changes;
            drop(state);
            let due = self.probe_next();
            let now = Instant::now();
            let idle = |state: &mut State| !state.stopped && state.changes == changes;
            state = match due.map(|due| due.saturating_duration_since(now)) {
                Some(left) => {
                    let woken = self.changed.wait_timeout_while(self.lock(), left, idle);
                    woken.unwrap_or_else(PoisonError::into_inner).0
                }
                None => {
                    let woken = self.changed.wait_while(self.lock(), idle);
                    woken.unwrap_or_else(PoisonError::into_inner)
                }
            };
        }
    }

    /// Asks the source whose time is over, if there is one. Returns when that has to be done again.
    fn probe_next(&self) -> Option<Instant> {
        let mirrors = self.mirrors().clone();
        if mirrors.len() < 2 {
            return None;
        }
        let down = mirrors.iter().enumerate();
        let down = down.filter_map(|(at, mirror)| Some((mirror.lock().until?, at)));
        let (until, at) = down.min()?;
        let began = Instant::now();
        if until > began {
            return Some(until);
        }
        let mirror = mirrors.get(at)?;
        match mirror.source.probe(half_way(self.deadline())) {
            // That it answers does not mean that it has what is wanted: its failures still count.
            Ok(()) => mirror.lock().until = None,
            Err(failure) => {
                // A server that refuses to say whether it is there is asked later again, too, not at once.
                let kind = match failure.kind {
                    Kind::Lasting => Kind::Passing,
                    kind => kind,
                };
                self.went_wrong(at, began, &Failure { kind, ..failure });
            }
        }
        Some(Instant::now())
    }

    /// Sleeps; fails if it is time to end, and there would be something to sleep for.
    pub fn sleep_until(&self, when: Option<Instant>) -> Result<()> {
        let Some(when) = when else { return Ok(()) };
        let mut state = self.lock();
        loop {
            let left = when.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            if state.stopped {
                return Err(Stopped.into());
            }
            state = self
                .changed
                .wait_timeout(state, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }

    /// Sleeps while nothing shall be prefetched; fails if it is time to end.
    pub fn sleep_while_quiet(&self) -> Result<()> {
        loop {
            let until = self.lock().quiet_until;
            let now = Instant::now();
            self.sleep_until(until)?;
            if until.is_none_or(|until| until <= now) {
                return Ok(());
            }
        }
    }

    /// Fails if it is time to end.
    pub fn check_time(&self) -> Result<()> {
        match self.lock().stopped {
            true => Err(Stopped.into()),
            false => Ok(()),
        }
    }

    /// It is time to end: nobody sleeps any more.
    pub fn stop(&self) {
        self.lock().stopped = true;
        self.changed.notify_all();
    }

    fn mirrors(&self) -> RwLockReadGuard<'_, Vec<Arc<Mirror>>> {
        self.mirrors.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn mirror(&self, at: usize) -> Option<Arc<Mirror>> {
        self.mirrors().get(at).cloned()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Mirror {
    fn new(source: Box<dyn Source>, place: Option<OsString>) -> Arc<Self> {
        Arc::new(Self {
            source: Arc::from(source),
            place,
            health: Mutex::default(),
        })
    }

    fn lock(&self) -> MutexGuard<'_, Health> {
        self.health.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// It was time to end before something could be had. Nothing is wrong with it.
#[derive(Clone, Copy, Debug)]
pub struct Stopped;

impl std::fmt::Display for Stopped {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("it is time to end")
    }
}

impl std::error::Error for Stopped {}

/// No attempt may take all of the time: another one may go better.
pub fn half_way(deadline: Instant) -> Instant {
    let now = Instant::now();
    now + deadline.saturating_duration_since(now) / 2
}

/// A time that is up to a half longer, so that many daemons do not come back at once.
fn jitter(time: Duration) -> Duration {
    time.mul_f64(1.0 + fastrand::f64() / 2.0)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::source::directory::Directory;

    /// One source that has too much to do, and said this about it. How long it is left alone, and how long nothing is
    /// prefetched.
    fn left_alone(wishes: &[Option<Duration>]) -> (Duration, Duration) {
        let source = Directory::new(Path::new("/")).unwrap();
        let mirrors = Mirrors::new(vec![Box::new(source)], Duration::from_secs(1));
        for wish in wishes {
            let error = anyhow!("on purpose");
            let kind = Kind::Overload(*wish);
            mirrors.went_wrong(0, Instant::now(), &Failure { error, kind });
        }
        let now = Instant::now();
        let until = mirrors.choose(&|_| true).unwrap().1.unwrap();
        let quiet = mirrors.lock().quiet_until.unwrap();
        let left = |until: Instant| until.saturating_duration_since(now);
        (left(until), left(quiet))
    }

    #[test]
    fn a_source_is_left_alone_for_as_long_as_it_says_within_reason() {
        let near = |left: Duration, seconds: u64| {
            let right = Duration::from_secs(seconds);
            left <= right && left + Duration::from_secs(20) > right
        };
        for (wish, seconds) in [
            (60, 60),
            (300, 300),
            (301, 300),
            (365 * 24 * 3600, 300),
            (u64::MAX, 300),
        ] {
            let (alone, quiet) = left_alone(&[Some(Duration::from_secs(wish))]);
            assert!(near(alone, seconds), "{wish}: {alone:?}");
            assert!(near(quiet, seconds), "{wish}: {quiet:?}");
        }
    }

    #[test]
    fn a_source_that_wants_to_be_asked_at_once_is_not_asked_all_the_time() {
        // As with one that does not say anything: at least 0.2 seconds, doubled six times.
        let (alone, _) = left_alone(&[Some(Duration::ZERO); 7]);
        assert!(alone > Duration::from_secs(10), "{alone:?}");
        // What it wanted before still holds when others meet it later.
        let day = Some(Duration::from_secs(250));
        let (alone, _) = left_alone(&[day, Some(Duration::ZERO), None]);
        assert!(alone > Duration::from_secs(230), "{alone:?}");
    }
}
