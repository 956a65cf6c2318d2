// SPDX-License-Identifier: GPL-2.0
//! What the program prints of trees on whatever file system temporary files are on.

use std::ffi::CString;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{symlink, FileExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Command, Output};

use rustix::fs::{mkdirat, mkfifoat, openat, Mode, OFlags, CWD};
use tempfile::TempDir;

fn run(args: &[&str], root: &Path) -> Output {
    Command::new(env!("CARGO_BIN_EXE_mount-digest"))
        .args(args)
        .arg(root)
        .output()
        .unwrap()
}

/// What it prints, which must be ASCII, and go well.
fn digest(args: &[&str], root: &Path) -> String {
    let output = run(args, root);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    assert!(output.stdout.is_ascii());
    String::from_utf8(output.stdout).unwrap()
}

/// The values of an item.
fn values<'a>(digest: &'a str, path: &str, item: &str) -> Vec<&'a str> {
    let start = format!("{path}\t{item}\t");
    digest
        .lines()
        .filter_map(|line| line.strip_prefix(&start))
        .collect()
}

fn tree() -> TempDir {
    let tree = tempfile::tempdir().unwrap();
    let path = |name: &str| tree.path().join(name);
    fs::create_dir_all(path("sub/below")).unwrap();
    fs::write(path("abc"), "abc").unwrap();
    fs::write(path("empty"), "").unwrap();
    fs::write(path("sub/file"), vec![7; 70_000]).unwrap();
    fs::hard_link(path("abc"), path("sub/hard")).unwrap();
    symlink("no where\n", path("link")).unwrap();
    mkfifoat(CWD, path("fifo"), Mode::RUSR).unwrap();
    UnixListener::bind(path("socket")).unwrap();
    tree
}

#[test]
fn a_tree_is_printed_with_its_paths_sorted() {
    let tree = tree();
    let digest = digest(&[], tree.path());
    let mut paths: Vec<_> = digest
        .lines()
        .map(|l| l.split('\t').next().unwrap())
        .collect();
    paths.dedup();
    let wanted = [
        ".",
        "abc",
        "empty",
        "fifo",
        "link",
        "socket",
        "sub",
        "sub/below",
        "sub/file",
        "sub/hard",
    ];
    assert_eq!(paths, wanted);
    assert_eq!(
        values(&digest, "abc", "content"),
        ["bytes=3 sha256=ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"]
    );
    assert_eq!(values(&digest, "sub/hard", "same-as"), ["abc"]);
    assert_eq!(values(&digest, "link", "link"), ["no\\x20where\\x0a"]);
    for (path, kind) in [("fifo", "fifo"), ("socket", "socket"), ("sub", "directory")] {
        assert!(values(&digest, path, "stat")[0].starts_with(&format!("type={kind} ")));
    }
    assert_eq!(values(&digest, ".", "entry").len(), 8);
    let seeks = values(&digest, ".", "seek");
    assert_eq!(seeks, ["cookies=8 same=8"]);
    assert!(values(&digest, "sub", "read").contains(&"EISDIR"));
}

#[test]
fn a_tree_is_equal_to_itself_and_to_nothing_else() {
    let tree = tree();
    // Others may write to the same file system, which writes back when it likes, and reading may change times.
    let groups = ["--without=statfs,times,fiemap,physical"];
    let before = digest(&groups, tree.path());
    assert_eq!(digest(&groups, tree.path()), before);
    let differs = |change: &dyn Fn()| {
        let before = digest(&groups, tree.path());
        change();
        assert_ne!(digest(&groups, tree.path()), before);
    };
    let file = tree.path().join("sub/file");
    differs(&|| {
        fs::File::options()
            .write(true)
            .open(&file)
            .unwrap()
            .write_all_at(&[8], 60_000)
            .unwrap()
    });
    differs(&|| fs::set_permissions(&file, fs::Permissions::from_mode(0o4711)).unwrap());
    differs(&|| fs::rename(&file, tree.path().join("sub/fila")).unwrap());
    differs(&|| fs::remove_dir(tree.path().join("sub/below")).unwrap());
}

#[test]
fn a_tree_that_can_be_written_to_is_not() {
    let tree = tree();
    // What would change if any of the calls that are to be refused were made.
    let groups = ["--only=stat,link,content,readdir"];
    let before = digest(&groups, tree.path());
    let all = digest(&[], tree.path());
    for item in ["\trefused\t", "\trefused-in\t"] {
        assert!(!all.contains(item));
    }
    assert_eq!(digest(&groups, tree.path()), before);
}

#[test]
fn groups_can_be_chosen() {
    let tree = tree();
    let items = |args: &[&str]| {
        let digest = digest(args, tree.path());
        let mut items: Vec<_> = digest
            .lines()
            .map(|l| l.split('\t').nth(1).unwrap().to_owned())
            .collect();
        items.sort_unstable();
        items.dedup();
        items
    };
    // Names of one inode are one line each whatever the groups are.
    assert_eq!(
        items(&["--only=link,content"]),
        ["content", "link", "same-as"]
    );
    assert_eq!(items(&["--only", "statfs"]), ["same-as", "statfs"]);
    let rest = items(&[
        "--without",
        "map,fiemap,physical,handles",
        "--without=errors",
    ]);
    for gone in ["data", "extent", "extents", "handle", "calls"] {
        assert!(!rest.iter().any(|item| item == gone), "{gone} in {rest:?}");
    }
    for there in ["stat", "times", "content", "entry", "seek", "xattr-list"] {
        assert!(
            rest.iter().any(|item| item == there),
            "no {there} in {rest:?}"
        );
    }
}

#[test]
fn names_can_be_any_bytes() {
    let tree = tempfile::tempdir().unwrap();
    for name in [
        &b"\xff\xfe"[..],
        b"a\tb\nc",
        b"back\\slash",
        "Gr\u{fc}\u{df}e".as_bytes(),
        &[b'n'; 255],
    ] {
        fs::write(tree.path().join(std::ffi::OsStr::from_bytes(name)), "x").unwrap();
    }
    let digest = digest(&["--only=content"], tree.path());
    let long = "n".repeat(255);
    for path in [
        "\\xff\\xfe",
        "a\\x09b\\x0ac",
        "back\\x5cslash",
        "Gr\\xc3\\xbc\\xc3\\x9fe",
        long.as_str(),
    ] {
        assert_eq!(values(&digest, path, "content").len(), 1, "{path}");
    }
    assert_eq!(digest.lines().count(), 5);
}

#[test]
fn depth_is_not_limited_by_the_length_of_paths() {
    const DEPTH: usize = 400;
    let tree = tempfile::tempdir().unwrap();
    let name = CString::new("d".repeat(50)).unwrap();
    let flags = OFlags::DIRECTORY | OFlags::CLOEXEC;
    let mut dir = openat(CWD, tree.path(), flags, Mode::empty()).unwrap();
    for _ in 0..DEPTH {
        mkdirat(&dir, &name, Mode::RWXU).unwrap();
        // A neighbour that comes after it, which takes a way up.
        mkdirat(&dir, c"e", Mode::RWXU).unwrap();
        dir = openat(&dir, &name, flags, Mode::empty()).unwrap();
    }
    let digest = digest(&["--only=stat,xattrs"], tree.path());
    let stats = digest
        .lines()
        .filter(|l| l.contains("\tstat\ttype=directory"))
        .count();
    assert_eq!(stats, 1 + 2 * DEPTH);
    assert!(!digest.contains("ENAMETOOLONG"));
}

#[test]
fn a_huge_hole_is_not_read() {
    let tree = tempfile::tempdir().unwrap();
    let path = tree.path().join("huge");
    let file = fs::File::create_new(&path).unwrap();
    file.set_len(1 << 40).unwrap();
    file.write_all_at(b"data", 1 << 39).unwrap();
    let start = std::time::Instant::now();
    let before = digest(&["--only=content,map,fiemap"], tree.path());
    assert!(start.elapsed().as_secs() < 60);
    let data = values(&before, "huge", "data");
    assert!(
        data.len() == 1 && data[0].starts_with("549755813888+"),
        "{data:?}"
    );
    file.write_all_at(b"date", 1 << 39).unwrap();
    let after = digest(&["--only=content,map,fiemap"], tree.path());
    assert_ne!(
        values(&before, "huge", "content-data"),
        values(&after, "huge", "content-data")
    );
    assert_eq!(
        values(&before, "huge", "data"),
        values(&after, "huge", "data")
    );
}

#[test]
fn large_directories_are_read_whole() {
    let tree = tempfile::tempdir().unwrap();
    for n in 0..3000 {
        fs::create_dir(tree.path().join(format!("{n:0200}"))).unwrap();
    }
    let digest = digest(&["--only=stat,readdir,seekdir"], tree.path());
    assert_eq!(values(&digest, ".", "entries"), ["count=3002 end=ok"]);
    assert_eq!(values(&digest, ".", "seek"), ["cookies=24 same=24"]);
}

#[test]
fn errors_are_told() {
    let tree = tree();
    let output = run(&[], &tree.path().join("abc"));
    assert!(!output.status.success() && output.stdout.is_empty());
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(
        stderr.contains("abc") && stderr.contains("Not a directory"),
        "{stderr}"
    );
    let output = run(&["--without=nonsense"], tree.path());
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(
        !output.status.success() && stderr.contains("nonsense"),
        "{stderr}"
    );
}

#[test]
fn help_has_an_example_and_the_groups() {
    let output = run(&["--help"], Path::new("."));
    let stdout = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success());
    for text in ["Example: ", "fiemap", "handles", "--without", "--only"] {
        assert!(stdout.contains(text), "no {text}: {stdout}");
    }
}
