// SPDX-License-Identifier: GPL-2.0
//! The options that say where the bytes come from.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Args;
use demandd::source::directory::Directory;
use demandd::source::http::{self, is_url, Client, Http};
use demandd::source::mirror::Mirrors;
use demandd::source::Source;

/// Where the bytes come from.
#[derive(Args)]
#[command(next_help_heading = "Where the bytes come from")]
pub(crate) struct Sources {
    /// What has the blobs: a directory, or the address of one on a web server (http://... or https://...). Given several
    /// times: all have the same; the first one that is up is asked
    #[arg(long, value_name = "DIR|URL")]
    source: Vec<OsString>,
    /// How long something is tried to be had, from one source or another
    #[arg(long, value_name = "SECONDS", default_value_t = 120, value_parser = clap::value_parser!(u32).range(1..=86_400))]
    source_timeout: u32,
    /// How long a web server may say nothing
    #[arg(long, value_name = "SECONDS", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=3600))]
    source_silence: u32,
    /// Ask web servers through this proxy (http://HOST:PORT), or "none"; without this option as the environment says
    /// (https_proxy, no_proxy and so on)
    #[arg(long, value_name = "URL")]
    proxy: Option<String>,
    /// Believe web servers with a certificate from this file, rather than those that this machine believes
    #[arg(long, value_name = "FILE")]
    ca_file: Option<PathBuf>,
}

impl Sources {
    /// The sources, if some are given.
    pub(crate) fn mirrors(&self) -> Result<Option<Arc<Mirrors>>> {
        let mut client = None;
        let mut sources: Vec<Box<dyn Source>> = Vec::new();
        for place in &self.source {
            if !is_url(place) {
                sources.push(Box::new(Directory::new(Path::new(place))?));
                continue;
            }
            let client = match &mut client {
                Some(client) => client,
                None => client.insert(self.client()?),
            };
            let url = place.to_str().context("an address is text")?;
            sources.push(Box::new(Http::new(url, Client::clone(client))?));
        }
        let patience = Duration::from_secs(self.source_timeout.into());
        Ok((!sources.is_empty()).then(|| Arc::new(Mirrors::new(sources, patience))))
    }

    /// Those that are directories.
    pub(crate) fn directories(&self) -> Vec<PathBuf> {
        let places = self.source.iter().filter(|place| !is_url(place));
        places.map(PathBuf::from).collect()
    }

    fn client(&self) -> Result<Client> {
        let proxy = self.proxy.clone();
        Client::new(&http::Options {
            silence: Duration::from_secs(self.source_silence.into()),
            proxy: proxy.map(|proxy| {
                if proxy == "none" {
                    String::new()
                } else {
                    proxy
                }
            }),
            ca_file: self.ca_file.clone(),
        })
    }

    /// The sources, of which there has to be one.
    pub(crate) fn required(&self) -> Result<Arc<Mirrors>> {
        self.mirrors()?.context("give a --source")
    }
}
