// SPDX-License-Identifier: GPL-2.0
//! Serving requests of a device, in one process.

mod stand_in;

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::Result;
use demandd::blobs::Blobs;
use demandd::device::{bind, Device, Node};
use demandd::serve::{serve, Options, Summary};
use rustix::io::Errno;
use stand_in::{record, Kernel, Site};

/// A daemon in a thread, with the kernel's end of its device.
struct Daemon {
    kernel: Kernel,
    stop: UnixStream,
    thread: JoinHandle<Result<Summary>>,
}

fn options() -> Options {
    Options {
        workers: 4,
        delay: Duration::ZERO,
        trace: None,
    }
}

impl Daemon {
    fn start(site: &Site, options: Options) -> Self {
        let (kernel, fd) = Kernel::pair();
        let (stop, stopped) = UnixStream::pair().unwrap();
        let blobs = Blobs::new(site.volume(), site.source(), 8);
        let thread =
            thread::spawn(move || serve(&Node::from(fd), &blobs, options, stopped.as_fd()));
        Self {
            kernel,
            stop,
            thread,
        }
    }

    fn ask(&self, id: u64, off: u64, len: u64, path: &str) -> String {
        self.kernel.send(&record(id, off, len, path.as_bytes()));
        self.kernel.command()
    }

    fn end(self) -> Summary {
        drop(self.stop);
        self.thread.join().unwrap().unwrap()
    }
}

#[test]
fn a_request_brings_its_bytes_and_no_others() {
    let site = Site::new();
    let bytes = site.blob("a.img", 100_000);
    let daemon = Daemon::start(&site, options());
    assert_eq!(daemon.ask(5, 8192, 12288, "Da.img"), "done 5\n");
    assert_eq!(site.cached("a.img", 8192, 12288), bytes[8192..20480]);
    assert_eq!(site.missing("a.img"), 100_000 - 12288);
    // The last block is shorter, and the file does not grow.
    assert_eq!(daemon.ask(6, 98_304, 1696, "Da.img"), "done 6\n");
    assert_eq!(site.cache_file("a.img").metadata().unwrap().len(), 100_000);
    assert_eq!(site.cached("a.img", 98_304, 1696), bytes[98_304..]);
    let expected = Summary {
        served: 2,
        bytes: 13984,
        failed: 0,
    };
    assert_eq!(daemon.end(), expected);
}

#[test]
fn many_requests_in_flight_are_all_answered_once() {
    const BLOBS: u64 = 3;
    const BLOCKS: u64 = 200;
    let site = Site::new();
    let blobs: Vec<_> = (0..BLOBS)
        .map(|blob| site.blob(&format!("{blob}.img"), BLOCKS * 4096))
        .collect();
    let daemon = Daemon::start(&site, options());
    let mut batch = Vec::new();
    for id in 0..BLOBS * BLOCKS {
        let path = format!("D{}.img", id % BLOBS);
        batch.extend(record(id, id / BLOBS * 4096, 4096, path.as_bytes()));
        // Batches of different sizes, up to what the daemon's buffer holds.
        if batch.len() >= 280 * (1 + id as usize % 64) {
            daemon.kernel.send(&batch);
            batch.clear();
        }
        // The socket holds less than the device does.
        if id % 64 == 63 {
            thread::sleep(Duration::from_millis(5));
        }
    }
    if !batch.is_empty() {
        daemon.kernel.send(&batch);
    }
    let mut answers: Vec<u64> = (0..BLOBS * BLOCKS)
        .map(|_| {
            let command = daemon.kernel.command();
            let id = command
                .strip_prefix("done ")
                .unwrap_or_else(|| panic!("{command}"));
            id.trim_end().parse().unwrap()
        })
        .collect();
    answers.sort();
    assert!(answers.into_iter().eq(0..BLOBS * BLOCKS));
    for (blob, bytes) in blobs.iter().enumerate() {
        assert_eq!(&site.cached(&format!("{blob}.img"), 0, bytes.len()), bytes);
    }
    assert_eq!(daemon.end().served, BLOBS * BLOCKS);
}

#[test]
fn a_request_larger_than_a_piece_comes_whole() {
    let site = Site::new();
    let bytes = site.blob("a.img", 5_000_000);
    let daemon = Daemon::start(&site, options());
    assert_eq!(daemon.ask(1, 0, 5_000_000, "Da.img"), "done 1\n");
    assert_eq!(site.cached("a.img", 0, 5_000_000), bytes);
    daemon.end();
}

#[test]
fn a_blob_with_an_encoded_name_is_served() {
    let site = Site::new();
    let bytes = site.blob("with space", 4096);
    let path = site.volume().path("with space".as_ref()).unwrap();
    let file_name = path.file_name().unwrap().to_str().unwrap();
    assert!(!file_name.starts_with('D'));
    let daemon = Daemon::start(&site, options());
    assert_eq!(daemon.ask(1, 0, 4096, file_name), "done 1\n");
    assert_eq!(site.cached("with space", 0, 4096), bytes);
    daemon.end();
}

#[test]
fn hostile_records_fail_and_touch_nothing() {
    let site = Site::new();
    site.blob("a.img", 10_000);
    fs::write(site.path("secret"), [7; 4096]).unwrap();
    fs::create_dir(site.source_dir().join("dir")).unwrap();
    site.volume().prepare("dir".as_ref(), 4096).unwrap();
    let daemon = Daemon::start(&site, options());
    let hostile: [(u64, u64, &[u8]); 13] = [
        (0, 4096, b""),
        (0, 4096, b"D"),
        (0, 4096, b"D.."),
        (0, 4096, b"D../secret"),
        (0, 4096, b"/etc/passwd"),
        (0, 4096, &[b'D'; 256]),
        (0, 4096, b"Dabsent"),
        (0, 4096, b"Ddir"),
        (0, 0, b"Da.img"),
        (4096, 8192, b"Da.img"),
        (100, 4096, b"Da.img"),
        (u64::MAX - 4095, 4096, b"Da.img"),
        (0, u64::MAX, b"Da.img"),
    ];
    for (id, (off, len, path)) in (0..).zip(hostile) {
        daemon.kernel.send(&record(id, off, len, path));
        assert_eq!(
            daemon.kernel.command(),
            format!("fail {id} 5\n"),
            "{path:?}"
        );
    }
    assert_eq!(site.missing("a.img"), 10_000);
    // And it still serves.
    assert_eq!(daemon.ask(99, 0, 4096, "Da.img"), "done 99\n");
    assert_eq!(daemon.end().failed, 13);
}

#[test]
fn a_source_that_fails_is_told_and_tried_anew() {
    let site = Site::new();
    let bytes = site.blob("a.img", 8192);
    let source = site.source_dir().join("a.img");
    let daemon = Daemon::start(&site, options());
    fs::remove_file(&source).unwrap();
    assert_eq!(daemon.ask(1, 0, 4096, "Da.img"), "fail 1 5\n", "absent");
    fs::write(&source, &bytes[..8191]).unwrap();
    assert_eq!(daemon.ask(2, 0, 4096, "Da.img"), "fail 2 5\n", "too short");
    fs::write(&source, &bytes).unwrap();
    assert_eq!(daemon.ask(3, 0, 4096, "Da.img"), "done 3\n");
    // Cut while it is open: the part that is left must not reach the cache as if it were all.
    File::options()
        .write(true)
        .open(&source)
        .unwrap()
        .set_len(6000)
        .unwrap();
    assert_eq!(daemon.ask(4, 4096, 4096, "Da.img"), "fail 4 5\n", "cut");
    assert_eq!(site.missing("a.img"), 4096);
    fs::write(&source, &bytes).unwrap();
    assert_eq!(daemon.ask(5, 4096, 4096, "Da.img"), "done 5\n");
    assert_eq!(site.cached("a.img", 0, 8192), bytes);
    daemon.end();
}

#[test]
fn the_trace_has_a_line_before_the_answer() {
    let site = Site::new();
    site.blob("a.img", 10_000);
    let trace = site.path("trace");
    fs::write(&trace, "earlier\n").unwrap();
    let daemon = Daemon::start(
        &site,
        Options {
            trace: Some(File::options().append(true).open(&trace).unwrap()),
            ..options()
        },
    );
    let mut expected = "earlier\n".to_owned();
    for (id, off, len, path, result) in [
        (1, 0, 8192, "Da.img", "done"),
        (2, 8192, 1808, "Da.img", "done"),
        (3, 0, 4096, "Da\tb", "fail 5"),
    ] {
        daemon.ask(id, off, len, path);
        let blob = path.trim_start_matches('D').replace('\t', "\\t");
        expected += &format!("{id}\t{blob}\t{off}\t{len}\t{result}\n");
        assert_eq!(fs::read_to_string(&trace).unwrap(), expected);
    }
    daemon.end();
}

#[test]
fn what_was_read_is_answered_before_the_end() {
    let site = Site::new();
    site.blob("a.img", 64 * 4096);
    let daemon = Daemon::start(
        &site,
        Options {
            delay: Duration::from_millis(50),
            ..options()
        },
    );
    let batch: Vec<u8> = (0..16)
        .flat_map(|id| record(id, id * 4096, 4096, b"Da.img"))
        .collect();
    daemon.kernel.send(&batch);
    // The first answer proves that the batch was read.
    assert!(daemon.kernel.command().starts_with("done "));
    let Daemon {
        kernel,
        stop,
        thread,
    } = daemon;
    drop(stop);
    for _ in 1..16 {
        assert!(kernel.command().starts_with("done "));
    }
    assert_eq!(thread.join().unwrap().unwrap().served, 16);
}

#[test]
fn workers_work_at_the_same_time() {
    let site = Site::new();
    site.blob("a.img", 4 * 4096);
    let daemon = Daemon::start(
        &site,
        Options {
            delay: Duration::from_millis(500),
            ..options()
        },
    );
    let start = Instant::now();
    let batch: Vec<u8> = (0..4)
        .flat_map(|id| record(id, id * 4096, 4096, b"Da.img"))
        .collect();
    daemon.kernel.send(&batch);
    for _ in 0..4 {
        daemon.kernel.command();
    }
    let took = start.elapsed();
    assert!(took >= Duration::from_millis(500), "{took:?}");
    assert!(
        took < Duration::from_millis(1900),
        "{took:?}: one after the other"
    );
    daemon.end();
}

#[test]
fn a_device_that_goes_away_ends_the_daemon() {
    let site = Site::new();
    let Daemon {
        kernel,
        stop,
        thread,
    } = Daemon::start(&site, options());
    drop(kernel);
    let error = thread.join().unwrap().unwrap_err();
    assert!(
        format!("{error:#}").contains("the device is gone"),
        "{error:#}"
    );
    drop(stop);
}

#[test]
fn half_a_record_ends_the_daemon() {
    let site = Site::new();
    let Daemon {
        kernel,
        stop,
        thread,
    } = Daemon::start(&site, options());
    kernel.send(&record(1, 0, 4096, b"Da.img")[..279]);
    let error = thread.join().unwrap().unwrap_err();
    assert!(
        format!("{error:#}").contains("do not belong together"),
        "{error:#}"
    );
    drop(stop);
}

/// A device that refuses one command.
struct Refusing {
    node: Node,
    word: &'static str,
    errno: Errno,
}

impl Device for Refusing {
    fn fd(&self) -> BorrowedFd<'_> {
        self.node.fd()
    }

    fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        self.node.read(buffer)
    }

    fn write(&self, command: &[u8]) -> io::Result<()> {
        if command.starts_with(self.word.as_bytes()) {
            return Err(self.errno.into());
        }
        self.node.write(command)
    }
}

#[test]
fn a_refused_bind_says_what_to_do() {
    let site = Site::new();
    site.blob("a.img", 4096);
    for (word, errno, advice) in [
        ("bind", Errno::NOTDIR, "not a directory"),
        ("bind", Errno::ROFS, "read-only file system"),
        ("bind", Errno::OPNOTSUPP, "ext4, XFS and btrfs"),
        ("bind", Errno::BUSY, "with this tag is bound already"),
        ("tag", Errno::INVAL, "does not accept the argument"),
        ("dir", Errno::EXIST, "was given before"),
    ] {
        let (_kernel, fd) = Kernel::pair();
        let node = Node::from(fd);
        let error = bind(&Refusing { node, word, errno }, &site.root(), "x").unwrap_err();
        let text = format!("{error:#}");
        assert!(text.starts_with(word) && text.contains(advice), "{text}");
    }
}

#[test]
fn bind_gives_the_three_commands_in_order() {
    let site = Site::new();
    site.blob("a.img", 4096);
    let (kernel, fd) = Kernel::pair();
    bind(&Node::from(fd), &site.root().join("../root"), "mine").unwrap();
    let root = site.root().canonicalize().unwrap();
    assert_eq!(kernel.command(), format!("dir {}\n", root.display()));
    assert_eq!(kernel.command(), "tag mine\n");
    assert_eq!(kernel.command(), "bind\n");
}

#[test]
fn an_answer_that_nobody_waits_for_does_no_harm() {
    let site = Site::new();
    site.blob("a.img", 8192);
    let (kernel, fd) = Kernel::pair();
    let device = Refusing {
        node: Node::from(fd),
        word: "done 1\n",
        errno: Errno::INVAL,
    };
    let (stop, stopped) = UnixStream::pair().unwrap();
    let blobs = Blobs::new(site.volume(), site.source(), 8);
    let thread = thread::spawn(move || serve(&device, &blobs, options(), stopped.as_fd()));
    kernel.send(&record(1, 0, 4096, b"Da.img"));
    kernel.send(&record(2, 4096, 4096, b"Da.img"));
    assert_eq!(kernel.command(), "done 2\n");
    drop(stop);
    assert_eq!(thread.join().unwrap().unwrap().served, 2);
}
