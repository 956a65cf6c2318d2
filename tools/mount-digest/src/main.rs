// SPDX-License-Identifier: GPL-2.0
//! Prints everything that can be seen of a mounted tree, in a form that diff(1) can compare.
//!
//! A line is `PATH`, `ITEM` and values, separated by tabs. Names are escaped, so that a line is always ASCII. What
//! cannot be had is printed in its place as the name of the error.

mod access;
mod content;
mod directory;
mod extents;
mod group;
mod handle;
mod output;
mod refusal;
mod sha256;
mod status;
mod sys;
mod walk;
mod xattr;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;
use group::{Group, Groups};
use output::Output;

/// Print everything that can be seen of a mounted tree, so that two mounts can be compared with diff
///
/// A line has a path, the name of an item, and its values. Items come in groups, which --without and --only choose
/// from. The lines of a directory are followed by those of what is in it, sorted by name; names are also listed in the
/// order in which the directory has them. What cannot be had is printed as the name of the error, and is no reason to
/// end.
///
/// Symbolic links are not followed, and mounts below the directory are not entered. Nothing is changed. Calls that
/// should be refused because the mount is read-only (group errors) are tried only if it is.
///
/// Example: diff <(mount-digest /mnt/a) <(mount-digest --without fsid /mnt/b)
#[derive(Parser)]
#[command(version, max_term_width = 100)]
struct Cli {
    /// Leave out these groups
    #[arg(long, value_name = "GROUP,...", value_delimiter = ',')]
    without: Vec<Group>,
    /// Print only these groups
    #[arg(
        long,
        value_name = "GROUP,...",
        value_delimiter = ',',
        hide_possible_values = true,
        conflicts_with = "without"
    )]
    only: Vec<Group>,
    /// The directory to begin with
    #[arg(value_name = "DIRECTORY")]
    root: PathBuf,
}

fn main() -> ExitCode {
    match run(&Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("mount-digest: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: &Cli) -> Result<()> {
    let groups = if cli.only.is_empty() {
        Groups::without(&cli.without)
    } else {
        Groups::only(&cli.only)
    };
    let mut out = Output::new(std::io::stdout().lock());
    walk::walk(&cli.root, groups, &mut out)?;
    out.end()
}
