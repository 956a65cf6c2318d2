// SPDX-License-Identifier: GPL-2.0
//! `demandd` as a process of its own.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Output, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{kill_process, Pid, Signal};

use super::{Site, Terminal, PATIENCE};

pub fn demandd() -> Command {
    Command::new(env!("CARGO_BIN_EXE_demandd"))
}

pub fn run(args: &[&str]) -> (bool, String, String) {
    let Output {
        status,
        stdout,
        stderr,
    } = demandd().args(args).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (status.success(), text(stdout), text(stderr))
}

pub fn str(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Makes a program that is a script for the shell.
pub fn make_script(program: &Path, script: &str) {
    let text = program.with_extension("text");
    std::fs::write(&text, format!("#!/bin/sh\n{script}\n")).unwrap();
    // Not by this process: a child of another thread could still have it open for writing.
    let mut install = Command::new("install");
    let installed = install.arg("-m700").args([&text, program]).status();
    assert!(installed.unwrap().success());
}

/// A daemon in a process of its own. Killed when the test ends.
pub struct Daemon {
    pub child: Child,
    stdout: BufReader<ChildStdout>,
}

impl Daemon {
    pub fn start(site: &Site, device: &Terminal, options: &[&str]) -> Self {
        Self::spawn(Self::command(site, device).args(options))
    }

    /// What serves a site with a terminal for a device.
    pub fn command(site: &Site, device: &Terminal) -> Command {
        let mut command = demandd();
        command.arg("serve");
        command.args(["--root", str(&site.root())]);
        command.args(["--source", str(&site.source_dir())]);
        command.args(["--device", str(&device.path)]);
        // A terminal can always be written: the daemon would cull.
        command.args(["--cull", "off"]);
        command
    }

    pub fn spawn(command: &mut Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        Self { child, stdout }
    }

    pub fn line(&mut self) -> String {
        let mut line = String::new();
        self.stdout.read_line(&mut line).unwrap();
        line
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// What it printed to the end, and whether it ended well.
    pub fn end(&mut self) -> (bool, String) {
        let start = Instant::now();
        while self.child.try_wait().unwrap().is_none() {
            assert!(start.elapsed() < PATIENCE, "the daemon does not end");
            std::thread::sleep(Duration::from_millis(5));
        }
        let mut rest = String::new();
        self.stdout.read_to_string(&mut rest).unwrap();
        (self.child.wait().unwrap().success(), rest)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
