// SPDX-License-Identifier: GPL-2.0
//! S3 as a source, and as a place to push to.

mod stand_in;

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use demandd::digest::Digest;
use demandd::source::http::Options;
use demandd::source::place::Place;
use demandd::source::Kind;
use demandd::store::push;
use stand_in::pushed::{
    bucket, failure, image, open, push_to, read_manifest, serve, web_options, CHUNK, SIZE,
};
use stand_in::s3::{ID, S3};
use stand_in::web::{empty, full, Asked, Fault, Web};
use stand_in::Site;

/// In no line that anybody prints.
const SECRET: &str = "xyzzy/plugh+1";

struct Case {
    site: Site,
    bytes: Vec<u8>,
    file: PathBuf,
    s3: S3,
}

impl Case {
    fn new() -> Self {
        let site = Site::new();
        let bytes = image(&site);
        let file = site.path("key");
        let s3 = S3::new(&site, Some(SECRET));
        let case = Self {
            site,
            bytes,
            file,
            s3,
        };
        case.key(ID, SECRET, "");
        case
    }

    /// Writes the file with the key.
    fn key(&self, id: &str, secret: &str, session: &str) {
        let mut text =
            format!("[default]\naws_access_key_id = {id}\naws_secret_access_key = {secret}\n");
        if !session.is_empty() {
            text += &format!("aws_session_token = {session}\n");
        }
        fs::write(&self.file, text).unwrap();
    }

    fn place(&self) -> String {
        self.s3.place(&format!("key-file={}", self.file.display()))
    }

    /// Puts the image there, as if somebody had pushed it.
    fn fill(&self) {
        push_to(&self.site.source_dir(), &self.place()).unwrap();
    }

    /// Why the image cannot be read.
    fn why(&self) -> String {
        let failure = failure(&self.place());
        assert_eq!(failure.kind, Kind::Lasting);
        let text = format!("{:#}", failure.error);
        assert!(
            !text.contains(SECRET) && !text.contains("Signature="),
            "{text}"
        );
        text
    }
}

#[test]
fn an_image_is_pushed_and_read() {
    let case = Case::new();
    let place = case.place();
    let dir = case.site.source_dir();
    assert!(push_to(&dir, &place).unwrap().is_empty());
    assert_eq!(case.s3.state.lock().unwrap().objects["a.img"].0, case.bytes);
    // What is there is not sent again.
    let all = ["a.img", "a.img.chunks", "a.manifest"];
    assert_eq!(push_to(&dir, &place).unwrap(), all);
    let puts = case.s3.web.asked();
    let puts: Vec<_> = puts
        .iter()
        .filter(|asked| asked.method() == "PUT")
        .collect();
    assert_eq!(puts.len(), 3);
    assert!(puts[2].target().ends_with("/a.manifest"));
    let daemon = serve(&case.site, &place);
    assert_eq!(daemon.ask(1, 0, SIZE, "Da.img"), "done 1\n");
    assert_eq!(case.site.cached("a.img", 0, SIZE as usize), case.bytes);
    daemon.end();
}

#[test]
fn everybody_may_read_without_a_key() {
    let case = Case::new();
    case.fill();
    let place = case.s3.place("");
    let text = format!("{:#}", failure(&place).error);
    assert!(
        text.contains("403") && text.contains("see key-file"),
        "{text}"
    );
    // The stand-in checks that nothing is shown then.
    case.s3.state.lock().unwrap().secret = None;
    read_manifest(&*open(&place)).unwrap();
}

#[test]
fn a_wrong_key_is_an_error_at_once_that_names_its_file() {
    let case = Case::new();
    case.fill();
    let before = case.s3.web.asked().len();
    case.key(ID, "other", "");
    let why = case.why();
    assert!(
        why.contains("the secret key") && why.contains(&*case.file.to_string_lossy()),
        "{why}"
    );
    case.key("AKOTHER", SECRET, "");
    assert!(case.why().contains("does not know the key"));
    assert_eq!(case.s3.web.asked().len(), before + 2);
}

#[test]
fn a_session_that_expires_while_serving_is_read_again() {
    let case = Case::new();
    case.fill();
    case.s3.state.lock().unwrap().session = "first".to_owned();
    case.key(ID, SECRET, "first");
    let daemon = serve(&case.site, &case.place());
    assert_eq!(daemon.ask(1, 0, 4096, "Da.img"), "done 1\n");
    case.s3.state.lock().unwrap().session = "second".to_owned();
    assert_eq!(daemon.ask(2, CHUNK, 4096, "Da.img"), "fail 2 5\n");
    case.key(ID, SECRET, "second");
    assert_eq!(daemon.ask(3, CHUNK, 4096, "Da.img"), "done 3\n");
    daemon.end();
    assert!({
        case.key(ID, SECRET, "first");
        case.why().contains("session token")
    });
}

#[test]
fn a_clock_that_is_wrong_is_named_and_by_how_much() {
    let case = Case::new();
    case.fill();
    case.s3.state.lock().unwrap().ahead = Duration::from_secs(3600);
    let why = case.why();
    let (_, rest) = why.split_once("the clock of this machine is ").unwrap();
    let (seconds, rest) = rest.split_once(' ').unwrap();
    let seconds: u64 = seconds.parse().unwrap();
    assert!((3540..=3601).contains(&seconds), "{why}");
    assert!(rest.starts_with("seconds behind"), "{why}");
}

#[test]
fn another_region_is_named() {
    let case = Case::new();
    case.fill();
    case.s3.state.lock().unwrap().region = "eu-central-1".to_owned();
    assert!(case.why().contains("region=eu-central-1"));
    read_manifest(&*open(&format!("{} region=eu-central-1", case.place()))).unwrap();
}

#[test]
fn a_server_that_does_not_know_ranges_is_not_believed() {
    let case = Case::new();
    case.fill();
    let daemon = serve(&case.site, &case.place());
    let bytes = case.bytes.clone();
    case.s3.web.guard(move |_| Some(full("200 OK", "", &bytes)));
    assert_eq!(daemon.ask(1, CHUNK, 4096, "Da.img"), "fail 1 5\n");
    assert_eq!(case.site.missing("a.img"), SIZE);
    daemon.end();
}

#[test]
fn a_signature_is_not_shown_to_another_server() {
    let case = Case::new();
    case.key(ID, SECRET, "session");
    let other = Web::new(&case.site.source_dir(), vec![], Fault::Status(403, ""));
    let to = other.url();
    case.s3.web.guard(move |_| {
        Some(empty(
            "307 There",
            &format!("Location: {to}x?secret=xyzzy\r\n"),
        ))
    });
    let why = case.why();
    assert!(
        why.contains(&other.address.to_string()) && !why.contains("xyzzy"),
        "{why}"
    );
    let asked = &other.asked()[0];
    assert!(asked
        .headers
        .iter()
        .all(|line| !line.starts_with("authorization") && !line.starts_with("x-amz-")));
    assert!(case.s3.web.asked()[0]
        .value("authorization")
        .starts_with("AWS4-HMAC-SHA256 "));
}

#[test]
fn a_bucket_can_be_in_the_name_of_the_host() {
    let case = Case::new();
    let proxy = Web::new(&case.site.source_dir(), vec![], Fault::Status(501, ""));
    let options = Options {
        proxy: Some(proxy.url()),
        ..web_options()
    };
    let place = "s3://bucket/p endpoint=http://s3.example.org style=host";
    let source = Place::parse(place.as_ref())
        .unwrap()
        .open(&options)
        .unwrap();
    read_manifest(&*source).unwrap_err();
    assert_eq!(proxy.asked()[0].target(), "bucket.s3.example.org:80");
}

#[test]
fn what_is_there_is_never_replaced() {
    let case = Case::new();
    case.fill();
    // The same name and size, and other bytes.
    let other = Site::new();
    image(&other);
    let mut bytes = case.bytes.clone();
    bytes[7] ^= 1;
    let dir = other.path("other");
    fs::create_dir(&dir).unwrap();
    fs::write(dir.join("a.img"), &bytes).unwrap();
    demandd::image::build::describe(&dir, "a", &["a.img".to_owned()], CHUNK).unwrap();
    let directory = other.path("there");
    fs::create_dir(&directory).unwrap();
    let there = directory.display().to_string();
    assert!(push_to(&case.site.source_dir(), &there).unwrap().is_empty());
    assert_eq!(fs::read(directory.join("a.img")).unwrap(), case.bytes);
    assert_eq!(push_to(&case.site.source_dir(), &there).unwrap().len(), 3);
    for place in [case.place(), there] {
        let error = format!("{:#}", push_to(&dir, &place).unwrap_err());
        assert!(error.contains("choose another name"), "{error}");
    }
    assert_eq!(case.s3.state.lock().unwrap().objects["a.img"].0, case.bytes);
    assert_eq!(fs::read(directory.join("a.img")).unwrap(), case.bytes);
}

#[test]
fn what_is_damaged_is_not_pushed() {
    let case = Case::new();
    let mut bytes = case.bytes.clone();
    bytes[7] ^= 1;
    fs::write(case.site.source_dir().join("a.img"), bytes).unwrap();
    let error = format!(
        "{:#}",
        push_to(&case.site.source_dir(), &case.place()).unwrap_err()
    );
    assert!(error.contains("cannot push a.img"), "{error}");
    assert!(case.s3.web.asked().is_empty());
    let error = push_to(&case.site.source_dir(), &case.s3.web.url()).unwrap_err();
    assert!(format!("{error:#}").contains("pushed to directories, S3 and registries"));
}

/// Pushes the image in parts of 16 KiB.
fn push_parts(case: &Case) -> Result<(), String> {
    let endpoint = format!("http://{}", case.s3.web.address);
    let store = bucket("s3://bucket/p", &endpoint, &case.file, 16_384);
    let pushed = push(&case.site.source_dir(), "a", &store, |_, _| Ok(()));
    pushed.map(drop).map_err(|error| format!("{error:#}"))
}

fn arrived(case: &Case) {
    let state = case.s3.state.lock().unwrap();
    let (bytes, digest) = &state.objects["a.img"];
    assert_eq!(*bytes, case.bytes);
    assert_eq!(*digest, Digest::of(&case.bytes).to_string());
    assert!(state.uploads.is_empty() && state.surprises.is_empty());
}

/// How often this was asked for.
fn count(case: &Case, method: &str, text: &str) -> usize {
    let asked = case.s3.web.asked();
    let is_it = |asked: &&Asked| asked.method() == method && asked.target().contains(text);
    asked.iter().filter(is_it).count()
}

#[test]
fn a_large_file_goes_in_parts() {
    let case = Case::new();
    push_parts(&case).unwrap();
    arrived(&case);
    assert_eq!(count(&case, "PUT", "partNumber="), 7);
    // It is not sent again.
    push_parts(&case).unwrap();
    assert_eq!(count(&case, "PUT", "partNumber="), 7);
    let daemon = serve(&case.site, &case.place());
    assert_eq!(daemon.ask(1, 0, SIZE, "Da.img"), "done 1\n");
    daemon.end();
}

#[test]
fn a_part_that_goes_wrong_is_sent_again_and_nothing_else() {
    let case = Case::new();
    let busy = empty("503 Slow Down", "Retry-After: 0\r\n");
    let failed = full("200 OK", "", b"<Error><Code>InternalError</Code></Error>");
    case.s3.state.lock().unwrap().surprises = vec![
        ("partNumber=3&", busy.clone(), false),
        // It has it, and we do not know.
        ("partNumber=5&", busy, true),
        ("a.img?uploadId=", failed, false),
    ];
    push_parts(&case).unwrap();
    arrived(&case);
    assert_eq!(count(&case, "PUT", "partNumber="), 9);
    assert_eq!(count(&case, "POST", "a.img?uploadId="), 2);
}

#[test]
fn parts_that_were_tied_together_without_an_answer_are_a_file() {
    let case = Case::new();
    let lost = empty("500 Internal Server Error", "");
    case.s3.state.lock().unwrap().surprises = vec![("a.img?uploadId=", lost, true)];
    push_parts(&case).unwrap();
    arrived(&case);
    assert_eq!(count(&case, "POST", "a.img?uploadId="), 1);
}

#[test]
fn parts_that_cannot_be_sent_are_not_left_behind() {
    let case = Case::new();
    let full = empty("400 Bad Request", "");
    case.s3.state.lock().unwrap().surprises = vec![("partNumber=4&", full, false)];
    let error = push_parts(&case).unwrap_err();
    assert!(
        error.contains("cannot push a.img") && error.contains("part 4"),
        "{error}"
    );
    assert_eq!(count(&case, "DELETE", "a.img?uploadId="), 1);
    let state = case.s3.state.lock().unwrap();
    assert!(state.uploads.is_empty() && state.objects.is_empty());
}
