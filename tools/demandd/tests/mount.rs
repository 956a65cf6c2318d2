// SPDX-License-Identifier: GPL-2.0
//! Mounting in one step, up to the system call: what is prepared, and what is said when something is missing.

mod stand_in;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;

use demandd::image::build::describe;
use rustix::event::{poll, PollFd, PollFlags, Timespec};
use rustix::process::{kill_process, pidfd_open, Pid, PidfdFlags, Signal};
use stand_in::process::{run, str};
use stand_in::web::{Fault, Web};
use stand_in::{Site, Terminal};

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
    says(
        &["--tag=mine", "b.img", mnt],
        "\"b.img\" is not prepared, and cannot be: cannot get b.img.manifest",
    );
    says(
        &["--tag=mine", "../a.img", mnt],
        "cannot get a.img.manifest",
    );
    says(&["--tag=mine", "/absent/a.img", mnt], "no source /absent");
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
    assert!(said.contains("is gone: start it"), "{said}");
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

/// An image with a manifest in the source, whose primary blob has another name; its digest.
fn described(site: &Site) -> String {
    for name in ["one", "two"] {
        fs::write(site.source_dir().join(name), [1; 12_288]).unwrap();
    }
    let blobs = ["one", "two"].map(str::to_owned);
    let manifest = describe(&site.source_dir(), "app", &blobs, 4096).unwrap();
    manifest.digest().to_string()
}

fn check_prepared(site: &Site, place: &str) {
    for name in ["one", "two"] {
        assert_eq!(site.missing(name), 12_288);
        let list = site.volume().verified_with(name.as_ref()).unwrap();
        assert_eq!(list.unwrap().0.chunk_size, 4096);
        assert_eq!(site.volume().places(name.as_ref()).unwrap(), [place]);
    }
}

#[test]
fn an_image_with_a_manifest_is_prepared_from_where_it_is() {
    let web = |site: &Site| Web::new(&site.source_dir(), vec![], Fault::None);
    for with_digest in [true, false] {
        for from_web in [true, false] {
            let site = site();
            let digest = described(&site);
            let server = web(&site);
            let place = match from_web {
                true => server.url().trim_end_matches('/').to_owned(),
                false => str(&site.source_dir()).to_owned(),
            };
            let mut image = format!("{place}/app");
            if with_digest {
                image += &format!("@{digest}");
            }
            let mnt = site.path("mnt");
            // Whatever the source is that is there otherwise.
            let args = [
                "mount",
                "--tag=mine",
                "--source=/",
                "--proxy=none",
                "--root",
            ];
            let (root, machine) = (site.root(), machine(&site));
            let more = [str(&root), "--machine", str(&machine), &image, str(&mnt)];
            let (ok, _, stderr) = run(&[&args[..], &more].concat());
            assert!(!ok && stderr.contains("the kernel's own erofs"), "{stderr}");
            check_prepared(&site, &place);
        }
    }
}

#[test]
fn a_manifest_with_another_digest_is_refused() {
    let site = site();
    described(&site);
    let mnt = site.path("mnt");
    let image = format!("app@sha256:{}", "4".repeat(64));
    let said = mount(&site, &["--tag=mine", &image, str(&mnt)]);
    assert!(said.contains("another image, or damaged"), "{said}");
    assert!(!site.root().join("cache").exists());
    // A digest that is none is not part of a name.
    let said = mount(&site, &["--tag=mine", "app@sha256:44", str(&mnt)]);
    assert!(said.contains("64 lower-case hexadecimal"), "{said}");
    assert!(!site.root().join("cache").exists());
}

#[test]
fn a_source_can_have_the_manifest() {
    let site = site();
    let digest = described(&site);
    let mnt = site.path("mnt");
    let image = format!("app@{digest}");
    let said = mount(&site, &["--tag=mine", &image, str(&mnt)]);
    assert!(said.contains("the kernel's own erofs"), "{said}");
    assert_eq!(site.missing("two"), 12_288);
    // The daemon's sources have it, or else somebody said where it is.
    assert!(site.volume().places("two".as_ref()).unwrap().is_empty());
}

/// Ends a daemon that nobody holds any more, and waits until it is gone: its last line goes to the log.
fn end_daemon_of(site: &Site) {
    let root = site.root();
    for entry in fs::read_dir("/proc").unwrap() {
        let path = entry.unwrap().path();
        let line = fs::read(path.join("cmdline")).unwrap_or_default();
        let words: Vec<_> = line.split(|&byte| byte == 0).collect();
        if words.contains(&&b"serve"[..]) && words.contains(&str(&root).as_bytes()) {
            let pid = path.file_name().unwrap().to_str().unwrap().parse();
            let pid = Pid::from_raw(pid.unwrap()).unwrap();
            let daemon = pidfd_open(pid, PidfdFlags::empty()).unwrap();
            kill_process(pid, Signal::TERM).unwrap();
            let mut ended = [PollFd::new(&daemon, PollFlags::IN)];
            let limit = Timespec {
                tv_sec: 30,
                tv_nsec: 0,
            };
            assert_eq!(poll(&mut ended, Some(&limit)).unwrap(), 1);
            return;
        }
    }
    panic!("no daemon serves {}", root.display());
}

#[test]
fn a_daemon_is_started_if_there_is_none() {
    let site = site();
    described(&site);
    let machine = machine(&site);
    fs::write(
        machine.join("sys/kernel/debug/cachefiles_demand/caches"),
        "daemon queued tag\n",
    )
    .unwrap();
    let device = Terminal::new();
    fs::create_dir(machine.join("dev")).unwrap();
    symlink(&device.path, machine.join("dev/cachefiles_demand")).unwrap();
    let mnt = site.path("mnt");
    let mount = || mount(&site, &["--tag=new", "app", str(&mnt)]);
    let said = mount();
    assert!(said.contains("the kernel's own erofs"), "{said}");
    device.expect_bind(&site.root(), "new");
    end_daemon_of(&site);
    // One that cannot serve is not waited for.
    fs::remove_file(machine.join("dev/cachefiles_demand")).unwrap();
    let said = mount();
    let log = site.root().join("demandd.log");
    assert!(
        said.contains("It cannot be started from here: ")
            && said.contains("dev/cachefiles_demand")
            && said.contains(&format!("(in {})", log.display())),
        "{said}"
    );
}
