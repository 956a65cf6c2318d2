// SPDX-License-Identifier: GPL-2.0
//! Fuzz targets: each is a function that takes any bytes, and panics if what a pure crate or the daemon makes of them is
//! wrong.
//!
//! The targets do not look for panics of the crates alone. Where there is a second way to an answer, it is taken too,
//! and both have to agree.
#![forbid(unsafe_code)]

mod area;
// The daemon's program has these two, not its library.
#[allow(dead_code)]
#[path = "../../demandd/src/args.rs"]
mod args;
pub mod config;
#[allow(dead_code)]
#[path = "../../demandd/src/config.rs"]
mod config_file;
pub mod directory;
pub mod http;
pub mod inode;
mod input;
pub mod manifest;
pub mod map;
pub mod record;
pub mod split;
pub mod super_block;
pub mod xattrs;

/// Takes any bytes.
pub type Target = fn(&[u8]);

/// All targets by their names.
pub const TARGETS: [(&str, Target); 10] = [
    ("super_block", super_block::run),
    ("inode", inode::run),
    ("directory", directory::run),
    ("xattrs", xattrs::run),
    ("map", map::run),
    ("split", split::run),
    ("record", record::run),
    ("manifest", manifest::run),
    ("config", config::run),
    ("http", http::run),
];
