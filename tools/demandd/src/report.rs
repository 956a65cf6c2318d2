// SPDX-License-Identifier: GPL-2.0
//! What somebody who is to find a mistake has to know of a machine, as one text.
//!
//! No value of the configuration is in it, no environment and no command line: addresses of sources may hold passwords.

use std::fmt::Write;
use std::fs::{self, File};
use std::io::{ErrorKind, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rustix::fs::OFlags;

use crate::abi::header::CACHEFILES_DEMAND_DEVICE;
use crate::cache::Volume;
use crate::doctor::{look, Wanted};
use crate::kernel::{Kernel, DIR};
use crate::machine::Machine;
use crate::status;

/// What a line of the kernel's log has to hold to be about us.
const OURS: [&str; 4] = ["cachefiles_demand", "erofs", "fscache", "netfs"];

/// So many lines of the log, the last ones, are enough.
const LINES: usize = 500;

/// Files that are shown whole.
const FILES: [&str; 7] = [
    "/proc/version",
    "/etc/os-release",
    "/sys/kernel/debug/cachefiles_demand/caches",
    "/sys/kernel/debug/cachefiles_demand/objects",
    "/sys/kernel/debug/cachefiles_demand/requests",
    "/proc/fs/fscache/caches",
    "/proc/fs/fscache/stats",
];

/// Facts about a loaded module.
const FACTS: [&str; 3] = ["taint", "refcnt", "srcversion"];

/// What is told of who has the device open.
const LIMITS: [&str; 3] = ["Max open files", "Max locked memory", "Max file size"];
const STATUS: [&str; 5] = ["Name", "Threads", "VmLck", "VmRSS", "CapEff"];

/// Makes the report. Of the configuration there are the keys only.
pub fn report(machine: &Machine, wanted: &Wanted, keys: &str) -> String {
    let mut text = String::new();
    section(&mut text, "demandd", env!("CARGO_PKG_VERSION"));
    section(&mut text, "configuration: keys", keys);
    section(&mut text, "doctor", &look(machine, wanted).to_string());
    section(&mut text, "status", &status(machine, wanted));
    for path in FILES {
        section(&mut text, path, &machine.read(path).unwrap_or_else(absent));
    }
    for module in ["cachefiles_demand", "erofs"] {
        let facts = FACTS.iter().filter_map(|fact| {
            let value = machine.read(&format!("/sys/module/{module}/{fact}"))?;
            Some(format!("{fact}: {}\n", value.trim()))
        });
        section(
            &mut text,
            &format!("module {module}"),
            &facts.collect::<String>(),
        );
    }
    section(&mut text, "mounts", &mounts(machine));
    section(&mut text, "who has the device open", &openers(machine));
    section(&mut text, "kernel log", &log(machine));
    text
}

fn absent() -> String {
    "cannot be read\n".to_owned()
}

fn section(text: &mut String, name: &str, body: &str) {
    let body = body.trim_end();
    // Writing to a string does not fail.
    let _ = writeln!(text, "==== {name}\n{body}\n");
}

fn status(machine: &Machine, wanted: &Wanted) -> String {
    let Some(root) = &wanted.root else {
        return "no cache was named".to_owned();
    };
    match Volume::new(root, &wanted.volume).and_then(|volume| status::rows(&volume)) {
        Ok(rows) => status::table(&rows, &Kernel::read(&machine.path(DIR)), false),
        Err(error) => format!("{error:#}"),
    }
}

fn mounts(machine: &Machine) -> String {
    let mounts = machine.read("/proc/self/mounts").unwrap_or_else(absent);
    let of_interest = |line: &&str| line.split(' ').nth(2) == Some("erofs");
    let lines = mounts.lines().filter(of_interest);
    lines.map(|line| line.to_owned() + "\n").collect()
}

/// Processes that have the device open: what the kernel says of the open file, and what could limit them.
fn openers(machine: &Machine) -> String {
    let device = CACHEFILES_DEMAND_DEVICE.to_str().unwrap_or_default();
    let mut text = String::new();
    for process in names(&machine.path("/proc")) {
        if process.parse::<u32>().is_err() {
            continue;
        }
        let dir = format!("/proc/{process}");
        for fd in names(&machine.path(&format!("{dir}/fd"))) {
            let link = machine.path(&format!("{dir}/fd/{fd}"));
            if !fs::read_link(link).is_ok_and(|target| target == Path::new(device)) {
                continue;
            }
            let info = machine.read(&format!("{dir}/fdinfo/{fd}"));
            let _ = write!(
                text,
                "process {process}, descriptor {fd}:\n{}",
                info.unwrap_or_default()
            );
            text += &lines(machine, &format!("{dir}/status"), &STATUS);
            text += &lines(machine, &format!("{dir}/limits"), &LIMITS);
        }
    }
    text
}

fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
    let mut names: Vec<_> = names.collect();
    names.sort();
    names
}

/// The lines of a file that begin with one of some words.
fn lines(machine: &Machine, path: &str, words: &[&str]) -> String {
    let text = machine.read(path).unwrap_or_default();
    let wanted = text
        .lines()
        .filter(|line| words.iter().any(|word| line.starts_with(word)));
    wanted.map(|line| line.to_owned() + "\n").collect()
}

fn log(machine: &Machine) -> String {
    let text = match read_log(&machine.path("/dev/kmsg")) {
        Ok(text) => text,
        Err(error) => return format!("cannot be read: {error}"),
    };
    // "6,339,5140900,-;message": priority, number, microseconds.
    let ours = text.lines().filter_map(|line| {
        let (head, message) = line.split_once(';')?;
        let seconds = head.split(',').nth(2)?.parse::<u64>().ok()? / 1_000_000;
        let ours = OURS.iter().any(|word| message.contains(word));
        ours.then(|| format!("{seconds} s: {message}\n"))
    });
    let ours: Vec<String> = ours.collect();
    ours.iter()
        .skip(ours.len().saturating_sub(LINES))
        .map(String::as_str)
        .collect()
}

/// The kernel's log as it is now. A read gives one line.
fn read_log(path: &Path) -> std::io::Result<String> {
    let nonblock = i32::try_from(OFlags::NONBLOCK.bits()).unwrap_or_default();
    let mut file = File::options()
        .read(true)
        .custom_flags(nonblock)
        .open(path)?;
    let mut text = Vec::new();
    let mut buffer = [0; 8192];
    loop {
        match file.read(&mut buffer) {
            Ok(0) => break,
            Ok(size) => text.extend(buffer.iter().take(size)),
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            // Lines that were lost to newer ones.
            Err(error) if error.kind() == ErrorKind::BrokenPipe => {}
            Err(error) => return Err(error),
        }
    }
    Ok(String::from_utf8_lossy(&text).into_owned())
}
