// SPDX-License-Identifier: GPL-2.0
//! What is written is what `demandd` knows.

#[allow(dead_code)]
#[path = "../../demandd/src/args.rs"]
mod args;

use std::fs::{read_dir, read_to_string};
use std::path::Path;
use std::process::Command;

use clap::CommandFactory;
use tempfile::TempDir;

fn written() -> TempDir {
    let dir = TempDir::new().unwrap();
    let status = Command::new(env!("CARGO_BIN_EXE_pages"))
        .arg(dir.path())
        .status();
    assert!(status.unwrap().success());
    dir
}

/// Every verb that people see, with those below it.
fn verbs(command: &clap::Command) -> Vec<clap::Command> {
    let below = command.get_subcommands().filter(|verb| !verb.is_hide_set());
    let mut all: Vec<_> = below.flat_map(verbs).collect();
    all.push(command.clone());
    all
}

#[test]
fn every_verb_has_a_page_with_all_its_options() {
    let dir = written();
    let man8 = dir.path().join("man/man8");
    let mut command = args::Cli::command().disable_help_subcommand(true);
    command.build();
    let verbs = verbs(&command);
    assert!(verbs.len() > 5, "{} verbs", verbs.len());
    assert_eq!(read_dir(&man8).unwrap().count(), verbs.len());
    for verb in verbs {
        let name = verb.get_display_name().unwrap_or("demandd");
        let page = read_to_string(man8.join(format!("{name}.8"))).unwrap();
        // In roff a hyphen that is one has a backslash.
        let page = page.replace('\\', "");
        assert!(page.contains(&format!(".TH {name} 8 ")), "{page}");
        let shown = verb.get_arguments().filter(|option| !option.is_hide_set());
        for option in shown.filter_map(clap::Arg::get_long) {
            assert!(page.contains(&format!("--{option}")), "{name}: {option}");
        }
    }
}

/// What bash offers for a line.
fn completed(script: &Path, line: &[&str]) -> Vec<String> {
    let program = r#"
        . "$1"; shift
        COMP_WORDS=("$@") COMP_CWORD=$(($# - 1))
        _demandd demandd "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD - 1]}"
        printf '%s\n' "${COMPREPLY[@]}""#;
    let run = Command::new("bash")
        .args(["-euc", program, "bash"])
        .arg(script)
        .args(line)
        .output()
        .unwrap();
    assert!(run.status.success(), "{run:?}");
    let text = String::from_utf8(run.stdout).unwrap();
    text.lines().map(str::to_owned).collect()
}

#[test]
fn bash_completes_verbs_and_options() {
    let dir = written();
    let script = dir.path().join("bash-completion/completions/demandd");
    assert_eq!(completed(&script, &["demandd", "ser"]), ["serve"]);
    assert_eq!(
        completed(&script, &["demandd", "serve", "--unb"]),
        ["--unbind-at-exit"]
    );
    assert_eq!(completed(&script, &["demandd", "image", "st"]), ["stamp"]);
    assert_eq!(
        completed(&script, &["demandd", "serve", "--io", "d"]),
        ["direct"]
    );
}

#[test]
fn fish_and_zsh_know_the_verbs() {
    let dir = written();
    for path in [
        "fish/vendor_completions.d/demandd.fish",
        "zsh/site-functions/_demandd",
    ] {
        let text = read_to_string(dir.path().join(path)).unwrap();
        for verb in args::Cli::command().get_subcommands() {
            assert!(
                text.contains(verb.get_name()),
                "{path}: {}",
                verb.get_name()
            );
        }
    }
}
