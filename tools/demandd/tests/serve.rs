// SPDX-License-Identifier: GPL-2.0
//! Serving requests of a device, in one process.

mod stand_in;

use std::fs::{self, File};
use std::thread;
use std::time::{Duration, Instant};

use demandd::counts::Summary;
use demandd::serve::Options;
use rustix::io::Errno;
use stand_in::daemon::{blobs, options, Daemon, Refusing, NEVER};
use stand_in::{record, Site, PATIENCE};

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
    let (kernel, thread) = daemon.told_to_end();
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
    let daemon = Daemon::start(&site, options());
    daemon.kernel.close();
    let failure = daemon.failure();
    assert!(failure.contains("the device is gone"), "{failure}");
}

#[test]
fn half_a_record_ends_the_daemon_but_what_is_whole_is_answered() {
    let site = Site::new();
    site.blob("a.img", 8192);
    for workers in [1, 4] {
        let daemon = Daemon::start(
            &site,
            Options {
                workers,
                ..options()
            },
        );
        let records: Vec<u8> = (0..3)
            .flat_map(|id| record(id, id % 2 * 4096, 4096, b"Da.img"))
            .collect();
        daemon.kernel.send(&records[..3 * 280 - 1]);
        let mut answers = [daemon.kernel.command(), daemon.kernel.command()];
        answers.sort();
        assert_eq!(answers, ["done 0\n", "done 1\n"]);
        let failure = daemon.failure();
        assert!(failure.contains("do not belong together"), "{failure}");
    }
}

#[test]
fn more_requests_than_one_read_has_room_for_are_all_answered() {
    let site = Site::new();
    site.blob("a.img", 4096);
    let daemon = Daemon::start(&site, options());
    let mut ids: Vec<u64> = (0..200).collect();
    for id in &ids {
        daemon.kernel.send(&record(*id, 0, 4096, b"Da.img"));
    }
    ids.retain(|_| daemon.kernel.command().starts_with("done "));
    assert_eq!(ids.len(), 200);
    assert_eq!(daemon.end().served, 200);
}

#[test]
fn an_answer_that_the_kernel_cannot_take_yet_is_given_again() {
    let site = Site::new();
    site.blob("a.img", 4096);
    for errno in [Errno::AGAIN, Errno::NOMEM] {
        let daemon = Daemon::with_device(&site, options(), |node| {
            Refusing::new(node, "done 1\n", errno, 3)
        });
        assert_eq!(daemon.ask(1, 0, 4096, "Da.img"), "done 1\n");
        daemon.end();
    }
}

#[test]
fn an_answer_that_nobody_waits_for_does_no_harm() {
    let site = Site::new();
    site.blob("a.img", 8192);
    let daemon = Daemon::with_device(&site, options(), |node| {
        Refusing::new(node, "done 1\n", Errno::INVAL, 1)
    });
    daemon.kernel.send(&record(1, 0, 4096, b"Da.img"));
    assert_eq!(daemon.ask(2, 4096, 4096, "Da.img"), "done 2\n");
    assert_eq!(daemon.end().served, 2);
}

#[test]
fn a_cache_file_that_was_replaced_is_not_written_any_more() {
    let site = Site::new();
    let bytes = site.blob("a.img", 8192);
    let daemon = Daemon::start(&site, options());
    assert_eq!(daemon.ask(1, 0, 4096, "Da.img"), "done 1\n");
    fs::remove_file(site.volume().path("a.img".as_ref()).unwrap()).unwrap();
    assert_eq!(daemon.ask(2, 4096, 4096, "Da.img"), "fail 2 5\n", "absent");
    site.volume().prepare("a.img".as_ref(), 8192).unwrap();
    assert_eq!(daemon.ask(3, 4096, 4096, "Da.img"), "done 3\n");
    assert_eq!(site.cached("a.img", 4096, 4096), bytes[4096..]);
    assert_eq!(site.missing("a.img"), 4096);
    daemon.end();
}

#[test]
fn a_cache_file_that_no_request_needs_is_closed() {
    let site = Site::new();
    let bytes = site.blob("a.img", 8192);
    let idle = Duration::from_millis(20);
    // The blob is opened when another worker waits for requests already.
    let delayed = Options {
        delay: Duration::from_millis(50),
        ..options()
    };
    let daemon = Daemon::with_blobs(blobs(&site, idle), delayed, |node| node);
    assert_eq!(daemon.ask(1, 0, 4096, "Da.img"), "done 1\n");
    let start = Instant::now();
    while site.is_open("a.img") {
        assert!(start.elapsed() < PATIENCE, "it is still open");
        thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(daemon.ask(2, 4096, 4096, "Da.img"), "done 2\n");
    assert_eq!(site.cached("a.img", 0, 8192), bytes);
    daemon.end();

    // The other way round: while it may be needed again, it stays open.
    let daemon = Daemon::with_blobs(blobs(&site, NEVER), options(), |node| node);
    assert_eq!(daemon.ask(3, 0, 4096, "Da.img"), "done 3\n");
    assert!(site.is_open("a.img"));
    daemon.end();
}
