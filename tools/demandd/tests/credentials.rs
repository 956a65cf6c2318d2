// SPDX-License-Identifier: GPL-2.0
//! Servers that want to know who asks: they are told, nobody else is, and nothing of it is printed.

mod stand_in;

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use demandd::blobs::Blobs;
use demandd::image::build::describe;
use demandd::image::verify::{chunks, manifest};
use demandd::source::http::Options;
use demandd::source::mirror::Mirrors;
use demandd::source::place::Place;
use demandd::source::{How, Kind, Source};
use rustix::process::Signal;
use stand_in::daemon::{options, Daemon, NEVER};
use stand_in::process::{demandd, run, str};
use stand_in::web::{empty, Asked, Fault, Web};
use stand_in::{mirrors, record, Site, Terminal};

const SIZE: u64 = 100_000;
const CHUNK: u64 = 16_384;

/// In no line that anybody prints.
const PASSWORD: &str = "xyzzy-plugh";

fn web_options() -> Options {
    Options {
        silence: Duration::from_secs(10),
        proxy: Some(String::new()),
        proxy_password_file: None,
        ca_file: None,
    }
}

fn open(place: &str) -> Box<dyn Source> {
    let place = Place::parse(place.as_ref()).unwrap();
    place.open(&web_options()).unwrap()
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(30)
}

/// A blob with a manifest, a file with something secret, and a server that wants it.
struct Case {
    site: Site,
    bytes: Vec<u8>,
    file: PathBuf,
    web: Web,
    right: Arc<Mutex<String>>,
}

impl Case {
    /// What is in the file is `text`, and what the server wants in `Authorization` is `right`.
    fn new(text: &str, right: &str) -> Self {
        let site = Site::new();
        let bytes = site.blob("a.img", SIZE);
        describe(&site.source_dir(), "a", &["a.img".to_owned()], CHUNK).unwrap();
        let file = site.path("secret");
        fs::write(&file, text).unwrap();
        let web = Web::new(&site.source_dir(), vec![], Fault::None);
        let right = Arc::new(Mutex::new(right.to_owned()));
        let wanted = Arc::clone(&right);
        web.guard(move |asked| {
            let refused = asked.value("authorization") != *wanted.lock().unwrap();
            refused.then(|| {
                empty(
                    "401 Unauthorized",
                    "WWW-Authenticate: Basic realm=\"x\"\r\n",
                )
            })
        });
        Self {
            site,
            bytes,
            file,
            web,
            right,
        }
    }

    fn place(&self, key: &str) -> String {
        format!("{} {key}={}", self.web.url(), str(&self.file))
    }

    /// Prepares the blob for being verified.
    fn prepare(&self) {
        let mirrors = self.site.mirrors();
        let manifest = manifest(&mirrors, &"a".parse().unwrap()).unwrap();
        let entry = &manifest.entries()[0];
        let chunks = chunks(&mirrors, entry).unwrap();
        self.site.volume().prepare_verified(entry, &chunks).unwrap();
    }

    fn serve(&self, place: &str) -> Daemon {
        self.prepare();
        let blobs = Blobs::new(self.site.volume(), mirrors(vec![open(place)]), 8, NEVER);
        Daemon::with_blobs(blobs, options(), |node| node)
    }
}

#[test]
fn a_password_or_a_token_comes_from_a_file() {
    // The example of RFC 7617.
    let basic = "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==";
    for (key, text, right) in [
        ("password-file", "Aladdin:open sesame\n", basic),
        ("token-file", "mF_9.B5f-4.1JqM\n", "Bearer mF_9.B5f-4.1JqM"),
    ] {
        let case = Case::new(text, right);
        let source = open(&case.place(key));
        assert!(source.file("a.manifest", 1000, soon()).is_ok(), "{key}");
        source.probe(soon()).unwrap();
    }
}

#[test]
fn wrong_credentials_are_an_error_at_once_that_names_their_file() {
    let case = Case::new(&format!("user:{PASSWORD}"), "Basic other");
    let source = open(&case.place("password-file"));
    let failure = source.file("a.manifest", 1000, soon()).unwrap_err();
    let text = format!("{:#} {failure:?} {source:?}", failure.error);
    assert_eq!(failure.kind, Kind::Lasting);
    assert!(
        text.contains("401") && text.contains(str(&case.file)),
        "{text}"
    );
    assert!(
        !text.contains(PASSWORD) && !text.contains("Basic "),
        "{text}"
    );
    assert_eq!(case.web.asked().len(), 1);
    assert!(source.probe(soon()).is_err());
    // Without any there is advice.
    let failure = open(&case.web.url()).file("a.manifest", 1000, soon());
    let text = format!("{:#}", failure.unwrap_err().error);
    assert!(text.contains("see password-file"), "{text}");
}

#[test]
fn a_reader_gets_an_error_at_once_with_wrong_credentials() {
    let case = Case::new("user:wrong", "Basic other");
    let daemon = case.serve(&case.place("password-file"));
    assert_eq!(daemon.ask(1, 0, 4096, "Da.img"), "fail 1 5\n");
    assert_eq!(case.site.missing("a.img"), SIZE);
    daemon.end();
}

#[test]
fn who_may_not_is_told_so() {
    let case = Case::new("token", "Bearer token");
    case.web.guard(|_| Some(empty("403 Forbidden", "")));
    let source = open(&case.place("token-file"));
    let failure = source.file("a.manifest", 1000, soon()).unwrap_err();
    let text = format!("{:#}", failure.error);
    assert!(
        text.contains("403") && text.contains("may not have it"),
        "{text}"
    );
    assert_eq!(failure.kind, Kind::Lasting);
    assert_eq!(case.web.asked().len(), 1);
}

#[test]
fn credentials_that_expire_while_serving_are_read_again() {
    let case = Case::new("first", "Bearer first");
    let daemon = case.serve(&case.place("token-file"));
    assert_eq!(daemon.ask(1, 0, 4096, "Da.img"), "done 1\n");
    *case.right.lock().unwrap() = "Bearer second".to_owned();
    fs::write(&case.file, "second").unwrap();
    assert_eq!(daemon.ask(2, CHUNK, 4096, "Da.img"), "done 2\n");
    let asked = case.web.asked();
    let shown: Vec<_> = asked.iter().map(|one| one.value("authorization")).collect();
    assert_eq!(shown, ["Bearer first", "Bearer first", "Bearer second"]);
    // Once it has them, they are shown at once.
    assert_eq!(daemon.ask(3, 2 * CHUNK, 4096, "Da.img"), "done 3\n");
    assert_eq!(case.web.asked().len(), 4);
    daemon.end();
}

/// Sends everything to another server, with a secret in the address.
fn sends_to(web: &Web) -> impl Fn(&Asked) -> Option<Vec<u8>> {
    let to = web.url();
    move |asked| {
        let path = asked.target().trim_start_matches('/').to_owned();
        let location = format!("Location: {to}{path}?signature={PASSWORD}\r\n");
        Some(empty("307 There", &location))
    }
}

/// A server of the same files, that does not look at what stands behind a question mark.
fn elsewhere(site: &Site) -> Web {
    let web = Web::new(&site.source_dir(), vec![], Fault::None);
    let dir = site.source_dir();
    web.guard(move |asked| {
        let name = asked.target().split('?').next().unwrap();
        let bytes = fs::read(dir.join(name.trim_start_matches('/'))).ok()?;
        let range = asked.value("range").strip_prefix("bytes=")?.to_owned();
        let (first, last) = range.split_once('-')?;
        let (first, last): (usize, usize) = (first.parse().ok()?, last.parse().ok()?);
        let headers = format!("Content-Range: bytes {range}/{}\r\n", bytes.len());
        let body = &bytes[first..=last];
        Some(stand_in::web::full("206 Partial", &headers, body))
    });
    web
}

#[test]
fn credentials_are_not_shown_to_another_server() {
    let case = Case::new("token", "Bearer token");
    let other = elsewhere(&case.site);
    case.web.guard(sends_to(&other));
    let daemon = case.serve(&case.place("token-file"));
    assert_eq!(daemon.ask(1, 0, 4096, "Da.img"), "done 1\n");
    assert_eq!(case.web.asked()[0].value("authorization"), "Bearer token");
    let asked = other.asked();
    assert_eq!(asked.len(), 1);
    assert_eq!(asked[0].value("authorization"), "");
    assert_eq!(case.site.cached("a.img", 0, 4096), case.bytes[..4096]);
    daemon.end();
}

#[test]
fn where_a_server_sends_to_is_remembered_until_it_fails() {
    let case = Case::new("token", "Bearer token");
    let [first, second] = [elsewhere(&case.site), elsewhere(&case.site)];
    case.web.guard(sends_to(&first));
    let daemon = case.serve(&case.place("token-file"));
    for id in 0..3 {
        let answer = daemon.ask(id, id * CHUNK, 4096, "Da.img");
        assert_eq!(answer, format!("done {id}\n"));
    }
    assert_eq!((case.web.asked().len(), first.asked().len()), (1, 3));
    // As a signed address does when its time is over.
    first.guard(|_| Some(empty("403 Expired", "")));
    case.web.guard(sends_to(&second));
    assert_eq!(daemon.ask(3, 3 * CHUNK, 4096, "Da.img"), "done 3\n");
    assert_eq!((case.web.asked().len(), second.asked().len()), (2, 1));
    assert_eq!(daemon.ask(4, 4 * CHUNK, 4096, "Da.img"), "done 4\n");
    assert_eq!((case.web.asked().len(), second.asked().len()), (2, 2));
    daemon.end();
}

#[test]
fn an_address_that_a_server_sends_to_is_not_printed() {
    let case = Case::new("token", "Bearer token");
    let other = Web::new(&case.site.source_dir(), vec![], Fault::Status(403, ""));
    case.web.guard(sends_to(&other));
    let source = open(&case.place("token-file"));
    let how = How {
        until: soon(),
        fresh: false,
    };
    let blob = source.blob("a.img".as_ref(), SIZE).unwrap();
    for fault in [Fault::Status(403, ""), Fault::HangsUp, Fault::MovedHere] {
        other.now(fault.clone());
        let Err(failure) = blob.range(0..10, &how) else {
            panic!("{fault:?}");
        };
        let text = format!("{:#} {blob:?}", failure.error);
        assert!(!text.contains(PASSWORD), "{fault:?}: {text}");
        if fault != Fault::MovedHere {
            assert!(
                text.contains(&other.address.to_string()),
                "{fault:?}: {text}"
            );
        }
    }
}

#[test]
fn nothing_secret_is_printed_by_any_verb() {
    let case = Case::new(&format!("user:{PASSWORD}"), "Basic other");
    let config = case.site.path("demandd.toml");
    let text = format!(
        "root = {:?}\nsource = [{{ url = {:?}, password-file = {:?} }}]\nproxy = \"none\"\n",
        case.site.root(),
        case.web.url(),
        case.file
    );
    fs::write(&config, text).unwrap();
    let config = ["--config", str(&config)];
    let place = case.place("password-file");
    for args in [
        &[&["prepare"], &config[..], &["--image=a"]].concat()[..],
        &[&["doctor"], &config[..]].concat(),
        &[&["bugreport"], &config[..]].concat(),
        &["config", "check", config[1]],
        &["image", "verify", "--proxy=none", "--source", &place, "a"],
    ] {
        let (_, stdout, stderr) = run(args);
        let text = stdout + &stderr;
        assert!(!text.is_empty());
        for secret in [PASSWORD, "Basic "] {
            assert!(!text.contains(secret), "{args:?}: {text}");
        }
    }
    assert!(case
        .web
        .asked()
        .iter()
        .all(|one| one.value("authorization").starts_with("Basic ")));
    assert!(case.web.asked().len() >= 3);
}

#[test]
fn a_file_that_makes_no_sense_is_an_error_at_the_start_that_does_not_quote_it() {
    let case = Case::new("no colon here", "");
    for (key, text) in [("password-file", PASSWORD), ("token-file", "xyzzy-plugh b")] {
        fs::write(&case.file, text).unwrap();
        let place = Place::parse(case.place(key).as_ref()).unwrap();
        let error = format!("{:#}", place.open(&web_options()).unwrap_err());
        assert!(error.contains(str(&case.file)), "{error}");
        assert!(!error.contains(PASSWORD), "{error}");
    }
    fs::remove_file(&case.file).unwrap();
    let place = Place::parse(case.place("token-file").as_ref()).unwrap();
    assert!(place.open(&web_options()).is_err());
}

#[test]
fn a_hangup_has_credentials_read_again() {
    let case = Case::new("first", "Bearer first");
    case.prepare();
    let mut device = Terminal::new();
    let place = case.place("token-file");
    let mut command = demandd();
    command.args(["serve", "--cull=off", "--proxy=none", "--source", &place]);
    command.args([
        "--root",
        str(&case.site.root()),
        "--device",
        str(&device.path),
    ]);
    let mut daemon = stand_in::process::Daemon::spawn(command.stderr(Stdio::piped()));
    let mut log = BufReader::new(daemon.child.stderr.take().unwrap());
    let mut line = move || {
        let mut line = String::new();
        log.read_line(&mut line).unwrap();
        line
    };
    // The file of a test can be read by everybody.
    assert!(line().contains("chmod o-r"));
    device.expect_bind(&case.site.root(), "CacheFiles");
    assert_eq!(daemon.line(), "demandd: ready\n");
    fs::write(&case.file, "second").unwrap();
    *case.right.lock().unwrap() = "Bearer second".to_owned();
    daemon.signal(Signal::HUP);
    assert_eq!(line(), "demandd: reloaded; changed: credentials\n");
    device.send(&record(1, 0, 4096, b"Da.img"));
    assert_eq!(device.command(), "done 1");
    // It was not refused first.
    let asked = case.web.asked();
    let shown: Vec<_> = asked.iter().map(|one| one.value("authorization")).collect();
    assert_eq!(shown, ["Bearer second"]);
    // What cannot be read changes nothing.
    fs::remove_file(&case.file).unwrap();
    daemon.signal(Signal::HUP);
    let told = line();
    assert!(told.contains("keeps the credentials"), "{told}");
    assert_eq!(line(), "demandd: reloaded; nothing has changed\n");
    device.send(&record(2, CHUNK, 4096, b"Da.img"));
    assert_eq!(device.command(), "done 2");
    daemon.signal(Signal::TERM);
    assert!(daemon.end().0);
}

#[test]
fn a_source_has_a_proxy_of_its_own() {
    let case = Case::new("", "");
    let proxy = Web::new(&case.site.source_dir(), vec![], Fault::Status(501, ""));
    let url = case.web.url();
    let place = |text: &str| Place::parse(format!("{url} {text}").as_ref()).unwrap();
    let for_all = Options {
        proxy: Some(proxy.url()),
        ..web_options()
    };
    let ask = |text: &str, options: &Options| {
        let source = place(text).open(options).unwrap();
        let _ = source.file("a.manifest", 1000, soon());
    };
    ask(&format!("proxy={}", proxy.url()), &web_options());
    assert_eq!((proxy.asked().len(), case.web.asked().len()), (1, 0));
    ask("", &for_all);
    assert_eq!((proxy.asked().len(), case.web.asked().len()), (2, 0));
    ask("proxy=none", &for_all);
    assert_eq!((proxy.asked().len(), case.web.asked().len()), (2, 1));
}

#[test]
fn a_proxy_is_told_who_asks_from_a_file() {
    let case = Case::new("Aladdin:open sesame", "");
    let proxy = Web::new(&case.site.source_dir(), vec![], Fault::Status(501, ""));
    let place = format!(
        "{} proxy={} proxy-password-file={}",
        case.web.url(),
        proxy.url(),
        str(&case.file)
    );
    let source = open(&place);
    let failure = source.file("a.manifest", 1000, soon()).unwrap_err();
    let text = format!("{:#} {source:?}", failure.error);
    let right = "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==";
    assert_eq!(proxy.asked()[0].value("proxy-authorization"), right);
    assert!(!text.contains("sesame") && !text.contains("QWxh"), "{text}");
    // With another password when it is read again.
    fs::write(&case.file, "Aladdin:sesame").unwrap();
    assert!(source.reload().unwrap());
    let _ = source.file("a.manifest", 1000, soon());
    let asked = proxy.asked();
    assert_ne!(asked.last().unwrap().value("proxy-authorization"), right);
    // Not in its address, and not without one.
    for (proxy, expected) in [
        ("http://u:pw@host:1", "into a file"),
        ("socks5://host", "only http"),
    ] {
        let place = Place::parse(format!("http://host/ proxy={proxy}").as_ref()).unwrap();
        let error = format!("{:#}", place.open(&web_options()).unwrap_err());
        assert!(
            error.contains(expected) && !error.contains("pw@"),
            "{error}"
        );
    }
}

#[test]
fn a_server_that_refuses_everybody_is_not_looked_at_all_the_time() {
    let case = Case::new("", "");
    let times = Arc::new(Mutex::new(Vec::new()));
    let noted = Arc::clone(&times);
    case.web.guard(move |_| {
        noted.lock().unwrap().push(Instant::now());
        Some(match noted.lock().unwrap().len() {
            1 => empty("503 Busy", ""),
            _ => empty("401 Unauthorized", ""),
        })
    });
    let other = Web::new(&case.site.source_dir(), vec![], Fault::None);
    case.prepare();
    let mirrors = mirrors(vec![open(&case.web.url()), open(&other.url())]);
    let blobs = Blobs::new(
        case.site.volume(),
        Arc::<Mirrors>::clone(&mirrors),
        8,
        NEVER,
    );
    let daemon = Daemon::with_blobs(blobs, options(), |node| node);
    assert_eq!(daemon.ask(1, 0, 4096, "Da.img"), "done 1\n");
    let began = Instant::now();
    while times.lock().unwrap().len() < 4 {
        assert!(began.elapsed() < stand_in::PATIENCE);
        std::thread::sleep(Duration::from_millis(10));
    }
    // It is asked after 0.2, 0.4 and 0.8 seconds at the earliest.
    let times = times.lock().unwrap();
    assert!(times[3] - times[0] >= Duration::from_millis(1400));
    drop(times);
    daemon.end();
}
