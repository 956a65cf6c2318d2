// SPDX-License-Identifier: GPL-2.0
//! The command line, as a user and as the system meet it: messages, signals, sudden death.

mod stand_in;

use std::fs;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use stand_in::process::{demandd, run, str, Daemon};
use stand_in::{record, Site, Terminal, PATIENCE};

#[test]
fn a_first_session() {
    let site = Site::new();
    let root = site.root();
    let source = site.source_dir();
    fs::write(source.join("test.img"), [5; 10_000]).unwrap();
    let (ok, stdout, stderr) = run(&[
        "prepare",
        "--root",
        str(&root),
        "--source",
        str(&source),
        "test.img",
    ]);
    assert!(ok, "{stderr}");
    assert_eq!(
        stdout,
        format!(
            "created\t10000\t{}/cache/Ierofs/@9c/Dtest.img\n",
            root.display()
        )
    );
    let (ok, stdout, _) = run(&["prepare", "--root", str(&root), "test.img=10000", "big=3G"]);
    assert!(ok && stdout.starts_with("exists\t10000\t"), "{stdout}");
    assert!(stdout.contains("created\t3221225472\t"), "{stdout}");

    let (ok, stdout, stderr) = run(&[
        "prefetch",
        "--root",
        str(&root),
        "--source",
        str(&source),
        // One after the other.
        "--workers=1",
        "test.img:0+1",
        "test.img",
    ]);
    assert!(ok, "{stderr}");
    assert_eq!(
        stdout,
        "test.img: fetched 4096 bytes\ntest.img: fetched 5904 bytes\n"
    );

    let (ok, stdout, _) = run(&["status", "--root", str(&root), "--json"]);
    let status: serde_json::Value = serde_json::from_str(&stdout).unwrap();
    assert!(ok);
    assert_eq!(status["blobs"][1]["percent"], 100);
    assert_eq!(status["total"]["size"], 3_221_235_472_u64);

    let (ok, _, stderr) = run(&[
        "prefetch",
        "--root",
        str(&root),
        "--source",
        str(&source),
        "--all",
    ]);
    assert!(!ok, "there is no source of big");
    assert!(
        stderr.contains("No such file") && stderr.contains("1 of 2"),
        "{stderr}"
    );
}

#[test]
fn it_serves_until_it_is_told_to_stop() {
    for signal in [Signal::TERM, Signal::INT] {
        let site = Site::new();
        let bytes = site.blob("a.img", 40_960);
        let mut device = Terminal::new();
        let trace = site.path("trace");
        let mut daemon = Daemon::start(&site, &device, &["--tag", "mine", "--trace", str(&trace)]);
        device.expect_bind(&site.root(), "mine");
        assert_eq!(daemon.line(), "demandd: ready\n");
        device.send(&record(1, 4096, 8192, b"Da.img"));
        assert_eq!(device.command(), "done 1");
        device.send(&record(2, 0, 4096, b"Dabsent"));
        assert_eq!(device.command(), "fail 2 5");
        daemon.signal(signal);
        let (ok, rest) = daemon.end();
        assert!(ok);
        assert_eq!(rest, "served 1 requests, 8192 bytes, 1 failed\n");
        assert_eq!(site.cached("a.img", 4096, 8192), bytes[4096..12288]);
        assert_eq!(
            fs::read_to_string(trace).unwrap(),
            "1\ta.img\t4096\t8192\tdone\n2\tabsent\t0\t4096\tfail 5\n"
        );
    }
}

#[test]
fn what_the_kernel_is_told_comes_from_the_options() {
    let site = Site::new();
    site.blob("a.img", 4096);
    let device = Terminal::new();
    let options = [
        "--linger=5",
        "--timeout=60",
        "--granule=1M",
        "--io=direct",
        "--brun=30%",
        "--bcull=20",
        "--fstop=0%",
        "--unbind-at-exit",
    ];
    let mut daemon = Daemon::start(&site, &device, &options);
    let root = site.root().canonicalize().unwrap();
    let expected = [
        &format!("dir {}", root.display()),
        "tag CacheFiles",
        "brun 30%",
        "bcull 20%",
        "fstop 0%",
        "bind",
        "linger 5",
        "timeout 60",
        "granule 1048576",
        "io direct",
    ];
    for command in expected {
        assert_eq!(device.command(), command);
    }
    assert_eq!(daemon.line(), "demandd: ready\n");
    daemon.signal(Signal::TERM);
    assert_eq!(device.command(), "unbind");
    assert!(daemon.end().0);
}

#[test]
fn without_unbind_at_exit_the_cache_is_left_to_the_next_daemon() {
    let site = Site::new();
    site.blob("a.img", 4096);
    let mut device = Terminal::new();
    for id in 1..3 {
        let mut daemon = Daemon::start(&site, &device, &[]);
        // Whatever the one before it had said would come first.
        device.expect_bind(&site.root(), "CacheFiles");
        assert_eq!(daemon.line(), "demandd: ready\n");
        device.send(&record(id, 0, 4096, b"Da.img"));
        assert_eq!(device.command(), format!("done {id}"));
        daemon.signal(Signal::TERM);
        assert!(daemon.end().0);
    }
}

#[test]
fn options_that_the_kernel_would_refuse_are_refused() {
    for option in [
        "--linger=604801",
        "--linger=-1",
        "--timeout=604801",
        "--granule=2048",
        "--granule=5000",
        "--granule=32M",
        "--granule=",
        "--io=fast",
        "--brun=100%",
        "--bcull=-1%",
        "--fstop=x",
        "--cull=maybe",
    ] {
        let (ok, _, stderr) = run(&["serve", "--root=/absent", "--source=/absent", option]);
        let name = option.split('=').next().unwrap();
        assert!(!ok && stderr.contains(name), "{option}: {stderr}");
    }
}

#[test]
fn status_shows_what_the_kernel_says() {
    let site = Site::new();
    site.blob("a.img", 4096);
    let kernel = site.path("kernel");
    let status = |more: &[&str]| {
        let root = site.root();
        let args = ["status", "--root", str(&root), "--kernel", str(&kernel)];
        let (ok, stdout, stderr) = run(&[&args, more].concat());
        assert!(ok, "{stderr}");
        stdout
    };
    let text = status(&[]);
    assert!(text.contains("a.img\n"), "{text}");
    assert!(text.contains("cachefiles_demand is not loaded"), "{text}");
    fs::create_dir(&kernel).unwrap();
    fs::write(kernel.join("caches"), "queued tag\n17 mine\n").unwrap();
    assert!(status(&[]).contains("queued tag\n    17 mine\n"));
    let json: serde_json::Value = serde_json::from_str(&status(&["--json"])).unwrap();
    assert_eq!(json["kernel"]["caches"][0]["queued"], 17);
    assert_eq!(json["blobs"][0]["name"], "a.img");
}

#[test]
fn status_can_be_watched() {
    let site = Site::new();
    let bytes = site.blob("a.img", 8192);
    let root = site.root();
    let args = ["status", "--root", str(&root), "--watch=1", "--json"];
    let mut status = Daemon::spawn(demandd().args(args));
    let mut percent = || {
        let status: serde_json::Value = serde_json::from_str(&status.line()).unwrap();
        status["total"]["percent"].as_u64().unwrap()
    };
    assert_eq!(percent(), 0);
    let file = site.cache_file("a.img");
    std::os::unix::fs::FileExt::write_all_at(&file, &bytes, 0).unwrap();
    let start = Instant::now();
    while percent() != 100 {
        assert!(start.elapsed() < PATIENCE);
    }
}

#[test]
fn whoever_watches_sees_bars() {
    let site = Site::new();
    let half = site.blob("half.img", 8192);
    let almost = site.blob("most.img", 4096 * 100);
    site.blob("none.img", 4096);
    let write = |name, bytes: &[u8]| {
        std::os::unix::fs::FileExt::write_all_at(&site.cache_file(name), bytes, 0).unwrap();
    };
    write("half.img", &half[..4096]);
    write("most.img", &almost[..4096 * 99]);
    let root = site.root();
    let args = ["status", "--root", str(&root), "--watch"];
    let mut status = Daemon::spawn(demandd().args(args));
    let lines: Vec<_> = std::iter::repeat_with(|| status.line()).take(5).collect();
    for (line, end) in lines.iter().zip([
        "   %                        blob\n",
        "  50  ##########..........  half.img\n",
        "  99  ###################.  most.img\n",
        "   0  ....................  none.img\n",
        "  97  ###################.  total\n",
    ]) {
        assert!(line.ends_with(end), "{line}");
    }
}

#[test]
fn a_second_signal_does_not_wait() {
    let site = Site::new();
    site.blob("a.img", 4096);
    let mut device = Terminal::new();
    let mut daemon = Daemon::start(&site, &device, &["--delay-ms", "600000"]);
    device.expect_bind(&site.root(), "CacheFiles");
    assert_eq!(daemon.line(), "demandd: ready\n");
    device.send(&record(1, 0, 4096, b"Da.img"));
    std::thread::sleep(Duration::from_millis(300));
    daemon.signal(Signal::TERM);
    std::thread::sleep(Duration::from_millis(300));
    assert!(
        daemon.child.try_wait().unwrap().is_none(),
        "it finishes what it has read"
    );
    daemon.signal(Signal::TERM);
    assert!(!daemon.end().0);
}

#[test]
fn a_daemon_that_is_killed_leaves_a_cache_that_the_next_one_fills() {
    let site = Site::new();
    let bytes = site.blob("a.img", 40_960);
    let mut device = Terminal::new();
    let mut first = Daemon::start(&site, &device, &["--delay-ms", "600000"]);
    device.expect_bind(&site.root(), "CacheFiles");
    assert_eq!(first.line(), "demandd: ready\n");
    device.send(&record(1, 0, 40_960, b"Da.img"));
    std::thread::sleep(Duration::from_millis(300));
    first.signal(Signal::KILL);
    assert!(!first.end().0);
    assert_eq!(site.missing("a.img"), 40_960, "nothing half done");

    device.reset();
    let mut second = Daemon::start(&site, &device, &[]);
    device.expect_bind(&site.root(), "CacheFiles");
    assert_eq!(second.line(), "demandd: ready\n");
    device.send(&record(2, 0, 40_960, b"Da.img"));
    assert_eq!(device.command(), "done 2");
    assert_eq!(site.cached("a.img", 0, 40_960), bytes);
}

#[test]
fn messages_say_what_to_do() {
    let site = Site::new();
    let root = site.root();
    let source = site.source_dir();
    let serve = |device: &str| {
        let (ok, stdout, stderr) = run(&[
            "serve",
            "--root",
            str(&root),
            "--source",
            str(&source),
            "--device",
            device,
        ]);
        assert!(!ok && stdout.is_empty(), "{stdout}");
        stderr
    };
    assert!(serve("/absent").contains("run `demandd prepare` first"));
    site.blob("a.img", 4096);
    assert!(serve("/absent").contains("modprobe cachefiles_demand"));

    let (_, _, stderr) = run(&["prepare", "--root", str(&root), "a.img"]);
    assert!(stderr.contains("not NAME=SIZE"), "{stderr}");
    let (_, _, stderr) = run(&["prepare", "--root", str(&root), "a.img=5"]);
    assert!(stderr.contains("it has 4096 bytes, not 5"), "{stderr}");
    let (_, _, stderr) = run(&[
        "prepare",
        "--root",
        str(&root),
        "--source",
        str(&source),
        "../x",
    ]);
    assert!(stderr.contains("cannot name a blob"), "{stderr}");
    let (_, _, stderr) = run(&["status", "--root", "/absent"]);
    assert!(stderr.contains("run `demandd prepare` first"), "{stderr}");
    let (_, _, stderr) = run(&["image", "inspect", "/dev/null"]);
    assert!(stderr.contains("not a regular file"), "{stderr}");
}

#[test]
fn every_verb_has_help_with_an_example() {
    for verb in [
        "prepare",
        "serve",
        "prefetch",
        "status",
        "image build",
        "image inspect",
        "image manifest",
        "image stamp",
        "image verify",
        "config check",
        "mount",
        "umount",
        "gc",
        "doctor",
        "bugreport",
    ] {
        let mut args: Vec<_> = verb.split(' ').collect();
        args.push("--help");
        let (ok, stdout, _) = run(&args);
        assert!(
            ok && stdout.contains(&format!("Example: demandd {verb} ")),
            "{stdout}"
        );
    }
}
