// SPDX-License-Identifier: GPL-2.0
//! Building images, and verifying what a source has of them.

mod stand_in;

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;

use demandd::image::build::{build, describe, Recipe};
use demandd::image::inspect;
use demandd::image::verify::verify;
use stand_in::Site;

fn tree(site: &Site) {
    fs::create_dir(site.path("tree")).unwrap();
    fs::write(site.path("tree/large"), site.blob("x", 300_000)).unwrap();
    fs::write(site.path("tree/small"), "hello").unwrap();
}

fn recipe<'a>(tree: &'a Path, into: &'a Path) -> Recipe<'a> {
    Recipe {
        tree,
        into,
        name: "app",
        one_blob: false,
        chunk_size: 65_536,
        options: &[],
    }
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn an_image_is_built_stamped_and_described() {
    let site = Site::new();
    tree(&site);
    let into = site.path("into");
    fs::create_dir(&into).unwrap();
    let manifest = build(&recipe(&site.path("tree"), &into)).unwrap();
    let files = [
        "app.blob",
        "app.blob.chunks",
        "app.img",
        "app.img.chunks",
        "app.manifest",
    ];
    assert_eq!(names(&into), files);
    let text = fs::read_to_string(into.join("app.manifest")).unwrap();
    assert_eq!(text, manifest.to_string());
    let devices = inspect(&into.join("app.img")).unwrap().devices;
    assert_eq!(devices[0].tag(), b"app.blob");
    for (entry, name) in manifest.entries().iter().zip(["app.img", "app.blob"]) {
        assert_eq!(entry.name, name);
        assert_eq!(entry.size, fs::metadata(into.join(name)).unwrap().len());
    }
    assert!(manifest.entries()[1].size >= 300_000);
    // What is there stays as it is.
    let error = format!(
        "{:#}",
        build(&recipe(&site.path("tree"), &into)).unwrap_err()
    );
    assert!(error.contains("choose another name"), "{error}");
    assert_eq!(names(&into), files);
}

#[test]
fn one_blob_has_everything_and_options_reach_mkfs() {
    let site = Site::new();
    tree(&site);
    let into = site.path("into");
    fs::create_dir(&into).unwrap();
    let options = ["-L".to_owned(), "label".to_owned()];
    let manifest = build(&Recipe {
        one_blob: true,
        options: &options,
        ..recipe(&site.path("tree"), &into)
    })
    .unwrap();
    assert_eq!(names(&into), ["app.img", "app.img.chunks", "app.manifest"]);
    assert_eq!(manifest.entries().len(), 1);
    let super_block = inspect(&into.join("app.img")).unwrap().super_block;
    assert_eq!(super_block.volume_name(), b"label");
}

#[test]
fn a_build_that_fails_leaves_nothing_behind() {
    let site = Site::new();
    let into = site.path("into");
    fs::create_dir(&into).unwrap();
    fs::create_dir(site.path("empty")).unwrap();
    let error = |tree: &str| format!("{:#}", build(&recipe(&site.path(tree), &into)).unwrap_err());
    assert!(error("absent").contains("mkfs.erofs failed"));
    assert!(error("empty").contains("--one-blob"));
    assert!(names(&into).is_empty());
}

#[test]
fn a_blob_that_two_images_have_is_described_once() {
    let site = Site::new();
    for name in ["a", "b", "base"] {
        site.blob(name, 100_000);
    }
    let dir = site.source_dir();
    let blobs = |name: &str| [name.to_owned(), "base".to_owned()];
    let first = describe(&dir, "first", &blobs("a"), 65_536).unwrap();
    let second = describe(&dir, "second", &blobs("b"), 65_536).unwrap();
    assert_eq!(first.entries()[1], second.entries()[1]);
    // A list that says something else is somebody's: it is not replaced.
    let error = describe(&dir, "third", &blobs("b"), 4096).unwrap_err();
    assert!(format!("{error:#}").contains("blobs never change"));
    let twice = ["a".to_owned(), "a".to_owned()];
    assert!(describe(&dir, "fourth", &twice, 65_536).is_err());
    assert!(!dir.join("third.manifest").exists() && !dir.join("fourth.manifest").exists());
}

#[test]
fn verify_names_the_chunks_that_are_wrong() {
    let site = Site::new();
    site.blob("a.img", 100_000);
    site.blob("a.blob", 50_000);
    let dir = site.source_dir();
    let blobs = ["a.img".to_owned(), "a.blob".to_owned()];
    let digest = describe(&dir, "app", &blobs, 4096).unwrap().digest();
    let wanted = "app".parse().unwrap();
    let source = site.mirrors();
    let report = verify(&source, &wanted).unwrap();
    assert!(report.is_good());
    assert_eq!(
        report.to_string(),
        format!("a.img\t100000\tgood\na.blob\t50000\tgood\nmanifest\t{digest}\n")
    );
    // One bit in the second chunk, one in the last.
    let blob = File::options()
        .read(true)
        .write(true)
        .open(dir.join("a.img"))
        .unwrap();
    for pos in [4096, 99_999] {
        let mut byte = [0];
        blob.read_exact_at(&mut byte, pos).unwrap();
        blob.write_all_at(&[byte[0] ^ 16], pos).unwrap();
    }
    let report = verify(&source, &wanted).unwrap();
    assert!(!report.is_good());
    assert_eq!(report.blobs[0].wrong, [1, 24]);
    let text = report.to_string();
    assert!(
        text.starts_with("a.img\t100000\t2 wrong chunks of 4096 bytes: 1 24\n"),
        "{text}"
    );
    assert!(text.contains("a.blob\t50000\tgood\n"), "{text}");
}

#[test]
fn verify_tells_what_is_not_there_or_not_the_image() {
    let site = Site::new();
    site.blob("a.img", 10_000);
    let dir = site.source_dir();
    describe(&dir, "app", &["a.img".to_owned()], 4096).unwrap();
    let error = |image: &str| {
        let wanted = image.parse().unwrap();
        format!("{:#}", verify(&site.mirrors(), &wanted).unwrap_err())
    };
    assert!(error("other").contains("other.manifest"));
    let digest = format!("app@sha256:{}", "0".repeat(64));
    assert!(error(&digest).contains("another image, or damaged"));
    fs::write(dir.join("a.img"), [0; 9999]).unwrap();
    assert!(error("app").contains("9999 bytes, not 10000"));
    fs::write(dir.join("a.img.chunks"), [0; 96]).unwrap();
    assert!(error("app").contains("the list of the chunks of a.img has the digest"));
    // Whatever stands in the place of a small file, it is not read to its end.
    File::create(dir.join("app.manifest"))
        .unwrap()
        .set_len(1 << 40)
        .unwrap();
    assert!(error("app").contains("are not believed"));
}
