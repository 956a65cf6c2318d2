// SPDX-License-Identifier: GPL-2.0
//! Blobs with a manifest: whatever the sources do, no byte gets into the cache that is not verified.

mod stand_in;

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use demandd::blobs::Blobs;
use demandd::cache::Prepared;
use demandd::chunks::Chunks;
use demandd::copy::CacheFile;
use demandd::image::build::describe;
use demandd::image::verify::{chunks, manifest};
use demandd::manifest::Entry;
use demandd::source::Kind::{Lasting, Overload, Passing};
use demandd::source::Source;
use stand_in::daemon::{options, Daemon, NEVER};
use stand_in::fake::{Act, Fake};
use stand_in::{mirrors, record, Site};

const SIZE: u64 = 100_000;
/// The blob has 7 chunks of this size.
const CHUNK: u64 = 16_384;

/// A blob that is prepared with a manifest; its bytes.
fn site() -> (Site, Vec<u8>) {
    let site = Site::new();
    let bytes = site.blob("a.img", SIZE);
    let (entry, chunks) = listed(&site);
    let existed = site.volume().prepare_verified(&entry, &chunks).unwrap();
    assert_eq!(existed, Prepared::Existed);
    (site, bytes)
}

/// The manifest's entry of the blob in the source, and its list.
fn listed(site: &Site) -> (Entry, Chunks) {
    describe(&site.source_dir(), "a", &["a.img".to_owned()], CHUNK).unwrap();
    let mirrors = site.mirrors();
    let manifest = manifest(&mirrors, &"a".parse().unwrap()).unwrap();
    let entry = manifest.entries()[0].clone();
    let chunks = chunks(&mirrors, &entry).unwrap();
    (entry, chunks)
}

fn serve(site: &Site, sources: &[&Fake]) -> Daemon {
    let sources = sources
        .iter()
        .map(|&source| Box::new(source.clone()) as Box<dyn Source>);
    let blobs = Blobs::new(site.volume(), mirrors(sources.collect()), 8, NEVER);
    Daemon::with_blobs(blobs, options(), |node| node)
}

/// What is present is right.
fn check_present(site: &Site, bytes: &[u8]) {
    let file = site.cache_file("a.img");
    for (at, right) in bytes.chunks(4096).enumerate() {
        let pos = at as u64 * 4096;
        if !CacheFile::is_missing(&file, pos).unwrap() {
            assert!(
                site.cached("a.img", pos, right.len()) == right,
                "block {at}"
            );
        }
    }
}

#[test]
fn a_request_brings_whole_chunks() {
    let (site, bytes) = site();
    let source = Fake::new("a", &bytes, vec![], || Act::Give);
    let daemon = serve(&site, &[&source]);
    assert_eq!(daemon.ask(1, 20_480, 4096, "Da.img"), "done 1\n");
    assert_eq!(source.asked(), [(CHUNK..2 * CHUNK, false)]);
    assert_eq!(site.missing("a.img"), SIZE - CHUNK);
    // Neighbours come with one request, and the last chunk ends where the blob does.
    assert_eq!(daemon.ask(2, 69_632, SIZE - 69_632, "Da.img"), "done 2\n");
    assert_eq!(source.asked()[1..], [(4 * CHUNK..SIZE, false)]);
    check_present(&site, &bytes);
    assert_eq!(site.missing("a.img"), 3 * CHUNK);
    daemon.end();
}

#[test]
fn a_wrong_chunk_is_fetched_from_another_source() {
    let (site, bytes) = site();
    let wrong = Fake::new("a", &bytes, vec![], || Act::Flip(2 * CHUNK + 5));
    let right = Fake::new("b", &bytes, vec![], || Act::Give);
    let daemon = serve(&site, &[&wrong, &right]);
    assert_eq!(daemon.ask(1, 0, SIZE, "Da.img"), "done 1\n");
    assert_eq!(site.cached("a.img", 0, SIZE as usize), bytes);
    assert_eq!(wrong.asked(), [(0..SIZE, false)]);
    // Not from a cache on the way, which might be what is wrong.
    assert_eq!(right.asked(), [(2 * CHUNK..SIZE, true)]);
    daemon.end();
}

#[test]
fn a_wrong_chunk_is_fetched_again_if_there_is_no_other_source() {
    let (site, bytes) = site();
    let source = Fake::new("a", &bytes, vec![Act::Flip(CHUNK)], || Act::Give);
    let daemon = serve(&site, &[&source]);
    assert_eq!(daemon.ask(1, 0, SIZE, "Da.img"), "done 1\n");
    assert_eq!(site.cached("a.img", 0, SIZE as usize), bytes);
    assert_eq!(source.asked(), [(0..SIZE, false), (CHUNK..SIZE, true)]);
    daemon.end();
}

#[test]
fn a_chunk_that_stays_wrong_is_an_error_and_never_visible() {
    for bit in [0, CHUNK - 1, 3 * CHUNK + 77, SIZE - 1] {
        let (site, bytes) = site();
        let flip = vec![Act::Flip(bit), Act::Flip(bit)];
        let source = Fake::new("a", &bytes, flip, || Act::Give);
        let daemon = serve(&site, &[&source]);
        assert_eq!(daemon.ask(1, 0, SIZE, "Da.img"), "fail 1 5\n");
        assert_eq!(source.asked().len(), 2, "once more, and no more");
        check_present(&site, &bytes);
        let before = bit / CHUNK * CHUNK;
        assert_eq!(
            site.missing("a.img"),
            SIZE - before,
            "what came before it is there"
        );
        // The failure is not remembered.
        assert_eq!(daemon.ask(2, 0, SIZE, "Da.img"), "done 2\n");
        assert_eq!(site.cached("a.img", 0, SIZE as usize), bytes);
        daemon.end();
    }
}

#[test]
fn two_sources_that_are_both_wrong_are_asked_once_each() {
    let (site, bytes) = site();
    let [a, b] = ["a", "b"].map(|label| Fake::new(label, &bytes, vec![], || Act::Flip(1)));
    let daemon = serve(&site, &[&a, &b]);
    assert_eq!(daemon.ask(1, 0, 4096, "Da.img"), "fail 1 5\n");
    assert_eq!((a.asked().len(), b.asked().len()), (1, 1));
    assert_eq!(site.missing("a.img"), SIZE);
    daemon.end();
}

#[test]
fn what_was_cut_off_goes_on_where_it_ended() {
    let (site, bytes) = site();
    let cut = vec![
        Act::Cut(2 * CHUNK as usize + 100),
        Act::Cut(CHUNK as usize - 1),
    ];
    let source = Fake::new("a", &bytes, cut, || Act::Give);
    let daemon = serve(&site, &[&source]);
    assert_eq!(daemon.ask(1, 0, SIZE, "Da.img"), "done 1\n");
    assert_eq!(site.cached("a.img", 0, SIZE as usize), bytes);
    let starts: Vec<_> = source
        .asked()
        .iter()
        .map(|(range, _)| range.start)
        .collect();
    assert_eq!(starts, [0, 2 * CHUNK, 2 * CHUNK]);
    daemon.end();
}

#[test]
fn a_source_that_is_down_costs_only_waiting() {
    let (site, bytes) = site();
    let down = vec![
        Act::Fail(Passing),
        Act::Fail(Overload(Some(Duration::from_millis(300)))),
        Act::Fail(Passing),
    ];
    let source = Fake::new("a", &bytes, down, || Act::Give);
    let daemon = serve(&site, &[&source]);
    let began = Instant::now();
    assert_eq!(daemon.ask(1, 0, SIZE, "Da.img"), "done 1\n");
    // 200 ms after the first failure, 300 as it said itself, 800 after the third.
    assert!(
        began.elapsed() >= Duration::from_millis(1300),
        "{:?}",
        began.elapsed()
    );
    assert_eq!(source.asked().len(), 4);
    assert_eq!(site.cached("a.img", 0, SIZE as usize), bytes);
    daemon.end();
}

#[test]
fn while_one_source_is_down_the_next_one_is_asked() {
    let (site, bytes) = site();
    let down = Fake::new("a", &bytes, vec![], || Act::Fail(Passing));
    let up = Fake::new("b", &bytes, vec![], || Act::Give);
    let daemon = serve(&site, &[&down, &up]);
    for id in 0..6 {
        let answer = daemon.ask(id, id * CHUNK, 4096, "Da.img");
        assert_eq!(answer, format!("done {id}\n"));
    }
    assert_eq!(down.asked().len(), 1, "readers do not try it again");
    assert_eq!(up.asked().len(), 6);
    daemon.end();
}

#[test]
fn a_source_that_has_not_got_it_is_not_waited_for() {
    let (site, bytes) = site();
    let [a, b] = ["a", "b"].map(|label| Fake::new(label, &bytes, vec![], || Act::Fail(Lasting)));
    let daemon = serve(&site, &[&a, &b]);
    assert_eq!(daemon.ask(1, 0, 4096, "Da.img"), "fail 1 5\n");
    assert_eq!((a.asked().len(), b.asked().len()), (1, 1));
    daemon.end();
}

#[test]
fn a_chunk_is_fetched_once_for_all_who_want_it() {
    let (site, bytes) = site();
    let (go, wait) = channel();
    let source = Fake::new("a", &bytes, vec![Act::Wait(wait)], || Act::Give);
    let daemon = serve(&site, &[&source]);
    let batch: Vec<u8> = (0..4)
        .flat_map(|id| record(id, id * 4096, 4096, b"Da.img"))
        .collect();
    daemon.kernel.send(&batch);
    source.wait_until_asked();
    go.send(()).unwrap();
    let mut answers: Vec<_> = (0..4).map(|_| daemon.kernel.command()).collect();
    answers.sort();
    assert_eq!(answers, ["done 0\n", "done 1\n", "done 2\n", "done 3\n"]);
    assert_eq!(source.asked(), [(0..CHUNK, false)]);
    // Nor later, unless it is not there any more.
    assert_eq!(daemon.ask(5, 8192, 4096, "Da.img"), "done 5\n");
    assert_eq!(source.asked().len(), 1);
    CacheFile::punch(&site.cache_file("a.img"), 8192, 4096).unwrap();
    assert_eq!(daemon.ask(6, 8192, 4096, "Da.img"), "done 6\n");
    assert_eq!(source.asked().len(), 2);
    check_present(&site, &bytes);
    daemon.end();
}

#[test]
fn whoever_waited_for_a_fetch_that_fails_fetches_himself() {
    let (site, bytes) = site();
    let flip = vec![Act::Flip(0), Act::Flip(0)];
    let source = Fake::new("a", &bytes, flip, || Act::Give);
    let daemon = serve(&site, &[&source]);
    let batch: Vec<u8> = (0..2)
        .flat_map(|id| record(id, 0, 4096, b"Da.img"))
        .collect();
    daemon.kernel.send(&batch);
    let mut answers = [daemon.kernel.command(), daemon.kernel.command()];
    answers.sort();
    assert!(
        answers[0].starts_with("done ") && answers[1].starts_with("fail "),
        "{answers:?}"
    );
    assert_eq!(source.asked().len(), 3);
    daemon.end();
}

#[test]
fn requests_that_wait_for_a_source_at_the_end_are_left_to_the_next_daemon() {
    let (site, bytes) = site();
    let hour = Some(Duration::from_secs(30));
    let source = Fake::new("a", &bytes, vec![Act::Fail(Overload(hour))], || Act::Give);
    let daemon = serve(&site, &[&source]);
    daemon.kernel.send(&record(1, 0, 4096, b"Da.img"));
    let start = Instant::now();
    source.wait_until_asked();
    let (kernel, thread) = daemon.told_to_end();
    let summary = thread.join().unwrap().unwrap();
    assert!(start.elapsed() < Duration::from_secs(20), "it did not wait");
    assert_eq!((summary.served, summary.failed), (0, 0));
    kernel.close();
    assert_eq!(kernel.last_command(), None);
}

#[test]
fn a_source_that_wants_to_be_left_alone_for_too_long_is_an_error_at_once() {
    let (site, bytes) = site();
    let hour = || Act::Fail(Overload(Some(Duration::from_secs(3600))));
    let source = Fake::new("a", &bytes, vec![], hour);
    let daemon = serve(&site, &[&source]);
    assert_eq!(daemon.ask(1, 0, 4096, "Da.img"), "fail 1 5\n");
    assert_eq!(daemon.ask(2, 0, 4096, "Da.img"), "fail 2 5\n");
    assert_eq!(source.asked().len(), 1, "it is left alone");
    daemon.end();
}

#[test]
fn a_directory_is_not_believed_either_if_there_is_a_manifest() {
    let (site, bytes) = site();
    let daemon = Daemon::start(&site, options());
    assert_eq!(daemon.ask(1, 0, 4096, "Da.img"), "done 1\n");
    let mut other = bytes.clone();
    other[5 * CHUNK as usize] ^= 0x80;
    fs::write(site.source_dir().join("a.img"), other).unwrap();
    assert_eq!(daemon.ask(2, 5 * CHUNK, 4096, "Da.img"), "fail 2 5\n");
    fs::write(site.source_dir().join("a.img"), &bytes[1..]).unwrap();
    assert_eq!(daemon.ask(3, 4 * CHUNK, 4096, "Da.img"), "fail 3 5\n");
    check_present(&site, &bytes);
    assert_eq!(site.missing("a.img"), SIZE - CHUNK);
    daemon.end();
}

#[test]
fn without_a_manifest_only_a_directory_is_believed() {
    let site = Site::new();
    let bytes = site.blob("a.img", SIZE);
    let source = Fake::new("a", &bytes, vec![], || Act::Give);
    let daemon = serve(&site, &[&source]);
    assert_eq!(daemon.ask(1, 0, 4096, "Da.img"), "fail 1 5\n");
    assert!(source.asked().is_empty());
    assert_eq!(site.missing("a.img"), SIZE);
    daemon.end();
}

fn list_path(site: &Site) -> PathBuf {
    site.root().join("chunks/Ierofs/Da.img")
}

#[test]
fn what_is_present_already_must_have_been_verified() {
    let site = Site::new();
    let bytes = site.blob("a.img", SIZE);
    let (entry, chunks) = listed(&site);
    let volume = site.volume();
    site.cache_file("a.img")
        .write_all_at(&bytes[..4096], 0)
        .unwrap();
    let error = volume.prepare_verified(&entry, &chunks).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("not verified with this manifest"),
        "{error}"
    );
    assert!(!list_path(&site).exists());
    // Once it is gone, all is well; also when it has been prepared before, and when something was fetched since.
    fs::remove_file(volume.path("a.img".as_ref()).unwrap()).unwrap();
    assert_eq!(
        volume.prepare_verified(&entry, &chunks).unwrap(),
        Prepared::Created
    );
    site.cache_file("a.img")
        .write_all_at(&bytes[..4096], 0)
        .unwrap();
    assert_eq!(
        volume.prepare_verified(&entry, &chunks).unwrap(),
        Prepared::Existed
    );
    // Another image may have a blob of this name.
    let other = Entry {
        digest: entry.list,
        ..entry
    };
    let error = volume.prepare_verified(&other, &chunks).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("not verified with this manifest"),
        "{error}"
    );
}

#[test]
fn a_list_that_was_damaged_in_the_cache_is_not_used() {
    let (site, bytes) = site();
    let good = fs::read(list_path(&site)).unwrap();
    let head = good.iter().rposition(|&byte| byte == b'\n').unwrap();
    for at in [0, 10, head / 2, head, head + 1, good.len() - 1] {
        let mut bad = good.clone();
        bad[at] ^= 1;
        fs::write(list_path(&site), bad).unwrap();
        let daemon = Daemon::start(&site, options());
        assert_eq!(daemon.ask(1, 0, 4096, "Da.img"), "fail 1 5\n", "byte {at}");
        daemon.end();
    }
    for len in [0, 1, head, head + 1, good.len() - 1] {
        fs::write(list_path(&site), &good[..len]).unwrap();
        let daemon = Daemon::start(&site, options());
        assert_eq!(
            daemon.ask(1, 0, 4096, "Da.img"),
            "fail 1 5\n",
            "{len} bytes"
        );
        daemon.end();
    }
    assert_eq!(site.missing("a.img"), SIZE);
    fs::write(list_path(&site), &good).unwrap();
    let daemon = Daemon::start(&site, options());
    assert_eq!(daemon.ask(1, 0, SIZE, "Da.img"), "done 1\n");
    check_present(&site, &bytes);
    daemon.end();
}
