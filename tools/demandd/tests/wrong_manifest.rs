// SPDX-License-Identifier: GPL-2.0
//! Small files that are wrong on one mirror: the next one is asked, and who had what is told.

mod stand_in;

use std::fs;

use stand_in::process::{run, str};
use stand_in::web::{Fault, Web};
use stand_in::Site;

/// Two mirrors of an image, and the digest of its manifest.
struct Case {
    site: Site,
    digest: String,
}

impl Case {
    fn new() -> Self {
        let site = Site::new();
        site.blob("a.img", 100_000);
        fs::remove_dir_all(site.root()).unwrap();
        let source = site.source_dir();
        let args = ["image", "manifest", str(&source), "--name", "a", "a.img"];
        let (ok, digest, stderr) = run(&args);
        assert!(ok, "{stderr}");
        let good = site.path("good");
        fs::create_dir(&good).unwrap();
        for entry in fs::read_dir(source).unwrap() {
            let path = entry.unwrap().path();
            fs::copy(&path, good.join(path.file_name().unwrap())).unwrap();
        }
        Self {
            site,
            digest: digest.trim_end().to_owned(),
        }
    }

    /// Prepares the image from these sources, in this order.
    fn prepare(&self, sources: &[&str]) -> (bool, String, String) {
        let root = self.site.root();
        let image = format!("a@{}", self.digest);
        let mut args = vec!["prepare", "--root", str(&root), "--proxy=none"];
        for source in sources {
            args.extend(["--source", source]);
        }
        args.extend(["--image", &image]);
        run(&args)
    }

    /// Changes a file of the first mirror.
    fn damage(&self, name: &str) {
        let path = self.site.source_dir().join(name);
        let mut bytes = fs::read(&path).unwrap();
        bytes[3] ^= 1;
        fs::write(path, bytes).unwrap();
    }
}

#[test]
fn the_next_mirror_is_asked() {
    for (name, reason) in [
        ("a.manifest", "a.manifest has the digest sha256:"),
        (
            "a.img.chunks",
            "the list of the chunks of a.img has the digest",
        ),
    ] {
        let case = Case::new();
        case.damage(name);
        let bad = Web::new(&case.site.source_dir(), vec![], Fault::None);
        let good = Web::new(&case.site.path("good"), vec![], Fault::None);
        let (ok, stdout, stderr) = case.prepare(&[&bad.url(), &good.url()]);
        assert!(ok, "{name}: {stderr}");
        assert!(stdout.starts_with("created\t100000\t"), "{stdout}");
        let line = format!("demandd: in {}: {reason}", bad.url());
        assert_eq!(stderr.matches(&line).count(), 1, "{stderr}");
        assert_eq!(stderr.lines().count(), 1, "{stderr}");
        assert!(bad.asked().iter().any(|asked| asked.line.contains(name)));
    }
}

#[test]
fn if_no_mirror_has_the_right_one_it_fails() {
    let case = Case::new();
    case.damage("a.manifest");
    let bad = case.site.source_dir();
    let other = Web::new(&bad, vec![], Fault::None);
    let (ok, _, stderr) = case.prepare(&[str(&bad), &other.url()]);
    assert!(!ok);
    // Each of them is named once.
    let lines: Vec<_> = stderr.lines().collect();
    assert_eq!(lines.len(), 2, "{stderr}");
    assert!(lines[0].contains(&format!("in {}: a.manifest has the digest", str(&bad))));
    assert!(lines[1].contains(&format!("in {}: a.manifest has the digest", other.url())));
    assert!(lines[1].contains("it is another image, or damaged"));
    assert!(!case.site.root().exists());
    // One that has none at all changes nothing about that.
    let empty = case.site.path("empty");
    fs::create_dir(&empty).unwrap();
    let (ok, _, stderr) = case.prepare(&[&other.url(), str(&empty)]);
    assert!(!ok && stderr.contains(&format!("in {}: ", other.url())));
    assert!(stderr
        .lines()
        .last()
        .unwrap()
        .contains("cannot get a.manifest"));
}
