// SPDX-License-Identifier: GPL-2.0
//! What a service manager is told and given, and how the next daemon goes on with what it kept.

mod stand_in;

use std::fs;
use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::net::{recvmsg, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags};
use rustix::process::Signal;
use stand_in::process::Daemon;
use stand_in::{record, Site, Terminal, PATIENCE};

/// The end of `$NOTIFY_SOCKET` that listens.
struct Manager(UnixDatagram);

impl Manager {
    fn new(site: &Site, command: &mut Command) -> Self {
        let path = site.path("notify");
        let _ = fs::remove_file(&path);
        command.env("NOTIFY_SOCKET", &path);
        Self::listening(UnixDatagram::bind(&path).unwrap())
    }

    fn listening(socket: UnixDatagram) -> Self {
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Self(socket)
    }

    /// The next datagram, and the descriptor that came with it.
    fn message(&self) -> (String, Option<OwnedFd>) {
        let mut text = [0; 4096];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let received = recvmsg(
            &self.0,
            &mut [IoSliceMut::new(&mut text)],
            &mut control,
            RecvFlags::CMSG_CLOEXEC,
        );
        let size = received.expect("the daemon tells something in time").bytes;
        let fds = control.drain().flat_map(|message| match message {
            RecvAncillaryMessage::ScmRights(fds) => fds.collect::<Vec<_>>(),
            _ => Vec::new(),
        });
        let mut fds: Vec<_> = fds.collect();
        assert!(fds.len() < 2, "{} descriptors", fds.len());
        (text_of(&text[..size]), fds.pop())
    }

    /// The next datagram that is not about the state.
    fn news(&self) -> String {
        loop {
            let (text, _) = self.message();
            if !text.starts_with("WATCHDOG=1\n") {
                return text;
            }
        }
    }

    /// The device that is to be kept.
    fn kept(&self) -> OwnedFd {
        let (text, fd) = self.message();
        assert_eq!(text, "FDSTORE=1\nFDNAME=device\nFDPOLL=0");
        fd.expect("a descriptor comes with it")
    }
}

fn text_of(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn same_file(a: &OwnedFd, b: &std::path::Path) -> bool {
    let (a, b) = (rustix::fs::fstat(a).unwrap(), rustix::fs::stat(b).unwrap());
    (a.st_dev, a.st_ino) == (b.st_dev, b.st_ino)
}

#[test]
fn it_tells_when_it_serves_and_when_it_ends() {
    let site = Site::new();
    site.blob("a.img", 4096);
    let mut device = Terminal::new();
    let mut command = Daemon::command(&site, &device);
    let manager = Manager::new(&site, &mut command);
    let mut daemon = Daemon::spawn(&mut command);
    device.expect_bind(&site.root(), "CacheFiles");
    assert!(same_file(&manager.kept(), &device.path));
    assert_eq!(manager.message().0, "READY=1");
    assert_eq!(
        manager.message().0,
        "WATCHDOG=1\nSTATUS=served 0 requests, 0 bytes, 0 failed; 0 blobs open"
    );
    device.send(&record(1, 0, 4096, b"Da.img"));
    assert_eq!(device.command(), "done 1");
    daemon.signal(Signal::HUP);
    let reloading = manager.news();
    let micros = reloading.strip_prefix("RELOADING=1\nMONOTONIC_USEC=");
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic).tv_sec;
    let ago = now - micros.unwrap().parse::<i64>().unwrap() / 1_000_000;
    assert!((0..60).contains(&ago), "{reloading}");
    assert_eq!(manager.news(), "READY=1");
    daemon.signal(Signal::TERM);
    assert_eq!(manager.news(), "STOPPING=1");
    assert_eq!(
        manager.message().0,
        "WATCHDOG=1\nSTATUS=served 1 requests, 4096 bytes, 0 failed; 1 blobs open"
    );
    assert!(daemon.end().0);
}

#[test]
fn the_watchdog_is_told_in_time() {
    let site = Site::new();
    site.blob("a.img", 4096);
    let device = Terminal::new();
    let mut command = Daemon::command(&site, &device);
    let manager = Manager::new(&site, &mut command);
    command.env("WATCHDOG_USEC", "200000");
    let _daemon = Daemon::spawn(&mut command);
    manager.kept();
    assert_eq!(manager.message().0, "READY=1");
    let start = Instant::now();
    for _ in 0..10 {
        assert!(manager.message().0.starts_with("WATCHDOG=1\n"));
    }
    // Without the wish it would be ten times ten seconds.
    assert!(start.elapsed() < Duration::from_secs(10));
}

#[test]
fn a_watchdog_of_another_process_is_none() {
    let site = Site::new();
    site.blob("a.img", 4096);
    let device = Terminal::new();
    let mut command = Daemon::command(&site, &device);
    let manager = Manager::new(&site, &mut command);
    command
        .env("WATCHDOG_USEC", "1000")
        .env("WATCHDOG_PID", "1");
    let _daemon = Daemon::spawn(&mut command);
    manager.kept();
    assert_eq!(manager.message().0, "READY=1");
    manager.message();
    manager
        .0
        .set_read_timeout(Some(Duration::from_millis(500)))
        .unwrap();
    assert!(manager.0.recv(&mut [0; 100]).is_err());
}

/// Starts a command as a service manager does that has kept a descriptor.
fn with_kept(command: &Command, fd: &OwnedFd, name: &str) -> Command {
    let mut shell = Command::new("sh");
    shell.args(["-c", r#"LISTEN_PID=$$ exec "$@" 3<&0 0</dev/null"#, "sh"]);
    shell.arg(command.get_program()).args(command.get_args());
    shell.envs(
        command
            .get_envs()
            .filter_map(|(name, value)| Some((name, value?))),
    );
    shell.env("LISTEN_FDS", "1").env("LISTEN_FDNAMES", name);
    shell.stdin(fd.try_clone().unwrap());
    shell
}

#[test]
fn the_next_daemon_goes_on_with_the_device_that_was_kept() {
    let site = Site::new();
    let bytes = site.blob("a.img", 8192);
    let mut device = Terminal::new();
    let mut command = Daemon::command(&site, &device);
    command.args(["--linger", "5"]);
    let manager = Manager::new(&site, &mut command);
    let mut first = Daemon::spawn(&mut command);
    device.expect_bind(&site.root(), "CacheFiles");
    assert_eq!(device.command(), "linger 5");
    let kept = manager.kept();
    assert_eq!(manager.message().0, "READY=1");
    assert_eq!(first.line(), "demandd: ready\n");
    first.signal(Signal::KILL);
    assert!(!first.end().0);

    // What it would have to open is not there: it has to take what it is given.
    let path = std::mem::replace(&mut device.path, "/absent".into());
    let mut command = Daemon::command(&site, &device);
    device.path = path;
    command.args(["--linger", "6"]);
    let manager = Manager::new(&site, &mut command);
    let mut second = Daemon::spawn(&mut with_kept(&command, &kept, "device"));
    for expected in ["inuse demandd", "linger 6", "restore"] {
        assert_eq!(device.command(), expected);
    }
    assert_eq!(second.line(), "demandd: ready\n");
    // It is kept already.
    assert_eq!(manager.message().0, "READY=1");
    device.send(&record(1, 4096, 4096, b"Da.img"));
    assert_eq!(device.command(), "done 1");
    assert_eq!(site.cached("a.img", 4096, 4096), bytes[4096..]);
    second.signal(Signal::TERM);
    assert!(second.end().0);
}

#[test]
fn what_was_kept_for_something_else_is_left_alone() {
    let site = Site::new();
    site.blob("a.img", 4096);
    let device = Terminal::new();
    let other: OwnedFd = fs::File::open("/dev/null").unwrap().into();
    let plain = Daemon::command(&site, &device);
    let mut misnamed = with_kept(&plain, &other, "other");
    // With the variables of a process that is not this one.
    let mut inherited = Daemon::command(&site, &device);
    inherited
        .env("LISTEN_PID", "1")
        .env("LISTEN_FDS", "1")
        .env("LISTEN_FDNAMES", "device");
    for command in [&mut misnamed, &mut inherited] {
        let mut daemon = Daemon::spawn(command);
        device.expect_bind(&site.root(), "CacheFiles");
        assert_eq!(daemon.line(), "demandd: ready\n");
        daemon.signal(Signal::TERM);
        assert!(daemon.end().0);
    }
}

#[test]
fn nothing_is_kept_after_an_end_in_order() {
    let site = Site::new();
    site.blob("a.img", 4096);
    let device = Terminal::new();
    let mut command = Daemon::command(&site, &device);
    command.arg("--unbind-at-exit");
    // A name that is not in a file system.
    let name = format!("demandd-test-{}", std::process::id());
    let address = SocketAddr::from_abstract_name(&name).unwrap();
    let manager = Manager::listening(UnixDatagram::bind_addr(&address).unwrap());
    command.env("NOTIFY_SOCKET", format!("@{name}"));
    let mut daemon = Daemon::spawn(&mut command);
    manager.kept();
    assert_eq!(manager.news(), "READY=1");
    daemon.signal(Signal::TERM);
    assert_eq!(manager.news(), "STOPPING=1");
    assert_eq!(manager.news(), "FDSTOREREMOVE=1\nFDNAME=device");
    assert!(daemon.end().0);
}

#[test]
fn a_service_manager_that_is_gone_is_no_reason_not_to_serve() {
    let site = Site::new();
    site.blob("a.img", 4096);
    let device = Terminal::new();
    let mut command = Daemon::command(&site, &device);
    command.env("NOTIFY_SOCKET", site.path("absent"));
    let mut daemon = Daemon::spawn(&mut command);
    device.expect_bind(&site.root(), "CacheFiles");
    assert_eq!(daemon.line(), "demandd: ready\n");
    daemon.signal(Signal::TERM);
    assert!(daemon.end().0);
}
