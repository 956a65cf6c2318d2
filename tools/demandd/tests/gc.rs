// SPDX-License-Identifier: GPL-2.0
//! What culling would remove.

mod stand_in;

use std::fs::{self, FileTimes};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::time::{Duration, SystemTime};

use serde_json::Value;
use stand_in::process::{run, str};
use stand_in::Site;

/// Three blobs of which something is present, by the time since their last use, and one that is empty.
fn site() -> Site {
    let site = Site::new();
    for (name, hours) in [("new.img", 1), ("old.img", 3), ("middle.img", 2)] {
        site.blob(name, 1 << 20);
        let file = site.cache_file(name);
        file.write_all_at(&[1; 8192], 0).unwrap();
        let used = SystemTime::now() - Duration::from_secs(hours * 3600);
        file.set_times(FileTimes::new().set_modified(used)).unwrap();
    }
    site.blob("empty.img", 4096);
    let kernel = site.path("kernel");
    fs::create_dir(&kernel).unwrap();
    let objects = "size tag/name\n1048576 mine/Dmiddle.img\n1048576 other/Dold.img\n";
    fs::write(kernel.join("objects"), objects).unwrap();
    fs::write(kernel.join("caches"), "queued tag\n0 mine\n").unwrap();
    fs::write(kernel.join("requests"), "id tag/name\n").unwrap();
    site
}

fn gc(site: &Site, more: &[&str]) -> (bool, String, String) {
    let (root, kernel) = (site.root(), site.path("kernel"));
    let args = [
        "gc",
        "--root",
        str(&root),
        "--tag=mine",
        "--kernel",
        str(&kernel),
    ];
    run(&[&args, more].concat())
}

#[test]
fn the_one_that_was_not_used_for_longest_comes_first() {
    let site = site();
    let (ok, stdout, stderr) = gc(&site, &["--dry-run", "--json"]);
    assert!(ok, "{stderr}");
    let told: Value = serde_json::from_str(&stdout).unwrap();
    let blobs = told["blobs"].as_array().unwrap();
    let names: Vec<_> = blobs
        .iter()
        .map(|blob| blob["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["old.img", "middle.img", "new.img"]);
    let idle: Vec<_> = blobs
        .iter()
        .map(|blob| blob["idle_seconds"].as_u64().unwrap() / 3600)
        .collect();
    assert_eq!(idle, [3, 2, 1]);
    // Only the mounts of this cache count.
    let used: Vec<_> = blobs.iter().map(|blob| blob["in_use"] == true).collect();
    assert_eq!(used, [false, true, false]);
    let allocated = |name| site.cache_file(name).metadata().unwrap().blocks() * 512;
    assert!(allocated("old.img") >= 8192);
    assert_eq!(blobs[0]["bytes"], allocated("old.img"));
    assert_eq!(
        told["reclaimable"],
        allocated("old.img") + allocated("new.img")
    );
    assert_eq!(told["problem"], Value::Null);
}

#[test]
fn what_has_to_go_for_a_limit_is_marked() {
    let site = site();
    let one = site.cache_file("old.img").metadata().unwrap().blocks() * 512;
    let goes = |limit: u64| {
        let limit = format!("--limit-size={limit}");
        let (ok, stdout, stderr) = gc(&site, &["--dry-run", "--json", &limit]);
        assert!(ok, "{stderr}");
        let told: Value = serde_json::from_str(&stdout).unwrap();
        let blobs = told["blobs"].as_array().unwrap();
        let goes = blobs.iter().map(|blob| blob["goes"] == true);
        goes.collect::<Vec<_>>()
    };
    assert_eq!(goes(3 * one), [false, false, false]);
    assert_eq!(goes(3 * one - 1), [true, false, false]);
    // The second one is in use.
    assert_eq!(goes(one), [true, false, true]);
    assert_eq!(goes(0), [true, false, true]);
    let (_, stdout, _) = gc(&site, &["--dry-run", "--limit-size=1K"]);
    assert!(stdout.contains("goes    old.img\n"), "{stdout}");
}

#[test]
fn nothing_is_removed_and_it_has_to_be_said() {
    let site = site();
    let (ok, stdout, _) = gc(&site, &["--dry-run"]);
    assert!(ok && stdout.contains("in use  middle.img\n"), "{stdout}");
    assert!(stdout.ends_with("  would be free\n"), "{stdout}");
    for name in ["old.img", "middle.img", "new.img", "empty.img"] {
        site.cache_file(name);
    }
    let (ok, _, stderr) = gc(&site, &[]);
    assert!(!ok && stderr.contains("--dry-run"), "{stderr}");
    fs::remove_dir_all(site.path("kernel")).unwrap();
    let (ok, stdout, _) = gc(&site, &["--dry-run"]);
    assert!(
        ok && stdout.contains("what is in use is not known"),
        "{stdout}"
    );
}
