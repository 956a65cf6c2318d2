// SPDX-License-Identifier: GPL-2.0
//! `demandd` fills the cache of the kernel module `cachefiles_demand`: it prepares sparse cache files, answers the
//! kernel's requests for missing ranges, removes blobs when the disk gets full, and tells what is present.
//!
//! A request's way: [`device`] reads the record that [`abi`] describes, [`serve`] hands it to a worker, [`blobs`] has
//! the blob open. If it has a [`manifest`], [`flight`] tells which of its [`chunks`] nobody else is bringing, and [`fetch`]
//! gets those from a [`source`], verifies each and writes it to the [`cache`]. Else [`mod@copy`] moves the bytes there from
//! a directory. Then the answer goes back.
#![forbid(unsafe_code)]

pub mod abi;
pub mod api;
pub mod blobs;
pub mod cache;
pub mod chunks;
pub mod copy;
pub mod counts;
pub mod cull;
pub mod device;
pub mod digest;
pub mod doctor;
pub mod fetch;
pub mod flight;
pub mod gate;
pub mod gc;
pub mod http;
pub mod image;
pub mod inbox;
pub mod kernel;
pub mod lists;
pub mod machine;
pub mod manifest;
pub mod metrics;
pub mod mount;
pub mod notify;
pub mod places;
pub mod prefetch;
pub mod report;
pub mod serve;
pub mod size;
pub mod source;
pub mod status;
pub mod store;
pub mod verify;
pub mod working_directory;

/// Writes one line to standard error. A log that nobody reads any more is no reason to stop serving.
#[macro_export]
macro_rules! log {
    ($($arg:tt)*) => {
        // The line is written at once: lines of several threads must not mix.
        { use std::io::Write as _; let _ = std::io::stderr().write_all(format!("demandd: {}\n", format_args!($($arg)*)).as_bytes()); }
    };
}
