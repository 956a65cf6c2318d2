// SPDX-License-Identifier: GPL-2.0
//! The options that say where the bytes come from.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Args;
use demandd::source::http::Options;
use demandd::source::mirror::Mirrors;
use demandd::source::place::Place;
use demandd::source::Opener;

/// Where the bytes come from.
#[derive(Args, Clone)]
#[command(next_help_heading = "Where the bytes come from")]
pub(crate) struct Sources {
    /// What has the blobs: a directory, the address of one on a web server (http://... or https://...), s3://BUCKET/PREFIX,
    /// or an image of a registry, oci://HOST/IMAGE with :TAG or @sha256:DIGEST behind it. Behind an address, after spaces,
    /// more can stand as KEY=VALUE: proxy, proxy-password-file and ca-file, in place of the options; for web servers
    /// password-file (of a line USER:PASSWORD) or token-file; for S3 endpoint, region, style (path or host) and key-file;
    /// for registries auth-file and plain-http. Given several times: all have the same; the first one that is up is asked
    // Parsed later: clap would quote what it refuses, and there may be a password in it.
    #[arg(long, value_name = "DIR|URL")]
    source: Vec<OsString>,
    /// How long something is tried to be had, from one source or another
    #[arg(long, value_name = "SECONDS", default_value_t = 120, value_parser = clap::value_parser!(u32).range(1..=86_400))]
    source_timeout: u32,
    #[command(flatten)]
    web: Web,
}

/// How web servers are talked to.
#[derive(Args, Clone)]
#[command(next_help_heading = "Where the bytes come from")]
pub(crate) struct Web {
    /// How long a web server may say nothing
    #[arg(long, value_name = "SECONDS", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=3600))]
    source_silence: u32,
    /// Ask web servers through this proxy (http://HOST:PORT), or "none"; without this option as the environment says
    /// (https_proxy, no_proxy and so on)
    #[arg(long, value_name = "URL")]
    proxy: Option<String>,
    /// Tell the proxy who asks: the file has a line USER:PASSWORD
    #[arg(long, value_name = "FILE")]
    proxy_password_file: Option<PathBuf>,
    /// Believe web servers with a certificate from this file, rather than those that this machine believes
    #[arg(long, value_name = "FILE")]
    ca_file: Option<PathBuf>,
}

impl Sources {
    /// The sources, if some are given.
    pub(crate) fn mirrors(&self) -> Result<Option<Arc<Mirrors>>> {
        let opener = self.opener();
        let sources = self.source.iter().map(|text| opener.open(text));
        let sources = sources.collect::<Result<Vec<_>>>()?;
        let patience = Duration::from_secs(self.source_timeout.into());
        let some = !sources.is_empty();
        Ok(some.then(|| Arc::new(Mirrors::with_opener(sources, patience, opener))))
    }

    /// Opens sources in the way that these options say.
    fn opener(&self) -> Opener {
        let options = self.web.options();
        Opener::new(move |text| Place::parse(text)?.open(&options))
    }

    /// The same options with a place instead of the sources.
    pub(crate) fn only(&self, place: &OsStr) -> Self {
        Self {
            source: vec![place.to_owned()],
            ..self.clone()
        }
    }

    /// The options as they would stand on a command line.
    pub(crate) fn to_options(&self) -> Vec<OsString> {
        let Self {
            source,
            source_timeout,
            web,
        } = self;
        let mut options = Vec::new();
        let mut add = |option: &str, value: &OsStr| {
            options.extend([OsString::from(option), value.to_owned()]);
        };
        // A daemon has a working directory of its own.
        let full = |path: &Path| std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        for text in source {
            match Place::parse(text) {
                Ok(place) if place.is_directory() => {
                    add("--source", full(Path::new(text)).as_os_str());
                }
                Ok(place) => add("--source", place.full().as_ref().unwrap_or(text)),
                Err(_) => add("--source", text),
            }
        }
        add("--source-timeout", source_timeout.to_string().as_ref());
        add("--source-silence", web.source_silence.to_string().as_ref());
        if let Some(proxy) = &web.proxy {
            add("--proxy", proxy.as_ref());
        }
        for (option, file) in [
            ("--proxy-password-file", &web.proxy_password_file),
            ("--ca-file", &web.ca_file),
        ] {
            if let Some(file) = file {
                add(option, full(file).as_os_str());
            }
        }
        options
    }

    /// Whether there is one.
    pub(crate) fn is_empty(&self) -> bool {
        self.source.is_empty()
    }

    /// Those that are directories.
    pub(crate) fn directories(&self) -> Vec<PathBuf> {
        let places = self
            .source
            .iter()
            .filter_map(|text| Place::parse(text).ok());
        let places = places.filter(Place::is_directory);
        places.map(|place| PathBuf::from(place.name())).collect()
    }

    /// The sources, of which there has to be one.
    pub(crate) fn required(&self) -> Result<Arc<Mirrors>> {
        self.mirrors()?.context("give a --source")
    }
}

impl Web {
    pub(crate) fn options(&self) -> Options {
        let proxy = self.proxy.clone();
        Options {
            silence: Duration::from_secs(self.source_silence.into()),
            proxy: proxy.map(|proxy| {
                if proxy == "none" {
                    String::new()
                } else {
                    proxy
                }
            }),
            proxy_password_file: self.proxy_password_file.clone(),
            ca_file: self.ca_file.clone(),
        }
    }
}
