// SPDX-License-Identifier: GPL-2.0
//! A registry as a source, and as a place to push to.

mod stand_in;

use std::fs;
use std::path::PathBuf;
use std::time::Instant;

use demandd::digest::Digest;
use demandd::image::build::describe;
use demandd::source::oci::{manifest, Layer};
use demandd::source::Kind;
use stand_in::process::{demandd, make_script, str};
use stand_in::pushed::{failure, image, open, push_to, read_manifest, serve, CHUNK, SIZE};
use stand_in::registry::{send, Registry};
use stand_in::web::{empty, Fault, Web};
use stand_in::{record, Site, PATIENCE};

/// The example of RFC 7617.
const LOGIN: &str = "QWxhZGRpbjpvcGVuIHNlc2FtZQ==";

struct Case {
    site: Site,
    bytes: Vec<u8>,
    registry: Registry,
}

impl Case {
    fn new() -> Self {
        let site = Site::new();
        let bytes = image(&site);
        let registry = Registry::new(&site);
        Self {
            site,
            bytes,
            registry,
        }
    }

    /// A file with a user and a password, or something else, for the registry.
    fn auth(&self, key: &str, value: &str) -> PathBuf {
        let file = self.site.path("auth.json");
        let host = self.registry.web.address;
        fs::write(
            &file,
            format!("{{\"auths\": {{\"{host}\": {{\"{key}\": \"{value}\"}}}}}}"),
        )
        .unwrap();
        file
    }

    fn push(&self) -> String {
        let place = self.registry.place(":1");
        push_to(&self.site.source_dir(), &place).unwrap();
        place
    }
}

#[test]
fn an_image_is_pushed_and_read_by_anybody_with_a_token() {
    let case = Case::new();
    let place = case.push();
    let all = ["a.img", "a.img.chunks", "a.manifest"];
    assert_eq!(push_to(&case.site.source_dir(), &place).unwrap(), all);
    let uploads = case.registry.web.asked();
    let uploads = uploads
        .iter()
        .filter(|asked| asked.target().contains("&digest="));
    // And the empty configuration.
    assert_eq!(uploads.count(), 4);
    let daemon = serve(&case.site, &place);
    assert_eq!(daemon.ask(1, 0, SIZE, "Da.img"), "done 1\n");
    assert_eq!(case.site.cached("a.img", 0, SIZE as usize), case.bytes);
    daemon.end();
}

#[test]
fn a_token_that_expires_while_serving_is_got_anew_once_for_all() {
    let case = Case::new();
    let daemon = serve(&case.site, &case.push());
    assert_eq!(daemon.ask(1, 0, 4096, "Da.img"), "done 1\n");
    let issued = case.registry.state.lock().unwrap().issued;
    case.registry.expire();
    for id in 1..5_u64 {
        daemon.kernel.send(&record(id, id * CHUNK, 4096, b"Da.img"));
    }
    let mut answers: Vec<_> = (1..5).map(|_| daemon.kernel.command()).collect();
    answers.sort_unstable();
    let right: Vec<_> = (1..5).map(|id| format!("done {id}\n")).collect();
    assert_eq!(answers, right);
    assert_eq!(case.registry.state.lock().unwrap().issued, issued + 1);
    daemon.end();
}

#[test]
fn a_password_goes_to_the_server_of_tokens_only() {
    let case = Case::new();
    let place = case.push();
    case.registry.state.lock().unwrap().login = format!("Basic {LOGIN}");
    case.registry.expire();
    let file = case.auth("auth", LOGIN);
    let place = format!("{place} auth-file={}", file.display());
    let before = case.registry.web.asked().len();
    read_manifest(&*open(&place)).unwrap();
    let shown = case.registry.web.asked();
    assert!(shown[before..]
        .iter()
        .all(|asked| !asked.value("authorization").starts_with("Basic")));
    let asked = case.registry.tokens.asked();
    assert_eq!(
        asked.last().unwrap().value("authorization"),
        format!("Basic {LOGIN}")
    );
}

#[test]
fn a_wrong_password_is_an_error_at_once_that_names_its_file() {
    let case = Case::new();
    let place = case.push();
    case.registry.state.lock().unwrap().login = "Basic other".to_owned();
    case.registry.expire();
    let file = case.auth("auth", LOGIN);
    let with_file = format!("{place} auth-file={}", file.display());
    let refused = failure(&with_file);
    assert_eq!(refused.kind, Kind::Lasting);
    let text = format!("{:#}", refused.error);
    assert!(
        text.contains("401") && text.contains(file.to_str().unwrap()),
        "{text}"
    );
    assert!(!text.contains(LOGIN) && !text.contains("sesame"), "{text}");
    let text = format!("{:#}", failure(&place).error);
    assert!(text.contains("see auth-file"), "{text}");
    // As soon as the right one is there, it is taken.
    let source = open(&with_file);
    case.registry.state.lock().unwrap().login = "Basic bmV3OnBhc3M=".to_owned();
    assert!(read_manifest(&*source).is_err());
    case.auth("auth", "bmV3OnBhc3M=");
    read_manifest(&*source).unwrap();
}

#[test]
fn a_token_that_is_not_taken_is_not_got_again_and_again() {
    let case = Case::new();
    let place = case.push();
    let asked = case.registry.tokens.asked().len();
    let realm = format!("{}token", case.registry.tokens.url());
    case.registry.web.guard(move |_| {
        let challenge =
            format!("WWW-Authenticate: Bearer realm=\"{realm}\",service=\"the registry\"\r\n");
        Some(empty("401 Unauthorized", &challenge))
    });
    let failure = failure(&place);
    assert_eq!(failure.kind, Kind::Lasting);
    let text = format!("{:#}", failure.error);
    assert!(text.contains("does not take the token"), "{text}");
    assert_eq!(case.registry.tokens.asked().len(), asked + 1);
}

#[test]
fn a_registry_can_want_a_password_itself() {
    let case = Case::new();
    case.registry.state.lock().unwrap().basic = Some(format!("Basic {LOGIN}"));
    let file = case.auth("auth", LOGIN);
    let place = format!("{} auth-file={}", case.registry.place(":1"), file.display());
    push_to(&case.site.source_dir(), &place).unwrap();
    read_manifest(&*open(&place)).unwrap();
    case.auth("auth", "bmV3OnBhc3M=");
    let text = format!("{:#}", failure(&place).error);
    assert!(text.contains("does not take"), "{text}");
    assert!(case.registry.tokens.asked().is_empty());
}

#[test]
fn a_program_may_have_the_password() {
    let case = Case::new();
    case.push();
    case.registry.state.lock().unwrap().login = format!("Basic {LOGIN}");
    case.registry.expire();
    let dir = case.site.path("docker");
    fs::create_dir(&dir).unwrap();
    let host = case.registry.web.address;
    let config = format!("{{\"credHelpers\": {{\"{host}\": \"ours\"}}}}");
    fs::write(dir.join("config.json"), config).unwrap();
    let program = dir.join("docker-credential-ours");
    let place = case.registry.place(":1");
    let verify = |answer: &str| {
        make_script(&program, answer);
        let output = demandd()
            .args(["image", "verify", "--proxy=none", "--source", &place, "a"])
            .env("DOCKER_CONFIG", &dir)
            .env("PATH", format!("{}:/usr/bin:/bin", dir.display()))
            .output()
            .unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert!(!stderr.contains("sesame"), "{stderr}");
        (output.status.success(), stderr)
    };
    // Whoever is asked for another server has nothing.
    let answer = format!(
        "read server; test \"$server\" = {host} || exit 1\n\
         echo '{{\"Username\": \"Aladdin\", \"Secret\": \"open sesame\"}}'"
    );
    let (ok, stderr) = verify(&answer);
    assert!(ok, "{stderr}");
    case.registry.expire();
    let (ok, stderr) = verify("echo credentials not found in native keychain; exit 1");
    let nothing = format!("nobody, and docker-credential-ours has nothing for {host}");
    assert!(!ok && stderr.contains(&nothing), "{stderr}");
    let (ok, stderr) = verify("exit 1");
    let fails =
        format!("no token for nobody, since docker-credential-ours, asked for {host}: it fails");
    assert!(!ok && stderr.contains(&fails), "{stderr}");
    // Which does for what is public.
    let wants = std::mem::take(&mut case.registry.state.lock().unwrap().login);
    let (ok, stderr) = verify("exit 1");
    assert!(ok, "{stderr}");
    case.registry.state.lock().unwrap().login = wants;
    case.registry.expire();
    let (ok, stderr) = verify("echo '{\"Username\": \"Aladdin\", \"Secret\": \"open, sesame\"}'");
    let wrong = format!("no token for what docker-credential-ours has for {host}");
    assert!(!ok && stderr.contains(&wrong), "{stderr}");
}

#[test]
fn an_identity_token_is_sent_in_a_form() {
    let case = Case::new();
    case.registry.state.lock().unwrap().identity = "xyzzy%2F1".to_owned();
    let file = case.auth("identitytoken", "xyzzy/1");
    let place = format!("{} auth-file={}", case.registry.place(":1"), file.display());
    push_to(&case.site.source_dir(), &place).unwrap();
    read_manifest(&*open(&place)).unwrap();
    assert!(case
        .registry
        .tokens
        .asked()
        .iter()
        .all(|asked| !asked.target().contains("xyzzy")));
}

/// A server that has the blobs of a registry, for everybody who knows the address.
fn store(case: &Case) -> Web {
    let web = Web::new(&case.site.source_dir(), vec![], Fault::None);
    let blobs = case.registry.state.lock().unwrap().blobs.clone();
    web.guard(move |asked| {
        let digest = asked.target().trim_start_matches('/').split('?').next()?;
        Some(send(asked, blobs.get(digest)?))
    });
    web
}

#[test]
fn blobs_come_from_where_the_registry_sends_to_until_that_fails() {
    let case = Case::new();
    let place = case.push();
    let [first, second] = [store(&case), store(&case)];
    case.registry.state.lock().unwrap().elsewhere = Some(first.url());
    let daemon = serve(&case.site, &place);
    let [lists, asked] = [first.asked().len(), case.registry.web.asked().len()];
    for id in 0..3 {
        let answer = daemon.ask(id, id * CHUNK, 4096, "Da.img");
        assert_eq!(answer, format!("done {id}\n"));
    }
    assert_eq!(first.asked().len(), lists + 3);
    assert_eq!(case.registry.web.asked().len(), asked + 1);
    assert!(first
        .asked()
        .iter()
        .all(|asked| asked.value("authorization").is_empty()));
    // The addresses expire, and so has the token meanwhile.
    first.guard(|_| Some(empty("403 Expired", "")));
    case.registry.state.lock().unwrap().elsewhere = Some(second.url());
    case.registry.expire();
    assert_eq!(daemon.ask(3, 3 * CHUNK, 4096, "Da.img"), "done 3\n");
    assert_eq!(second.asked().len(), 1);
    daemon.end();
}

#[test]
fn a_digest_stands_for_all_of_an_image() {
    let case = Case::new();
    let place = case.push();
    let manifest = case.registry.state.lock().unwrap().manifests["1"].clone();
    let digest = Digest::of(&manifest).to_string();
    let by_digest = case.registry.place(&format!("@{digest}"));
    let right = read_manifest(&*open(&by_digest)).unwrap();
    assert_eq!(read_manifest(&*open(&place)).unwrap(), right);
    // It is not pushed to.
    let error = push_to(&case.site.source_dir(), &by_digest).unwrap_err();
    assert!(format!("{error:#}").contains("pushed to a tag"));
    // A file that is not the one of the manifest, and a manifest that is not the one of the digest.
    let mut state = case.registry.state.lock().unwrap();
    let file = Digest::of(&right).to_string();
    state.blobs.get_mut(&file).unwrap()[0] ^= 1;
    drop(state);
    assert!(format!("{:#}", failure(&by_digest).error).contains("damaged"));
    let mut state = case.registry.state.lock().unwrap();
    state
        .manifests
        .insert(digest, [&manifest[..], b" "].concat());
    drop(state);
    assert!(format!("{:#}", failure(&by_digest).error).contains("another digest"));
}

#[test]
fn an_image_that_is_not_there_is_an_error_at_once() {
    let case = Case::new();
    case.push();
    let failure = failure(&case.registry.place(":2"));
    assert_eq!(failure.kind, Kind::Lasting);
    assert!(format!("{:#}", failure.error).contains("404"));
}

#[test]
fn the_verb_prints_what_it_did_and_knows_the_usual_file() {
    let case = Case::new();
    case.registry.state.lock().unwrap().login = format!("Basic {LOGIN}");
    let file = case.auth("auth", LOGIN);
    fs::rename(&file, file.with_file_name("config.json")).unwrap();
    let run = |args: &[&str]| {
        let output = demandd()
            .args(args)
            .env("DOCKER_CONFIG", file.parent().unwrap())
            .output()
            .unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        assert!(output.status.success(), "{}", text(output.stderr));
        text(output.stdout)
    };
    let place = case.registry.place(":1");
    let dir = case.site.source_dir();
    let push = [
        "image",
        "push",
        "--proxy=none",
        "--name=a",
        "--to",
        &place,
        str(&dir),
    ];
    let told = run(&push);
    let manifest = fs::read(dir.join("a.manifest")).unwrap();
    let digest = Digest::of(&manifest);
    let image = Digest::of(&case.registry.state.lock().unwrap().manifests["1"]);
    let size = manifest.len();
    let right = format!(
        "pushed\t{SIZE}\ta.img\npushed\t224\ta.img.chunks\npushed\t{size}\ta.manifest\n\
         manifest\t{digest}\nimage\t{image}\n"
    );
    assert_eq!(told, right);
    assert_eq!(run(&push), right.replace("pushed", "exists"));
    let told = run(&["image", "verify", "--proxy=none", "--source", &place, "a"]);
    assert!(
        told.starts_with(&format!("a.img\t{SIZE}\tgood\n")),
        "{told}"
    );
}

#[test]
fn an_image_is_prepared_by_its_address_and_stays_what_it_was_when_the_tag_moves() {
    let case = Case::new();
    let place = case.push();
    let root = case.site.root();
    let prepare = |place: &str| {
        let args = ["prepare", "--root", str(&root), "--proxy=none", "--image"];
        demandd().args(args).arg(place).output().unwrap()
    };
    let out = prepare(&place);
    assert!(out.status.success(), "{out:?}");
    assert_eq!(case.site.missing("a.img"), SIZE);

    let manifest = case.registry.state.lock().unwrap().manifests["1"].clone();
    let pinned = case
        .registry
        .place(&format!(":1@{}", Digest::of(&manifest)));
    let places = case.site.volume().places("a.img".as_ref()).unwrap();
    assert_eq!(places, [&*pinned]);

    // The same tag, another image.
    let wanted = read_manifest(&*open(&pinned)).unwrap();
    fs::remove_dir_all(case.site.source_dir()).unwrap();
    fs::create_dir(case.site.source_dir()).unwrap();
    fs::write(case.site.source_dir().join("a.img"), [5; 8192]).unwrap();
    describe(&case.site.source_dir(), "a", &["a.img".to_owned()], 4096).unwrap();
    case.push();
    assert_ne!(read_manifest(&*open(&place)).unwrap(), wanted);
    assert_eq!(read_manifest(&*open(&pinned)).unwrap(), wanted);
    // What is prepared is not taken for it.
    let out = prepare(&place);
    let said = String::from_utf8(out.stderr).unwrap();
    assert!(!out.status.success() && said.contains("a.img"), "{said}");
}

#[test]
fn what_is_no_image_of_a_registry_has_to_be_named() {
    let case = Case::new();
    let place = case.registry.place(":1");
    let asked = |place: &str| {
        let source = open(place);
        let failure = source.itself(Instant::now() + PATIENCE).unwrap_err();
        assert_eq!(failure.kind, Kind::Lasting);
        format!("{:#}", failure.error)
    };
    let dir = case.site.source_dir();
    assert!(asked(str(&dir)).contains("name one of them"));
    assert!(asked(&case.registry.web.url()).contains("name one of them"));
    let layer = |name: &str| Layer {
        kind: "x".to_owned(),
        name: name.to_owned(),
        digest: Digest::of(name.as_bytes()),
        size: 1,
    };
    for (layers, expected) in [
        (vec![layer("a.img")], "no manifest of an image"),
        (
            vec![layer("a.manifest"), layer("b.manifest")],
            "several images",
        ),
    ] {
        let bytes = manifest(&layers);
        let mut state = case.registry.state.lock().unwrap();
        state.manifests.insert("1".to_owned(), bytes);
        drop(state);
        let said = asked(&place);
        assert!(said.contains(expected), "{said}");
    }
}
