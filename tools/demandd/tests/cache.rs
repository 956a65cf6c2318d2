// SPDX-License-Identifier: GPL-2.0
//! Preparing, prefetching and measuring a cache, on a real file system.

mod stand_in;

use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};

use demandd::blobs::Blobs;
use demandd::cache::{next_missing, Prepared};
use demandd::kernel::Kernel;
use demandd::prefetch::Target;
use demandd::status::{json, rows, table};
use rustix::fs::XattrFlags;
use stand_in::daemon::NEVER;
use stand_in::Site;

const XATTR: &str = "user.CacheFiles.cache";

fn xattr(path: &std::path::Path) -> Vec<u8> {
    let mut value = [0; 64];
    let size = rustix::fs::getxattr(path, XATTR, &mut value).unwrap();
    value[..size].to_vec()
}

#[test]
fn prepare_makes_what_the_kernel_looks_for() {
    let site = Site::new();
    let volume = site.volume();
    let made = volume.prepare(OsStr::new("test.img"), 1_000_001).unwrap();
    assert_eq!(made, Prepared::Created);
    // The fan directory is one of the published test vectors.
    let path = site.root().join("cache/Ierofs/@9c/Dtest.img");
    let meta = fs::metadata(&path).unwrap();
    assert_eq!(meta.len(), 1_000_001);
    assert_eq!(meta.blocks(), 0, "the file is one hole");
    assert_eq!(meta.permissions().mode() & 0o777, 0o600);
    let mut expected = vec![0; 18];
    expected[..8].copy_from_slice(&1_000_001_u64.to_be_bytes());
    expected[16] = 1;
    assert_eq!(xattr(&path), expected);
    assert_eq!(xattr(&site.root().join("cache/Ierofs")), [0; 4]);
}

#[test]
fn prepare_twice_changes_nothing() {
    let site = Site::new();
    let bytes = site.blob("a.img", 8192);
    site.cache_file("a.img")
        .write_all_at(&bytes[..4096], 0)
        .unwrap();
    let again = site.volume().prepare(OsStr::new("a.img"), 8192).unwrap();
    assert_eq!(again, Prepared::Existed);
    assert_eq!(site.cached("a.img", 0, 4096), bytes[..4096]);
}

#[test]
fn prepare_refuses_another_size() {
    let site = Site::new();
    site.blob("a.img", 8192);
    let error = site
        .volume()
        .prepare(OsStr::new("a.img"), 4096)
        .unwrap_err();
    let text = format!("{error:#}");
    assert!(text.contains("it has 8192 bytes, not 4096"), "{text}");
    assert_eq!(site.missing("a.img"), 8192, "the file is as it was");
}

#[test]
fn prepare_refuses_no_size_and_names_that_are_paths() {
    let site = Site::new();
    let volume = site.volume();
    assert!(volume.prepare(OsStr::new("a.img"), 0).is_err());
    assert!(volume.prepare(OsStr::new(""), 4096).is_err());
    assert!(volume.prepare(OsStr::new(&"x".repeat(253)), 4096).is_err());
    // A slash is encoded, so it does not lead anywhere.
    volume.prepare(OsStr::new("../../x"), 4096).unwrap();
    let path = volume.path(OsStr::new("../../x")).unwrap();
    assert!(path.starts_with(volume.dir()));
    assert!(!path.to_str().unwrap().contains(".."));
}

#[test]
fn prepare_marks_a_file_that_was_made_by_hand() {
    let site = Site::new();
    site.blob("other", 4096);
    let path = site.volume().path(OsStr::new("a.img")).unwrap();
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    File::create(&path).unwrap().set_len(4096).unwrap();
    let made = site.volume().prepare(OsStr::new("a.img"), 4096).unwrap();
    assert_eq!(made, Prepared::Existed);
    assert_eq!(xattr(&path).len(), 18);
}

#[test]
fn prepare_refuses_attributes_of_others() {
    let site = Site::new();
    site.blob("a.img", 4096);
    let path = site.volume().path(OsStr::new("a.img")).unwrap();
    rustix::fs::setxattr(&path, XATTR, b"x", XattrFlags::empty()).unwrap();
    let error = site
        .volume()
        .prepare(OsStr::new("a.img"), 4096)
        .unwrap_err();
    assert!(
        format!("{error:#}").contains("the kernel would refuse"),
        "{error:#}"
    );
    rustix::fs::setxattr(site.volume().dir(), XATTR, b"aux", XattrFlags::empty()).unwrap();
    let error = site
        .volume()
        .prepare(OsStr::new("b.img"), 4096)
        .unwrap_err();
    assert!(
        format!("{error:#}").contains("another kind of cache"),
        "{error:#}"
    );
}

#[test]
fn missing_ranges_are_whole_blocks() {
    let site = Site::new();
    site.blob("a.img", 50_000);
    let file = site.cache_file("a.img");
    let next = |from| next_missing(&file, from, 50_000).unwrap();
    assert_eq!(next(0), Some(0..50_000));
    file.write_all_at(&[1; 4096], 8192).unwrap();
    assert_eq!(next(0), Some(0..8192));
    assert_eq!(next(8192), Some(12288..50_000));
    file.write_all_at(&[1; 848], 49152).unwrap();
    assert_eq!(next(12288), Some(12288..49152));
    assert_eq!(next(49152), None);
    assert_eq!(next(50_000), None);
}

#[test]
fn prefetch_fetches_what_is_missing_and_nothing_else() {
    let site = Site::new();
    let bytes = site.blob("a.img", 3_000_000);
    // Not what the source has: it stays if the range is not fetched again.
    site.cache_file("a.img")
        .write_all_at(&[9; 8192], 40_960)
        .unwrap();
    let fetched = site.prefetch("a.img").unwrap();
    assert_eq!(fetched, 3_000_000 - 8192);
    assert_eq!(site.missing("a.img"), 0);
    let cached = site.cached("a.img", 0, 3_000_000);
    assert_eq!(cached[..40_960], bytes[..40_960]);
    assert_eq!(cached[40_960..49_152], [9; 8192]);
    assert_eq!(cached[49_152..], bytes[49_152..]);
    let again = site.prefetch("a.img").unwrap();
    assert_eq!(again, 0);
}

#[test]
fn prefetch_of_a_range_takes_the_blocks_around_it() {
    let site = Site::new();
    let bytes = site.blob("sha256:ab", 20_000);
    let fetch = |text| site.prefetch(text);
    assert_eq!(fetch("sha256:ab:5000+1").unwrap(), 4096);
    assert_eq!(site.cached("sha256:ab", 4096, 4096), bytes[4096..8192]);
    assert_eq!(site.missing("sha256:ab"), 20_000 - 4096);
    assert_eq!(fetch("sha256:ab:19000+1000").unwrap(), 20_000 - 16_384);
    assert_eq!(fetch("sha256:ab:4096+0").unwrap(), 0);
    assert!(fetch("sha256:ab:19000+1001").is_err(), "behind the end");
    assert!(fetch("sha256:ab:18446744073709551615+1").is_err());
    assert!(fetch("nothing").is_err());
}

#[test]
fn prefetch_refuses_a_source_of_another_size() {
    let site = Site::new();
    site.blob("a.img", 8192);
    for size in [8191, 8193] {
        fs::write(site.source_dir().join("a.img"), vec![1; size]).unwrap();
        let error = site.prefetch("a.img").unwrap_err();
        assert!(
            format!("{error:#}").contains("not the same blob"),
            "{error:#}"
        );
    }
    assert_eq!(site.missing("a.img"), 8192);
}

#[test]
fn all_blobs_are_found_again_even_under_encoded_names() {
    let site = Site::new();
    for name in ["a.img", "with space", "b.img"] {
        site.blob(name, 4096);
    }
    let mut names: Vec<_> = Target::all(&site.volume(), &site.mirrors())
        .unwrap()
        .into_iter()
        .map(|target| target.blob)
        .collect();
    names.sort();
    assert_eq!(names, ["a.img", "b.img", "with space"]);
}

#[test]
fn status_counts_what_is_present() {
    let site = Site::new();
    site.blob("a.img", 409_600);
    site.blob("b.img", 5000);
    site.prefetch("a.img:0+4096").unwrap();
    site.prefetch("b.img").unwrap();
    let rows = rows(&site.volume()).unwrap();
    let kernel = Kernel::default();
    let counts: Vec<_> = rows
        .iter()
        .map(|row| (row.size, row.present, row.percent()))
        .collect();
    assert_eq!(counts, [(409_600, 4096, 1), (5000, 5000, 100)]);
    let table = table(&rows, &kernel, false);
    let total = table.lines().last().unwrap();
    assert_eq!(
        total.split_whitespace().collect::<Vec<_>>(),
        ["414600", "9096", "2", "total"]
    );
    let parsed: serde_json::Value = serde_json::from_str(&json(&rows, &kernel)).unwrap();
    assert_eq!(parsed["blobs"][0]["name"], "a.img");
    assert_eq!(parsed["blobs"][1]["present"], 5000);
    assert_eq!(parsed["total"]["percent"], 2);
}

#[test]
fn open_blobs_are_bounded_and_the_oldest_goes() {
    let site = Site::new();
    for name in ["a", "b", "c"] {
        site.blob(name, 4096);
    }
    let blobs = Blobs::new(site.volume(), site.mirrors(), 2, NEVER);
    let get = |name: &str| blobs.get(OsStr::new(name)).unwrap();
    let a = get("Da");
    get("Db");
    get("Da");
    get("Dc");
    assert_eq!(blobs.count(), 2);
    assert!(std::sync::Arc::ptr_eq(&a, &get("Da")), "b was older");
    assert!(blobs.get(OsStr::new("Dnothing")).is_err());
    assert_eq!(blobs.count(), 2);
}
