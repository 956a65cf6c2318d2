// SPDX-License-Identifier: GPL-2.0
//! Culling: which blobs go when the disk gets full, and what becomes of those that went.

mod stand_in;

use std::env;
use std::fs::{self, FileTimes};
use std::io;
use std::os::fd::BorrowedFd;
use std::os::unix::fs::FileExt;
use std::sync::mpsc::{channel, Receiver, Sender};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use demandd::cull::{self, When};
use demandd::device::Device;
use demandd::serve::Options;
use rustix::io::Errno;
use rustix::net::SendFlags;
use stand_in::daemon::{options, Daemon, Socket, NEVER};
use stand_in::{record, Site, PATIENCE};

/// What the kernel of these tests does: it wants some blobs to be culled, and knows which ones are in use.
#[derive(Default)]
struct Disk {
    /// How many more blobs have to go. Locked while the socket is being filled or emptied.
    wanted: Mutex<usize>,
    /// The cache files that a mount uses.
    used: Mutex<Vec<&'static str>>,
    /// The cull commands, in order, and whether they succeeded.
    culls: Mutex<Vec<(String, bool)>>,
}

impl Disk {
    fn culled(&self) -> Vec<String> {
        let culls = self.culls.lock().unwrap();
        let done = culls.iter().filter(|(_, done)| *done);
        done.map(|(name, _)| name.clone()).collect()
    }

    fn count(&self) -> usize {
        self.culls.lock().unwrap().len()
    }

    fn use_only(&self, names: &[&'static str]) {
        *self.used.lock().unwrap() = names.to_vec();
    }
}

/// A device that culls as the kernel does: in the working directory of the thread that asks for it. It can be written
/// as long as its socket can, to which nothing is written but filler; answers take another way.
struct Culling {
    node: Socket,
    disk: Arc<Disk>,
    answers: Sender<String>,
}

impl Culling {
    /// No more culling is wanted.
    fn content(&self) {
        while rustix::net::send(self.fd(), b"filler", SendFlags::DONTWAIT).is_ok() {}
    }

    fn cull(&self, name: &str) -> io::Result<()> {
        assert!(!name.contains('/'), "{name}");
        if self.disk.used.lock().unwrap().contains(&name) {
            return Err(Errno::BUSY.into());
        }
        fs::remove_file(name)?;
        let mut wanted = self.disk.wanted.lock().unwrap();
        *wanted = wanted.saturating_sub(1);
        if *wanted == 0 {
            self.content();
        }
        Ok(())
    }
}

impl Device for Culling {
    fn fd(&self) -> BorrowedFd<'_> {
        self.node.fd()
    }

    fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        self.node.read(buffer)
    }

    fn write(&self, command: &[u8]) -> io::Result<()> {
        let command = std::str::from_utf8(command).unwrap().trim_end();
        let Some(name) = command.strip_prefix("cull ") else {
            self.answers.send(command.to_owned()).unwrap();
            return Ok(());
        };
        let result = self.cull(name);
        let cull = (name.to_owned(), result.is_ok());
        self.disk.culls.lock().unwrap().push(cull);
        result
    }
}

/// A daemon whose disk is not full yet.
struct Culler {
    daemon: Daemon,
    disk: Arc<Disk>,
    answers: Receiver<String>,
}

impl Culler {
    /// One that culls when its disk gets full, and waits for `patience` when nothing is left to cull.
    fn start(site: &Site, patience: Duration) -> Self {
        let when = When {
            disk: true,
            size: None,
            patience,
        };
        Self::with(site, Some(when))
    }

    fn with(site: &Site, cull: Option<When>) -> Self {
        let disk = Arc::new(Disk::default());
        let (sender, answers) = channel();
        let options = Options { cull, ..options() };
        let daemon = Daemon::with_device(site, options, |node| {
            let device = Culling {
                node,
                disk: Arc::clone(&disk),
                answers: sender,
            };
            device.content();
            device
        });
        Self {
            daemon,
            disk,
            answers,
        }
    }

    /// So many blobs have to go.
    fn want(&self, blobs: usize) {
        let mut wanted = self.disk.wanted.lock().unwrap();
        *wanted = blobs;
        self.daemon.kernel.drain();
    }

    fn ask(&self, id: u64, off: u64, len: u64, path: &str) -> String {
        self.daemon
            .kernel
            .send(&record(id, off, len, path.as_bytes()));
        self.answers.recv_timeout(PATIENCE).unwrap()
    }

    /// Gives whatever should not happen the time to happen, and a little more.
    fn settle(&self) {
        for id in 0..20 {
            self.ask(1000 + id, 0, 4096, "Dabsent");
        }
        thread::sleep(Duration::from_millis(100));
    }
}

fn wait_until(what: &str, is_true: impl Fn() -> bool) {
    let start = Instant::now();
    while !is_true() {
        assert!(start.elapsed() < PATIENCE, "waited in vain: {what}");
        thread::sleep(Duration::from_millis(1));
    }
}

/// Blobs of two blocks, of which the first one is present, each changed a minute after the one before it, the last one
/// an hour ago.
fn blobs(site: &Site, names: &[&str]) {
    let hour_ago = SystemTime::now() - Duration::from_secs(3600);
    for (age, name) in (0..).zip(names.iter().rev()) {
        let bytes = site.blob(name, 8192);
        let file = site.cache_file(name);
        file.write_all_at(&bytes[..4096], 0).unwrap();
        let changed = hour_ago - Duration::from_secs(60 * age);
        file.set_times(FileTimes::new().set_modified(changed))
            .unwrap();
    }
}

fn exists(site: &Site, name: &str) -> bool {
    site.volume().path(name.as_ref()).unwrap().exists()
}

#[test]
fn the_blob_that_was_not_used_for_longest_goes_first_and_no_more_than_have_to() {
    let site = Site::new();
    blobs(&site, &["e", "d", "c", "b", "a"]);
    let culler = Culler::start(&site, NEVER);
    // Used now, so it is the last one.
    assert_eq!(culler.ask(1, 0, 4096, "De"), "done 1");
    culler.settle();
    assert_eq!(culler.disk.count(), 0, "nothing is wanted");
    culler.want(2);
    wait_until("two blobs are culled", || culler.disk.culled().len() >= 2);
    culler.settle();
    assert_eq!(culler.disk.culled(), ["Dd", "Dc"]);
    culler.want(1);
    wait_until("one more is culled", || culler.disk.culled().len() >= 3);
    culler.settle();
    assert_eq!(culler.disk.culled(), ["Dd", "Dc", "Db"]);
    for (name, there) in [
        ("a", true),
        ("b", false),
        ("c", false),
        ("d", false),
        ("e", true),
    ] {
        assert_eq!(exists(&site, name), there, "{name}");
    }
    culler.daemon.end();
}

#[test]
fn a_blob_in_use_stays_and_counts_as_used() {
    let site = Site::new();
    blobs(&site, &["a", "b", "c"]);
    let culler = Culler::start(&site, NEVER);
    culler.disk.use_only(&["Da"]);
    culler.want(1);
    wait_until("a blob is culled", || !culler.disk.culled().is_empty());
    assert_eq!(culler.disk.culled(), ["Db"]);
    culler.settle();
    // Not mounted any more, but until a moment ago.
    culler.disk.use_only(&[]);
    culler.want(2);
    wait_until("the rest is culled", || culler.disk.culled().len() >= 3);
    assert_eq!(culler.disk.culled(), ["Db", "Dc", "Da"]);
    culler.daemon.end();
}

#[test]
fn what_was_in_use_is_tried_again_while_blobs_go() {
    let site = Site::new();
    blobs(&site, &["a", "b"]);
    let culler = Culler::start(&site, NEVER);
    culler.disk.use_only(&["Da"]);
    culler.want(2);
    wait_until("a is tried twice", || culler.disk.count() >= 3);
    let culls = culler.disk.culls.lock().unwrap().clone();
    let expected = [("Da", false), ("Db", true), ("Da", false)];
    assert_eq!(culls, expected.map(|(name, done)| (name.to_owned(), done)));
    culler.daemon.end();
}

#[test]
fn when_nothing_is_left_to_cull_it_waits() {
    let site = Site::new();
    blobs(&site, &["a", "b"]);
    let culler = Culler::start(&site, NEVER);
    culler.disk.use_only(&["Da", "Db"]);
    culler.want(1);
    wait_until("both are tried", || culler.disk.count() >= 2);
    culler.settle();
    assert_eq!(culler.disk.count(), 2, "it does not try again and again");
    // And it ends at once although it waits.
    culler.daemon.end();
}

#[test]
fn after_a_while_it_tries_again() {
    let site = Site::new();
    blobs(&site, &["a"]);
    let culler = Culler::start(&site, Duration::from_millis(20));
    culler.disk.use_only(&["Da"]);
    culler.want(1);
    wait_until("it is tried twice", || culler.disk.count() >= 2);
    assert!(exists(&site, "a"));
    culler.disk.use_only(&[]);
    wait_until("the blob is culled", || !exists(&site, "a"));
    culler.daemon.end();
}

#[test]
fn a_blob_of_which_nothing_is_present_is_left_alone() {
    let site = Site::new();
    site.blob("empty", 8192);
    blobs(&site, &["a"]);
    let culler = Culler::start(&site, Duration::from_millis(20));
    culler.want(2);
    wait_until("the other one is culled", || !exists(&site, "a"));
    culler.settle();
    assert!(exists(&site, "empty"));
    assert_eq!(culler.disk.count(), 1);
    culler.daemon.end();
}

#[test]
fn a_culled_blob_is_closed_and_is_fetched_again_once_it_is_prepared() {
    let site = Site::new();
    let bytes = site.blob("a.img", 8192);
    let culler = Culler::start(&site, NEVER);
    assert_eq!(culler.ask(1, 0, 8192, "Da.img"), "done 1");
    assert!(site.is_open("a.img"));
    culler.want(1);
    wait_until("the blob is culled", || !exists(&site, "a.img"));
    // An open file would keep its space.
    wait_until("it is closed", || !site.is_open("a.img"));
    assert_eq!(culler.ask(2, 0, 4096, "Da.img"), "fail 2 5");
    site.volume().prepare("a.img".as_ref(), 8192).unwrap();
    assert_eq!(culler.ask(3, 4096, 4096, "Da.img"), "done 3");
    assert_eq!(site.missing("a.img"), 4096);
    assert_eq!(culler.ask(4, 0, 4096, "Da.img"), "done 4");
    assert_eq!(site.cached("a.img", 0, 8192), bytes);
    culler.daemon.end();
}

/// What the blobs of these tests take of the disk.
fn taken(site: &Site) -> u64 {
    cull::taken(&cull::candidates(&site.volume(), |_| None).unwrap())
}

/// Culls when the blobs take more than this, whatever the kernel says.
fn of_size(size: u64, patience: Duration) -> Option<When> {
    Some(When {
        disk: false,
        size: Some(size),
        patience,
    })
}

#[test]
fn when_the_blobs_take_more_than_they_may_the_oldest_go() {
    let site = Site::new();
    blobs(&site, &["d", "c", "b", "a"]);
    let one = taken(&site) / 4;
    let culler = Culler::with(&site, of_size(2 * one, Duration::from_millis(20)));
    wait_until("two blobs are culled", || culler.disk.culled().len() >= 2);
    assert_eq!(culler.disk.culled(), ["Dd", "Dc"]);
    culler.settle();
    assert_eq!(culler.disk.culled().len(), 2, "what is left may stay");
    assert_eq!(taken(&site), 2 * one);
    // What is fetched counts, and is the last to go.
    site.blob("e", 8192);
    assert_eq!(culler.ask(1, 0, 4096, "De"), "done 1");
    wait_until("one more is culled", || culler.disk.culled().len() >= 3);
    assert_eq!(culler.disk.culled(), ["Dd", "Dc", "Db"]);
    culler.daemon.end();
}

#[test]
fn a_limit_on_the_size_leaves_alone_what_the_kernel_wants_culled() {
    let site = Site::new();
    blobs(&site, &["a"]);
    let size = taken(&site);
    let culler = Culler::with(&site, of_size(size, Duration::from_millis(20)));
    culler.want(1);
    // It looks once a second at least.
    thread::sleep(Duration::from_millis(1500));
    assert_eq!(culler.disk.count(), 0);
    culler.daemon.end();
}

#[test]
fn more_than_the_limit_may_be_in_use() {
    let site = Site::new();
    blobs(&site, &["a", "b"]);
    let culler = Culler::with(&site, of_size(0, Duration::from_millis(20)));
    culler.disk.use_only(&["Da", "Db"]);
    wait_until("both are tried twice", || culler.disk.count() >= 4);
    assert!(exists(&site, "a") && exists(&site, "b"));
    // A reader still gets what it needs.
    assert_eq!(culler.ask(1, 4096, 4096, "Da"), "done 1");
    culler.disk.use_only(&[]);
    wait_until("they are culled", || {
        !exists(&site, "a") && !exists(&site, "b")
    });
    culler.daemon.kernel.close();
    assert!(culler.daemon.failure().contains("the device is gone"));
}

#[test]
fn culling_can_be_switched_off() {
    let site = Site::new();
    blobs(&site, &["a"]);
    let culler = Culler::with(&site, None);
    culler.want(1);
    culler.settle();
    assert_eq!(culler.disk.count(), 0);
    culler.daemon.end();
}

#[test]
fn the_working_directory_of_the_process_stays() {
    let site = Site::new();
    blobs(&site, &["a"]);
    let before = env::current_dir().unwrap();
    let culler = Culler::start(&site, NEVER);
    culler.want(1);
    wait_until("the blob is culled", || !exists(&site, "a"));
    assert_eq!(env::current_dir().unwrap(), before);
    culler.daemon.end();
}

#[test]
fn the_daemon_ends_with_its_device_while_it_waits_to_cull() {
    let site = Site::new();
    blobs(&site, &["a"]);
    let culler = Culler::start(&site, NEVER);
    culler.disk.use_only(&["Da"]);
    culler.want(1);
    wait_until("it was tried", || culler.disk.count() >= 1);
    culler.daemon.kernel.close();
    assert!(culler.daemon.failure().contains("the device is gone"));
}
