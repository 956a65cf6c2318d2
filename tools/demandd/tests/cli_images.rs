// SPDX-License-Identifier: GPL-2.0
//! Images with a manifest on the command line, from building them to having them in a cache.

mod stand_in;

use std::fs;
use std::process::{Command, Output};

use stand_in::Site;

fn run(args: &[&str]) -> (bool, String, String) {
    let Output {
        status,
        stdout,
        stderr,
    } = Command::new(env!("CARGO_BIN_EXE_demandd"))
        .args(args)
        .output()
        .unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (status.success(), text(stdout), text(stderr))
}

/// A tree with one file, and the options that most verbs want.
struct Case {
    site: Site,
    tree: String,
    source: String,
    root: String,
}

impl Case {
    fn new() -> Self {
        let site = Site::new();
        fs::create_dir(site.path("tree")).unwrap();
        fs::write(site.path("tree/file"), site.blob("x", 300_000)).unwrap();
        fs::remove_dir_all(site.root()).unwrap();
        let text = |path: std::path::PathBuf| path.into_os_string().into_string().unwrap();
        Self {
            tree: text(site.path("tree")),
            source: text(site.source_dir()),
            root: text(site.root()),
            site,
        }
    }

    fn build(&self) -> String {
        let args = ["image", "build", &self.tree, "--name=app", "--into"];
        let (ok, digest, stderr) = run(&[&args[..], &[&self.source]].concat());
        assert!(ok, "{stderr}");
        digest.trim_end().to_owned()
    }

    fn prepare(&self, image: &str) -> (bool, String, String) {
        let args = ["prepare", "--root", &self.root, "--source", &self.source];
        run(&[&args[..], &["--image", image]].concat())
    }

    fn prefetch(&self) -> (bool, String, String) {
        let args = ["prefetch", "--root", &self.root, "--source", &self.source];
        run(&[&args[..], &["--all"]].concat())
    }
}

#[test]
fn an_image_is_built_prepared_and_fetched() {
    let case = Case::new();
    let digest = case.build();
    let wrong = format!("app@sha256:{}", "4".repeat(64));
    let (ok, _, stderr) = case.prepare(&wrong);
    assert!(
        !ok && stderr.contains("another image, or damaged"),
        "{stderr}"
    );
    assert!(!case.site.root().exists());
    let image = format!("app@{digest}");
    let (ok, stdout, stderr) = case.prepare(&image);
    assert!(ok, "{stderr}");
    let lines: Vec<_> = stdout.lines().collect();
    assert!(
        lines[0].starts_with("created\t") && lines[0].ends_with("/Dapp.img"),
        "{stdout}"
    );
    assert!(
        lines[1].starts_with("created\t") && lines[1].ends_with("/Dapp.blob"),
        "{stdout}"
    );
    let (ok, stdout, _) = case.prepare(&image);
    assert!(ok && stdout.starts_with("exists\t"), "{stdout}");
    let (ok, _, stderr) = case.prefetch();
    assert!(ok, "{stderr}");
    for name in ["app.img", "app.blob"] {
        let right = fs::read(case.site.source_dir().join(name)).unwrap();
        assert!(case.site.cached(name, 0, right.len()) == right, "{name}");
    }
}

#[test]
fn a_wrong_chunk_is_told_with_blob_and_source() {
    let case = Case::new();
    case.build();
    assert!(case.prepare("app").0);
    let path = case.site.source_dir().join("app.blob");
    let mut bytes = fs::read(&path).unwrap();
    bytes[70_000] ^= 4;
    fs::write(path, bytes).unwrap();
    let (ok, stdout, stderr) = case.prefetch();
    assert!(!ok && stdout.contains("app.img: fetched"), "{stdout}");
    let line = format!("chunk 1 of app.blob, 65536+65536, is wrong: its digest is not that of the manifest; {} had it", case.source);
    assert_eq!(stderr.matches(&line).count(), 2, "{stderr}");
    assert!(stderr.contains("1 of 2 could not be fetched"), "{stderr}");
    assert_eq!(case.site.cached("app.blob", 65_536, 65_536), [0; 65_536]);
}

#[test]
fn an_image_is_verified_and_described() {
    let case = Case::new();
    let image = format!("app@{}", case.build());
    let verify = || run(&["image", "verify", "--source", &case.source, &image]);
    let (ok, stdout, stderr) = verify();
    let last = format!("manifest\t{}\n", &image[4..]);
    assert!(ok && stdout.ends_with(&last), "{stdout}{stderr}");
    let path = case.site.source_dir().join("app.img");
    let size = fs::metadata(&path).unwrap().len();
    fs::write(path, vec![0; size as usize]).unwrap();
    let (ok, stdout, _) = verify();
    assert!(!ok && stdout.contains("wrong chunks"), "{stdout}");

    let describe = |name: &str| run(&["image", "manifest", &case.source, "--name", name, "x"]);
    assert!(describe("x").0);
    let (ok, _, stderr) = describe("a/b");
    assert!(!ok && stderr.contains("is no name"), "{stderr}");
}

#[test]
fn what_makes_no_sense_is_refused() {
    for (args, reason) in [
        (
            &["prepare", "--root=/absent", "--image=app"][..],
            "--source",
        ),
        (&["prepare", "--root=/absent", "--image=a b"], "is no name"),
        (&["prepare", "--root=/absent", "--image=a/"], "is no name"),
        (
            &["prepare", "--root=/absent", "--image=/absent/b"],
            "no source /absent",
        ),
        (&["prepare", "--root=/absent"], "required"),
        (&["serve", "--root=/absent"], "--source"),
        (
            &[
                "image",
                "build",
                "/absent",
                "--name=a",
                "--into=/absent",
                "--chunk-size=5000",
            ],
            "power of two",
        ),
    ] {
        let (ok, _, stderr) = run(args);
        assert!(!ok && stderr.contains(reason), "{args:?}: {stderr}");
    }
}

#[test]
fn a_list_and_a_trace_are_fetched_in_their_order() {
    let case = Case::new();
    case.build();
    assert!(case.prepare("app").0);
    let list = case.site.path("list");
    fs::write(
        &list,
        "app.blob:0+1\n1\tapp.img\t0\t4096\tdone\n2\tapp.blob\t196608\t4096\tdone\n",
    )
    .unwrap();
    let list = list.to_str().unwrap();
    let args = ["prefetch", "--root", &case.root, "--source", &case.source];
    let (ok, stdout, stderr) =
        run(&[&args[..], &["--workers=1", "--rate=100M", "--list", list]].concat());
    assert!(ok, "{stderr}");
    let names: Vec<_> = stdout
        .lines()
        .map(|line| line.split(':').next().unwrap())
        .collect();
    assert_eq!(names, ["app.blob", "app.img", "app.blob"]);
    let right = fs::read(case.site.source_dir().join("app.blob")).unwrap();
    for chunk in [0, 3] {
        let have = case.site.cached("app.blob", chunk * 65_536, 65_536);
        assert!(
            have == right[chunk as usize * 65_536..][..65_536],
            "chunk {chunk}"
        );
    }
    assert_eq!(case.site.cached("app.blob", 65_536, 65_536), [0; 65_536]);
}
