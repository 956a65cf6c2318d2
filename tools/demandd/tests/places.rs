// SPDX-License-Identifier: GPL-2.0
//! Blobs that are fetched from places which the cache knows, whatever sources the daemon has.

mod stand_in;

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use demandd::blobs::Blobs;
use demandd::image::build::describe;
use demandd::image::prepare::prepare;
use demandd::places::PLACES_MAX;
use demandd::source::directory::Directory;
use demandd::source::mirror::Mirrors;
use demandd::source::place::Place;
use demandd::source::{Opener, Source};
use stand_in::daemon::{options, Daemon, NEVER};
use stand_in::web::{Fault, Web};
use stand_in::{Site, PATIENCE};

const SIZE: u64 = 100_000;

/// A blob that was prepared from a place of its own; its bytes. The source has nothing.
fn site() -> (Site, Vec<u8>, PathBuf) {
    let site = Site::new();
    let bytes = site.blob("a.img", SIZE);
    describe(&site.source_dir(), "a", &["a.img".to_owned()], 4096).unwrap();
    let place = site.path("place");
    fs::rename(site.source_dir(), &place).unwrap();
    fs::create_dir(site.source_dir()).unwrap();
    let there = stand_in::mirrors(vec![open(&place)]);
    let wanted = "a".parse().unwrap();
    let place_name = Some(place.as_os_str());
    prepare(&site.volume(), &there, &wanted, place_name, |_, _| Ok(())).unwrap();
    (site, bytes, place)
}

fn open(dir: &Path) -> Box<dyn Source> {
    Box::new(Directory::new(dir).unwrap())
}

/// A daemon with the empty source.
fn serve(site: &Site) -> Daemon {
    let sources = vec![open(&site.source_dir())];
    let mirrors = Mirrors::with_opener(sources, PATIENCE, Opener::default());
    let blobs = Blobs::new(site.volume(), Arc::new(mirrors), 8, NEVER);
    Daemon::with_blobs(blobs, options(), |node| node)
}

#[test]
fn a_place_is_asked_beside_the_sources() {
    let (site, bytes, _) = site();
    let daemon = serve(&site);
    assert_eq!(daemon.ask(1, 0, SIZE, "Da.img"), "done 1\n");
    assert_eq!(site.cached("a.img", 0, SIZE as usize), bytes);
    daemon.end();
}

#[test]
fn what_a_place_has_is_verified() {
    let (site, bytes, place) = site();
    let mut wrong = bytes.clone();
    wrong[5000] ^= 1;
    fs::write(place.join("a.img"), wrong).unwrap();
    let daemon = serve(&site);
    assert_eq!(daemon.ask(1, 4096, 4096, "Da.img"), "fail 1 5\n");
    assert_eq!(site.missing("a.img"), SIZE);
    // The source has it by now.
    fs::write(site.source_dir().join("a.img"), &bytes).unwrap();
    assert_eq!(daemon.ask(2, 4096, 4096, "Da.img"), "done 2\n");
    assert_eq!(site.cached("a.img", 4096, 4096), bytes[4096..8192]);
    daemon.end();
}

#[test]
fn a_place_that_is_gone_is_not_missed_if_a_source_has_it() {
    let (site, bytes, place) = site();
    fs::rename(place.join("a.img"), site.source_dir().join("a.img")).unwrap();
    let daemon = serve(&site);
    assert_eq!(daemon.ask(1, 0, 4096, "Da.img"), "done 1\n");
    daemon.end();
    fs::remove_dir_all(place).unwrap();
    let daemon = serve(&site);
    assert_eq!(daemon.ask(1, 0, SIZE, "Da.img"), "done 1\n");
    assert_eq!(site.cached("a.img", 0, SIZE as usize), bytes);
    daemon.end();
}

#[test]
fn places_are_asked_first_and_only_for_their_blobs() {
    let (site, bytes, place) = site();
    // Another blob, which the source has.
    let other = site.blob("b.img", SIZE);
    fs::copy(place.join("a.img"), site.source_dir().join("a.img")).unwrap();
    let [source, at_place] =
        [&site.source_dir(), &place].map(|dir| Web::new(dir, vec![], Fault::None));
    describe(&site.source_dir(), "b", &["b.img".to_owned()], 4096).unwrap();
    let volume = site.volume();
    let here = stand_in::mirrors(vec![open(&site.source_dir())]);
    prepare(&volume, &here, &"b".parse().unwrap(), None, |_, _| Ok(())).unwrap();
    let url = at_place.url();
    volume.note_place("a.img".as_ref(), url.as_ref()).unwrap();

    let web = demandd::source::http::Options {
        silence: PATIENCE,
        proxy: Some(String::new()),
        proxy_password_file: None,
        ca_file: None,
    };
    let opener = Opener::new(move |text| Place::parse(text)?.open(&web));
    let sources = vec![opener.open(source.url().as_ref()).unwrap()];
    let mirrors = Mirrors::with_opener(sources, PATIENCE, opener);
    let blobs = Blobs::new(volume, Arc::new(mirrors), 8, NEVER);
    let daemon = Daemon::with_blobs(blobs, options(), |node| node);
    for (id, name) in [(1, "Da.img"), (2, "Db.img"), (3, "Da.img")] {
        let answer = daemon.ask(id, id * 4096, 4096, name);
        assert_eq!(answer, format!("done {id}\n"));
    }
    assert_eq!(site.cached("a.img", 4096, 4096), bytes[4096..8192]);
    assert_eq!(site.cached("b.img", 8192, 4096), other[8192..12_288]);
    let lines = |web: &Web| web.asked().into_iter().map(|asked| asked.line);
    assert!(lines(&source).all(|line| line.starts_with("GET /b.img ")));
    assert!(lines(&at_place).all(|line| line.starts_with("GET /a.img ")));
    assert_eq!((source.asked().len(), at_place.asked().len()), (1, 2));
    daemon.end();
}

#[test]
fn the_last_places_are_kept() {
    let site = Site::new();
    let volume = site.volume();
    let blob = OsStr::new("a.img");
    assert!(volume.places(blob).unwrap().is_empty());
    for n in 0..PLACES_MAX + 2 {
        volume.note_place(blob, format!("/p{n}").as_ref()).unwrap();
    }
    let last = PLACES_MAX + 1;
    let places = volume.places(blob).unwrap();
    assert_eq!(places.len(), PLACES_MAX);
    assert_eq!(places[0], OsStr::new(&format!("/p{last}")));
    assert_eq!(places[1], OsStr::new(&format!("/p{}", last - 1)));
    // One that is named again comes first, and is not there twice.
    volume.note_place(blob, places[3].as_ref()).unwrap();
    let again = volume.places(blob).unwrap();
    assert_eq!((again.len(), &again[0]), (PLACES_MAX, &places[3]));
    for bad in ["", "a\nb"] {
        volume.note_place(blob, bad.as_ref()).unwrap_err();
    }
    assert_eq!(volume.places(blob).unwrap(), again);
}
