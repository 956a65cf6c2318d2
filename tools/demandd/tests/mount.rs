// SPDX-License-Identifier: GPL-2.0
//! Mounting in one step, up to the system call: what is prepared, and what is said when something is missing.

mod stand_in;

use std::fs;
use std::path::PathBuf;

use stand_in::process::{run, str};
use stand_in::Site;

/// A machine of files, on which the daemon of the cache "mine" serves.
fn site() -> Site {
    let site = Site::new();
    let put = |name: &str, text: &str| {
        let path = machine(&site).join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    };
    put("sys/module/cachefiles_demand/taint", "O\n");
    // With the kernel's own module nothing can be mounted: every attempt ends there.
    put("sys/module/erofs/taint", "\n");
    put(
        "sys/kernel/debug/cachefiles_demand/caches",
        "daemon queued tag\nconnected 0 mine\ngone 0 old\n",
    );
    fs::create_dir(site.path("mnt")).unwrap();
    fs::create_dir(site.root()).unwrap();
    site
}

fn machine(site: &Site) -> PathBuf {
    site.path("machine")
}

/// What is said when something is mounted that cannot be.
fn mount(site: &Site, more: &[&str]) -> String {
    let (root, source, machine) = (site.root(), site.source_dir(), machine(site));
    let args = ["mount", "--root", str(&root), "--source", str(&source)];
    let args = [&args, &["--machine", str(&machine)][..], more].concat();
    let (ok, _, stderr) = run(&args);
    assert!(!ok);
    stderr
}

#[test]
fn what_is_missing_is_named() {
    let site = site();
    site.blob("a.img", 8192);
    let mnt = site.path("mnt");
    let mnt = str(&mnt);
    let says = |args: &[&str], expected: &str| {
        let said = mount(&site, args);
        assert!(said.contains(expected), "{args:?}: {said}");
    };
    says(&["--tag=mine", "a.img", "/absent"], "is not a directory");
    says(&["--tag=mine", "b.img", mnt], "run `demandd prepare`");
    says(&["--tag=mine", "../a.img", mnt], "demandd prepare");
    says(&["--tag=mine", "a,b", mnt], "a comma");
    says(
        &["--tag=mine", "--blob=absent", "a.img", mnt],
        "\"absent\" is not prepared",
    );
}

#[test]
fn a_daemon_has_to_serve_and_ours_has_to_be_the_file_system() {
    let site = site();
    fs::write(site.source_dir().join("a.img"), [7; 8192]).unwrap();
    site.volume().prepare("a.img".as_ref(), 8192).unwrap();
    let mnt = site.path("mnt");
    let mnt = str(&mnt);
    // Blobs are named: what is in the file is no image.
    let with_tag = |tag: &str| mount(&site, &[tag, "--blob=a.img", "a.img", mnt]);
    assert!(with_tag("--tag=mine").contains("the kernel's own erofs is loaded"));
    let said = with_tag("--tag=old");
    assert!(said.contains("is gone: start it again"), "{said}");
    let said = with_tag("--tag=other");
    assert!(said.contains("there is: mine, old"), "{said}");
    let caches = machine(&site).join("sys/kernel/debug/cachefiles_demand/caches");
    fs::write(caches, "daemon queued tag\n").unwrap();
    assert!(with_tag("--tag=mine").contains("no daemon serves a cache: start it"));
    fs::remove_dir_all(machine(&site)).unwrap();
    let said = with_tag("--tag=mine");
    assert!(said.contains("cachefiles_demand is not loaded"), "{said}");
}

#[test]
fn what_a_directory_has_is_prepared() {
    let site = site();
    let mnt = site.path("mnt");
    for name in ["one", "two"] {
        fs::write(site.source_dir().join(name), [1; 12_288]).unwrap();
    }
    let said = mount(&site, &["--tag=mine", "--blob=two", "one", str(&mnt)]);
    assert!(said.contains("the kernel's own erofs"), "{said}");
    for name in ["one", "two"] {
        assert_eq!(site.missing(name), 12_288);
    }
}

#[test]
fn only_images_are_unmounted() {
    let site = site();
    let (ok, _, stderr) = run(&["umount", str(&site.path("mnt"))]);
    assert!(!ok && stderr.contains("nothing is mounted on"), "{stderr}");
    let (ok, _, stderr) = run(&["umount", "/proc"]);
    assert!(!ok && stderr.contains("is proc, not an image"), "{stderr}");
    let (ok, _, stderr) = run(&["umount", "/absent"]);
    assert!(!ok && stderr.contains("No such file"), "{stderr}");
}
