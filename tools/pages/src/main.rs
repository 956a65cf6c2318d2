// SPDX-License-Identifier: GPL-2.0
//! Writes the manual pages of `demandd` and its completions for shells, as they lie below `share/`. Both come from the
//! options themselves, so that they cannot differ.
#![deny(unsafe_code)]

#[allow(dead_code)] // what becomes of the options is for demandd to know
#[path = "../../demandd/src/args.rs"]
mod args;

use std::ffi::OsString;
use std::fs::{create_dir_all, write};
use std::path::Path;

use anyhow::{Context, Result};
use clap::{Command, CommandFactory, Parser};
use clap_complete::{generate, Shell};
use clap_mangen::Man;

/// The section of the manual that is about administration.
const SECTION: &str = "8";

/// Where each shell looks for completions.
const SHELLS: [(Shell, &str); 3] = [
    (Shell::Bash, "bash-completion/completions/demandd"),
    (Shell::Fish, "fish/vendor_completions.d/demandd.fish"),
    (Shell::Zsh, "zsh/site-functions/_demandd"),
];

/// Write the manual pages and completions of demandd
#[derive(Parser)]
struct Args {
    /// Where they go: below man/, bash-completion/ and so on
    share: OsString,
}

fn main() -> Result<()> {
    let args = Args::parse();
    let share = Path::new(&args.share);
    // "demandd help serve" has no page: it is demandd-serve(8).
    let mut command = args::Cli::command().disable_help_subcommand(true);
    command.build();
    manual(&command, &share.join("man").join(format!("man{SECTION}")))?;
    for (shell, path) in SHELLS {
        let mut text = Vec::new();
        generate(shell, &mut args::Cli::command(), "demandd", &mut text);
        put(&share.join(path), &text)?;
    }
    Ok(())
}

/// The page of a verb, and those of the verbs below it.
fn manual(command: &Command, dir: &Path) -> Result<()> {
    let verbs = command.get_subcommands().filter(|verb| !verb.is_hide_set());
    verbs.into_iter().try_for_each(|verb| manual(verb, dir))?;
    let page = Man::new(command.clone())
        .section(SECTION)
        .source("erofs-demand")
        .manual("erofs-demand");
    let mut text = Vec::new();
    page.render(&mut text)?;
    put(&dir.join(page.get_filename()), &text)
}

fn put(path: &Path, text: &[u8]) -> Result<()> {
    create_dir_all(path.parent().unwrap_or(path))
        .and_then(|()| write(path, text))
        .with_context(|| format!("cannot write {}", path.display()))
}
