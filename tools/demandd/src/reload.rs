// SPDX-License-Identifier: GPL-2.0
//! What changes while the daemon serves when its configuration does.

use std::ffi::OsString;
use std::sync::{Mutex, PoisonError};

use anyhow::{bail, Result};
use demandd::abi::Io;
use demandd::device::{change, Device, Settings};
use demandd::log;
use demandd::source::mirror::Mirrors;

use crate::args::{Serve, Verb};
use crate::config::{self, Parsed};

/// The options that can change, which are those that the kernel takes at any time.
const CHANGEABLE: [&str; 4] = ["linger", "timeout", "granule", "io"];

/// A daemon's configuration.
pub(crate) struct Reload<'a> {
    line: &'a [OsString],
    first: &'a Parsed,
    /// If it was reloaded: the last one.
    last: Mutex<Option<Parsed>>,
    device: &'a dyn Device,
    mirrors: &'a Mirrors,
}

impl<'a> Reload<'a> {
    /// Begins with what the daemon was started with.
    pub(crate) fn new(
        line: &'a [OsString],
        first: &'a Parsed,
        device: &'a dyn Device,
        mirrors: &'a Mirrors,
    ) -> Self {
        Self {
            line,
            first,
            last: Mutex::default(),
            device,
            mirrors,
        }
    }

    /// Reads the configuration and all credentials again, changes what can be, and logs what cannot. Returns what has
    /// changed.
    pub(crate) fn reload(&self) -> Result<Vec<String>> {
        // Whether or not the configuration makes sense.
        let credentials = self.mirrors.reload();
        let new = config::parse(self.line)?;
        let Verb::Serve(serve) = &new.verb else {
            bail!("it is not that of a daemon any more");
        };
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let changeable = |name: &String| CHANGEABLE.contains(&name.as_str());
        for name in config::changed(self.first, &new) {
            if !changeable(&name) {
                log!("{name} is another one now: that takes a restart");
            }
        }
        let mut changed = config::changed(last.as_ref().unwrap_or(self.first), &new);
        changed.retain(changeable);
        change(self.device, &settings(serve, &changed))?;
        *last = Some(new);
        if credentials {
            changed.push("credentials".to_owned());
        }
        Ok(changed)
    }
}

/// What the kernel is told. An option that is given no more becomes what the kernel has without it.
fn settings(serve: &Serve, changed: &[String]) -> Settings {
    let is = |name: &str| changed.iter().any(|changed| changed == name);
    Settings {
        limits: Vec::new(),
        linger: is("linger").then_some(serve.linger.unwrap_or(30)),
        timeout: is("timeout").then_some(serve.timeout.unwrap_or(0)),
        granule: is("granule").then_some(serve.granule.unwrap_or(4096)),
        io: is("io").then_some(serve.io.map_or(Io::Auto, Io::from)),
    }
}
