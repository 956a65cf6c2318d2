// SPDX-License-Identifier: GPL-2.0
//! The options that say what is prefetched.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::Args;
use demandd::cache::Volume;
use demandd::prefetch::{Queue, Target};
use demandd::serve::Plan;
use demandd::size;
use demandd::source::mirror::Mirrors;

use super::{Place, Sources};

/// What stands for every blob.
const ALL: &str = "*";

/// Fetch what is missing before it is read
///
/// Copies the ranges that the cache lacks from the source: of all blobs, of some, or of parts of them. It may run while
/// the blobs are mounted and served. Prints how much of each it fetched.
///
/// Example: demandd prefetch --root /var/cache/demand --source /srv/images debian.img debian.blob:0+1048576
#[derive(Args)]
pub(crate) struct Prefetch {
    #[command(flatten)]
    pub(crate) place: Place,
    #[command(flatten)]
    pub(crate) sources: Sources,
    /// Every blob that was prepared
    #[arg(long)]
    pub(crate) all: bool,
    /// What stands in this file, in its order: a blob or a range in each line, or what `demandd serve --trace` has
    /// written
    #[arg(long, value_name = "FILE")]
    pub(crate) list: Option<PathBuf>,
    /// How many bytes to fetch per second at most, in bytes or with K, M, G or T
    #[arg(long, value_name = "SIZE", value_parser = rate)]
    pub(crate) rate: Option<u64>,
    /// How many pieces to fetch at a time
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(crate) workers: u16,
    /// Blobs, or ranges of them in bytes
    #[arg(
        required_unless_present_any = ["all", "list"],
        conflicts_with = "all",
        value_name = "NAME[:OFF+LEN]"
    )]
    pub(crate) targets: Vec<OsString>,
}

impl Prefetch {
    pub(crate) fn targets(&self, volume: &Volume, mirrors: &Mirrors) -> Result<Vec<Target>> {
        let all = self.all.then(|| ALL.into());
        let given: Vec<_> = self.targets.iter().cloned().chain(all).collect();
        targets(&given, self.list.as_deref(), volume, mirrors)
    }
}

/// What a daemon prefetches while it serves.
#[derive(Args)]
#[command(next_help_heading = "Prefetching, which readers go before")]
pub(crate) struct Background {
    /// Fetch this as soon as no reader waits: a blob, or a range of it in bytes; "*": every blob that was prepared by
    /// then. Can be given several times
    #[arg(long, value_name = "NAME[:OFF+LEN]")]
    prefetch: Vec<OsString>,
    /// What stands in this file, in its order: a blob or a range in each line, or what --trace has written
    #[arg(long, value_name = "FILE")]
    prefetch_list: Option<PathBuf>,
    /// How many bytes to prefetch per second at most, in bytes or with K, M, G or T
    #[arg(long, value_name = "SIZE", value_parser = rate)]
    prefetch_rate: Option<u64>,
    /// How many pieces to prefetch at a time
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=64))]
    prefetch_workers: u16,
}

impl Background {
    pub(crate) fn plan(&self, volume: &Volume, mirrors: &Mirrors) -> Result<Plan> {
        let list = self.prefetch_list.as_deref();
        Ok(Plan {
            queue: Queue::new(targets(&self.prefetch, list, volume, mirrors)?).into(),
            workers: self.prefetch_workers.into(),
            rate: self.prefetch_rate,
        })
    }
}

fn targets(
    given: &[OsString],
    list: Option<&Path>,
    volume: &Volume,
    mirrors: &Mirrors,
) -> Result<Vec<Target>> {
    let mut targets = Vec::new();
    for text in given {
        if text == ALL {
            targets.extend(Target::all(volume, mirrors)?);
        } else {
            targets.push(Target::parse(text));
        }
    }
    if let Some(list) = list {
        let text = fs::read(list).with_context(|| format!("cannot read {}", list.display()))?;
        targets.extend(Target::list(&text));
    }
    Ok(targets)
}

pub(super) fn rate(text: &str) -> Result<u64, String> {
    match size::parse(text) {
        Some(rate) if rate > 0 => Ok(rate),
        _ => Err("it is a number of bytes, perhaps with K, M, G or T behind it".to_owned()),
    }
}
