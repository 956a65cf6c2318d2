// SPDX-License-Identifier: GPL-2.0
//! Manifests and lists of chunks: what is described is taken, and nothing else.

mod stand_in;

use std::fs;
use std::io::Write;
use std::process::{Command, Stdio};

use demandd::chunks::{Chunks, CHUNK_MAX, LIST_MAX};
use demandd::digest::Digest;
use demandd::image::build::describe;
use demandd::manifest::{Manifest, Wanted, BLOBS_MAX, MANIFEST_MAX};
use proptest::prelude::*;
use stand_in::Site;

/// A digest, as sha256sum(1) prints it.
fn sha256sum(bytes: &[u8]) -> String {
    let mut child = Command::new("sha256sum")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(bytes).unwrap();
    let output = child.wait_with_output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    format!("sha256:{}", text.split(' ').next().unwrap())
}

fn digest(digit: &str) -> String {
    format!("sha256:{}", digit.repeat(64))
}

/// An entry that is right.
fn line(name: &str) -> String {
    format!("blob {name} 100000 {} 65536 {}\n", digest("a"), digest("0"))
}

fn parse(lines: &str) -> Result<Manifest, String> {
    let text = format!("erofs-demand-manifest 1\n{lines}");
    Manifest::parse(text.as_bytes()).map_err(|error| format!("{error:#}"))
}

#[test]
fn a_manifest_says_what_the_blobs_are() {
    let text = line("app.img") + &line("app.blob");
    let manifest = parse(&text).unwrap();
    let names: Vec<_> = manifest.entries().iter().map(|e| &e.name[..]).collect();
    assert_eq!(names, ["app.img", "app.blob"]);
    let first = &manifest.entries()[0];
    assert_eq!((first.size, first.chunk_size), (100_000, 65_536));
    assert_eq!(first.digest.to_string(), digest("a"));
    assert_eq!(first.list.to_string(), digest("0"));
    let whole = format!("erofs-demand-manifest 1\n{text}");
    assert_eq!(manifest.to_string(), whole);
    assert_eq!(manifest.digest().to_string(), sha256sum(whole.as_bytes()));
}

#[test]
fn what_is_not_exactly_a_manifest_is_refused() {
    let good = line("a");
    let with = |from: &str, to: &str| {
        let changed = good.replacen(from, to, 1);
        assert_ne!(changed, good, "{from}");
        changed
    };
    for (lines, reason) in [
        (String::new(), "no end"),
        ("\n".to_owned(), "line 2"),
        (good.trim_end().to_owned(), "no end"),
        (good.clone() + "\n", "line 3"),
        (good.clone() + &good, "a is there twice"),
        (good.clone() + "more\n", "line 3"),
        (with("blob", "Blob"), "line 2"),
        (with(" a ", "  a "), "line 2"),
        (with(" a ", " a\t"), "line 2"),
        (with("\n", " \n"), "line 2"),
        (with("\n", "\r\n"), "hexadecimal"),
        (with(" a ", " ../a "), "is no name"),
        (with(" a ", " . "), "is no name"),
        (with(" a ", " .. "), "is no name"),
        (with(" a ", " \u{e9} "), "is no name"),
        (with(" a ", " a\0 "), "is no name"),
        (with(" a ", &format!(" {} ", "x".repeat(241))), "is no name"),
        (with(" a ", " a.manifest "), "taken for a manifest"),
        (with(" a ", " a.chunks "), "taken for a manifest"),
        (with("100000", "0"), "no blob has 0 bytes"),
        (with("100000", "+1"), "not a number"),
        (with("100000", "0100"), "not a number"),
        (with("100000", "-1"), "not a number"),
        (with("100000", "18446744073709551616"), "not a number"),
        (with("100000", "18446744073709551615"), "no blob has"),
        // The list would be longer than is believed.
        (with("100000", "137438953473"), "no blob has"),
        (with("65536", "65537"), "no chunk has"),
        (with("65536", "2048"), "no chunk has"),
        (with("65536", "0"), "no chunk has"),
        (with("65536", "8388608"), "no chunk has"),
        (with("sha256", "sha1"), "hexadecimal"),
        (with("aa", "AA"), "hexadecimal"),
        (with("aa", "a"), "hexadecimal"),
        (with("00 ", "00"), "line 2"),
    ] {
        let error = parse(&lines).unwrap_err();
        assert!(error.contains(reason), "{lines:?}: {error}");
    }
}

#[test]
fn other_versions_and_other_files_are_told_apart() {
    let error = |text: &[u8]| format!("{:#}", Manifest::parse(text).unwrap_err());
    let newer = format!("erofs-demand-manifest 2\n{}", line("a"));
    assert!(error(newer.as_bytes()).contains("version \"2\""));
    assert!(error(b"").contains("does not begin with"));
    assert!(error(b"<!DOCTYPE html>\n").contains("does not begin with"));
    assert!(error(b"\xff\xfe").contains("not text"));
}

#[test]
fn a_manifest_has_a_bounded_size() {
    let many = |count: usize| -> String { (0..count).map(|n| line(&n.to_string())).collect() };
    assert_eq!(parse(&many(BLOBS_MAX)).unwrap().entries().len(), BLOBS_MAX);
    let error = parse(&many(BLOBS_MAX + 1)).unwrap_err();
    assert!(error.contains("at most 4096 blobs"), "{error}");
    let error = Manifest::parse(&vec![b'\n'; MANIFEST_MAX + 1]).unwrap_err();
    assert!(error.to_string().contains("more than"), "{error}");
}

#[test]
fn an_image_is_wanted_by_name_and_perhaps_by_digest() {
    let wanted: Wanted = "app".parse().unwrap();
    assert_eq!((&wanted.name[..], wanted.digest), ("app", None));
    let text = format!("erofs-demand-manifest 1\n{}", line("a"));
    let right = Digest::of(text.as_bytes());
    let wanted: Wanted = format!("user@app@{right}").parse().unwrap();
    assert_eq!(wanted.name, "user@app");
    assert!(wanted.parse(text.as_bytes()).is_ok());
    // One bit of a name, which makes a manifest as good as the other one.
    let other = text.replace("blob a ", "blob c ");
    let error = wanted.parse(other.as_bytes()).unwrap_err().to_string();
    assert!(error.contains("another image, or damaged"), "{error}");
    for bad in ["", "a/b", "app@sha256:12", "a b"] {
        assert!(bad.parse::<Wanted>().is_err(), "{bad:?}");
    }
}

#[test]
fn every_chunk_is_verified_with_its_own_digest() {
    let site = Site::new();
    let bytes = site.blob("a.img", 3 * 4096 + 5);
    let manifest = describe(&site.source_dir(), "a", &["a.img".to_owned()], 4096).unwrap();
    let entry = &manifest.entries()[0];
    assert_eq!(entry.digest.to_string(), sha256sum(&bytes));
    let list = fs::read(site.source_dir().join("a.img.chunks")).unwrap();
    assert_eq!(entry.list.to_string(), sha256sum(&list));
    let chunks = entry.chunks(list.clone()).unwrap();
    assert_eq!(chunks.count(), 4);
    let mut expected = Vec::new();
    for (at, chunk) in bytes.chunks(4096).enumerate() {
        expected.push(sha256sum(chunk));
        assert!(chunks.verify(at as u64, chunk));
        for bit in [0, 8 * chunk.len() / 2, 8 * chunk.len() - 1] {
            let mut wrong = chunk.to_vec();
            wrong[bit / 8] ^= 1 << (bit % 8);
            assert!(!chunks.verify(at as u64, &wrong), "chunk {at}, bit {bit}");
        }
        assert!(!chunks.verify(at as u64 + 1, chunk));
        assert!(!chunks.verify(at as u64, &chunk[..chunk.len() - 1]));
    }
    let hex: Vec<_> = list.iter().map(|byte| format!("{byte:02x}")).collect();
    let expected: String = expected.iter().map(|text| &text[7..]).collect();
    assert_eq!(hex.concat(), expected);
    assert!(!chunks.verify(4, &[]));
    assert!(!chunks.verify(u64::MAX, &bytes));
}

#[test]
fn a_list_that_is_not_the_right_one_is_refused() {
    let site = Site::new();
    site.blob("a.img", 10_000);
    let manifest = describe(&site.source_dir(), "a", &["a.img".to_owned()], 4096).unwrap();
    let entry = &manifest.entries()[0];
    let list = fs::read(site.source_dir().join("a.img.chunks")).unwrap();
    for at in 0..list.len() {
        let mut wrong = list.clone();
        wrong[at] ^= 1;
        assert!(entry.chunks(wrong).is_err(), "byte {at}");
    }
    assert!(entry.chunks(list[32..].to_vec()).is_err());
    assert!(entry.chunks(Vec::new()).is_err());
    // The digest alone is not believed: the length has to fit the sizes.
    for (size, chunk_size) in [(8192, 4096), (12_289, 4096), (10_000, 8192), (0, 4096)] {
        assert!(Chunks::new(size, chunk_size, list.clone()).is_err());
    }
    assert!(Chunks::new(12_288, 4096, list).is_ok());
}

#[test]
fn ranges_of_chunks_stay_inside_the_blob() {
    let chunks = Chunks::new(10_000, 4096, vec![0; 96]).unwrap();
    assert_eq!(chunks.touched(0..1), 0..1);
    assert_eq!(chunks.touched(4095..4097), 0..2);
    assert_eq!(chunks.touched(4096..8192), 1..2);
    assert_eq!(chunks.touched(8192..10_000), 2..3);
    assert_eq!(chunks.touched(0..u64::MAX), 0..3);
    assert_eq!(chunks.bytes(0..1), 0..4096);
    assert_eq!(chunks.bytes(1..3), 4096..10_000);
    assert_eq!(chunks.bytes(7..u64::MAX), 10_000..10_000);
    // The largest blob there can be.
    let count = LIST_MAX / 32;
    let size = count * CHUNK_MAX;
    let largest = Chunks::new(size, CHUNK_MAX, vec![0; LIST_MAX as usize]).unwrap();
    assert_eq!(largest.bytes(count - 1..count), size - CHUNK_MAX..size);
}

proptest! {
    #[test]
    fn whatever_is_taken_is_written_the_same_way(text in "(erofs-demand-manifest 1\n)?(blob [a-z/.]{0,3} [0-9]{0,21} sha256:[0-9a-g]{64} (4096|65536|1) sha256:[0-9a-f]{63,64}\n?){0,3}") {
        if let Ok(manifest) = Manifest::parse(text.as_bytes()) {
            prop_assert_eq!(manifest.to_string(), text);
        }
    }

    #[test]
    fn a_manifest_with_one_byte_changed_is_another_one(at in 0_usize..400, byte: u8) {
        let text = format!("erofs-demand-manifest 1\n{}{}", line("a"), line("b"));
        let good = Manifest::parse(text.as_bytes()).unwrap();
        let mut changed = text.into_bytes();
        let at = at % changed.len();
        prop_assume!(changed[at] != byte);
        changed[at] = byte;
        if let Ok(manifest) = Manifest::parse(&changed) {
            prop_assert_ne!(manifest.digest(), good.digest());
            prop_assert_eq!(manifest.to_string().into_bytes(), changed);
        }
    }
}
