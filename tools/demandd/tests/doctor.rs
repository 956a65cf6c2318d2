// SPDX-License-Identifier: GPL-2.0
//! Looking for what is wrong, and telling it: on a machine that is made of files.

mod stand_in;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use demandd::doctor::{look, Findings, State, Wanted};
use demandd::machine::Machine;
use demandd::source::directory::Directory;
use serde_json::Value;
use stand_in::process::{run, str};
use stand_in::{mirrors, Site};

const VERSION: &str = "7.3.4+test";

/// A site, and a machine on which all is well.
struct Fake {
    site: Site,
}

impl Fake {
    fn new() -> Self {
        let fake = Self { site: Site::new() };
        fake.site.blob("a.img", 4096);
        fake.put("proc/sys/kernel/osrelease", &format!("{VERSION}\n"));
        fake.put("sys/module/module/parameters/sig_enforce", "N\n");
        for module in ["cachefiles_demand", "erofs"] {
            fake.put(&format!("sys/module/{module}/taint"), "OE\n");
        }
        fake.installed("updates/erofs.ko: updates/x.ko\nupdates/cachefiles_demand.ko:\n");
        fake.put(
            "sys/kernel/debug/cachefiles_demand/caches",
            "daemon queued tag\nconnected 0 mine\nlingering 4 old\n",
        );
        fake.put(
            "sys/kernel/debug/cachefiles_demand/objects",
            "size tag/name\n",
        );
        fake.put(
            "sys/kernel/debug/cachefiles_demand/requests",
            "id tag/name\n",
        );
        fs::create_dir_all(fake.path("dev")).unwrap();
        // Any character device does.
        symlink("/dev/null", fake.path("dev/cachefiles_demand")).unwrap();
        fake
    }

    fn path(&self, name: &str) -> PathBuf {
        self.site.path("machine").join(name)
    }

    fn put(&self, name: &str, text: &str) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn remove(&self, name: &str) {
        fs::remove_file(self.path(name)).unwrap();
    }

    fn installed(&self, list: &str) {
        self.put(&format!("lib/modules/{VERSION}/modules.dep"), list);
    }

    fn wanted(&self) -> Wanted {
        Wanted {
            root: Some(self.site.root()),
            volume: "erofs".to_owned(),
            sources: Some(Ok(self.site.mirrors())),
            tag: "mine".to_owned(),
        }
    }

    fn look(&self) -> Findings {
        self.look_for(&self.wanted())
    }

    fn look_for(&self, wanted: &Wanted) -> Findings {
        look(&Machine::new(&self.path("")), wanted)
    }

    /// What is found of one thing, and what is to be done.
    fn of(&self, what: &str) -> (State, String) {
        state_of(&self.look(), what)
    }

    fn arguments(&self) -> Vec<String> {
        vec![
            "--machine".to_owned(),
            str(&self.path("")).to_owned(),
            "--root".to_owned(),
            str(&self.site.root()).to_owned(),
            "--source".to_owned(),
            str(&self.site.source_dir()).to_owned(),
        ]
    }
}

fn state_of(found: &Findings, what: &str) -> (State, String) {
    let mut all = found.0.iter().filter(|one| one.what == what);
    let one = all.next().unwrap_or_else(|| panic!("{what}: {found}"));
    assert!(all.next().is_none(), "{what} twice: {found}");
    // What is not good has to be mended.
    assert!(one.state != State::Bad || !one.advice.is_empty(), "{found}");
    (one.state, format!("{}; {}", one.detail, one.advice))
}

#[test]
fn a_machine_on_which_all_is_well() {
    let fake = Fake::new();
    let found = fake.look();
    let things = [
        "kernel",
        "module cachefiles_demand",
        "module erofs",
        "device",
        "cache",
        "blobs",
        "source",
        "daemon",
    ];
    for what in things {
        assert_eq!(state_of(&found, what).0, State::Good, "{found}");
    }
    assert!(state_of(&found, "blobs").1.starts_with("1 "), "{found}");
}

#[test]
fn what_is_wrong_with_kernel_and_modules() {
    let fake = Fake::new();
    fake.put("sys/module/module/parameters/sig_enforce", "Y\n");
    assert_eq!(fake.of("signatures").0, State::Bad);

    fake.put("sys/module/erofs/taint", "\n");
    let (state, text) = fake.of("module erofs");
    assert!(
        state == State::Bad && text.contains("rmmod erofs"),
        "{text}"
    );
    for module in ["cachefiles_demand", "erofs"] {
        fake.remove(&format!("sys/module/{module}/taint"));
    }
    assert_eq!(fake.of("module erofs").0, State::Good, "mount loads it");
    let (state, text) = fake.of("module cachefiles_demand");
    assert!(state == State::Note && text.contains("modprobe"), "{text}");

    fake.installed("kernel/fs/erofs/erofs.ko.xz: kernel/x.ko.xz\nupdates/not_erofs.ko:\n");
    for what in ["module erofs", "module cachefiles_demand"] {
        let (state, text) = fake.of(what);
        assert!(state == State::Bad && text.contains("install"), "{text}");
    }

    fake.remove("dev/cachefiles_demand");
    assert_eq!(fake.of("device").0, State::Note, "it comes with the module");
    fake.put("sys/module/cachefiles_demand/taint", "O\n");
    assert_eq!(fake.of("device").0, State::Bad);
    fake.put("dev/cachefiles_demand", "");
    assert_eq!(fake.of("device").0, State::Bad);

    fake.put("proc/sys/kernel/osrelease", "6.12.1\n");
    let (state, text) = fake.of("kernel");
    assert!(state == State::Bad && text.contains("6.12.1"), "{text}");
}

#[test]
fn what_is_wrong_with_cache_source_and_daemon() {
    let fake = Fake::new();
    let with = |change: &dyn Fn(&mut Wanted), what: &str| {
        let mut wanted = fake.wanted();
        change(&mut wanted);
        state_of(&fake.look_for(&wanted), what)
    };
    let (state, text) = with(&|wanted| wanted.root = Some("/absent".into()), "cache");
    assert!(
        state == State::Bad && text.contains("demandd prepare"),
        "{text}"
    );
    let (state, text) = with(&|wanted| wanted.root = Some("/proc".into()), "cache");
    assert!(
        state == State::Bad && text.contains("ext4, XFS or btrfs"),
        "{text}"
    );
    assert_eq!(with(&|wanted| wanted.root = None, "cache").0, State::Note);
    let (state, text) = with(
        &|wanted| {
            let absent = Directory::new(Path::new("/absent"));
            wanted.sources = Some(absent.map(|dir| mirrors(vec![Box::new(dir)])));
        },
        "source",
    );
    assert!(
        state == State::Bad && text.contains("No such file"),
        "{text}"
    );
    let (state, text) = with(&|wanted| wanted.tag = "old".into(), "daemon");
    assert!(state == State::Note && text.contains("lingering"), "{text}");
    let (state, text) = with(&|wanted| wanted.tag = "none".into(), "daemon");
    assert!(
        state == State::Note && text.contains("demandd serve"),
        "{text}"
    );
    // It has left nothing behind, and nothing it looked for was made.
    let names = fs::read_dir(fake.site.root()).unwrap();
    assert_eq!(names.count(), 1, "only cache/");
}

#[test]
fn the_status_and_the_output_for_programs() {
    let fake = Fake::new();
    let arguments = fake.arguments();
    let doctor = |more: &[&str]| {
        let args = ["doctor"]
            .into_iter()
            .chain(arguments.iter().map(String::as_str));
        run(&args.chain(more.iter().copied()).collect::<Vec<_>>())
    };
    fake.put("sys/module/erofs/taint", "\n");
    let (ok, stdout, stderr) = doctor(&["--json", "--tag=mine"]);
    assert!(!ok && stderr.contains(" are bad"), "{stderr}");
    let told: Value = serde_json::from_str(&stdout).unwrap();
    let all = told["findings"].as_array().unwrap();
    let bad: Vec<_> = all.iter().filter(|one| one["state"] == "bad").collect();
    assert_eq!(told["bad"], bad.len());
    assert!(
        bad.iter().any(|one| one["what"] == "module erofs"),
        "{stdout}"
    );
    let (ok, stdout, _) = doctor(&[]);
    assert!(
        !ok && stdout.contains("bad   module erofs: the kernel's own"),
        "{stdout}"
    );
}

#[test]
fn a_report_has_what_is_needed_and_no_secret() {
    let fake = Fake::new();
    let site = &fake.site;
    let config = site.path("config.toml");
    let text = format!(
        "root = {:?}\ntrace = \"/secret/trace\"\nlinger = 4711",
        site.root()
    );
    fs::write(&config, text).unwrap();
    fake.put("proc/version", "Linux version of the test\n");
    fake.put(
        "proc/self/mounts",
        "none /m erofs ro,uuid=a.img 0 0\nx /home ext4 rw 0 0\n",
    );
    fake.put("proc/77/fdinfo/5", "pos:\t0\ncache:\t\"mine\"\nhung:\t3\n");
    fake.put(
        "proc/77/status",
        "Name:\tdemandd\nVmLck:\t  99 kB\nUid:\t0\n",
    );
    fake.put(
        "proc/77/limits",
        "Max open files            1024\nMax processes  5\n",
    );
    fake.put("proc/77/cmdline", "demandd\0--password=hush");
    fs::create_dir_all(fake.path("proc/77/fd")).unwrap();
    symlink("/dev/cachefiles_demand", fake.path("proc/77/fd/5")).unwrap();
    symlink("/etc/shadow", fake.path("proc/77/fd/6")).unwrap();
    fake.put(
        "dev/kmsg",
        "6,1,5000000,-;usb: a stick\n3,2,7000000,-;cachefiles_demand: request 1 waits\n SUBSYSTEM=x\n",
    );
    let arguments = fake.arguments();
    let args = ["bugreport", "--config", str(&config)];
    let args = args.into_iter().chain(arguments.iter().map(String::as_str));
    let (ok, report, stderr) = run(&args.collect::<Vec<_>>());
    assert!(ok, "{stderr}");
    for wanted in [
        concat!("==== demandd\n", env!("CARGO_PKG_VERSION"), "\n"),
        "==== configuration: keys\nlinger, root, trace\n",
        "Linux version of the test\n",
        "good  kernel: 7.3.4+test\n",
        "==== status\n           size",
        "connected 0 mine\nlingering 4 old\n",
        "==== module erofs\ntaint: OE\n",
        "==== mounts\nnone /m erofs ro,uuid=a.img 0 0\n\n",
        "process 77, descriptor 5:\npos:\t0\ncache:\t\"mine\"\nhung:\t3\nName:\tdemandd\nVmLck:\t  99 kB\nMax open files            1024\n\n",
        "==== kernel log\n7 s: cachefiles_demand: request 1 waits\n\n",
    ] {
        assert!(report.contains(wanted), "{wanted:?}: {report}");
    }
    for unwanted in ["secret", "4711", "hush", "usb", "shadow", "/home"] {
        assert!(!report.contains(unwanted), "{unwanted:?}: {report}");
    }
}
