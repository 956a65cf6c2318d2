// SPDX-License-Identifier: GPL-2.0
//! The options that say where the bytes come from.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Args;
use demandd::source::directory::Directory;
use demandd::source::mirror::Mirrors;
use demandd::source::Source;

/// Where the bytes come from.
#[derive(Args)]
pub(crate) struct Sources {
    /// A directory that has the blobs. Given several times: all have the same; the first one that is up is asked
    #[arg(long = "source", value_name = "DIR")]
    list: Vec<PathBuf>,
    /// How long something is tried to be had, from one source or another
    #[arg(long, value_name = "SECONDS", default_value_t = 120, value_parser = clap::value_parser!(u32).range(1..=86_400))]
    source_timeout: u32,
}

impl Sources {
    /// The sources, if some are given.
    pub(crate) fn mirrors(&self) -> Result<Option<Arc<Mirrors>>> {
        let mut sources: Vec<Box<dyn Source>> = Vec::new();
        for place in &self.list {
            sources.push(Box::new(Directory::new(place)?));
        }
        let patience = Duration::from_secs(self.source_timeout.into());
        Ok((!sources.is_empty()).then(|| Arc::new(Mirrors::new(sources, patience))))
    }

    /// The sources, of which there has to be one.
    pub(crate) fn required(&self) -> Result<Arc<Mirrors>> {
        self.mirrors()?.context("give a --source")
    }
}
