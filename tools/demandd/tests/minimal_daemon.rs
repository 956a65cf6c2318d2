// SPDX-License-Identifier: GPL-2.0
//! The sample daemon in C: it builds without a warning, and serves.

mod stand_in;

use std::process::Command;

use stand_in::{record, Site, Terminal};

#[test]
fn the_sample_daemon_serves() {
    let site = Site::new();
    let bytes = site.blob("a.img", 1_000_000);
    site.blob("cut", 8192);
    std::fs::write(site.source_dir().join("cut"), [1; 8191]).unwrap();
    let program = site.path("minimal_daemon");
    let status = Command::new("cc")
        .args([
            "-O2",
            "-Wall",
            "-Wextra",
            "-Werror",
            "-I../../include/uapi",
            "-o",
        ])
        .arg(&program)
        .arg("../../samples/daemon/minimal_daemon.c")
        .status()
        .expect("a C compiler is installed");
    assert!(status.success());

    let mut device = Terminal::new();
    let mut daemon = Command::new(program)
        .arg(site.root().canonicalize().unwrap())
        .arg("mine")
        .args([site.source_dir(), device.path.clone()])
        .spawn()
        .unwrap();
    device.expect_bind(&site.root(), "mine");
    let mut ask = |id, off, len, path: &[u8]| {
        device.send(&record(id, off, len, path));
        device.command()
    };
    assert_eq!(ask(1, 0, 1_000_000, b"Da.img"), "done 1");
    assert_eq!(
        ask(u64::MAX, 8192, 4096, b"Da.img"),
        "done 18446744073709551615"
    );
    assert_eq!(ask(3, 0, 8192, b"Dcut"), "fail 3 5");
    assert_eq!(ask(4, 0, 4096, b"Dabsent"), "fail 4 5");
    assert_eq!(ask(5, 0, 4096, b"D../a.img"), "fail 5 5");
    daemon.kill().unwrap();
    daemon.wait().unwrap();
    assert_eq!(site.cached("a.img", 0, 1_000_000), bytes);
    assert_eq!(site.missing("cut"), 8192);
}
