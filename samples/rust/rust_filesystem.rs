// SPDX-License-Identifier: GPL-2.0

//! Rust file system sample: read-only, and all that is in it is in the module.
//!
//! ```sh
//! modprobe rust_filesystem
//! mount -t rust_filesystem none /mnt
//! cat /mnt/hello
//! ```

#![deny(unsafe_code)]

use kernel::{prelude::*, sync::aref::ARef};
use vfs::{
    dentry::{Spliced, Unhashed},
    dir::{self, Emitter, EntryType},
    fs::{self, FileSystem, Statfs},
    inode::{self, Found, INode, Kind, Params},
    iomap::{self, FolioRead, Mapping},
    super_block::{Filling, New, SuperBlock},
    u64_from,
};

module! {
    type: SampleModule,
    name: "rust_filesystem",
    authors: ["The erofs-demand authors"],
    description: "Rust file system sample",
    license: "GPL",
    alias: ["fs-rust_filesystem"],
}

/// What an inode is.
enum Node {
    /// Names, and the numbers of the inodes that have them.
    Directory(&'static [(&'static str, u64)]),
    File(&'static [u8]),
    Symlink(&'static str),
}

/// The inode with the number 1 is the first one, and so on.
static NODES: [Node; 5] = [
    Node::Directory(&[("hello", 2), ("pattern", 3), ("sub", 4)]),
    Node::File(b"Hello from Rust\n"),
    Node::File(&pattern::<100_000>()),
    Node::Directory(&[("link", 5)]),
    Node::Symlink("../hello"),
];
const ROOT: u64 = 1;

/// Counts from 0 to 250 again and again, so that no two pages are the same.
const fn pattern<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    let mut at = 1;
    while at < N {
        bytes[at] = (bytes[at - 1] + 1) % 251;
        at += 1;
    }
    bytes
}

fn node(ino: u64) -> Result<&'static Node> {
    let index = ino.checked_sub(1).ok_or(ENOENT)?;
    NODES.get(usize::try_from(index)?).ok_or(ENOENT)
}

/// The inode that has this number. It is made if it is not in memory.
fn get(sb: &SuperBlock<Sample>, ino: u64) -> Result<ARef<INode<Sample>>> {
    let new = match inode::get(sb, ino)? {
        Found::Ready(inode) => return Ok(inode),
        Found::New(new) => new,
    };
    let node = node(ino)?;
    let (mode, size, kind) = match node {
        Node::Directory(_) => (0o040_555, 0, Kind::Directory(dir::table::<Directory>())),
        Node::File(bytes) => (0o100_444, bytes.len(), Kind::File(iomap::table::<Data>())),
        Node::Symlink(target) => {
            let mut bytes = KVec::new();
            bytes.extend_from_slice(target.as_bytes(), GFP_KERNEL)?;
            (0o120_777, target.len(), Kind::Symlink(bytes))
        }
    };
    new.init(Params {
        mode,
        uid: 0,
        gid: 0,
        // Of directories this means that nobody counted.
        nlink: 1,
        size: u64_from(size),
        sectors: 0,
        mtime: (0, 0),
        kind,
        data: node,
    })
}

struct Directory;

impl Directory {
    fn entries(dir: &INode<Sample>) -> &'static [(&'static str, u64)] {
        match dir.data() {
            Node::Directory(entries) => entries,
            _ => &[],
        }
    }
}

impl dir::Operations for Directory {
    type FileSystem = Sample;

    fn lookup(dir: &INode<Sample>, dentry: Unhashed<'_, Sample>) -> Result<Spliced> {
        let mut entries = Self::entries(dir).iter();
        let found = match entries.find(|(name, _)| name.as_bytes() == dentry.name()) {
            Some((_, ino)) => Some(get(dir.super_block(), *ino)?),
            None => None,
        };
        dentry.splice(found)
    }

    fn read_dir(dir: &INode<Sample>, emitter: &mut Emitter<'_>) -> Result {
        if !emitter.emit_dots() {
            return Ok(());
        }
        let first = emitter.position().saturating_sub(2);
        for (name, ino) in Self::entries(dir).iter().skip(usize::try_from(first)?) {
            let entry_type = match node(*ino)? {
                Node::Directory(_) => EntryType::Directory,
                Node::File(_) => EntryType::Regular,
                Node::Symlink(_) => EntryType::Symlink,
            };
            if !emitter.emit(name.as_bytes(), *ino, entry_type) {
                break;
            }
            emitter.set_position(emitter.position().saturating_add(1));
        }
        Ok(())
    }
}

struct Data;

impl iomap::Operations for Data {
    type FileSystem = Sample;

    /// The bytes of each file are a device of their own.
    fn map(inode: &INode<Sample>, pos: u64, len: u64) -> Result<Mapping> {
        Ok(Mapping::of_device(inode, 0, pos, len))
    }

    fn read(inode: &INode<Sample>, _device: usize, start: u64, read: FolioRead) {
        let (Node::File(bytes), Ok(start)) = (inode.data(), usize::try_from(start)) else {
            return; // A read that is dropped fails.
        };
        read.copy_from(bytes.get(start..).unwrap_or(&[]));
    }
}

struct Sample;

#[vtable]
impl FileSystem for Sample {
    const NAME: &'static CStr = c"rust_filesystem";
    const MAGIC: u32 = 0x7275_7374;
    type Context = ();
    type Options = ();
    type Data = ();
    type Key = ();
    type INodeData = &'static Node;

    fn fill_super<'a>(
        sb: New<'a, Self>,
        _options: (),
    ) -> Result<(Filling<'a, Self>, ARef<INode<Self>>)> {
        let sb = sb.attach(())?;
        let root = get(&sb, ROOT)?;
        Ok((sb, root))
    }

    fn statfs(_sb: &SuperBlock<Self>) -> Statfs {
        Statfs {
            block_size: 4096,
            files: u64_from(NODES.len()),
            name_len: 255,
            ..Statfs::default()
        }
    }
}

#[pin_data]
struct SampleModule {
    #[pin]
    _fs: fs::Registration<Sample>,
}

impl kernel::InPlaceModule for SampleModule {
    fn init(_module: &'static ThisModule) -> impl PinInit<Self, Error> {
        try_pin_init!(Self {
            _fs <- fs::Registration::new(()),
        })
    }
}
