// SPDX-License-Identifier: GPL-2.0
//! The options of `demandd verify`.

use std::ffi::OsString;

use clap::Args;

use super::prefetch::rate;
use super::{Output, Place};

/// Verify what is in the cache
///
/// Reads every chunk that is wholly present, and compares it with the list of chunks that the cache keeps of the blob.
/// Prints for each blob how many bytes are present, how many of them are as they should be, and how many cannot be
/// verified, because the blob has no manifest or only a part of the chunk is there. It needs no source, and the daemon
/// may run.
///
/// With --repair, chunks that are wrong are made absent again, so that they are fetched when somebody reads them. That is
/// never done while anybody has the file open, above all the kernel, for a mount: it counts on what it has seen there.
///
/// The status is 0 if nothing that is wrong is left.
///
/// Example: demandd verify --root /var/cache/demand --repair
#[derive(Args)]
pub(crate) struct Verify {
    #[command(flatten)]
    pub(crate) place: Place,
    /// Make chunks that are wrong absent
    #[arg(long)]
    pub(crate) repair: bool,
    /// How many bytes to read per second at most, in bytes or with K, M, G or T
    #[arg(long, value_name = "SIZE", value_parser = rate)]
    pub(crate) rate: Option<u64>,
    #[command(flatten)]
    pub(crate) output: Output,
    /// Names of blobs; without any, all of the cache
    #[arg(value_name = "NAME")]
    pub(crate) blobs: Vec<OsString>,
}
