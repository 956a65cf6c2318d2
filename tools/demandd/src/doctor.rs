// SPDX-License-Identifier: GPL-2.0
//! Whether all is there that a daemon needs, and how to mend what is not.

use std::fmt;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Result;
use rustix::fs::{Mode, OFlags, SeekFrom, StatVfsMountFlags, XattrFlags};
use rustix::process::{getrlimit, Resource};
use rustix::thread::{capabilities, CapabilitySet};
use serde_json::{json, Value};

use crate::abi::header::CACHEFILES_DEMAND_DEVICE;
use crate::abi::BLOCK;
use crate::cache::Volume;
use crate::kernel::{Kernel, DIR};
use crate::machine::{Machine, Origin};
use crate::source::mirror::Mirrors;

/// How long a source may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// The kernels that the modules are for.
const SERIES: &str = "7.3.";

/// Free space of which culling begins, in per cent, if nobody has told the kernel something else.
const BCULL: u64 = 5;

/// File systems that can hold a cache, by the number that statfs(2) has for them.
const FILE_SYSTEMS: [(u64, &str); 3] = [
    (0xef53, "ext4"),
    (0x5846_5342, "XFS"),
    (0x9123_683e, "btrfs"),
];

/// What is to be looked at besides the machine itself.
#[derive(Debug, Default)]
pub struct Wanted {
    /// The root of the cache.
    pub root: Option<PathBuf>,
    /// The volume in it.
    pub volume: String,
    /// Where blobs come from.
    pub sources: Option<Result<Arc<Mirrors>>>,
    /// The tag of the cache.
    pub tag: String,
}

/// How one thing is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// As it should be.
    Good,
    /// It works, or will, but somebody should know.
    Note,
    /// It does not work.
    Bad,
}

/// One thing that was looked at.
#[derive(Debug)]
pub struct Finding {
    /// What.
    pub what: &'static str,
    /// How it is.
    pub state: State,
    /// What was found.
    pub detail: String,
    /// What to do, unless it is good.
    pub advice: String,
}

/// All that was looked at.
#[derive(Debug, Default)]
pub struct Findings(pub Vec<Finding>);

impl Findings {
    fn good(&mut self, what: &'static str, detail: impl Into<String>) {
        self.add(what, State::Good, detail.into(), "");
    }

    fn note(&mut self, what: &'static str, detail: impl Into<String>, advice: &str) {
        self.add(what, State::Note, detail.into(), advice);
    }

    fn bad(&mut self, what: &'static str, detail: impl Into<String>, advice: &str) {
        self.add(what, State::Bad, detail.into(), advice);
    }

    fn add(&mut self, what: &'static str, state: State, detail: String, advice: &str) {
        let advice = advice.to_owned();
        self.0.push(Finding {
            what,
            state,
            detail,
            advice,
        });
    }

    /// How many are bad.
    pub fn count_bad(&self) -> usize {
        self.0.iter().filter(|one| one.state == State::Bad).count()
    }

    /// For programs.
    pub fn json(&self) -> Value {
        let one = |finding: &Finding| {
            json!({
                "what": finding.what,
                "state": finding.state.to_string(),
                "detail": finding.detail,
                "advice": finding.advice,
            })
        };
        json!({ "bad": self.count_bad(), "findings": self.0.iter().map(one).collect::<Vec<_>>() })
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Good => "good",
            Self::Note => "note",
            Self::Bad => "bad",
        })
    }
}

/// For people: a line each, and one with advice.
impl fmt::Display for Findings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for finding in &self.0 {
            writeln!(
                f,
                "{:4}  {}: {}",
                finding.state, finding.what, finding.detail
            )?;
            if !finding.advice.is_empty() {
                writeln!(f, "      {}", finding.advice)?;
            }
        }
        Ok(())
    }
}

/// Looks at everything.
pub fn look(machine: &Machine, wanted: &Wanted) -> Findings {
    let mut found = Findings::default();
    kernel(machine, &mut found);
    modules(machine, &mut found);
    device(machine, &mut found);
    rights(&mut found);
    match &wanted.root {
        Some(root) => cache(root, &wanted.volume, &mut found),
        None => found.note("cache", "none was named", "give --root, or a configuration"),
    }
    match &wanted.sources {
        Some(Ok(sources)) => {
            for source in &sources.sources() {
                match source.probe(Instant::now() + PATIENCE) {
                    Ok(()) => found.good("source", source.label()),
                    Err(failure) => found.bad(
                        "source",
                        format!("{}: {:#}", source.label(), failure.error),
                        "see to it, or correct --source",
                    ),
                }
            }
        }
        Some(Err(error)) => found.bad("source", format!("{error:#}"), "correct --source"),
        None => found.note(
            "source",
            "none was named",
            "give --source, or a configuration",
        ),
    }
    daemon(machine, &wanted.tag, &mut found);
    found
}

fn kernel(machine: &Machine, found: &mut Findings) {
    let release = machine.release();
    match release.starts_with(SERIES) {
        true => found.good("kernel", release),
        false => found.bad(
            "kernel",
            format!("{release}, and the modules are for {SERIES}x"),
            "boot a 7.3 kernel of trixie-backports",
        ),
    }
    let enforced = machine.read("/sys/module/module/parameters/sig_enforce");
    if enforced.is_some_and(|value| value.starts_with('Y')) {
        let advice = "sign the modules with a key that this kernel knows, or turn Secure Boot off";
        found.bad("signatures", "the kernel takes signed modules only", advice);
    }
}

fn modules(machine: &Machine, found: &mut Findings) {
    let name = "module cachefiles_demand";
    match (
        machine.loaded("cachefiles_demand"),
        machine.installed("cachefiles_demand"),
    ) {
        (Origin::Absent, Origin::Absent) => {
            let advice = "run `make modules install` for this kernel";
            found.bad(name, "neither loaded nor installed", advice);
        }
        (Origin::Absent, _) => {
            found.note(
                name,
                "installed, not loaded",
                "run `modprobe cachefiles_demand`",
            );
        }
        (_, Origin::Absent) => {
            let advice = "run `make install`, or it will be gone after the next boot";
            found.note(name, "loaded, not installed", advice);
        }
        _ => found.good(name, "loaded"),
    }
    let name = "module erofs";
    match (machine.loaded("erofs"), machine.installed("erofs")) {
        (Origin::Ours, _) => found.good(name, "loaded, ours"),
        (Origin::Kernel, Origin::Ours) => {
            let advice = "unmount what uses it, then run `rmmod erofs` and `modprobe erofs`";
            found.bad(name, "the kernel's own is loaded, in place of ours", advice);
        }
        (Origin::Absent, Origin::Ours) => found.good(name, "installed, ours; loaded by mount"),
        (_, Origin::Kernel) | (_, Origin::Absent) => {
            let advice = "run `make modules install` for this kernel";
            found.bad(name, "ours is not installed", advice);
        }
    }
}

fn device(machine: &Machine, found: &mut Findings) {
    let path = CACHEFILES_DEMAND_DEVICE.to_str().unwrap_or_default();
    match fs::metadata(machine.path(path)) {
        Ok(meta) if meta.file_type().is_char_device() => found.good("device", path),
        Ok(_) => found.bad(
            "device",
            format!("{path} is no device"),
            "remove it, and load the module anew",
        ),
        Err(error) if machine.loaded("cachefiles_demand") == Origin::Absent => {
            found.note(
                "device",
                format!("{path}: {error}"),
                "it comes with the module",
            );
        }
        Err(error) => {
            let advice =
                "the module is loaded: is /dev a devtmpfs, and is this its mount namespace?";
            found.bad("device", format!("{path}: {error}"), advice);
        }
    }
}

fn rights(found: &mut Findings) {
    let have = capabilities(None)
        .map(|sets| sets.effective)
        .unwrap_or(CapabilitySet::empty());
    match have.contains(CapabilitySet::SYS_ADMIN) {
        true => found.good("rights", "CAP_SYS_ADMIN"),
        false => found.bad(
            "rights",
            "no CAP_SYS_ADMIN",
            "the daemon has to be root, see the unit",
        ),
    }
    if !have.contains(CapabilitySet::IPC_LOCK) {
        let advice =
            "give the daemon CAP_IPC_LOCK: a write of swapped memory can leave zeros behind";
        found.note("memory", "cannot be locked", advice);
    }
    if getrlimit(Resource::Fsize).current.is_some() {
        found.note(
            "limit on files' sizes",
            "there is one",
            "larger blobs fail: `ulimit -f unlimited`",
        );
    }
    let files = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    if files < 1024 {
        let advice = "`ulimit -n 1024`, or a smaller --limit-open: each blob takes two";
        found.note("limit on open files", files.to_string(), advice);
    }
}

fn cache(root: &Path, volume: &str, found: &mut Findings) {
    let name = "cache";
    let shown = root.display();
    let (stat, space) = match (rustix::fs::statfs(root), rustix::fs::statvfs(root)) {
        (Ok(stat), Ok(space)) => (stat, space),
        (Err(errno), _) | (_, Err(errno)) => {
            let error = io::Error::from(errno);
            return found.bad(
                name,
                format!("{shown}: {error}"),
                "run `demandd prepare`, or correct --root",
            );
        }
    };
    // The field has another type on every architecture, and the numbers fit into 32 bits.
    let magic = u64::from(stat.f_type as u32);
    let advice = "put the cache on ext4, XFS or btrfs";
    let Some((_, kind)) = FILE_SYSTEMS.iter().find(|(number, _)| *number == magic) else {
        return found.bad(
            name,
            format!("{shown} is on an unknown file system ({magic:#x})"),
            advice,
        );
    };
    if space.f_frsize > BLOCK {
        let size = space.f_frsize;
        return found.bad(
            name,
            format!("{shown}: {kind} with blocks of {size} bytes"),
            "at most 4096",
        );
    }
    if space.f_flag.contains(StatVfsMountFlags::RDONLY) {
        return found.bad(
            name,
            format!("{shown} is on a read-only {kind}"),
            "mount it for writing",
        );
    }
    if let Err(error) = try_out(root) {
        return found.bad(name, format!("{shown}: {error}"), advice);
    }
    found.good(name, format!("{shown}, on {kind}"));
    let share = space
        .f_bavail
        .saturating_mul(100)
        .checked_div(space.f_blocks)
        .unwrap_or(100);
    match share < BCULL {
        true => found.note(
            "space",
            format!("{share}% are free"),
            "blobs are culled: make room",
        ),
        false => found.good("space", format!("{share}% are free")),
    }
    match Volume::new(root, volume).and_then(|volume| volume.list()) {
        Ok(blobs) if blobs.is_empty() => found.note("blobs", "none", "run `demandd prepare`"),
        Ok(blobs) => found.good("blobs", format!("{} are prepared", blobs.len())),
        Err(error) => found.note("blobs", format!("{error:#}"), ""),
    }
}

/// Does what the kernel and `prepare` do: a file without a name, with an attribute and a hole.
fn try_out(root: &Path) -> io::Result<()> {
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    let file: File = rustix::fs::open(root, flags, Mode::RUSR | Mode::WUSR)?.into();
    rustix::fs::fsetxattr(&file, "user.CacheFiles.cache", b"x", XattrFlags::CREATE)?;
    file.set_len(2 * BLOCK)?;
    std::os::unix::fs::FileExt::write_all_at(&file, &[1; 64], BLOCK)?;
    match rustix::fs::seek(&file, SeekFrom::Data(0))? {
        BLOCK => Ok(()),
        _ => Err(io::Error::other("holes do not show")),
    }
}

fn daemon(machine: &Machine, tag: &str, found: &mut Findings) {
    let tables = Kernel::read(&machine.path(DIR));
    let caches = tables.json();
    let mine = caches["caches"]
        .as_array()
        .into_iter()
        .flatten()
        .find(|row| row["tag"] == tag);
    let state = mine.and_then(|row| row["daemon"].as_str());
    match (state, caches["problems"].get(0).and_then(Value::as_str)) {
        (Some("connected"), _) => found.good("daemon", format!("serves the cache {tag:?}")),
        (Some(state), _) => found.note(
            "daemon",
            format!("that of the cache {tag:?} is {state}"),
            "start it: readers of missing data wait or fail",
        ),
        (None, Some(problem)) => found.note("daemon", problem, ""),
        (None, None) => found.note(
            "daemon",
            format!("no cache {tag:?} is bound"),
            "run `demandd serve`",
        ),
    }
}
