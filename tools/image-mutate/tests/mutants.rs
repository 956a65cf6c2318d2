// SPDX-License-Identifier: GPL-2.0
//! Images that mkfs.erofs made, damaged by hundreds of seeds.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Output};

use erofs_disk::{SuperBlock, SUPER_OFFSET};
use image_mutate::edit::Edit;
use image_mutate::mutate::{kinds, mutate};
use tempfile::TempDir;

fn run(program: &str, args: &[&str]) -> Output {
    let output = Command::new(program).args(args).output();
    let output = output.unwrap_or_else(|error| panic!("{program}: {error}"));
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {args:?}: {stderr}");
    output
}

/// Files, directories, links, and attributes: one that all have, and some that are not shared.
fn make_tree(root: &Path) {
    for dir in ["a", "a/b", "a/b/c", "d"] {
        fs::create_dir(root.join(dir)).unwrap();
        for n in 0..12usize {
            let path = root.join(dir).join(format!("file-{n}"));
            fs::write(&path, vec![b'a'; n * n * 300]).unwrap();
            let path = path.to_str().unwrap();
            run("setfattr", &["-n", "user.all", "-v", "the same", path]);
            run("setfattr", &["-n", "user.long.own", "-v", path, path]);
        }
    }
    symlink("a/file-1", root.join("link")).unwrap();
}

fn mkfs(scratch: &Path, name: &str, options: &[&str]) -> Vec<u8> {
    let image = scratch.join(name);
    let tree = scratch.join("tree");
    let mut args = vec!["--quiet", "-T0", "-Uclear"];
    args.extend(options);
    args.extend([image.to_str().unwrap(), tree.to_str().unwrap()]);
    run("mkfs.erofs", &args);
    fs::read(image).unwrap()
}

/// Images that have all structures between them.
fn images() -> Vec<Vec<u8>> {
    let scratch = TempDir::new().unwrap();
    let path = scratch.path();
    fs::create_dir(path.join("tree")).unwrap();
    make_tree(&path.join("tree"));
    fs::write(path.join("blob"), "").unwrap();
    let blob = format!("--blobdev={}", path.join("blob").display());
    vec![
        mkfs(
            path,
            "1",
            &["-x1", "--xattr-prefix=user.long.", "-Eforce-inode-compact"],
        ),
        mkfs(
            path,
            "2",
            &[
                "-Eforce-inode-extended,force-chunk-indexes",
                "--chunksize=4096",
                &blob,
            ],
        ),
        mkfs(
            path,
            "3",
            &[
                "-b1024",
                "-Eforce-inode-blockmap",
                "--chunksize=1024",
                "-x-1",
            ],
        ),
    ]
}

/// Calls for many mutants of many images: the image before and after, and what was changed.
fn for_all(seeds: u64, mut call: impl FnMut(&[u8], &[u8], &[Edit], u64)) {
    for image in images() {
        for seed in 0..seeds {
            let mut mutant = image.clone();
            let edits = mutate(&mut mutant, seed).unwrap();
            call(&image, &mutant, &edits, seed);
        }
    }
}

#[test]
fn a_mutant_differs_where_it_says_and_nowhere_else() {
    for_all(300, |image, mutant, edits, seed| {
        let mut again = image.to_vec();
        for edit in edits {
            assert!(edit.apply(&mut again), "seed {seed}: {edit}");
        }
        assert!(again == mutant, "seed {seed}: {edits:?}");
        assert!(image != mutant, "seed {seed}: {edits:?}");
    });
}

#[test]
fn a_seed_gives_the_same_mutant_always() {
    let images = images();
    for image in &images {
        let mut mutants = BTreeSet::new();
        for seed in 0..100 {
            let (mut one, mut two) = (image.clone(), image.clone());
            let edits = mutate(&mut one, seed).unwrap();
            assert_eq!(edits, mutate(&mut two, seed).unwrap());
            assert!(one == two, "seed {seed}");
            mutants.insert(one);
        }
        // And another seed mostly another one.
        assert!(mutants.len() > 95, "{}", mutants.len());
    }
}

#[test]
fn everything_is_damaged_and_with_values_at_the_limits() {
    let (mut reached, mut sizes) = (BTreeSet::new(), BTreeSet::new());
    for_all(1500, |_, _, edits, _| {
        for edit in edits {
            reached.insert(edit.what());
            let Edit::Bytes { what, new, .. } = edit else {
                continue;
            };
            if what.ends_with(".i_size") {
                let mut number = [0; 8];
                number[..new.len()].copy_from_slice(new);
                sizes.insert(u64::from_le_bytes(number));
            }
        }
    });
    assert_eq!(reached, kinds());
    for size in [0, 1, 0xffff_ffff, 1 << 31, 1 << 63, u64::MAX] {
        assert!(sizes.contains(&size), "{size:#x}: {sizes:x?}");
    }
}

#[test]
fn the_checksum_is_mostly_right() {
    let (mut right, mut wrong) = (0, 0);
    for_all(300, |_, mutant, edits, _| {
        if edits.iter().any(|edit| edit.what().starts_with("super.")) {
            return;
        }
        let bytes = mutant.get(SUPER_OFFSET as usize..).unwrap_or_default();
        match SuperBlock::parse(bytes).and_then(|sb| sb.verify_checksum(bytes)) {
            Ok(()) => right += 1,
            Err(_) => wrong += 1,
        }
    });
    assert!(
        wrong > 0 && right > 20 * wrong,
        "{right} right, {wrong} wrong"
    );
}

#[test]
fn the_program_tells_a_line_for_each() {
    let scratch = TempDir::new().unwrap();
    let image = images().swap_remove(0);
    let path = |name: &str| scratch.path().join(name).to_str().unwrap().to_owned();
    let (good, other, out) = (path("good"), path("other"), path("out"));
    fs::write(&good, &image).unwrap();
    fs::write(&other, &image).unwrap();
    let program = env!("CARGO_BIN_EXE_image-mutate");

    let output = run(program, &["--seed", "5", &good, &out]);
    let one = String::from_utf8(output.stdout).unwrap();
    let mut mutant = image.clone();
    let edits = mutate(&mut mutant, 5).unwrap();
    assert!(fs::read(&out).unwrap() == mutant);
    let edits: Vec<_> = edits.iter().map(ToString::to_string).collect();
    assert_eq!(one, format!("5\tgood\t{}\n", edits.join("; ")));

    let folder = path("folder");
    fs::create_dir(&folder).unwrap();
    let output = run(
        program,
        &["--seed", "4", "--count", "3", &other, &good, &folder],
    );
    let lines = String::from_utf8(output.stdout).unwrap();
    let lines: Vec<_> = lines.lines().collect();
    assert_eq!(lines.len(), 3);
    assert!(lines[0].starts_with("4\tother\t"), "{lines:?}");
    assert_eq!(lines[1], one.trim_end());
    assert!(fs::read(format!("{folder}/5")).unwrap() == mutant);
    assert_eq!(fs::read_dir(folder).unwrap().count(), 3);

    let bad = path("bad");
    fs::write(&bad, "no image").unwrap();
    let output = Command::new(program)
        .args(["--seed", "1", &bad, &out])
        .output()
        .unwrap();
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("bad"));
}
