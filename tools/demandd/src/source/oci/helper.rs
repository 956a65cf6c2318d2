// SPDX-License-Identifier: GPL-2.0
//! Programs that have credentials: `docker-credential-NAME`, as docker, podman and containerd ask them.
//!
//! `get` takes the name of a server from the standard input, and gives a JSON object with `Username` and `Secret`.

use std::io::{ErrorKind, Read, Write};
use std::os::fd::AsFd;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{bail, ensure, Context, Result};
use rustix::event::{poll, PollFd, PollFlags, Timespec};
use rustix::io::retry_on_intr;
use rustix::process::{pidfd_open, Pid, PidfdFlags};
use serde_json::Value;

use super::logins::Known;
use crate::source::http::secret::{Login, Secret};

/// The most that one may say, in bytes.
const MOST: usize = 1 << 16;

/// How long it may take: it may ask a server of its own.
const PATIENCE: Duration = Duration::from_secs(30);

/// The user of whom a token is given in place of a password.
const TOKEN: &str = "<token>";

/// Asks a program, until then at the latest. `None`: it has nothing. May sleep; what it says is not quoted.
pub fn ask(name: &str, server: &str, until: Instant) -> Result<Option<Known>> {
    let program = format!("docker-credential-{name}");
    let until = until.min(Instant::now() + PATIENCE);
    converse(&program, server, until).with_context(|| format!("{program}, asked for {server}"))
}

fn converse(program: &str, server: &str, until: Instant) -> Result<Option<Known>> {
    let child = Command::new(program)
        .arg("get")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot be run")?;
    let mut child = Running(child);
    if let Some(mut stdin) = child.0.stdin.take() {
        match writeln!(stdin, "{server}") {
            // It may know without being asked.
            Err(error) if error.kind() != ErrorKind::BrokenPipe => return Err(error.into()),
            _ => {}
        }
    }
    let mut stdout = child.0.stdout.take().context("it has no output")?;
    let mut text = Vec::new();
    let mut piece = [0; 4096];
    loop {
        wait(&stdout, until)?;
        let size = stdout.read(&mut piece)?;
        if size == 0 {
            break;
        }
        text.extend(piece.iter().take(size));
        ensure!(text.len() <= MOST, "it says too much");
    }
    let pid = Pid::from_child(&child.0);
    wait(pidfd_open(pid, PidfdFlags::empty())?, until)?;
    let status = child.0.wait()?;
    let text = String::from_utf8_lossy(&text);
    if !status.success() {
        // There is no other sign of this, and all that do so say the same.
        if text.contains("credentials not found") {
            return Ok(None);
        }
        bail!("it fails ({status})");
    }
    parse(&text)
}

/// Waits until something can be read.
fn wait(fd: impl AsFd, until: Instant) -> Result<()> {
    let left = until.saturating_duration_since(Instant::now());
    let left = Timespec::try_from(left)?;
    let mut fds = [PollFd::from_borrowed_fd(fd.as_fd(), PollFlags::IN)];
    let woken = retry_on_intr(|| poll(&mut fds, Some(&left)))?;
    ensure!(woken > 0, "it does not answer in time");
    Ok(())
}

fn parse(text: &str) -> Result<Option<Known>> {
    // What is wrong with it is not told: it is secret.
    let answer: Option<Value> = serde_json::from_str(text).ok();
    let get = |key: &str| answer.as_ref()?.get(key)?.as_str();
    let (Some(user), Some(secret)) = (get("Username"), get("Secret")) else {
        bail!("what it says makes no sense");
    };
    let secret = Secret::new(secret);
    Ok(match user {
        "" => None,
        TOKEN => Some(Known::Identity(secret)),
        user => Some(Known::Login(Login {
            user: Secret::new(user),
            password: secret,
        })),
    })
}

/// A program that does not go on when nobody waits for it any more.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// What comes of a program that does this.
    fn of(script: &str, patience: Duration) -> Result<Option<Known>> {
        let dir = tempfile::tempdir().unwrap();
        let (text, program) = (dir.path().join("text"), dir.path().join("program"));
        fs::write(&text, format!("#!/bin/sh\n{script}\n")).unwrap();
        // Not by this process: a child of another thread could still have it open for writing.
        let mut install = Command::new("install");
        let installed = install.arg("-m700").args([&text, &program]).status();
        assert!(installed.unwrap().success());
        let until = Instant::now() + patience;
        converse(program.to_str().unwrap(), "host:5000", until)
    }

    #[test]
    fn a_program_is_asked_for_a_server() {
        let answer = r#"read server; test "$1" = get || exit 1
            echo "{\"ServerURL\": \"$server\", \"Username\": \"me at $server\", \"Secret\": \"a:b\"}""#;
        match of(answer, PATIENCE).unwrap() {
            Some(Known::Login(login)) => {
                assert_eq!(login.user.reveal(), "me at host:5000");
                assert_eq!(login.password.reveal(), "a:b");
            }
            other => panic!("{other:?}"),
        }
        let answer = r#"echo '{"Username": "<token>", "Secret": "t"}'"#;
        let token = of(answer, PATIENCE).unwrap();
        assert_eq!(token, Some(Known::Identity(Secret::new("t"))));
        for nothing in [
            r#"echo '{"Username": "", "Secret": ""}'"#,
            "echo credentials not found in native keychain; exit 1",
        ] {
            assert_eq!(of(nothing, PATIENCE).unwrap(), None);
        }
    }

    #[test]
    fn one_that_fails_or_hangs_is_an_error_that_does_not_quote_it() {
        for (script, why) in [
            ("echo xyzzy; exit 3", "it fails (exit status: 3)"),
            ("echo xyzzy", "makes no sense"),
            (r#"echo '{"Secret": "xyzzy"}'"#, "makes no sense"),
            ("while echo xyzzy; do :; done", "it says too much"),
            ("exec sleep 1000", "it does not answer in time"),
            ("exec >&-; exec sleep 1000", "it does not answer in time"),
        ] {
            let began = Instant::now();
            let error = of(script, Duration::from_secs(2)).unwrap_err();
            let error = format!("{error:#}");
            assert!(error.contains(why) && !error.contains("xyzzy"), "{error}");
            assert!(began.elapsed() < PATIENCE);
        }
        let error = ask("absent", "host", Instant::now() + PATIENCE).unwrap_err();
        assert!(format!("{error:#}")
            .contains("docker-credential-absent, asked for host: cannot be run"));
    }
}
