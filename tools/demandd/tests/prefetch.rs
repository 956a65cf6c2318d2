// SPDX-License-Identifier: GPL-2.0
//! Prefetching within the daemon: behind readers, not faster than allowed, and only when sources have time.

mod stand_in;

use std::sync::mpsc::channel;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use demandd::blobs::Blobs;
use demandd::cull::When;
use demandd::image::build::describe;
use demandd::image::verify::{chunks, manifest};
use demandd::prefetch::{Queue, Target};
use demandd::serve::{Options, Plan};
use demandd::source::Kind::{Lasting, Overload, Passing};
use demandd::source::Source;
use rustix::io::Errno;
use stand_in::daemon::{options, Daemon, Refusing, NEVER};
use stand_in::fake::{Act, Fake};
use stand_in::{mirrors, record, Site, PATIENCE};

const CHUNK: u64 = 65_536;
/// What is prefetched at a time.
const PIECE: u64 = 1 << 20;
const SIZE: u64 = 3 * PIECE;

/// A blob that is prepared with a manifest; its bytes.
fn site() -> (Site, Vec<u8>) {
    let site = Site::new();
    let bytes = site.blob("a.img", SIZE);
    describe(&site.source_dir(), "a", &["a.img".to_owned()], CHUNK).unwrap();
    let mirrors = site.mirrors();
    let manifest = manifest(&mirrors, &"a".parse().unwrap()).unwrap();
    let entry = &manifest.entries()[0];
    let chunks = chunks(&mirrors, entry).unwrap();
    site.volume().prepare_verified(entry, &chunks).unwrap();
    (site, bytes)
}

fn plan(targets: &str) -> Plan {
    Plan {
        queue: Queue::new(Target::list(targets.as_bytes())).into(),
        workers: 1,
        rate: None,
    }
}

fn blobs(site: &Site, sources: &[&Fake]) -> Blobs {
    let sources = sources
        .iter()
        .map(|&source| Box::new(source.clone()) as Box<dyn Source>);
    Blobs::new(site.volume(), mirrors(sources.collect()), 8, NEVER)
}

fn serve(site: &Site, sources: &[&Fake], prefetch: Plan) -> Daemon {
    let options = Options {
        prefetch,
        ..options()
    };
    Daemon::with_blobs(blobs(site, sources), options, |node| node)
}

fn wait_for(what: &str, is: impl Fn() -> bool) {
    let began = Instant::now();
    while !is() {
        assert!(began.elapsed() < PATIENCE, "waited in vain: {what}");
        thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn all_of_a_blob_comes_in_pieces() {
    let (site, bytes) = site();
    let source = Fake::new("a", &bytes, vec![], || Act::Give);
    let daemon = serve(&site, &[&source], plan("a.img\n"));
    wait_for("all of it", || site.missing("a.img") == 0);
    assert_eq!(site.cached("a.img", 0, SIZE as usize), bytes);
    let asked: Vec<_> = source.asked().into_iter().map(|(range, _)| range).collect();
    assert_eq!(asked, [0..PIECE, PIECE..2 * PIECE, 2 * PIECE..SIZE]);
    daemon.end();
}

#[test]
fn several_pieces_come_at_a_time() {
    let (site, bytes) = site();
    let waits: Vec<_> = (0..3).map(|_| channel()).collect();
    let (goes, acts): (Vec<_>, Vec<_>) = waits.into_iter().unzip();
    let acts = acts.into_iter().map(Act::Wait).collect();
    let source = Fake::new("a", &bytes, acts, || Act::Give);
    let plan = Plan {
        workers: 3,
        ..plan("a.img\n")
    };
    let daemon = serve(&site, &[&source], plan);
    // None of them has come when the last is asked for.
    wait_for("three pieces", || source.asked().len() == 3);
    goes.iter().for_each(|go| go.send(()).unwrap());
    wait_for("all of it", || site.missing("a.img") == 0);
    assert_eq!(site.cached("a.img", 0, SIZE as usize), bytes);
    daemon.end();
}

#[test]
fn readers_go_first() {
    let (site, bytes) = site();
    let ((go_piece, piece), (go_reader, reader)) = (channel(), channel());
    let acts = vec![Act::Wait(piece), Act::Wait(reader)];
    let source = Fake::new("a", &bytes, acts, || Act::Give);
    let daemon = serve(&site, &[&source], plan("a.img\n"));
    wait_for("the first piece", || source.asked().len() == 1);
    // A reader comes in between, and is not held up by what is under way.
    daemon.kernel.send(&record(1, 2 * PIECE, 4096, b"Da.img"));
    wait_for("the reader", || source.asked().len() == 2);
    assert_eq!(source.asked()[1].0, 2 * PIECE..2 * PIECE + CHUNK);
    // The piece comes, and no other is asked for while the reader waits.
    go_piece.send(()).unwrap();
    wait_for("the piece", || site.missing("a.img") == SIZE - PIECE);
    thread::sleep(Duration::from_millis(500));
    assert_eq!(source.asked().len(), 2);
    go_reader.send(()).unwrap();
    assert_eq!(daemon.kernel.command(), "done 1\n");
    wait_for("all of it", || site.missing("a.img") == 0);
    // What the reader has brought is not fetched again.
    let fetched: u64 = source
        .asked()
        .iter()
        .map(|(range, _)| range.end - range.start)
        .sum();
    assert_eq!(fetched, SIZE);
    assert_eq!(site.cached("a.img", 0, SIZE as usize), bytes);
    daemon.end();
}

#[test]
fn a_reader_of_what_is_being_prefetched_waits_for_that() {
    let (site, bytes) = site();
    let (go, piece) = channel();
    let source = Fake::new("a", &bytes, vec![Act::Wait(piece)], || Act::Give);
    let daemon = serve(&site, &[&source], plan("a.img:0+4096\n"));
    wait_for("the first piece", || source.asked().len() == 1);
    daemon.kernel.send(&record(1, 8192, 4096, b"Da.img"));
    thread::sleep(Duration::from_millis(100));
    go.send(()).unwrap();
    assert_eq!(daemon.kernel.command(), "done 1\n");
    assert_eq!(source.asked(), [(0..CHUNK, false)]);
    daemon.end();
}

#[test]
fn no_more_bytes_come_per_second_than_allowed() {
    let (site, bytes) = site();
    let source = Fake::new("a", &bytes, vec![], || Act::Give);
    let plan = Plan {
        rate: Some(2 * PIECE),
        workers: 3,
        ..plan("a.img\n")
    };
    let began = Instant::now();
    let daemon = serve(&site, &[&source], plan);
    // A reader is not held up by that.
    assert_eq!(daemon.ask(1, 2 * PIECE, 4096, "Da.img"), "done 1\n");
    wait_for("all of it", || site.missing("a.img") == 0);
    // Half a second for each of three pieces, but the first one comes at once.
    assert!(
        began.elapsed() >= Duration::from_millis(990),
        "{:?}",
        began.elapsed()
    );
    daemon.end();
}

#[test]
fn while_a_source_has_too_much_to_do_nothing_is_prefetched() {
    let (site, bytes) = site();
    let busy = vec![Act::Fail(Overload(Some(Duration::from_secs(2))))];
    let busy = Fake::new("a", &bytes, busy, || Act::Give);
    let idle = Fake::new("b", &bytes, vec![], || Act::Give);
    let daemon = serve(&site, &[&busy, &idle], plan("a.img\n"));
    let began = Instant::now();
    // The piece that met it comes from the other source, and so does what a reader wants.
    wait_for("the first piece", || site.missing("a.img") == SIZE - PIECE);
    assert_eq!(daemon.ask(1, SIZE - 4096, 4096, "Da.img"), "done 1\n");
    assert!(site.missing("a.img") >= PIECE);
    wait_for("all of it", || site.missing("a.img") == 0);
    assert!(
        began.elapsed() >= Duration::from_millis(1500),
        "{:?}",
        began.elapsed()
    );
    daemon.end();
}

#[test]
fn a_source_that_is_down_is_waited_for() {
    let (site, bytes) = site();
    let down = vec![Act::Fail(Passing), Act::Cut(100_000), Act::Fail(Passing)];
    let source = Fake::new("a", &bytes, down, || Act::Give);
    let daemon = serve(&site, &[&source], plan("a.img\n"));
    wait_for("all of it", || site.missing("a.img") == 0);
    assert_eq!(site.cached("a.img", 0, SIZE as usize), bytes);
    daemon.end();
}

#[test]
fn what_cannot_be_had_does_not_hold_up_the_rest() {
    let (site, bytes) = site();
    site.blob("b.img", 100_000);
    let acts = vec![Act::Fail(Lasting), Act::Flip(0), Act::Flip(0)];
    let source = Fake::new("a", &bytes, acts, || Act::Give);
    let list = "absent\nb.img\na.img:0+4096\na.img:0+4096\na.img:99999999+1\na.img:65536+1\n";
    let daemon = serve(&site, &[&source], plan(list));
    wait_for("the last one", || site.missing("a.img") == SIZE - CHUNK);
    assert_eq!(site.missing("b.img"), 100_000, "it has no manifest");
    assert_eq!(
        site.cached("a.img", CHUNK, CHUNK as usize),
        bytes[65_536..131_072]
    );
    daemon.end();
}

#[test]
fn the_end_does_not_wait_for_what_is_left() {
    let (site, bytes) = site();
    let source = Fake::new("a", &bytes, vec![], || Act::Give);
    let plan = Plan {
        rate: Some(4096),
        ..plan("a.img\n")
    };
    let daemon = serve(&site, &[&source], plan);
    wait_for("the first piece", || site.missing("a.img") == SIZE - PIECE);
    let began = Instant::now();
    daemon.end();
    assert!(began.elapsed() < Duration::from_secs(20));
    assert_eq!(site.missing("a.img"), SIZE - PIECE);
}

#[test]
fn nothing_is_prefetched_onto_a_disk_that_gets_full() {
    let (site, bytes) = site();
    let source = Fake::new("a", &bytes, vec![], || Act::Give);
    // This device can be written, which means that something should be culled. Nothing can be: it is not that of a kernel.
    let options = Options {
        prefetch: plan("a.img\n"),
        cull: Some(When {
            disk: true,
            size: None,
            patience: NEVER,
        }),
        ..options()
    };
    let daemon = Daemon::with_blobs(blobs(&site, &[&source]), options, |node| node);
    assert_eq!(daemon.ask(1, SIZE - 4096, 4096, "Da.img"), "done 1\n");
    assert_eq!(source.asked(), [(SIZE - CHUNK..SIZE, false)]);
    daemon.end();
}

#[test]
fn nothing_is_prefetched_when_the_blobs_take_more_than_they_may() {
    let (site, bytes) = site();
    let source = Fake::new("a", &bytes, vec![], || Act::Give);
    // A piece every 1.5 seconds, and a look every second: the first piece is too much already.
    let options = Options {
        prefetch: Plan {
            rate: Some(PIECE * 2 / 3),
            ..plan("a.img\n")
        },
        cull: Some(When {
            disk: false,
            size: Some(4096),
            patience: NEVER,
        }),
        ..options()
    };
    let queue = Arc::clone(&options.prefetch.queue);
    // All of it is in use.
    let daemon = Daemon::with_blobs(blobs(&site, &[&source]), options, |node| {
        Refusing::new(node, "cull ", Errno::BUSY, u32::MAX)
    });
    wait_for("the first piece", || source.asked().len() == 1);
    wait_for("nothing waits", || queue.state() == (None, 0));
    thread::sleep(Duration::from_secs(2));
    let left = site.missing("a.img");
    assert!((1..SIZE).contains(&left), "{left}");
    // A reader gets what it needs.
    assert_eq!(daemon.ask(1, SIZE - 4096, 4096, "Da.img"), "done 1\n");
    daemon.end();
}

#[test]
fn what_is_added_while_it_serves_comes_too() {
    let (site, bytes) = site();
    let source = Fake::new("a", &bytes, vec![], || Act::Give);
    let plan = plan("");
    let queue = Arc::clone(&plan.queue);
    let daemon = serve(&site, &[&source], plan);
    assert_eq!(daemon.ask(1, 0, 4096, "Da.img"), "done 1\n");
    assert!(queue.add(Target::parse("a.img:65536+4096".as_ref())));
    wait_for("the range", || {
        site.missing("a.img") == SIZE - CHUNK - CHUNK
    });
    // It goes on waiting after that.
    assert!(queue.add(Target::parse("a.img".as_ref())));
    wait_for("all of it", || site.missing("a.img") == 0);
    wait_for("nothing waits", || queue.state() == (None, 0));
    assert_eq!(site.cached("a.img", 0, SIZE as usize), bytes);
    daemon.end();
    assert!(!queue.add(Target::parse("a.img".as_ref())), "it has ended");
}

#[test]
fn what_waits_can_be_thrown_away() {
    let (site, bytes) = site();
    let (go, piece) = channel();
    let source = Fake::new("a", &bytes, vec![Act::Wait(piece)], || Act::Give);
    let plan = plan("a.img\na.img:0+4096\na.img:65536+1\n");
    let queue = Arc::clone(&plan.queue);
    let daemon = serve(&site, &[&source], plan);
    wait_for("the first piece", || source.asked().len() == 1);
    assert_eq!(queue.state(), (Some("a.img".into()), 2));
    assert_eq!(queue.clear(), 3);
    assert_eq!(queue.state(), (None, 0));
    // The piece comes, and it is the last one; then comes what was added afterwards.
    assert!(queue.add(Target::parse(format!("a.img:{}+4096", 2 * PIECE).as_ref())));
    go.send(()).unwrap();
    wait_for("both", || site.missing("a.img") == SIZE - PIECE - CHUNK);
    wait_for("nothing waits", || queue.state() == (None, 0));
    assert_eq!(source.asked().len(), 2);
    daemon.end();
}

#[test]
fn there_is_an_end_to_how_much_waits() {
    let queue = Queue::default();
    let target = Target::parse("a.img".as_ref());
    let added = std::iter::repeat_with(|| queue.add(target.clone()));
    assert_eq!(added.take_while(|added| *added).count(), 65_536);
    assert_eq!(queue.clear(), 65_536);
    assert!(queue.add(target));
}

#[test]
fn lists_have_blobs_ranges_and_lines_of_traces() {
    let list = "# first\na.img\n\nb:x:4096+10\n7\ta.img\t8192\t4096\tdone\n8\ta.img\t0\t4096\tfail 5\n9\ta.img\tx\t1\tdone\n";
    let target = |blob: &str, range| Target {
        blob: blob.into(),
        range,
    };
    assert_eq!(
        Target::list(list.as_bytes()),
        [
            target("a.img", None),
            target("b:x", Some(4096..4106)),
            target("a.img", Some(8192..12_288)),
        ]
    );
}
