// SPDX-License-Identifier: GPL-2.0
//! The configuration file.

mod stand_in;

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use rustix::process::Signal;
use stand_in::process::{demandd, run, str, Daemon};
use stand_in::{record, Site, Terminal};

const EXAMPLE: &str = include_str!("../demandd.toml");

/// Checks a file of this text.
fn check(site: &Site, text: &str) -> (bool, String) {
    let path = site.path("checked.toml");
    fs::write(&path, text).unwrap();
    let (ok, stdout, stderr) = run(&["config", "check", str(&path)]);
    (ok, stdout + &stderr)
}

/// The options of `serve`, as its help has them.
fn options_of_serve() -> Vec<String> {
    let (ok, help, _) = run(&["serve", "--help"]);
    assert!(ok);
    let options = help.lines().filter_map(|line| {
        let line = line.trim_start();
        let line = line.strip_prefix("-h, ").unwrap_or(line);
        let name = line.strip_prefix("--")?;
        let end = name.find(|c: char| c != '-' && !c.is_ascii_lowercase());
        Some(name[..end.unwrap_or(name.len())].to_owned())
    });
    let all: Vec<_> = options
        .filter(|name| name != "help" && name != "config")
        .collect();
    assert!(all.len() > 15, "{all:?}");
    all
}

#[test]
fn the_example_has_every_option_and_is_good() {
    let site = Site::new();
    let (ok, text) = check(&site, EXAMPLE);
    assert!(ok && text.ends_with(": good\n"), "{text}");
    for option in options_of_serve() {
        let has = |prefix: &str| EXAMPLE.contains(&format!("\n{prefix}{option} = "));
        assert!(has("") || has("#") || has("##"), "{option}");
    }
    // What is commented out is good, too.
    let uncommented: String = EXAMPLE
        .lines()
        .map(|line| line.trim_start_matches('#'))
        .filter(|line| line.contains(" = ") && !line.starts_with(' '))
        .map(|line| line.to_owned() + "\n")
        .collect();
    assert_eq!(uncommented.lines().count(), options_of_serve().len());
    let (ok, text) = check(&site, &uncommented);
    assert!(ok, "{text}");
}

#[test]
fn what_is_wrong_is_named() {
    let site = Site::new();
    for (text, expected) in [
        (
            "colour = 1",
            r#"there is no key "colour"; the keys are: root,"#,
        ),
        ("config = \"x\"", "there is no key \"config\""),
        ("granule = 5000", "a power of two from 4096 to 16M"),
        ("workers = 0", "'--workers <N>'"),
        ("workers = 1.5", "the value of \"workers\""),
        ("unbind-at-exit = \"perhaps\"", "--unbind-at-exit"),
        ("linger = [1, 2]", "--linger"),
        ("cull = \"maybe\"", "[possible values: on, off]"),
        ("[serve]\nworkers = 1", "there is no key \"serve\""),
        ("root = \"/a\"\nroot = \"/b\"", "duplicate key"),
        ("root = /a", "line 1"),
        (
            "source = [{ url = \"http://h/\", colour = \"x\" }]",
            "there is no key \"colour\" for http://h/",
        ),
        (
            "source = { url = \"/a\", proxy = \"none\" }",
            "a directory has no settings",
        ),
        ("source = { proxy = \"none\" }", "there is no \"url\""),
        ("source = { url = \"http://h/ x\" }", "\"url\" has a space"),
        ("source = \"ftp://h/\"", "of the kind \"ftp\""),
        ("trace = { url = \"/a\" }", "the value of \"trace\""),
    ] {
        let (ok, told) = check(&site, text);
        assert!(!ok && told.contains(expected), "{text}: {told}");
        assert!(told.contains("checked.toml: "), "{told}");
    }
    let (ok, _, stderr) = run(&["config", "check", "/absent"]);
    assert!(!ok && stderr.contains("cannot read /absent"), "{stderr}");
}

/// A file that says where everything is, and more.
fn file(site: &Site, device: &Path, more: &str) -> PathBuf {
    let path = site.path("demandd.toml");
    let text = format!(
        "root = {:?}\nsource = {:?}\ndevice = {device:?}\ncull = \"off\"\n{more}",
        site.root(),
        site.source_dir()
    );
    fs::write(&path, text).unwrap();
    path
}

#[test]
fn the_command_line_goes_before_the_file() {
    let site = Site::new();
    site.blob("a.img", 4096);
    let device = Terminal::new();
    let more = "tag = \"filed\"\nlinger = 7\ntimeout = 9\nunbind-at-exit = true\nbrun = 30";
    let config = file(&site, &device.path, more);
    let mut daemon = Daemon::spawn(demandd().args([
        "serve",
        "--config",
        str(&config),
        "--timeout=11",
        "--unbind-at-exit=false",
    ]));
    let root = site.root().canonicalize().unwrap();
    for expected in [
        &format!("dir {}", root.display()),
        "tag filed",
        "brun 30%",
        "bind",
        "linger 7",
        "timeout 11",
    ] {
        assert_eq!(device.command(), expected);
    }
    assert_eq!(daemon.line(), "demandd: ready\n");
    daemon.signal(Signal::TERM);
    assert!(daemon.end().0);
    // Nothing was said at the end.
    let mut daemon =
        Daemon::spawn(demandd().args(["serve", "--config", str(&config), "--tag=given"]));
    assert_eq!(device.command(), format!("dir {}", root.display()));
    assert_eq!(device.command(), "tag given");
    for _ in ["brun", "bind", "linger", "timeout"] {
        device.command();
    }
    assert_eq!(daemon.line(), "demandd: ready\n");
    daemon.signal(Signal::TERM);
    assert_eq!(device.command(), "unbind");
    assert!(daemon.end().0);
}

#[test]
fn other_verbs_take_what_they_know() {
    let site = Site::new();
    site.blob("a.img", 4096);
    let config = file(&site, Path::new("/absent"), "workers = 3");
    let config = str(&config);
    let (ok, stdout, stderr) = run(&["prefetch", "--config", config, "--all"]);
    assert!(ok, "{stderr}");
    assert_eq!(stdout, "a.img: fetched 4096 bytes\n");
    let (ok, stdout, stderr) = run(&["status", "--config", config]);
    assert!(ok && stdout.contains("100  a.img\n"), "{stdout}{stderr}");
    let (ok, _, stderr) = run(&["status", "--config", "/absent"]);
    assert!(!ok && stderr.contains("cannot read /absent"), "{stderr}");
    // Without any, an option that has to be given has to be given.
    let (ok, _, stderr) = run(&["status"]);
    assert!(!ok && stderr.contains("--root"), "{stderr}");
}

#[test]
fn a_hangup_changes_what_can_change() {
    let site = Site::new();
    let bytes = site.blob("a.img", 4096);
    let mut device = Terminal::new();
    let first = "linger = 7\ngranule = \"64K\"\nworkers = 2";
    let config = file(&site, &device.path, first);
    let mut command = demandd();
    command.args(["serve", "--config", str(&config), "--timeout=11"]);
    let mut daemon = Daemon::spawn(command.stderr(Stdio::piped()));
    let mut log = BufReader::new(daemon.child.stderr.take().unwrap());
    let mut line = || {
        let mut line = String::new();
        log.read_line(&mut line).unwrap();
        line
    };
    device.expect_bind(&site.root(), "CacheFiles");
    for command in ["linger 7", "timeout 11", "granule 65536"] {
        assert_eq!(device.command(), command);
    }
    assert_eq!(daemon.line(), "demandd: ready\n");

    // One changes, one goes, one is overruled by the command line, one cannot change.
    let second = "linger = 8\ntimeout = 12\nworkers = 3";
    file(&site, &device.path, second);
    daemon.signal(Signal::HUP);
    assert_eq!(
        line(),
        "demandd: workers is another one now: that takes a restart\n"
    );
    assert_eq!(line(), "demandd: reloaded; changed: linger, granule\n");
    assert_eq!(device.command(), "linger 8");
    assert_eq!(device.command(), "granule 4096");

    // A file that makes no sense changes nothing, not even what does.
    file(&site, &device.path, "linger = 9\ncolour = 1");
    daemon.signal(Signal::HUP);
    let told = line();
    assert!(
        told.contains("stays as it was") && told.contains("colour"),
        "{told}"
    );
    file(&site, &device.path, first);
    daemon.signal(Signal::HUP);
    assert_eq!(line(), "demandd: reloaded; changed: linger, granule\n");
    assert_eq!(device.command(), "linger 7");
    assert_eq!(device.command(), "granule 65536");
    daemon.signal(Signal::HUP);
    assert_eq!(line(), "demandd: reloaded; nothing has changed\n");

    device.send(&record(1, 0, 4096, b"Da.img"));
    assert_eq!(device.command(), "done 1");
    assert_eq!(site.cached("a.img", 0, 4096), bytes);
    daemon.signal(Signal::TERM);
    assert!(daemon.end().0);
}
