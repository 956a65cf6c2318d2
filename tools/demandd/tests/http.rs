// SPDX-License-Identifier: GPL-2.0
//! Web servers as sources: whatever they do, the reader gets the right bytes or an error, and in time.

mod stand_in;

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use demandd::blobs::Blobs;
use demandd::image::build::describe;
use demandd::image::verify::{chunks, manifest, verify};
use demandd::source::http::{Client, Http, Options};
use demandd::source::mirror::Mirrors;
use demandd::source::Source;
use stand_in::daemon::{options, Daemon, NEVER};
use stand_in::web::{Fault, Web};
use stand_in::Site;

const SIZE: u64 = 100_000;
/// The blob has 7 chunks of this size.
const CHUNK: u64 = 16_384;

/// How long a server may say nothing in these tests.
const SILENCE: Duration = Duration::from_millis(500);

fn client_options() -> Options {
    Options {
        silence: SILENCE,
        proxy: Some(String::new()),
        proxy_password_file: None,
        ca_file: None,
    }
}

fn source(url: &str) -> Box<dyn Source> {
    let client = Client::new(&client_options()).unwrap();
    Box::new(Http::new(url, client).unwrap())
}

/// Sources that are tried for so long.
fn mirrors(servers: &[&Web], patience: Duration) -> Arc<Mirrors> {
    let sources = servers.iter().map(|server| source(&server.url()));
    Arc::new(Mirrors::new(sources.collect(), patience))
}

/// A blob that is prepared with a manifest, which came from a web server.
struct Case {
    site: Site,
    bytes: Vec<u8>,
    dir: PathBuf,
}

impl Case {
    fn new() -> Self {
        let site = Site::new();
        let bytes = site.blob("a.img", SIZE);
        let dir = site.source_dir();
        describe(&dir, "a", &["a.img".to_owned()], CHUNK).unwrap();
        let server = Web::new(&dir, vec![], Fault::None);
        let mirrors = mirrors(&[&server], NEVER);
        let manifest = manifest(&mirrors, &"a".parse().unwrap()).unwrap();
        let entry = &manifest.entries()[0];
        let chunks = chunks(&mirrors, entry).unwrap();
        site.volume().prepare_verified(entry, &chunks).unwrap();
        Self { site, bytes, dir }
    }

    fn web(&self, faults: &[Fault], then: Fault) -> Web {
        Web::new(&self.dir, faults.to_vec(), then)
    }

    fn serve(&self, servers: &[&Web]) -> Daemon {
        self.serve_for(servers, NEVER)
    }

    fn serve_for(&self, servers: &[&Web], patience: Duration) -> Daemon {
        let blobs = Blobs::new(self.site.volume(), mirrors(servers, patience), 8, NEVER);
        Daemon::with_blobs(blobs, options(), |node| node)
    }

    /// The cache has the right bytes, or nothing.
    fn check(&self, what: &str) {
        let missing = self.site.missing("a.img");
        let have = self.site.cached("a.img", 0, SIZE as usize);
        for (at, (have, right)) in have.chunks(4096).zip(self.bytes.chunks(4096)).enumerate() {
            // The bytes of the blob are never zero.
            assert!(
                have == right || have.iter().all(|&byte| byte == 0),
                "{what}: block {at}"
            );
        }
        let zero = have.iter().filter(|&&byte| byte == 0).count() as u64;
        assert_eq!(zero, missing, "{what}");
    }
}

/// What goes away when the same is asked for again.
fn passing() -> Vec<Fault> {
    vec![
        Fault::Status(500, ""),
        Fault::Status(502, ""),
        Fault::Status(503, "Retry-After: 0\r\n"),
        Fault::Status(503, "Retry-After: Sun, 06 Nov 1994 08:49:37 GMT\r\n"),
        Fault::Status(429, "Retry-After: 0\r\n"),
        Fault::Status(408, ""),
        Fault::Closes(0),
        Fault::Closes(CHUNK + 1),
        Fault::Closes(SIZE - 1),
        Fault::Resets(0),
        Fault::Resets(2 * CHUNK + 1000),
        Fault::Stalls(0),
        Fault::Stalls(3 * CHUNK - 1),
        Fault::Silent,
        Fault::HangsUp,
        Fault::Garbage,
        Fault::Flips(CHUNK + 3),
        Fault::OtherBytes,
        Fault::UntilClosed(0),
        Fault::UntilClosed(1),
        Fault::Chunked(0),
        Fault::Chunked(CHUNK),
    ]
}

/// What does not.
fn lasting() -> Vec<Fault> {
    vec![
        Fault::Status(400, ""),
        Fault::Status(401, "WWW-Authenticate: Basic\r\n"),
        Fault::Status(403, ""),
        Fault::Status(404, ""),
        Fault::Status(416, ""),
        Fault::Status(204, ""),
        Fault::Status(304, ""),
        Fault::IgnoresRange,
        Fault::OtherRange(1),
        Fault::OtherRange(4096),
        Fault::OtherSize,
        Fault::NoContentRange,
        Fault::Shorter(1),
        Fault::Shorter(CHUNK),
        Fault::Longer(1),
        Fault::Longer(CHUNK),
        Fault::Encoded,
        Fault::MovedHere,
        Fault::EndlessHeader,
    ]
}

#[test]
fn ranges_are_asked_for_and_connections_are_kept() {
    let case = Case::new();
    let server = case.web(&[], Fault::None);
    let daemon = case.serve(&[&server]);
    for (id, off) in (0..).zip([0, 5 * CHUNK, 2 * CHUNK]) {
        assert_eq!(daemon.ask(id, off, 4096, "Da.img"), format!("done {id}\n"));
    }
    case.check("no fault");
    assert_eq!(case.site.missing("a.img"), SIZE - 3 * CHUNK);
    let asked = server.asked();
    assert_eq!(asked.len(), 3);
    assert_eq!(asked[1].line, "GET /a.img HTTP/1.1");
    assert!(asked[1].has("range: bytes=81920-98303"), "{asked:?}");
    assert!(asked[1].has("accept-encoding: identity"), "{asked:?}");
    assert!(!asked[1].has("cache-control: no-cache"), "{asked:?}");
    assert_eq!(server.connections(), 1);
    daemon.end();
}

#[test]
fn a_fault_that_passes_costs_only_waiting() {
    let case = Case::new();
    for fault in passing() {
        fs::remove_file(case.site.volume().path("a.img".as_ref()).unwrap()).unwrap();
        case.site.volume().prepare("a.img".as_ref(), SIZE).unwrap();
        let server = case.web(&[fault.clone()], Fault::None);
        let daemon = case.serve(&[&server]);
        // All but the first block, so that all of the blob is not a range like any other.
        let answer = daemon.ask(1, 4096, SIZE - 4096, "Da.img");
        assert_eq!(answer, "done 1\n", "{fault:?}");
        case.check(&format!("{fault:?}"));
        assert_eq!(case.site.missing("a.img"), 0, "{fault:?}");
        daemon.end();
    }
}

#[test]
fn a_fault_that_lasts_is_an_error_at_once() {
    let case = Case::new();
    for fault in lasting() {
        let server = case.web(&[], fault.clone());
        let daemon = case.serve(&[&server]);
        // Not all of the blob: that could be had without knowing ranges. And not its end, which is nearer than other ranges.
        let answer = daemon.ask(1, 2 * CHUNK, 2 * CHUNK, "Da.img");
        assert_eq!(answer, "fail 1 5\n", "{fault:?}");
        case.check(&format!("{fault:?}"));
        assert_eq!(case.site.missing("a.img"), SIZE, "{fault:?}");
        let redirects = if fault == Fault::MovedHere { 5 } else { 0 };
        assert_eq!(server.asked().len(), 1 + redirects, "{fault:?}");
        daemon.end();
    }
}

#[test]
fn any_fault_of_one_server_is_made_good_by_another_one() {
    let case = Case::new();
    for fault in passing().into_iter().chain(lasting()) {
        fs::remove_file(case.site.volume().path("a.img".as_ref()).unwrap()).unwrap();
        case.site.volume().prepare("a.img".as_ref(), SIZE).unwrap();
        let [bad, good] = [case.web(&[], fault.clone()), case.web(&[], Fault::None)];
        let daemon = case.serve(&[&bad, &good]);
        for (id, chunk) in [(1, 1), (2, 4)] {
            let answer = daemon.ask(id, chunk * CHUNK, 2 * CHUNK, "Da.img");
            assert_eq!(answer, format!("done {id}\n"), "{fault:?}");
        }
        case.check(&format!("{fault:?}"));
        assert_eq!(case.site.missing("a.img"), SIZE - 4 * CHUNK, "{fault:?}");
        daemon.end();
    }
}

#[test]
fn a_server_that_stays_wrong_is_never_believed() {
    let case = Case::new();
    for fault in [Fault::OtherBytes, Fault::Flips(2 * CHUNK)] {
        let server = case.web(&[], fault.clone());
        let daemon = case.serve(&[&server]);
        let answer = daemon.ask(1, 2 * CHUNK, 4096, "Da.img");
        assert_eq!(answer, "fail 1 5\n", "{fault:?}");
        assert_eq!(case.site.missing("a.img"), SIZE, "{fault:?}");
        let asked = server.asked();
        assert_eq!(asked.len(), 2);
        assert!(asked[1].has("cache-control: no-cache"), "{asked:?}");
        daemon.end();
    }
}

#[test]
fn the_time_for_all_attempts_is_bounded() {
    let case = Case::new();
    let patience = Duration::from_secs(2);
    for fault in [
        Fault::Silent,
        Fault::Stalls(10),
        Fault::Status(500, ""),
        Fault::Drips(Duration::from_millis(100)),
    ] {
        let server = case.web(&[], fault.clone());
        let daemon = case.serve_for(&[&server], patience);
        let began = Instant::now();
        assert_eq!(daemon.ask(1, 0, 4096, "Da.img"), "fail 1 5\n", "{fault:?}");
        let took = began.elapsed();
        assert!(took < patience * 5, "{fault:?}: {took:?}");
        assert!(server.asked().len() >= 2, "{fault:?}");
        daemon.end();
    }
    assert_eq!(case.site.missing("a.img"), SIZE);
}

#[test]
fn a_server_is_left_alone_for_as_long_as_it_says() {
    let case = Case::new();
    let server = case.web(&[Fault::Status(503, "Retry-After: 2\r\n")], Fault::None);
    let daemon = case.serve(&[&server]);
    let began = Instant::now();
    assert_eq!(daemon.ask(1, 0, 4096, "Da.img"), "done 1\n");
    assert!(began.elapsed() >= Duration::from_secs(2));
    assert_eq!(server.asked().len(), 2);
    daemon.end();
}

#[test]
fn a_server_that_always_says_at_once_is_not_asked_all_the_time() {
    let case = Case::new();
    let server = case.web(&[], Fault::Status(503, "Retry-After: 0\r\n"));
    let daemon = case.serve_for(&[&server], Duration::from_secs(2));
    assert_eq!(daemon.ask(1, 0, 4096, "Da.img"), "fail 1 5\n");
    // At once, and after 0.2, 0.4 and 0.8 seconds or more.
    let asked = server.asked().len();
    assert!((2..=4).contains(&asked), "{asked}");
    daemon.end();
}

#[test]
fn a_server_that_is_not_there_is_like_one_that_fails() {
    let case = Case::new();
    // A port where nobody listens any more.
    let gone = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let good = case.web(&[], Fault::None);
    let sources = vec![source(&format!("http://{gone}")), source(&good.url())];
    let mirrors = Arc::new(Mirrors::new(sources, NEVER));
    let blobs = Blobs::new(case.site.volume(), mirrors, 8, NEVER);
    let daemon = Daemon::with_blobs(blobs, options(), |node| node);
    assert_eq!(daemon.ask(1, 0, SIZE, "Da.img"), "done 1\n");
    case.check("gone");
    daemon.end();
}

#[test]
fn a_mirror_that_is_up_again_is_asked_again() {
    let case = Case::new();
    let first = case.web(&[], Fault::Status(503, ""));
    let second = case.web(&[], Fault::None);
    let daemon = case.serve(&[&first, &second]);
    assert_eq!(daemon.ask(1, 0, 4096, "Da.img"), "done 1\n");
    // Nobody but the daemon itself asks it, until it has answered.
    let count = |what: &str| {
        let asked = first.asked();
        asked
            .iter()
            .filter(|asked| asked.line.starts_with(what))
            .count()
    };
    let probes = count("GET / ");
    first.now(Fault::None);
    let began = Instant::now();
    while count("GET / ") == probes {
        assert!(began.elapsed() < stand_in::PATIENCE);
        thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(count("GET /a.img "), 1);
    for chunk in 1..7 {
        // It takes the daemon a moment to know.
        thread::sleep(Duration::from_millis(50));
        let answer = daemon.ask(
            chunk,
            chunk * CHUNK,
            if chunk == 6 { SIZE - 6 * CHUNK } else { 4096 },
            "Da.img",
        );
        assert_eq!(answer, format!("done {chunk}\n"));
    }
    assert!(count("GET /a.img ") > 1);
    daemon.end();
}

#[test]
fn redirects_are_followed() {
    let case = Case::new();
    let real = case.web(&[], Fault::None);
    let server = case.web(&[], Fault::MovedTo(format!("{}a.img", real.url())));
    let daemon = case.serve(&[&server]);
    assert_eq!(daemon.ask(1, CHUNK, 4096, "Da.img"), "done 1\n");
    case.check("redirect");
    assert!(real.asked()[0].has("range: bytes=16384-32767"));
    daemon.end();
}

#[test]
fn a_whole_blob_can_be_had_from_a_server_that_knows_no_ranges() {
    let case = Case::new();
    let server = case.web(&[], Fault::IgnoresRange);
    let daemon = case.serve(&[&server]);
    assert_eq!(daemon.ask(1, 0, SIZE, "Da.img"), "done 1\n");
    case.check("whole");
    daemon.end();
}

#[test]
fn a_proxy_is_asked_instead() {
    let case = Case::new();
    // What comes to it is a request to be connected, which it does not know: so it was asked, and nobody else.
    let proxy = case.web(&[], Fault::Status(501, ""));
    let server = case.web(&[], Fault::None);
    let options = Options {
        proxy: Some(proxy.url()),
        ..client_options()
    };
    let source = Http::new(&server.url(), Client::new(&options).unwrap()).unwrap();
    let until = Instant::now() + Duration::from_secs(20);
    source.file("a.manifest", 1000, until).unwrap_err();
    assert_eq!(
        proxy.asked()[0].line,
        format!("CONNECT {} HTTP/1.1", server.address)
    );
    assert!(server.asked().is_empty());
}

#[test]
fn small_files_are_bounded() {
    let case = Case::new();
    let server = case.web(&[], Fault::None);
    let source = source(&server.url());
    let until = Instant::now() + Duration::from_secs(20);
    let size = fs::metadata(case.dir.join("a.manifest")).unwrap().len();
    assert_eq!(
        source.file("a.manifest", size, until).unwrap().len() as u64,
        size
    );
    let error = source.file("a.manifest", size - 1, until).unwrap_err();
    assert!(format!("{:#}", error.error).contains("are not believed"));
    for fault in [
        Fault::Encoded,
        Fault::Status(404, ""),
        Fault::Closes(5),
        Fault::Stalls(5),
    ] {
        server.now(fault.clone());
        assert!(source.file("a.manifest", size, until).is_err(), "{fault:?}");
    }
    server.now(Fault::OtherBytes);
    let wanted = "a".parse().unwrap();
    assert!(manifest(&mirrors(&[&server], NEVER), &wanted).is_err());
}

#[test]
fn what_a_server_has_is_verified() {
    let case = Case::new();
    let server = case.web(&[], Fault::None);
    let mirrors = mirrors(&[&server], NEVER);
    let wanted = "a".parse().unwrap();
    assert!(verify(&mirrors, &wanted).unwrap().is_good());
    let mut bytes = case.bytes.clone();
    bytes[SIZE as usize - 1] ^= 1;
    fs::write(case.dir.join("a.img"), bytes).unwrap();
    assert_eq!(verify(&mirrors, &wanted).unwrap().blobs[0].wrong, [6]);
}

#[test]
fn addresses_that_cannot_be_a_source_are_refused() {
    let client = Client::new(&client_options()).unwrap();
    for (url, reason) in [
        ("http://", "http://"),
        ("http:///dir", "http:///dir"),
        ("http://host/dir?x=1", "not the address of a directory"),
        ("http://user:secret@host/", "password"),
    ] {
        let error = format!("{:#}", Http::new(url, client.clone()).unwrap_err());
        assert!(
            error.contains(reason) && !error.contains("secret"),
            "{url}: {error}"
        );
    }
}
