// SPDX-License-Identifier: GPL-2.0
//! A lease is had by one who is alone with the file.

use std::fs::File;
use std::io::ErrorKind;
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use lease::Lease;
use tempfile::NamedTempFile;

fn file() -> NamedTempFile {
    NamedTempFile::new_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

#[test]
fn nobody_else_may_have_the_file_open() {
    let file = file();
    for write in [false, true] {
        let other = File::options()
            .read(true)
            .write(write)
            .open(file.path())
            .unwrap();
        let error = Lease::take(file.as_file()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::WouldBlock, "{write}");
        drop(other);
        Lease::take(file.as_file()).unwrap();
    }
}

#[test]
fn whoever_opens_the_file_waits_until_the_lease_is_given_back() {
    // What is sent when somebody waits would end this process.
    ignore_sigio();
    let file = file();
    let lease = Lease::take(file.as_file()).unwrap();
    let (opened, wait) = channel();
    thread::scope(|scope| {
        let path = file.path();
        scope.spawn(move || {
            File::open(path).unwrap();
            opened.send(()).unwrap();
        });
        let early = wait.recv_timeout(Duration::from_millis(300));
        assert!(early.is_err(), "it was opened while the lease was held");
        drop(lease);
        wait.recv_timeout(Duration::from_secs(20)).unwrap();
    });
}

fn ignore_sigio() {
    // SAFETY: To ignore a signal takes no handler.
    unsafe { libc::signal(libc::SIGIO, libc::SIG_IGN) };
}
