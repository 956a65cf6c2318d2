// SPDX-License-Identifier: GPL-2.0

//! Real images, made by mkfs.erofs and walked with the crate alone, hold what their source folder
//! holds.
//!
//! `EROFS_TREE=/some/folder cargo test -p erofs_disk -- --ignored` does the same with a folder of
//! your choice.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{symlink, FileExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use erofs_disk::{
    device_number, resolve, Address, BlockSearch, DeviceSlot, DirBlock, Inode, Layout, Result,
    Step, SuperBlock, DEVICE_SLOT_SIZE, EXTENDED_INODE_SIZE, SUPER_OFFSET,
};

/// A folder that goes away with the test.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("erofs_disk-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).expect("a scratch folder can be made");
        Scratch(path)
    }

    fn join(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What is left over is in the temporary folder, and no failure of the test.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Bytes that differ from block to block.
fn content(len: usize, seed: u32) -> Vec<u8> {
    let mut state = seed | 1;
    (0..len)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            state.to_le_bytes()[0]
        })
        .collect()
}

/// Files of all sizes around a block, holes, links, and directories of one, a few and many blocks.
fn make_source(root: &Path) {
    let write = |name: &str, bytes: &[u8]| fs::write(root.join(name), bytes).expect("a file");
    fs::create_dir_all(root.join("many")).expect("a folder");
    fs::create_dir_all(root.join("empty/deep")).expect("a folder");
    for size in [
        0, 1, 100, 4000, 4095, 4096, 4097, 8191, 8192, 12_345, 65_536, 300_000,
    ] {
        write(&format!("file-{size}"), &content(size, size as u32));
    }
    write("twin", &content(65_536, 65_536));
    // Data, a hole of several chunks, data.
    let mut sparse = content(200_000, 3);
    sparse[20_000..180_000].fill(0);
    write("sparse", &sparse);
    write("zeros", &[0; 50_000]);
    for n in 0..1500 {
        write(
            &format!("many/entry-{n:05}-{}", "x".repeat(n % 40)),
            &content(n % 7, n as u32),
        );
    }
    write(&format!("empty/{}", "n".repeat(255)), b"a long name");
    symlink("file-4096", root.join("link")).expect("a link");
    symlink("t".repeat(4000), root.join("long-link")).expect("a link");
    fs::hard_link(root.join("file-4097"), root.join("hard")).expect("a link");
    let set_mode = |name: &str, mode| {
        fs::set_permissions(root.join(name), fs::Permissions::from_mode(mode)).expect("a mode")
    };
    set_mode("file-1", 0o4755);
    set_mode("file-100", 0o000);
    set_mode("empty", 0o1777);
    let made = Command::new("mkfifo")
        .arg(root.join("fifo"))
        .status()
        .expect("mkfifo runs");
    assert!(made.success(), "mkfifo failed");
}

/// The devices of an image, opened.
struct Image {
    super_block: SuperBlock,
    slots: Vec<DeviceSlot>,
    devices: Vec<fs::File>,
}

/// Reads as much of the range as the device has.
fn read(device: &fs::File, start: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    let mut filled = 0;
    while filled < len {
        match device
            .read_at(&mut bytes[filled..], start + filled as u64)
            .expect("the device can be read")
        {
            0 => break,
            n => filled += n,
        }
    }
    bytes.truncate(filled);
    bytes
}

impl Image {
    fn open(image: &Path, blob: Option<&Path>) -> Self {
        let devices: Vec<_> = [Some(image), blob]
            .into_iter()
            .flatten()
            .map(|path| fs::File::open(path).expect("an image"))
            .collect();
        let bytes = read(&devices[0], SUPER_OFFSET, 3072);
        let super_block = SuperBlock::parse(&bytes).expect("a right super block");
        super_block
            .verify_checksum(&bytes)
            .expect("a right checksum");
        let slots = (0..super_block.device_count())
            .map(|index| {
                let offset = super_block.device_slot_offset(index).expect("a slot");
                let bytes = read(&devices[0], offset, DEVICE_SLOT_SIZE);
                DeviceSlot::parse(&super_block, &bytes).expect("a slot")
            })
            .collect();
        Image {
            super_block,
            slots,
            devices,
        }
    }

    fn inode(&self, nid: u64) -> Result<Inode> {
        let offset = self.super_block.inode_offset(nid)?;
        let bytes = read(&self.devices[0], offset, EXTENDED_INODE_SIZE);
        Inode::parse(&self.super_block, nid, &bytes)
    }

    /// Reads up to `len` bytes at an address.
    fn blob_bytes(&self, address: Address, len: u64) -> Result<Vec<u8>> {
        let (mut address, mut left, mut bytes) = (address, len, Vec::new());
        while left > 0 {
            let place = resolve(&self.super_block, &self.slots, address)?;
            let len = left.min(place.len);
            let got = read(
                &self.devices[usize::from(place.device)],
                place.start,
                len as usize,
            );
            assert_eq!(got.len() as u64, len, "beyond the end of a device");
            bytes.extend(got);
            address.start += len;
            left -= len;
        }
        Ok(bytes)
    }

    fn data(&self, inode: &Inode) -> Result<Vec<u8>> {
        let mut data = Vec::new();
        match inode.layout {
            Layout::Hole => data.resize(inode.size as usize, 0),
            Layout::Plain { start } => {
                data = self.blob_bytes(Address { device: 0, start }, inode.size)?;
            }
            Layout::Inline { start, tail } => {
                data = self.blob_bytes(Address { device: 0, start }, inode.tail_pos())?;
                let len = inode.size - inode.tail_pos();
                data.extend(read(&self.devices[0], tail, len as usize));
            }
            Layout::Chunk(map) => {
                while (data.len() as u64) < inode.size {
                    let entry = map.entry(data.len() as u64)?;
                    assert_eq!(entry.pos, data.len() as u64);
                    let len = entry.size.min(inode.size - entry.pos);
                    let bytes = read(&self.devices[0], entry.offset, entry.len);
                    match map.decode(&bytes)? {
                        Some(address) => data.extend(self.blob_bytes(address, len)?),
                        None => data.resize((entry.pos + len) as usize, 0),
                    }
                }
            }
        }
        Ok(data)
    }

    /// All names of a directory but `.` and `..`, each of which must also be found by a search.
    fn list(&self, dir: &Inode) -> Result<BTreeMap<Vec<u8>, u64>> {
        let data = self.data(dir)?;
        let blocks: Vec<_> = data
            .chunks(self.super_block.block_size() as usize)
            .collect();
        let find = |name: &[u8]| -> Result<Option<u64>> {
            let mut search = BlockSearch::new(blocks.len() as u64);
            while let Some(index) = search.next_block() {
                let block = DirBlock::new(blocks[index as usize])?;
                if let Step::Found(entry) = search.step(&block, name)? {
                    return Ok(Some(entry.nid));
                }
            }
            Ok(None)
        };
        let mut names = BTreeMap::new();
        for block in &blocks {
            for entry in DirBlock::new(block)?.entries() {
                let entry = entry?;
                assert_eq!(find(entry.name)?, Some(entry.nid));
                names.insert(entry.name.to_vec(), entry.nid);
            }
        }
        assert_eq!(find(b"no such name")?, None);
        assert_eq!(names.remove(&b"."[..]), Some(dir.nid));
        assert!(names.remove(&b".."[..]).is_some());
        Ok(names)
    }
}

/// How often each layout was met, so that a test can tell that it tested what it promises.
#[derive(Debug, Default)]
struct Met {
    hole: usize,
    plain: usize,
    inline: usize,
    chunk: usize,
    chunk_hole: usize,
    devices: usize,
}

/// Compares a directory of the image, and all below it, with the source folder.
fn compare(image: &Image, nid: u64, source: &Path, met: &mut Met) -> Result<()> {
    use std::os::unix::ffi::OsStringExt as _;

    let inode = image.inode(nid)?;
    let stat = fs::symlink_metadata(source).expect("the source is there");
    let name = source.display();
    assert_eq!(inode.mode, stat.mode(), "mode of {name}");
    assert_eq!(
        (inode.uid, inode.gid),
        (stat.uid(), stat.gid()),
        "owner of {name}"
    );
    assert_eq!(inode.mtime, stat.mtime(), "time of {name}");
    assert_eq!(
        i64::from(inode.mtime_nsec),
        stat.mtime_nsec(),
        "time of {name}"
    );
    if stat.is_dir() {
        let expected: Vec<_> = {
            let entries = fs::read_dir(source).expect("the source is there");
            let mut names: Vec<_> = entries
                .map(|entry| entry.expect("an entry").file_name().into_vec())
                .collect();
            names.sort();
            names
        };
        let names = image.list(&inode)?;
        assert_eq!(
            names.keys().cloned().collect::<Vec<_>>(),
            expected,
            "names in {name}"
        );
        for (name, nid) in names {
            let child = source.join(std::ffi::OsString::from_vec(name));
            compare(image, nid, &child, met)?;
        }
        return Ok(());
    }
    assert_eq!(u64::from(inode.nlink), stat.nlink(), "links of {name}");
    if stat.is_file() {
        assert_eq!(inode.size, stat.size(), "size of {name}");
        let expected = fs::read(source).expect("the source is there");
        assert!(image.data(&inode)? == expected, "content of {name}");
        match inode.layout {
            Layout::Hole => met.hole += 1,
            Layout::Plain { .. } => met.plain += 1,
            Layout::Inline { .. } => met.inline += 1,
            Layout::Chunk(map) => {
                met.chunk += 1;
                let mut pos = 0;
                while pos < inode.size {
                    let entry = map.entry(pos)?;
                    match map.decode(&read(&image.devices[0], entry.offset, entry.len))? {
                        Some(address) if address.device > 0 => met.devices += 1,
                        Some(_) => (),
                        None => met.chunk_hole += 1,
                    }
                    pos = entry.pos + entry.size;
                }
            }
        }
    } else if stat.is_symlink() {
        let target = fs::read_link(source).expect("the source is there");
        assert_eq!(
            image.data(&inode)?,
            target.into_os_string().into_vec(),
            "target of {name}"
        );
    } else {
        let (major, minor) = device_number(inode.rdev);
        let expected = (
            (stat.rdev() >> 8) & 0xfff,
            (stat.rdev() & 0xff) | ((stat.rdev() >> 12) & 0xfff00),
        );
        assert_eq!(
            (u64::from(major), u64::from(minor)),
            expected,
            "device of {name}"
        );
    }
    Ok(())
}

/// Makes an image of the source with these options.
fn mkfs(image: &Path, source: &Path, options: &[&str]) {
    let output = Command::new("mkfs.erofs")
        .args(["--quiet", "--preserve-mtime"])
        .args(options)
        .args([image, source])
        .output()
        .expect("this test needs mkfs.erofs (package erofs-utils)");
    assert!(
        output.status.success(),
        "mkfs.erofs failed: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// Makes an image of `source` and compares the two.
fn check(scratch: &Scratch, source: &Path, options: &[&str], blob: bool) -> Met {
    let (path, blob_path) = (scratch.join("image"), scratch.join("blob"));
    let blob_option = format!("--blobdev={}", blob_path.display());
    let mut options = options.to_vec();
    if blob {
        // mkfs.erofs opens the blob, and does not make it.
        fs::File::create(&blob_path).expect("a blob");
        options.push(&blob_option);
    }
    mkfs(&path, source, &options);

    let image = Image::open(&path, blob.then_some(&blob_path));
    let mut met = Met::default();
    compare(&image, image.super_block.root_nid(), source, &mut met).expect("a right image");
    met
}

fn check_made(name: &str, options: &[&str], blob: bool) -> Met {
    let scratch = Scratch::new(name);
    let source = scratch.join("source");
    make_source(&source);
    check(&scratch, &source, options, blob)
}

#[test]
fn default_images_have_plain_files_and_inline_tails() {
    let met = check_made("default", &[], false);
    assert!(met.plain > 0 && met.inline > 0 && met.chunk == 0, "{met:?}");
}

#[test]
fn images_without_inline_tails() {
    let met = check_made("noinline", &["-Enoinline_data"], false);
    assert!(met.plain > 0 && met.inline == 0, "{met:?}");
}

#[test]
fn images_with_small_blocks() {
    for size in ["512", "1024", "2048"] {
        let met = check_made(&format!("b{size}"), &[&format!("-b{size}")], false);
        assert!(met.plain > 0 && met.inline > 0, "{met:?}");
    }
}

#[test]
fn images_with_extended_inodes() {
    check_made("extended", &["-Eforce-inode-extended"], false);
}

#[test]
fn images_with_a_block_map() {
    let met = check_made(
        "map",
        &["-Eforce-inode-blockmap", "--chunksize=4096"],
        false,
    );
    assert!(met.chunk > 0, "{met:?}");
}

#[test]
fn images_with_chunk_indexes() {
    for size in ["4096", "16384", "1048576"] {
        let chunks = format!("--chunksize={size}");
        let met = check_made("index", &["-Eforce-chunk-indexes", &chunks], false);
        assert!(met.chunk > 0 && met.devices == 0, "{met:?}");
    }
}

#[test]
fn images_with_a_blob() {
    let met = check_made("blob", &["--chunksize=16384"], true);
    assert!(met.chunk > 0 && met.devices > 0, "{met:?}");
    assert!(met.chunk_hole > 0, "{met:?}");
}

#[test]
fn compressed_images_are_refused_by_name() {
    let scratch = Scratch::new("compressed");
    let (source, path) = (scratch.join("source"), scratch.join("image"));
    fs::create_dir(&source).expect("a folder");
    fs::write(source.join("file"), vec![b'a'; 100_000]).expect("a file");

    // One with an old feature bit only: the image is taken, the file is not.
    mkfs(&path, &source, &["-zlz4", "-Elegacy-compress"]);
    let image = Image::open(&path, None);
    let root = image.inode(image.super_block.root_nid()).expect("right");
    let nid = image.list(&root).expect("right")[&b"file"[..]];
    let error = image.inode(nid).unwrap_err().to_string();
    assert!(error.contains("compressed file"), "{error}");

    mkfs(&path, &source, &["-zdeflate"]);
    let bytes = read(&fs::File::open(&path).expect("an image"), SUPER_OFFSET, 128);
    let error = SuperBlock::parse(&bytes).unwrap_err().to_string();
    assert!(error.contains("compression configurations"), "{error}");
}

/// Damages an image in thousands of places: every answer is right or an error.
#[test]
fn damaged_images_never_panic() {
    let scratch = Scratch::new("damaged");
    let (source, path) = (scratch.join("source"), scratch.join("image"));
    fs::create_dir(&source).expect("a folder");
    for n in 0..30 {
        fs::write(source.join(format!("f{n}")), content(n * 997, n as u32)).expect("a file");
    }
    mkfs(
        &path,
        &source,
        &["-Eforce-chunk-indexes", "--chunksize=4096"],
    );
    let image = fs::read(&path).expect("an image");

    let walk = |image: &[u8]| -> Result<usize> {
        let at = |offset: u64| -> &[u8] {
            usize::try_from(offset)
                .ok()
                .and_then(|offset| image.get(offset..))
                .unwrap_or_default()
        };
        let sb = SuperBlock::parse(at(SUPER_OFFSET))?;
        let _ = sb.verify_checksum(at(SUPER_OFFSET));
        let root = Inode::parse(&sb, sb.root_nid(), at(sb.inode_offset(sb.root_nid())?))?;
        let dir = match root.layout {
            Layout::Plain { start } => at(start),
            Layout::Inline { tail, .. } => at(tail),
            _ => &[],
        };
        let len = usize::try_from(root.size).unwrap_or(usize::MAX);
        let dir = &dir[..dir.len().min(len).min(sb.block_size() as usize)];
        let mut files = 0;
        for entry in DirBlock::new(dir)?.entries().flatten() {
            let Ok(offset) = sb.inode_offset(entry.nid) else {
                continue;
            };
            let Ok(inode) = Inode::parse(&sb, entry.nid, at(offset)) else {
                continue;
            };
            files += 1;
            if let Layout::Chunk(map) = inode.layout {
                for pos in (0..inode.size).step_by(4096).take(100) {
                    let entry = map.entry(pos)?;
                    if let Some(address) = map.decode(at(entry.offset))? {
                        let _ = resolve(&sb, &[], address);
                    }
                }
            }
        }
        Ok(files)
    };
    assert_eq!(walk(&image), Ok(32));
    // The super block, the inodes, the chunk maps and the root directory are in the first blocks.
    let (mut state, mut survived) = (1u32, 0);
    for _ in 0..20_000 {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let offset = 1024 + (state >> 8) as usize % (image.len().min(12_288) - 1024);
        let mut damaged = image.clone();
        damaged[offset] = state.to_le_bytes()[0];
        survived += usize::from(walk(&damaged).is_ok());
    }
    assert!(survived > 0);
}

#[test]
#[ignore = "needs a folder of your choice in EROFS_TREE"]
fn your_own_tree() {
    let source = PathBuf::from(std::env::var_os("EROFS_TREE").expect("EROFS_TREE is set"));
    let scratch = Scratch::new("tree");
    for (options, blob) in [
        (&[][..], false),
        (&["-Eforce-chunk-indexes", "--chunksize=65536"][..], false),
        (&["--chunksize=1048576"][..], true),
    ] {
        let met = check(&scratch, &source, options, blob);
        println!("{options:?}: {met:?}");
    }
}
