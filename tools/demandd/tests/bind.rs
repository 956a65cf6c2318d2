// SPDX-License-Identifier: GPL-2.0
//! Which commands a daemon gives before it serves and when it ends, and what it says when one is refused.

mod stand_in;

use std::path::Path;

use demandd::abi::{Io, Limit};
use demandd::device::{bind, take_back, unbind, Device, Node, Settings};
use rustix::io::Errno;
use stand_in::daemon::{Refusing, Socket};
use stand_in::{Kernel, Site};

/// The commands that binding gives behind `dir` and `tag`.
fn commands(site: &Site, settings: &Settings) -> Vec<String> {
    let (kernel, fd) = Kernel::pair();
    let node = Node::from(fd);
    bind(&node, &site.root().join("../root"), "mine", settings).unwrap();
    unbind(&node).unwrap();
    let root = site.root().canonicalize().unwrap();
    assert_eq!(kernel.command(), format!("dir {}\n", root.display()));
    assert_eq!(kernel.command(), "tag mine\n");
    let mut commands = Vec::new();
    while commands.last().is_none_or(|last| last != "unbind") {
        commands.push(kernel.command().trim_end_matches('\n').to_owned());
    }
    commands
}

fn site() -> Site {
    let site = Site::new();
    site.blob("a.img", 4096);
    site
}

#[test]
fn what_is_not_asked_for_is_not_said() {
    assert_eq!(commands(&site(), &Settings::default()), ["bind", "unbind"]);
}

#[test]
fn limits_go_before_bind() {
    let settings = Settings {
        limits: vec![
            (Limit::Brun, 20),
            (Limit::Bcull, 10),
            (Limit::Bstop, 0),
            (Limit::Frun, 9),
            (Limit::Fcull, 8),
            (Limit::Fstop, 7),
        ],
        ..Settings::default()
    };
    assert_eq!(
        commands(&site(), &settings),
        [
            "brun 20%",
            "bcull 10%",
            "bstop 0%",
            "frun 9%",
            "fcull 8%",
            "fstop 7%",
            "bind",
            "unbind"
        ]
    );
}

#[test]
fn each_setting_is_a_command_behind_bind() {
    let site = site();
    let of = |settings| commands(&site, &settings);
    let none = Settings::default;
    let linger = Settings {
        linger: Some(0),
        ..none()
    };
    assert_eq!(of(linger), ["bind", "linger 0", "unbind"]);
    let timeout = Settings {
        timeout: Some(604_800),
        ..none()
    };
    assert_eq!(of(timeout), ["bind", "timeout 604800", "unbind"]);
    let granule = Settings {
        granule: Some(1 << 20),
        ..none()
    };
    assert_eq!(of(granule), ["bind", "granule 1048576", "unbind"]);
    for (io, command) in [
        (Io::Auto, "io auto"),
        (Io::Direct, "io direct"),
        (Io::Buffered, "io buffered"),
    ] {
        let io = Settings {
            io: Some(io),
            ..none()
        };
        assert_eq!(of(io), ["bind", command, "unbind"]);
    }
}

#[test]
fn a_refused_command_says_what_to_do() {
    let site = site();
    let settings = Settings {
        limits: vec![(Limit::Brun, 20)],
        linger: Some(5),
        timeout: Some(6),
        granule: Some(8192),
        io: Some(Io::Direct),
    };
    for (command, errno, advice) in [
        ("bind", Errno::NOTDIR, "not a directory"),
        ("bind", Errno::ROFS, "read-only file system"),
        ("bind", Errno::OPNOTSUPP, "ext4, XFS or btrfs"),
        ("bind", Errno::BUSY, "with this tag is bound already"),
        ("bind", Errno::INVAL, "not stop < cull < run"),
        ("tag", Errno::INVAL, "does not accept the argument"),
        ("dir", Errno::EXIST, "was given before"),
        ("brun 20%", Errno::OPNOTSUPP, "it is older than demandd"),
        ("linger 5", Errno::OPNOTSUPP, "it is older than demandd"),
        ("timeout 6", Errno::OPNOTSUPP, "it is older than demandd"),
        ("granule 8192", Errno::OPNOTSUPP, "it is older than demandd"),
        ("granule 8192", Errno::INVAL, "does not accept the argument"),
        ("io direct", Errno::OPNOTSUPP, "it is older than demandd"),
        ("unbind", Errno::OPNOTSUPP, "it is older than demandd"),
    ] {
        let (_kernel, fd) = Kernel::pair();
        let device = Refusing::new(Socket::from(fd), command, errno, 1);
        let error = bind(&device, &site.root(), "x", &settings)
            .and_then(|()| unbind(&device))
            .unwrap_err();
        let text = format!("{error:#}");
        assert!(text.starts_with(command) && text.contains(advice), "{text}");
    }
}

#[test]
fn a_root_that_does_not_exist_says_so() {
    let (_kernel, fd) = Kernel::pair();
    let error = bind(
        &Node::from(fd),
        Path::new("/absent"),
        "x",
        &Settings::default(),
    );
    let text = format!("{:#}", error.unwrap_err());
    assert!(text.contains("run `demandd prepare` first"), "{text}");
}

/// The commands that a device gets that was kept open.
fn taken_back(site: &Site, refused: &'static str, errno: Errno) -> Vec<String> {
    let (kernel, fd) = Kernel::pair();
    let device = Refusing::new(Socket::from(fd), refused, errno, 1);
    let settings = Settings {
        limits: vec![(Limit::Brun, 20)],
        linger: Some(5),
        ..Settings::default()
    };
    let volume = site.volume();
    take_back(&device, &site.root(), volume.dir(), "x", &settings).unwrap();
    device.write(b"last").unwrap();
    let mut commands = Vec::new();
    loop {
        match kernel.command().trim_end_matches('\n') {
            "last" => return commands,
            command => commands.push(command.to_owned()),
        }
    }
}

#[test]
fn a_cache_that_is_bound_already_goes_on() {
    let site = site();
    // The limits cannot be changed any more.
    let expected = ["linger 5", "restore"];
    // That no such file is in the cache proves that the directory is.
    assert_eq!(taken_back(&site, "inuse", Errno::NOENT), expected);
    let with_question = taken_back(&site, "nothing", Errno::IO);
    assert_eq!(with_question, ["inuse demandd", "linger 5", "restore"]);
    // The question is about a directory of the cache, which only a thread of its own was in.
    assert_ne!(std::env::current_dir().unwrap(), site.volume().dir());
}

#[test]
fn another_cache_than_the_one_that_is_wanted_goes() {
    let site = site();
    let root = site.root().canonicalize().unwrap();
    let dir = format!("dir {}", root.display());
    assert_eq!(
        taken_back(&site, "inuse", Errno::INVAL),
        ["unbind", &dir, "tag x", "brun 20%", "bind", "linger 5"]
    );
}

#[test]
fn a_device_that_cannot_tell_its_cache_is_not_taken_back() {
    let site = site();
    let (_kernel, fd) = Kernel::pair();
    let device = Refusing::new(Socket::from(fd), "inuse", Errno::OPNOTSUPP, 1);
    let settings = Settings::default();
    let volume = site.volume();
    let error = take_back(&device, &site.root(), volume.dir(), "x", &settings).unwrap_err();
    assert!(format!("{error:#}").contains("which cache"), "{error:#}");
}
