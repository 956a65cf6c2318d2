// SPDX-License-Identifier: GPL-2.0
//! What a miss costs in system calls, counted by strace.

mod stand_in;

use std::fs;
use std::process::Command;

use demandd::image::build::describe;
use demandd::image::verify::{chunks, manifest};
use rustix::process::{kill_process, Pid, Signal};
use stand_in::process::Daemon;
use stand_in::{record, Site, Terminal};

const BLOCK: u64 = 4096;
/// The first misses open files and make memory.
const FIRST: u64 = 20;
const LAST: u64 = 120;

/// The system calls of a daemon for each miss, once all is as it stays.
fn calls_per_miss(site: &Site) -> Vec<String> {
    let mut device = Terminal::new();
    let log = site.path("strace");
    let serve = Daemon::command(site, &device);
    let mut command = Command::new("strace");
    command.args(["-f", "-qq", "-o"]).arg(&log);
    command.arg(serve.get_program()).args(serve.get_args());
    // Each worker would have a first miss of its own.
    command.arg("--workers=1");
    let mut daemon = Daemon::spawn(&mut command);
    device.expect_bind(&site.root(), "CacheFiles");
    assert_eq!(daemon.line(), "demandd: ready\n");
    for id in 1..=LAST {
        device.send(&record(id, id * BLOCK, BLOCK, b"Da.img"));
        assert_eq!(device.command(), format!("done {id}"));
    }
    // strace ends with it.
    let children = format!("/proc/{0}/task/{0}/children", daemon.child.id());
    let child = fs::read_to_string(children).unwrap();
    let child = child.trim().parse().unwrap();
    kill_process(Pid::from_raw(child).unwrap(), Signal::TERM).unwrap();
    assert!(daemon.end().0);
    let log = fs::read_to_string(log).unwrap();
    let answer = |line: &str, id: u64| line.contains(&format!("\"done {id}\\n\""));
    let mut lines = log.lines().skip_while(|line| !answer(line, FIRST));
    // There is one worker. Other threads may still be coming and going.
    let worker = lines.next().unwrap().split(' ').next().unwrap();
    let lines = lines.filter(|line| line.split(' ').next() == Some(worker));
    let mut calls = Vec::new();
    for line in lines {
        // Of a call that was interrupted by another thread's, the beginning counts.
        let call = line.split_whitespace().nth(1).unwrap_or_default();
        if let Some((name, _)) = call.split_once('(') {
            calls.push(name.to_owned());
        }
        if answer(line, LAST) {
            break;
        }
    }
    calls
}

fn check(site: &Site) {
    let calls = calls_per_miss(site);
    let misses = (LAST - FIRST) as usize;
    // Wait, read the request, look whether the file has a name, read the source, write the cache, answer.
    assert!(
        calls.len() <= 6 * misses + misses / 10,
        "{} calls for {misses} misses, the last of them {:?}",
        calls.len(),
        &calls[calls.len() - 20..]
    );
    assert!(
        calls.len() >= 5 * misses,
        "strace has missed some: {}",
        calls.len()
    );
}

#[test]
fn a_miss_takes_six_system_calls() {
    let site = Site::new();
    site.blob("a.img", 200 * BLOCK);
    check(&site);
}

#[test]
fn a_miss_that_is_verified_takes_no_more() {
    let site = Site::new();
    site.blob("a.img", 200 * BLOCK);
    describe(&site.source_dir(), "a", &["a.img".to_owned()], BLOCK).unwrap();
    let manifest = manifest(&site.mirrors(), &"a".parse().unwrap()).unwrap();
    let entry = &manifest.entries()[0];
    let chunks = chunks(&site.mirrors(), entry).unwrap();
    site.volume().prepare_verified(entry, &chunks).unwrap();
    check(&site);
}
