// SPDX-License-Identifier: GPL-2.0

//! Offset splitting: which bytes of which blob hold a range of a file, and which of those are in
//! the cache.
//!
//! A read of a file is a range of logical bytes. [`Slices`] cuts it where its source changes:
//! zeros, bytes that lie beside the metadata (inline), or a range of a blob. [`Runs`] then cuts one
//! blob range where the cache file changes from present to missing, and [`widen`] says what to
//! fetch for a missing run.
//!
//! Everything here is arithmetic on checked integers: no I/O, no locks, no allocation. What the
//! [`Map`] and the [`Presence`] answer may come from a crafted image or a confused file system, so
//! it is checked before it is used. The functions may sleep exactly if the map or the presence
//! query does.

// Kbuild gives `no_std` on the command line, and warns when it is given twice.
#![cfg_attr(not(CONFIG_RUST), no_std)]
#![forbid(unsafe_code)]
#![deny(missing_docs)]
#![deny(
    clippy::arithmetic_side_effects,
    clippy::cast_possible_truncation,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used
)]

mod block_set;
mod runs;
mod slices;

pub use block_set::BlockSet;
pub use runs::{widen, Presence, Run, Runs};
pub use slices::{next_slice, File, Map, Slice, Slices, Source, SplitError, SplitResult};
