// SPDX-License-Identifier: GPL-2.0

//! Real images, made by mkfs.erofs and walked with the crate alone, hold what their source folder
//! holds.
//!
//! `EROFS_TREE=/some/folder cargo test -p erofs_disk -- --ignored` does the same with a folder of
//! your choice.

#![cfg(not(miri))] // it cannot run mkfs.erofs

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{symlink, FileExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use erofs_disk::{
    device_number, resolve, Area, BlockSearch, DeviceSlot, DirBlock, ExtentData, FirstName, Inode,
    Layout, LongPrefix, LongPrefixes, Namespace, ReadError, Result, SuperBlock, Xattrs,
    DEVICE_SLOT_SIZE, EXTENDED_INODE_SIZE, SUPER_OFFSET,
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

    /// Reads as much of a range of an area as it has.
    fn read_area(&self, area: Area, offset: u64, len: usize) -> Vec<u8> {
        let nid = match area {
            Area::Primary => return read(&self.devices[0], offset, len),
            Area::Metabox => self.super_block.metabox_nid(),
            Area::Packed => self.super_block.packed_nid(),
        };
        let inode = self.inode(nid.expect("there is one")).expect("right");
        let data = self.data(&inode).expect("right");
        let start = data.len().min(offset as usize);
        data[start..data.len().min(start + len)].to_vec()
    }

    fn inode(&self, nid: u64) -> Result<Inode> {
        let offset = self.super_block.inode_offset(nid)?;
        let area = self.super_block.inode_area(nid);
        let bytes = self.read_area(area, offset, EXTENDED_INODE_SIZE);
        Inode::parse(&self.super_block, nid, &bytes)
    }

    /// The function that the crate reads attributes with.
    fn reader(&self) -> impl Fn(Area, u64, &mut [u8]) -> std::result::Result<(), String> + '_ {
        |area, offset, buffer| {
            let bytes = self.read_area(area, offset, buffer.len());
            if bytes.len() < buffer.len() {
                return Err(format!("{} bytes at {offset} of {area:?}", buffer.len()));
            }
            buffer.copy_from_slice(&bytes);
            Ok(())
        }
    }

    fn prefixes(&self) -> Vec<LongPrefix> {
        let (mut prefixes, mut left) = (Vec::new(), LongPrefixes::new(&self.super_block));
        while let Some(prefix) = left.next(self.reader()).expect("right") {
            prefixes.push(prefix);
        }
        prefixes
    }

    /// All attributes of an inode by their whole name. Each is also found by it, and others are
    /// not.
    fn xattrs(&self, inode: &Inode, met: &mut MetXattrs) -> Attributes {
        let read = self.reader();
        let prefixes = self.prefixes();
        let mut found = Attributes::new();
        let Some(xattrs) = Xattrs::open(&self.super_block, &prefixes, inode, &read).expect("right")
        else {
            return found;
        };
        let mut entries = xattrs.entries();
        while let Some(entry) = entries.next(&read).expect("right") {
            let mut name = vec![0; entry.list_len()];
            assert_eq!(entry.list(&mut name, &read), Ok(Some(name.len())));
            assert_eq!(name.pop(), Some(0));
            let value = self.read_area(entry.value.area, entry.value.offset, entry.value.len);
            assert_eq!(value.len(), entry.value.len);

            let own = entry.value.area == inode.area && inode.xattrs.contains(&entry.value.offset);
            *if own { &mut met.own } else { &mut met.shared } += 1;
            met.long_prefix += usize::from(!entry.infix.is_empty());
            let rest = &name[entry.namespace.prefix().len()..];
            let same = xattrs.find(entry.namespace, rest, &read).expect("right");
            assert_eq!(same, Some(entry.value));
            assert_eq!(found.insert(name, value), None, "listed twice");
        }
        for n in 0..200 {
            let name = format!("absent-{n}");
            met.filtered += usize::from(!xattrs.may_have(Namespace::User, name.as_bytes()));
            let none = xattrs.find(Namespace::User, name.as_bytes(), &read);
            assert_eq!(none, Ok(None));
        }
        found
    }

    fn data(&self, inode: &Inode) -> Result<Vec<u8>> {
        let mut data = Vec::new();
        while (data.len() as u64) < inode.size {
            let pos = data.len() as u64;
            let places = |address| resolve(&self.super_block, &self.slots, address);
            let extent = match inode.extent(&self.super_block, pos, places, self.reader()) {
                Ok(extent) => extent,
                Err(ReadError::Image(error)) => return Err(error),
                Err(ReadError::Read(what)) => panic!("cannot be read: {what}"),
            };
            assert_eq!(extent.pos, pos);
            let len = extent.len.min(inode.size - pos) as usize;
            match extent.data {
                ExtentData::Hole => data.resize(data.len() + len, 0),
                ExtentData::Inline { start } => {
                    data.extend(self.read_area(inode.area, start, len));
                }
                ExtentData::Blocks { device, start } => {
                    data.extend(read(&self.devices[usize::from(device)], start, len));
                }
            }
            assert_eq!(data.len() as u64, pos + len as u64, "beyond the end");
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
                let block = blocks[index as usize];
                let first = FirstName::locate(block, block.len())?;
                search.step(first.check(&block[first.place()])?, name);
            }
            let Some(index) = search.result() else {
                return Ok(None);
            };
            let found = DirBlock::new(blocks[index as usize])?.find(name)?;
            Ok(found.map(|entry| entry.nid))
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
        let dot = (!dir.dot_omitted).then_some(dir.nid);
        assert_eq!(names.remove(&b"."[..]), dot);
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
                    let bytes = image.read_area(inode.area, entry.offset, entry.len);
                    match map.decode(&bytes)? {
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

/// Attributes of a file: values by whole names.
type Attributes = BTreeMap<Vec<u8>, Vec<u8>>;

/// How often each kind of attribute was met.
#[derive(Debug, Default)]
struct MetXattrs {
    own: usize,
    shared: usize,
    long_prefix: usize,
    /// Names that a filter told to be absent.
    filtered: usize,
}

/// An ACL as user space hands it to the kernel: version 2, and entries of tag, permissions and id.
/// The file's mode goes with it.
fn acl(entries: &[(u16, u16, u32)]) -> Vec<u8> {
    let mut bytes = 2u32.to_le_bytes().to_vec();
    for (tag, permissions, id) in entries {
        bytes.extend(tag.to_le_bytes());
        bytes.extend(permissions.to_le_bytes());
        bytes.extend(id.to_le_bytes());
    }
    bytes
}

/// Makes files with attributes, and tells what they have.
///
/// Attributes that are not `user.` take root, as it is in the build root.
fn make_attributes(root: &Path) -> BTreeMap<String, Attributes> {
    let mut made = BTreeMap::<String, Attributes>::new();
    let mut set = |file: &str, name: &str, value: &[u8]| {
        let hex: Vec<_> = value.iter().map(|byte| format!("{byte:02x}")).collect();
        let output = Command::new("setfattr")
            .args(["--no-dereference", "--name", name, "--value"])
            .arg(format!("0x{}", hex.concat()))
            .arg(root.join(file))
            .output()
            .expect("this test needs setfattr (package attr)");
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{name} of {file}: {error}");
        let values = made.entry(file.to_owned()).or_default();
        values.insert(name.as_bytes().to_vec(), value.to_vec());
    };
    let anyone = u32::MAX;
    let list = [
        (1, 6, anyone),
        (2, 4, 1000),
        (4, 4, anyone),
        (16, 4, anyone),
        (32, 4, anyone),
    ];

    fs::create_dir_all(root.join("dir/empty")).expect("a folder");
    for n in 0..40 {
        let file = format!("dir/file-{n:02}");
        fs::write(root.join(&file), content(n * 300, n as u32)).expect("a file");
        // The same for all, for some, and for one.
        set(&file, "security.label", b"system_u:object_r:app_t");
        set(&file, "user.group", format!("group {}", n / 4).as_bytes());
        set(&file, "trusted.overlay.id", &content(n, n as u32));
        set(&file, "user.long.prefix.number", n.to_string().as_bytes());
        if n % 10 == 0 {
            set(&file, "system.posix_acl_access", &acl(&list));
            set(&file, "user.long.prefix.", b"nothing but a prefix");
            set(&file, "user.long.prefi", b"not quite the prefix");
        }
    }
    fs::write(root.join("plain"), b"without any").expect("a file");
    fs::write(root.join("large"), b"").expect("a file");
    set("large", "user.large", &content(20_000, 1));
    set("large", "user.larger", &content(9000, 2));
    set("large", "user.empty", b"");
    set(
        "large",
        &format!("user.{}", "n".repeat(250)),
        b"a long name",
    );
    set(
        "large",
        &format!("trusted.{}", "n".repeat(247)),
        &content(5000, 3),
    );
    fs::write(root.join("lots"), content(5000, 5)).expect("a file");
    for n in 0..150 {
        set("lots", &format!("user.many.{n}"), &content(n, n as u32));
    }
    symlink("plain", root.join("marked-link")).expect("a link");
    set("marked-link", "trusted.overlay.id", b"of a link");
    set("dir", "user.dir", b"of a folder");
    set("dir/empty", "system.posix_acl_default", &acl(&list));
    made
}

/// Compares the attributes of all files with what was made.
fn check_attributes(image: &Image, made: &BTreeMap<String, Attributes>) -> MetXattrs {
    let mut met = MetXattrs::default();
    let mut queue = vec![(String::new(), image.super_block.root_nid())];
    let mut files = 0;
    while let Some((path, nid)) = queue.pop() {
        let inode = image.inode(nid).expect("right");
        let expected = made.get(&path).cloned().unwrap_or_default();
        let found = image.xattrs(&inode, &mut met);
        // Not printed as a whole: it is long.
        assert_eq!(
            found.keys().collect::<Vec<_>>(),
            expected.keys().collect::<Vec<_>>(),
            "attributes of {path}"
        );
        assert!(found == expected, "values of the attributes of {path}");
        files += usize::from(!expected.is_empty());
        if inode.is_dir() {
            for (name, nid) in image.list(&inode).expect("right") {
                let name = String::from_utf8(name).expect("text");
                let path = if path.is_empty() {
                    name
                } else {
                    format!("{path}/{name}")
                };
                queue.push((path, nid));
            }
        }
    }
    assert_eq!(files, made.len(), "files with attributes");
    met
}

#[test]
fn images_have_the_attributes_of_their_source() {
    let scratch = Scratch::new("xattrs");
    let (source, path) = (scratch.join("source"), scratch.join("image"));
    fs::create_dir(&source).expect("a folder");
    let made = make_attributes(&source);

    let no_filter = "-E^xattr-name-filter";
    let filter = "-Exattr-name-filter";
    let long = [
        "--xattr-prefix=user.long.prefix.",
        "--xattr-prefix=trusted.overlay.",
        "--xattr-prefix=user.many.",
    ];
    let check = |options: &[&str]| {
        mkfs(&path, &source, options);
        let image = Image::open(&path, None);
        let met = check_attributes(&image, &made);
        println!("{options:?}: {met:?}");
        (image.super_block, met)
    };

    let (sb, met) = check(&[filter]);
    assert!(
        met.own > 0 && met.shared > 0 && met.long_prefix == 0,
        "{met:?}"
    );
    assert!(sb.xattr_filter_usable() && met.filtered > 0, "{met:?}");
    let (sb, met) = check(&[no_filter]);
    assert!(!sb.xattr_filter_usable() && met.filtered == 0, "{met:?}");

    // None is shared, and all are.
    let (_, met) = check(&["-x1000"]);
    assert!(met.shared == 0, "{met:?}");
    let (_, met) = check(&["-x0"]);
    assert!(met.own == 0, "{met:?}");

    for name_filter in [filter, no_filter] {
        for sharing in ["-x0", "-x2", "-x1000"] {
            let (sb, met) = check(&[name_filter, sharing, long[0], long[1], long[2]]);
            assert_eq!(sb.xattr_prefix_count(), 3);
            assert!(met.long_prefix > 150, "{met:?}");
        }
    }
    for size in ["-b512", "-b1024", "-b2048", "-b4096"] {
        let (_, met) = check(&[size, long[0]]);
        assert!(
            met.own > 0 && met.shared > 0 && met.long_prefix > 0,
            "{met:?}"
        );
        let (_, met) = check(&[size, "-x0", "-Eforce-inode-extended"]);
        assert!(met.own == 0 && met.shared > 0, "{met:?}");
    }
    // Room for more attributes is filled with zeroes; and all may be left out.
    let root = check_root_with_room(&source, &path);
    assert!(root > 1000, "{root}");
    mkfs(&path, &source, &["-x-1"]);
    check_attributes_are_gone(&Image::open(&path, None));
}

/// Makes room for attributes behind the root inode; returns its size.
fn check_root_with_room(source: &Path, path: &Path) -> u64 {
    mkfs(path, source, &["--root-xattr-isize=1024"]);
    let image = Image::open(path, None);
    let root = image.inode(image.super_block.root_nid()).expect("right");
    let found = image.xattrs(&root, &mut MetXattrs::default());
    assert_eq!(found, Attributes::new());
    root.xattrs.end - root.xattrs.start
}

fn check_attributes_are_gone(image: &Image) {
    let root = image.inode(image.super_block.root_nid()).expect("right");
    for (name, nid) in image.list(&root).expect("right") {
        let inode = image.inode(nid).expect("right");
        assert!(
            inode.xattrs.is_empty(),
            "{}",
            String::from_utf8_lossy(&name)
        );
    }
}

/// Changes bytes of an image, and makes its checksum right.
fn change(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = fs::read(path).expect("an image");
    change(&mut bytes);
    let start = SUPER_OFFSET as usize;
    SuperBlock::fix_checksum(&mut bytes[start..]).expect("a right super block");
    fs::write(path, bytes).expect("an image");
}

/// Sets bits of the incompatible features.
fn add_features(bytes: &mut [u8], features: u32) {
    let field = &mut bytes[SUPER_OFFSET as usize + 80..][..4];
    let old = u32::from_le_bytes(field.try_into().expect("4 bytes"));
    field.copy_from_slice(&(old | features).to_le_bytes());
}

#[test]
fn images_are_the_same_with_48_bits() {
    let scratch = Scratch::new("48bit");
    let (source, path) = (scratch.join("source"), scratch.join("image"));
    make_source(&source);
    mkfs(
        &path,
        &source,
        &["-Eforce-chunk-indexes", "--chunksize=4096"],
    );
    let before = Image::open(&path, None).super_block;

    change(&path, |bytes| {
        add_features(bytes, 0x80);
        let start = SUPER_OFFSET as usize;
        let root = before.root_nid().to_le_bytes();
        bytes[start + 14..][..2].fill(0);
        bytes[start + 112..][..8].copy_from_slice(&root);
    });
    let image = Image::open(&path, None);
    assert_eq!(image.super_block.root_nid(), before.root_nid());
    assert_eq!(image.super_block.blocks(), before.blocks());
    let mut met = Met::default();
    compare(&image, before.root_nid(), &source, &mut met).expect("a right image");
    assert!(met.chunk > 0, "{met:?}");
}

/// Where the entries of a directory are in the image: the byte offset of each block of it, and
/// whether that is a tail, with the metadata.
fn dir_blocks(dir: &Inode) -> Vec<(u64, bool)> {
    let (start, tail) = match dir.layout {
        Layout::Plain { start } => (start, None),
        Layout::Inline { start, tail } => (start, Some(tail)),
        other => panic!("{other:?}"),
    };
    (0..dir.size)
        .step_by(4096)
        .map(|pos| match tail {
            Some(tail) if pos == dir.tail_pos() => (tail, true),
            _ => (start + pos, false),
        })
        .collect()
}

/// A copy of an image becomes the data of an inode at its end, and all its metadata is read there:
/// then the copy is a metabox.
#[test]
fn images_are_the_same_with_their_metadata_in_a_metabox() {
    const IN_METABOX: u64 = 1 << 63;
    let scratch = Scratch::new("metabox");
    let (source, path) = (scratch.join("source"), scratch.join("image"));
    fs::create_dir(&source).expect("a folder");
    make_source(&source);
    let made = make_attributes(&source);
    mkfs(&path, &source, &["-x2"]);
    let before = Image::open(&path, None);
    let sb = &before.super_block;
    assert_eq!(sb.inode_offset(0), Ok(0), "the metadata begins in block 0");

    change(&path, |bytes| {
        let len = bytes.len();
        assert_eq!(len % 4096, 0);
        bytes.extend_from_within(..);

        // All directories lead into the metabox.
        let mut queue = vec![sb.root_nid()];
        while let Some(nid) = queue.pop() {
            let dir = before.inode(nid).expect("right");
            for (offset, is_tail) in dir_blocks(&dir) {
                let offset = offset as usize + if is_tail { len } else { 0 };
                let count = usize::from(bytes[offset + 8]) + 256 * usize::from(bytes[offset + 9]);
                for entry in bytes[offset..offset + count].chunks_mut(12) {
                    entry[7] |= 0x80;
                }
            }
            let children = before.list(&dir).expect("right").into_values();
            queue.extend(children.filter(|nid| before.inode(*nid).expect("right").is_dir()));
        }

        // An extended regular file of the copy, in a block of its own.
        let nid = bytes.len() as u64 / 32;
        let mut inode = [0; 4096];
        inode[0] = 1;
        inode[4..6].copy_from_slice(&0o100600u16.to_le_bytes());
        inode[8..16].copy_from_slice(&(len as u64).to_le_bytes());
        inode[16..20].copy_from_slice(&((len / 4096) as u32).to_le_bytes());
        inode[44] = 1;
        bytes.extend(inode);

        // Nothing but the super block is left of the first block.
        add_features(bytes, 0x180);
        let block = &mut bytes[SUPER_OFFSET as usize..4096];
        block[128..].fill(0xff);
        block[8] |= 8;
        block[13] = 1;
        block[14..16].fill(0);
        block[112..120].copy_from_slice(&(sb.root_nid() | IN_METABOX).to_le_bytes());
        block[128..136].copy_from_slice(&nid.to_le_bytes());
    });

    let image = Image::open(&path, None);
    let root = image.super_block.root_nid();
    assert_eq!(image.inode(root).map(|inode| inode.area), Ok(Area::Metabox));
    let met = check_attributes(&image, &made);
    assert!(met.own > 0 && met.shared > 0, "{met:?}");
    let mut met = Met::default();
    compare(&image, root, &source, &mut met).expect("a right image");
    assert!(met.plain > 0 && met.inline > 0, "{met:?}");
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
