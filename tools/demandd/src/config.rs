// SPDX-License-Identifier: GPL-2.0
//! The configuration file: TOML, with a key for each option of `demandd serve`, by its name without the dashes.
//!
//! The file becomes options that are put before those of the command line, unless they are given there. So every option
//! is described once, in `args`, and a value is checked in the same way wherever it comes from. Other verbs take from
//! the file what they have options for.

use std::ffi::OsString;
use std::fmt::Write;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{anyhow, bail, ensure, Context, Error, Result};
use clap::parser::ValueSource;
use clap::{ArgMatches, Command, CommandFactory, FromArgMatches};
use demandd::source::place::Place;
use toml::de::{DeTable, DeValue};

use crate::args::{Cli, Verb, CONFIG};

/// The verb whose options are the keys.
const SERVE: &str = "serve";

/// The key whose values may be tables, and what such a table has to have.
const SOURCE: &str = "source";
const ADDRESS: &str = "url";

/// Options that no file can have.
const NOT_IN_FILES: [&str; 3] = ["config", "help", "version"];

/// A command line with what the file adds to it.
pub(crate) struct Parsed {
    pub(crate) verb: Verb,
    matches: ArgMatches,
}

/// Reads a command line, and the file that it names or else the usual one, if there is one. An error may be clap's.
pub(crate) fn parse(line: &[OsString]) -> Result<Parsed> {
    let Some((verb, given)) = relaxed().try_get_matches_from(line).ok().and_then(verb_of) else {
        return strict(line);
    };
    let named = match given.try_get_one::<PathBuf>("config") {
        Ok(named) => named,
        // A verb that needs no file.
        Err(_) => return strict(line),
    };
    let path = named.map_or(Path::new(CONFIG), PathBuf::as_path);
    let text = match fs::read_to_string(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound && named.is_none() => {
            return strict(line)
        }
        text => text.with_context(|| format!("cannot read {}", path.display()))?,
    };
    let options = options(&text).with_context(|| path.display().to_string())?;
    let own = command_of(&verb);
    let wanted = options.into_iter().filter(|option| {
        let mut own = own.get_arguments();
        let argument = own.find(|argument| argument.get_long() == Some(&option.key));
        argument.is_some_and(|argument| {
            given.value_source(argument.get_id().as_str()) != Some(ValueSource::CommandLine)
        })
    });
    // Behind the verb, before its own options.
    let (head, tail) = line.split_at(2.min(line.len()));
    let wanted = wanted.map(|option| OsString::from(option.text));
    let line: Vec<_> = head
        .iter()
        .cloned()
        .chain(wanted)
        .chain(tail.iter().cloned())
        .collect();
    strict(&line)
}

/// Checks a file by itself.
pub(crate) fn check(path: &Path) -> Result<()> {
    let text =
        fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    options(&text).with_context(|| path.display().to_string())?;
    Ok(())
}

/// The keys of the file that is named, or else of the usual one; for people.
pub(crate) fn keys(named: Option<&Path>) -> String {
    let path = named.unwrap_or(Path::new(CONFIG));
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) => return format!("{}: {error}", path.display()),
    };
    let keys = options(&text).map(|options| {
        let keys: Vec<String> = options.into_iter().map(|option| option.key).collect();
        keys.join(", ")
    });
    keys.unwrap_or_else(|_| "they make no sense: see `demandd config check`".to_owned())
}

/// Which options of `serve` differ between two command lines, by their names.
pub(crate) fn changed(old: &Parsed, new: &Parsed) -> Vec<String> {
    let raw = |parsed: &Parsed, id: &str| -> Vec<OsString> {
        let serve = parsed.matches.subcommand_matches(SERVE);
        let values = serve.and_then(|serve| serve.try_get_raw(id).ok().flatten());
        values.into_iter().flatten().map(OsString::from).collect()
    };
    let serve = command_of(SERVE);
    let options = serve.get_arguments().filter_map(|argument| {
        let id = argument.get_id().as_str();
        (raw(old, id) != raw(new, id)).then(|| argument.get_long().unwrap_or(id).to_owned())
    });
    options.collect()
}

/// A key of a file, and the same as an option.
pub(crate) struct FromFile {
    pub(crate) key: String,
    pub(crate) text: String,
}

/// Reads a file; all of it must make sense to `serve`.
pub(crate) fn options(text: &str) -> Result<Vec<FromFile>> {
    let table =
        DeTable::parse(text).map_err(|error| anyhow!("{}", error.to_string().trim_end()))?;
    let serve = command_of(SERVE);
    let keys: Vec<&str> = serve
        .get_arguments()
        .filter_map(clap::Arg::get_long)
        .filter(|key| !NOT_IN_FILES.contains(key))
        .collect();
    let mut options = Vec::new();
    for (key, value) in table.get_ref() {
        let key = key.get_ref().as_ref();
        if !keys.contains(&key) {
            bail!("there is no key {key:?}; the keys are: {}", keys.join(", "));
        }
        let values = match value.get_ref() {
            DeValue::Array(values) => values.iter().map(toml::Spanned::get_ref).collect(),
            value => vec![value],
        };
        for value in values {
            let value = match value {
                DeValue::Table(table) if key == SOURCE => place(table),
                value => plain(value),
            };
            let value = value.and_then(|value| match key {
                SOURCE => Place::parse(value.as_ref()).map(|_| value),
                _ => Ok(value),
            });
            let value = value.with_context(|| format!("the value of {key:?}"))?;
            let text = format!("--{key}={value}");
            options.push(FromFile {
                key: key.to_owned(),
                text,
            });
        }
    }
    let line = ["demandd", SERVE].into_iter();
    let line = line.chain(options.iter().map(|option| option.text.as_str()));
    relaxed()
        .try_get_matches_from(line)
        .map_err(|error| reason(&error))?;
    Ok(options)
}

/// A value as it would stand on a command line.
fn plain(value: &DeValue<'_>) -> Result<String> {
    let mut text = String::new();
    match value {
        DeValue::String(value) => text.push_str(value),
        DeValue::Integer(value) => write!(text, "{value}")?,
        DeValue::Boolean(value) => write!(text, "{value}")?,
        _ => bail!("it is no text, number, true or false, nor a list of those"),
    }
    Ok(text)
}

/// A source that is a table, as its name on a command line: the address, and what is special about it.
fn place(table: &DeTable<'_>) -> Result<String> {
    let mut text = String::new();
    let mut settings = String::new();
    for (key, value) in table {
        let key = key.get_ref().as_ref();
        let value = plain(value.get_ref()).with_context(|| format!("{key:?}"))?;
        ensure!(!value.contains(char::is_whitespace), "{key:?} has a space");
        match key {
            ADDRESS => text = value,
            key => write!(settings, " {key}={value}")?,
        }
    }
    ensure!(!text.is_empty(), "there is no {ADDRESS:?}");
    // Else its settings would be taken for a part of its name.
    let is_directory = Place::parse(text.as_ref())?.is_directory();
    ensure!(
        !is_directory || settings.is_empty(),
        "a directory has no settings"
    );
    Ok(text + &settings)
}

/// What clap has to say of a value, without advice that is for command lines.
fn reason(error: &clap::Error) -> Error {
    let text = error.to_string();
    let lines = text.lines().take_while(|line| !line.is_empty());
    let text = lines.map(str::trim).collect::<Vec<_>>().join(" ");
    anyhow!("{}", text.strip_prefix("error: ").unwrap_or(&text))
}

fn strict(line: &[OsString]) -> Result<Parsed> {
    let matches = Cli::command().try_get_matches_from(line)?;
    let verb = Cli::from_arg_matches(&matches)?.verb;
    Ok(Parsed { verb, matches })
}

/// The command line without the need for options that may come from the file.
fn relaxed() -> Command {
    Cli::command().mut_subcommands(|verb| verb.mut_args(|argument| argument.required(false)))
}

fn verb_of(mut matches: ArgMatches) -> Option<(String, ArgMatches)> {
    matches.remove_subcommand()
}

fn command_of(verb: &str) -> Command {
    let cli = Cli::command();
    cli.find_subcommand(verb).cloned().unwrap_or_default()
}
