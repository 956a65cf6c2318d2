// SPDX-License-Identifier: GPL-2.0
//! Verifying what a cache has, and making what is wrong absent.

mod stand_in;

use std::ffi::OsString;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::mpsc::channel;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use demandd::image::build::describe;
use demandd::image::prepare::prepare;
use demandd::verify::{verify, Report, Row, Work};
use lease::Lease;
use stand_in::process::{run, str};
use stand_in::Site;

/// The last of its chunks has 1,696 bytes.
const SIZE: u64 = 100_000;
const CHUNK: u64 = 16_384;

/// A cache that has all of a blob with a manifest; the blob's bytes.
fn site() -> (Site, Vec<u8>) {
    let site = Site::new();
    let bytes = site.blob("a.img", SIZE);
    describe(&site.source_dir(), "a", &["a.img".to_owned()], CHUNK).unwrap();
    let wanted = "a".parse().unwrap();
    prepare(
        &site.volume(),
        &site.mirrors(),
        &wanted,
        None,
        |_, _| Ok(()),
    )
    .unwrap();
    site.prefetch("a.img").unwrap();
    assert_eq!(site.missing("a.img"), 0);
    (site, bytes)
}

/// Flips a bit of the cache file, as a disk might.
fn flip(site: &Site, at: u64) {
    let byte = site.cached("a.img", at, 1)[0];
    let file = site.cache_file("a.img");
    file.write_all_at(&[byte ^ 8], at).unwrap();
    file.sync_all().unwrap();
}

fn punch(site: &Site, at: u64, len: u64) {
    demandd::copy::CacheFile::punch(&site.cache_file("a.img"), at, len).unwrap();
}

fn look_with(site: &Site, repair: Option<Duration>) -> Report {
    let work = Work {
        rate: None,
        repair,
        progress: &|_, _, _| {},
    };
    verify(&site.volume(), &[], &work).unwrap()
}

fn look(site: &Site) -> Row {
    look_with(site, None).0.remove(0)
}

/// Nobody else is waited for.
fn repair(site: &Site) -> Row {
    look_with(site, Some(Duration::ZERO)).0.remove(0)
}

#[test]
fn what_is_right_is_verified() {
    let (site, _) = site();
    // No source is asked.
    fs::remove_dir_all(site.source_dir()).unwrap();
    let row = look(&site);
    assert!(row.is_good(), "{row:?}");
    assert_eq!(
        (row.present, row.verified, row.unverifiable()),
        (SIZE, SIZE, 0)
    );
    // Of an empty cache file nothing is.
    fs::remove_file(site.volume().path("a.img".as_ref()).unwrap()).unwrap();
    site.volume().prepare("a.img".as_ref(), SIZE).unwrap();
    let row = look(&site);
    assert!(row.is_good());
    assert_eq!((row.size, row.present, row.verified), (SIZE, 0, 0));
}

#[test]
fn every_wrong_bit_is_found() {
    for at in [0, CHUNK - 1, 3 * CHUNK + 77, 6 * CHUNK, SIZE - 1] {
        let (site, _) = site();
        flip(&site, at);
        let row = look(&site);
        assert!(!row.is_good());
        let chunk = at / CHUNK;
        assert_eq!(row.wrong, [chunk], "{at}");
        let len = CHUNK.min(SIZE - chunk * CHUNK);
        assert_eq!((row.verified, row.unverifiable()), (SIZE - len, 0));
        assert_eq!(site.missing("a.img"), 0, "nothing is changed");
    }
}

#[test]
fn what_is_there_in_part_cannot_be_verified() {
    let (site, _) = site();
    punch(&site, 2 * CHUNK, 4096);
    punch(&site, 6 * CHUNK, SIZE - 6 * CHUNK);
    // Even if it is wrong: nobody can tell.
    flip(&site, 2 * CHUNK + 5000);
    let row = look(&site);
    assert!(row.is_good(), "{row:?}");
    assert_eq!(row.present, 6 * CHUNK - 4096);
    assert_eq!(row.verified, 5 * CHUNK);
    assert_eq!(row.unverifiable(), CHUNK - 4096);
}

#[test]
fn without_a_manifest_nothing_can_be_verified() {
    let site = Site::new();
    site.blob("a.img", SIZE);
    site.prefetch("a.img:0+8192").unwrap();
    let row = look(&site);
    assert!(row.is_good());
    assert_eq!(
        (row.present, row.verified, row.unverifiable()),
        (8192, 0, 8192)
    );
}

#[test]
fn what_is_wrong_is_made_absent_and_nothing_else() {
    for at in [0, 3 * CHUNK + 77, SIZE - 1] {
        let (site, bytes) = site();
        flip(&site, at);
        let row = repair(&site);
        assert!(row.is_good() && row.repaired, "{row:?}");
        let start = at / CHUNK * CHUNK;
        let end = SIZE.min(start + CHUNK);
        assert_eq!(site.missing("a.img"), end - start, "{at}");
        let row = look(&site);
        assert!(row.wrong.is_empty());
        assert_eq!(
            (row.present, row.verified),
            (SIZE - (end - start), row.present)
        );
        // It comes again when somebody wants it.
        site.prefetch("a.img").unwrap();
        assert_eq!(site.cached("a.img", 0, SIZE as usize), bytes);
    }
}

#[test]
fn what_somebody_has_open_is_left_alone() {
    let (site, _) = site();
    flip(&site, 5);
    // As the kernel has it for a mount, and as a backup might.
    for write in [true, false] {
        let path = site.volume().path("a.img".as_ref()).unwrap();
        let open = File::options().read(true).write(write).open(path).unwrap();
        let row = repair(&site);
        assert!(!row.is_good() && !row.repaired, "{row:?}");
        assert!(row.problem.unwrap().contains("in use"));
        assert_eq!(row.wrong, [0]);
        assert_eq!(site.missing("a.img"), 0);
        drop(open);
    }
    assert!(repair(&site).is_good());
}

#[test]
fn whoever_closes_it_in_time_is_waited_for() {
    let (site, _) = site();
    flip(&site, 5);
    let open = site.cache_file("a.img");
    let (found, wait) = channel();
    thread::scope(|scope| {
        scope.spawn(move || {
            wait.recv().unwrap();
            drop(open);
        });
        let work = Work {
            rate: None,
            repair: Some(Duration::from_secs(20)),
            // The last chunk is being looked at: what comes next is the repair.
            progress: &|_, pos, _| {
                if pos == 6 * CHUNK {
                    found.send(()).unwrap();
                }
            },
        };
        let report = verify(&site.volume(), &[], &work).unwrap();
        assert!(report.0[0].is_good(), "{report:?}");
    });
    assert_eq!(site.missing("a.img"), CHUNK);
}

fn list_path(site: &Site) -> PathBuf {
    site.root().join("chunks/Ierofs/Da.img")
}

#[test]
fn a_blob_that_cannot_be_looked_at_does_not_hide_the_others() {
    let (site, _) = site();
    site.blob("b.img", 4096);
    let mut list = fs::read(list_path(&site)).unwrap();
    *list.last_mut().unwrap() ^= 1;
    fs::write(list_path(&site), list).unwrap();
    let report = look_with(&site, None);
    assert_eq!(report.bad(), 1);
    let problem = report.0[0].problem.as_ref().unwrap();
    assert!(
        problem.contains("cannot use the list of chunks"),
        "{problem}"
    );
    assert_eq!(report.0[1].name, "b.img");
    // A file of another size is not the blob of the list.
    let (site, _) = self::site();
    site.cache_file("a.img").set_len(SIZE + 1).unwrap();
    let problem = look(&site).problem.unwrap();
    assert!(
        problem.contains("it has 100001 bytes, and 100000"),
        "{problem}"
    );
}

#[test]
fn blobs_can_be_named_and_reading_has_a_rate() {
    let (site, _) = site();
    site.blob("b.img", 4096);
    let work = Work {
        rate: Some(SIZE),
        repair: None,
        progress: &|_, _, _| {},
    };
    let names = [OsString::from("a.img")];
    let began = Instant::now();
    let report = verify(&site.volume(), &names, &work).unwrap();
    assert!(began.elapsed() >= Duration::from_secs(1));
    assert_eq!(report.0.len(), 1);
    let error = verify(&site.volume(), &["c".into()], &work).unwrap_err();
    assert!(
        error.to_string().contains("\"c\" is not prepared"),
        "{error}"
    );
}

#[test]
fn the_status_tells() {
    let (site, _) = site();
    let root = site.root();
    let verify = |more: &[&str]| run(&[&["verify", "--root", str(&root)], more].concat());
    let (ok, stdout, stderr) = verify(&[]);
    assert!(ok && stderr.is_empty(), "{stderr}");
    let words: Vec<_> = stdout.split_whitespace().collect();
    assert_eq!(words[5..], ["100000", "100000", "0", "a.img"], "{stdout}");
    flip(&site, 2 * CHUNK);
    let (ok, stdout, stderr) = verify(&[]);
    assert!(
        !ok && stderr.contains("1 of 1 blobs are not good"),
        "{stderr}"
    );
    assert!(
        stdout.ends_with("a.img: 1 wrong chunks of 16384 bytes: 2\n"),
        "{stdout}"
    );
    let (ok, stdout, _) = verify(&["--repair"]);
    assert!(ok && stdout.ends_with(": 2; absent now\n"), "{stdout}");
    let (ok, stdout, _) = verify(&["--json", "a.img"]);
    let report: serde_json::Value = serde_json::from_str(&stdout).unwrap();
    let blob = &report["blobs"][0];
    assert!(
        ok && blob["wrong"].as_array().unwrap().is_empty(),
        "{stdout}"
    );
    assert_eq!(blob["verified"], SIZE - CHUNK);
}

#[test]
fn whoever_opens_a_file_that_is_being_repaired_waits() {
    let (site, _) = site();
    let file = site.cache_file("a.img");
    let lease = Lease::take(&file).unwrap();
    // What is sent when somebody waits would end this process.
    signal_hook::flag::register(signal_hook::consts::SIGIO, Arc::default()).unwrap();
    let (opened, wait) = channel();
    thread::scope(|scope| {
        let volume = site.volume();
        scope.spawn(move || opened.send(volume.open("a.img".as_ref()).is_ok()));
        assert!(wait.recv_timeout(Duration::from_millis(300)).is_err());
        drop(lease);
        assert!(wait.recv().unwrap());
    });
}
