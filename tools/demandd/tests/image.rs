// SPDX-License-Identifier: GPL-2.0
//! Looking into images that mkfs.erofs made, and naming their blobs.

mod stand_in;

use std::fs::{self, File};
use std::os::unix::fs::{symlink, FileExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use demandd::image::{inspect, stamp, Count, Report};
use stand_in::Site;

fn tool(name: &str, args: &[&str]) -> String {
    let output = Command::new(name)
        .args(args)
        .stderr(Stdio::inherit())
        .output()
        .unwrap_or_else(|error| panic!("cannot run {name}: {error}: install erofs-utils"));
    assert!(output.status.success(), "{name} {args:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// A tree with 300 small files and one large one, two directories, a symbolic and a hard link, and a FIFO.
fn tree(site: &Site) -> PathBuf {
    let tree = site.path("tree");
    fs::create_dir_all(tree.join("many")).unwrap();
    for index in 0..300 {
        fs::write(
            tree.join(format!("many/file-with-a-name-{index:03}")),
            [1; 100],
        )
        .unwrap();
    }
    fs::write(tree.join("large"), [2; 100_000]).unwrap();
    fs::hard_link(tree.join("large"), tree.join("link")).unwrap();
    symlink("many/file-with-a-name-000", tree.join("symlink")).unwrap();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        tree.join("fifo"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RUSR,
        0,
    )
    .unwrap();
    tree
}

fn mkfs(site: &Site, options: &[&str]) -> PathBuf {
    let image = site.path("image");
    let tree = tree(site);
    let mut args = vec!["--quiet", "-U", "01234567-89ab-cdef-0123-456789abcdef"];
    args.extend(options);
    args.extend([image.to_str().unwrap(), tree.to_str().unwrap()]);
    tool("mkfs.erofs", &args);
    image
}

fn mkfs_with_blob(site: &Site) -> PathBuf {
    // mkfs.erofs opens the blob like a block device, and does not make the file.
    File::create(site.path("blob")).unwrap();
    let blob = format!("--blobdev={}", site.path("blob").display());
    mkfs(site, &["--chunksize=4096", &blob])
}

fn count(report: &Report, kind: &'static str, layout: &'static str) -> Count {
    report
        .counts
        .get(&(kind, layout))
        .copied()
        .unwrap_or_default()
}

fn device_tags(image: &Path) -> Vec<String> {
    let tag = |slot: &erofs_disk::DeviceSlot| String::from_utf8(slot.tag().to_vec()).unwrap();
    inspect(image).unwrap().devices.iter().map(tag).collect()
}

#[test]
fn inspect_counts_what_is_in_the_tree() {
    let site = Site::new();
    let report = inspect(&mkfs(&site, &[])).unwrap();
    let files = |kind| -> u64 {
        let layouts = ["plain", "inline", "hole", "chunk"];
        layouts
            .iter()
            .map(|layout| count(&report, kind, layout).inodes)
            .sum()
    };
    assert_eq!(files("file"), 301, "a hard link is the same file");
    assert_eq!(files("directory"), 2);
    assert_eq!(files("symlink"), 1);
    assert_eq!(count(&report, "special", "-").inodes, 1);
    let small = count(&report, "file", "inline");
    assert!(small.inodes >= 300 && small.bytes >= 30_000, "{small:?}");
    assert_eq!(report.checksum, "good");
    let text = report.to_string();
    assert!(
        text.contains("01234567-89ab-cdef-0123-456789abcdef"),
        "{text}"
    );
    assert!(text.contains("sb_chksum"), "{text}");
}

#[test]
fn inspect_sees_chunks_and_their_device() {
    let site = Site::new();
    let report = inspect(&mkfs_with_blob(&site)).unwrap();
    let chunks = count(&report, "file", "chunk");
    assert_eq!((chunks.inodes, chunks.bytes), (301, 130_000));
    let [slot] = &report.devices[..] else {
        panic!("{} devices", report.devices.len())
    };
    let blob = fs::metadata(site.path("blob")).unwrap().len();
    assert_eq!(slot.blocks() * 4096, blob);
    assert!(report.to_string().contains("chunked_file device_table"));
}

#[test]
fn a_stamped_image_has_the_name_and_is_sound() {
    let site = Site::new();
    let image = mkfs_with_blob(&site);
    let before = fs::read(&image).unwrap();
    let said = stamp(&image, &["sha256:blob".to_owned()]).unwrap();
    assert!(said.ends_with("-> sha256:blob\n"), "{said}");
    assert_eq!(device_tags(&image), ["sha256:blob"]);
    assert_eq!(inspect(&image).unwrap().checksum, "good");
    // Another implementation agrees.
    let blob = format!("--device={}", site.path("blob").display());
    tool("fsck.erofs", &[&blob, image.to_str().unwrap()]);
    // Only the tag and the checksum changed.
    let after = fs::read(&image).unwrap();
    assert_eq!(before.len(), after.len());
    let changed = before.iter().zip(&after).filter(|(a, b)| a != b).count();
    assert!(changed <= 64 + 4, "{changed} bytes");
    // And again: it tells what was there, and leaves nothing of a longer name.
    assert_eq!(
        stamp(&image, &["b".to_owned()]).unwrap(),
        "1\tsha256:blob -> b\n"
    );
    assert_eq!(device_tags(&image), ["b"]);
}

#[test]
fn a_name_fills_the_whole_field_and_no_more() {
    let site = Site::new();
    let image = mkfs_with_blob(&site);
    let before = fs::read(&image).unwrap();
    let name = "n".repeat(64);
    for bad in [
        &[name.clone() + "n"][..],
        &["a\0b".into()],
        &["".into()],
        &[],
        &["a".into(), "b".into()],
    ] {
        assert!(stamp(&image, bad).is_err(), "{bad:?}");
        assert_eq!(fs::read(&image).unwrap(), before, "nothing changed");
    }
    stamp(&image, &[name.clone()]).unwrap();
    assert_eq!(device_tags(&image), [name]);
    assert_eq!(
        inspect(&image).unwrap().devices[0].blocks() * 4096,
        fs::metadata(site.path("blob")).unwrap().len()
    );
}

#[test]
fn a_damaged_image_is_not_stamped() {
    let site = Site::new();
    let image = mkfs_with_blob(&site);
    let file = File::options().write(true).open(&image).unwrap();
    // In the UUID.
    file.write_all_at(&[0xff], 1024 + 48).unwrap();
    assert_eq!(inspect(&image).unwrap().checksum, "wrong");
    let error = stamp(&image, &["b".to_owned()]).unwrap_err();
    assert!(format!("{error:#}").contains("checksum"), "{error:#}");
}

#[test]
fn what_is_no_image_is_refused() {
    let site = Site::new();
    let path = site.path("file");
    for bytes in [vec![], vec![0; 1024], vec![0; 1100], vec![0; 10_000]] {
        fs::write(&path, &bytes).unwrap();
        assert!(inspect(&path).is_err());
    }
    assert!(inspect(&site.source_dir()).is_err());
    let error = inspect(&site.path("absent")).unwrap_err();
    assert!(format!("{error:#}").contains("No such file"), "{error:#}");
}

#[test]
fn a_crafted_loop_ends() {
    let site = Site::new();
    let image = mkfs(&site, &[]);
    let mut bytes = fs::read(&image).unwrap();
    let root = inspect(&image).unwrap().super_block.root_nid();
    // Every directory entry that looks like one of "many" leads back to the root.
    let many = nid_of(&bytes, b"many");
    for at in 0..bytes.len() - 8 {
        if bytes[at..at + 8] == many.to_le_bytes() {
            bytes[at..at + 8].copy_from_slice(&root.to_le_bytes());
        }
    }
    fs::write(&image, &bytes).unwrap();
    let report = inspect(&image).unwrap();
    assert_eq!(
        count(&report, "file", "inline").inodes + count(&report, "file", "plain").inodes,
        1
    );
}

/// The nid that the root's entry of this name leads to.
fn nid_of(bytes: &[u8], name: &[u8]) -> u64 {
    let sb = erofs_disk::SuperBlock::parse(&bytes[1024..]).unwrap();
    let offset = sb.inode_offset(sb.root_nid()).unwrap() as usize;
    let root = erofs_disk::Inode::parse(&sb, sb.root_nid(), &bytes[offset..]).unwrap();
    let start = match root.layout {
        erofs_disk::Layout::Inline { tail, .. } => tail,
        erofs_disk::Layout::Plain { start } => start,
        other => panic!("{other:?}"),
    };
    let block = &bytes[start as usize..(start + root.size) as usize];
    let block = erofs_disk::DirBlock::new(block).unwrap();
    block.find(name).unwrap().unwrap().nid
}

#[test]
fn crafted_images_end_with_a_report_or_an_error() {
    let site = Site::new();
    let image = mkfs_with_blob(&site);
    let good = fs::read(&image).unwrap();
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = move |below: usize| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random as usize % below
    };
    let (mut refused, mut reported) = (0, 0);
    for _ in 0..500 {
        let mut bytes = good.clone();
        for _ in 0..1 + next(16) {
            // Half of the changes hit the super block and the device table.
            let at = if next(2) == 0 {
                1024 + next(256)
            } else {
                next(good.len())
            };
            bytes[at] = [0, 0xff, 0x80, next(256) as u8][next(4)];
        }
        bytes.truncate(good.len() - if next(4) == 0 { next(good.len()) } else { 0 });
        fs::write(&image, &bytes).unwrap();
        match inspect(&image) {
            Ok(report) => {
                reported += 1;
                let _ = report.to_string();
            }
            Err(_) => refused += 1,
        }
        let _ = stamp(&image, &["b".to_owned()]);
    }
    assert!(
        refused > 50 && reported > 50,
        "{refused} refused, {reported} reported"
    );
}

/// An image whose root directory, with nothing in it, is in the metabox.
fn image_with_metabox() -> Vec<u8> {
    const IN_METABOX: u64 = 1 << 63;
    let mut bytes = vec![0; 3 * 4096];
    let mut put = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
    // The super block: blocks of 4096 bytes, one extension, 48 bits, a metabox.
    let start = 1024;
    put(start, &0xe0f5_e1e2u32.to_le_bytes());
    put(start + 12, &[12, 1]);
    put(start + 36, &3u32.to_le_bytes());
    put(start + 40, &1u32.to_le_bytes());
    put(start + 80, &0x180u32.to_le_bytes());
    put(start + 112, &(IN_METABOX | 2).to_le_bytes());
    put(start + 128, &5u64.to_le_bytes());
    // The metabox: an extended inode, number 5 of block 1, with block 2.
    let inode = 4096 + 5 * 32;
    put(inode, &[1]);
    put(inode + 4, &0o100600u16.to_le_bytes());
    put(inode + 8, &4096u64.to_le_bytes());
    put(inode + 16, &2u32.to_le_bytes());
    put(inode + 44, &[1]);
    // The root: a compact inode, number 2 of the metabox, with "." and ".." behind it.
    let inode = 2 * 4096 + 2 * 32;
    put(inode, &[4]);
    put(inode + 4, &0o40755u16.to_le_bytes());
    put(inode + 6, &2u16.to_le_bytes());
    put(inode + 8, &27u32.to_le_bytes());
    for (index, name) in [24, 25].into_iter().enumerate() {
        let entry = inode + 32 + 12 * index;
        put(entry, &(IN_METABOX | 2).to_le_bytes());
        put(entry + 8, &[name, 0, 2]);
    }
    put(inode + 32 + 24, b"...");
    bytes
}

#[test]
fn inodes_in_a_metabox_are_found() {
    let site = Site::new();
    let path = site.path("image");
    let mut bytes = image_with_metabox();
    fs::write(&path, &bytes).unwrap();
    let report = inspect(&path).unwrap();
    let one = Count {
        inodes: 1,
        bytes: 27,
    };
    assert_eq!(report.counts, [(("directory", "inline"), one)].into());
    assert!(report.to_string().contains("48bit metabox\n"));

    // One that ends before the root is damaged, and so is one that is in itself.
    bytes[4096 + 5 * 32 + 9] = 0;
    bytes[4096 + 5 * 32 + 8] = 80;
    fs::write(&path, &bytes).unwrap();
    assert!(inspect(&path).is_err());
    bytes[1024 + 128 + 7] = 0x80;
    fs::write(&path, &bytes).unwrap();
    assert!(inspect(&path).is_err());
}
