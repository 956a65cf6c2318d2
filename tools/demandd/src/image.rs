// SPDX-License-Identifier: GPL-2.0
//! Looking into an EROFS image, and naming its blobs.
//!
//! An image may come from anywhere: whatever it holds, looking into it ends, with a report or an error, after work that
//! is proportional to the size of its file.

pub mod build;
pub mod prepare;
pub mod verify;

use std::collections::{BTreeMap, HashSet};
use std::ffi::OsStr;
use std::fmt;
use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::Path;

use anyhow::{anyhow, bail, ensure, Context, Result};
use erofs_disk::{
    resolve, Area, DeviceSlot, DirBlock, Error, ExtentData, Inode, Layout, ReadError, SuperBlock,
    DEVICE_SLOT_SIZE, EXTENDED_INODE_SIZE, SUPER_OFFSET, SUPER_SIZE, SUPER_SIZE_MAX,
};

use crate::cache;

/// Room for a name in a slot of the device table, which it begins.
const TAG_SIZE: usize = 64;

const COMPAT_CHECKSUM: u32 = 0x1;

const COMPAT: [(u32, &str); 6] = [
    (COMPAT_CHECKSUM, "sb_chksum"),
    (0x2, "mtime"),
    (0x4, "xattr_filter"),
    (0x8, "shared_ea_in_metabox"),
    (0x10, "plain_xattr_pfx"),
    (0x20, "ishare_xattrs"),
];

const INCOMPAT: [(u32, &str); 7] = [
    (0x1, "lz4_0padding"),
    (0x4, "chunked_file"),
    (0x8, "device_table"),
    (0x20, "fragments"),
    (0x40, "xattr_prefixes"),
    (0x80, "48bit"),
    (0x100, "metabox"),
];

/// An image file, opened and with its super block checked.
#[derive(Debug)]
struct Image {
    file: File,
    size: u64,
    super_block: SuperBlock,
    devices: Vec<DeviceSlot>,
    /// The inode whose data are metadata.
    metabox: Option<Inode>,
}

impl Image {
    fn open(path: &Path, write: bool) -> Result<Self> {
        let (file, size) = File::options()
            .read(true)
            .write(write)
            .open(path)
            .map_err(anyhow::Error::from)
            .and_then(cache::regular)?;
        // An image that is hardly more than its super block has no extensions of that.
        let there = size.saturating_sub(SUPER_OFFSET).max(SUPER_SIZE as u64);
        let mut bytes = vec![0; SUPER_SIZE_MAX.min(usize::try_from(there)?)];
        read_exact(&file, &mut bytes, SUPER_OFFSET).context("the super block")?;
        let mut image = Self {
            file,
            size,
            super_block: SuperBlock::parse(&bytes)?,
            devices: Vec::new(),
            metabox: None,
        };
        image.devices = image.read_devices().context("the device table")?;
        if let Some(nid) = image.super_block.metabox_nid() {
            image.metabox = Some(image.inode(nid).context("the metabox")?);
        }
        Ok(image)
    }

    /// Reads a range, which has to be inside the file before memory is taken for it.
    fn read(&self, start: u64, len: u64) -> Result<Vec<u8>> {
        let inside = start.checked_add(len).is_some_and(|end| end <= self.size);
        ensure!(
            inside,
            "it lies behind the end of the file ({start}+{len} of {})",
            self.size
        );
        let mut bytes = vec![0; usize::try_from(len)?];
        read_exact(&self.file, &mut bytes, start)?;
        Ok(bytes)
    }

    fn checksum_bytes(&self) -> Result<Vec<u8>> {
        let range = self.super_block.checksum_range();
        self.read(range.start, range.end.saturating_sub(range.start))
            .context("the block of the super block")
    }

    fn read_devices(&self) -> Result<Vec<DeviceSlot>> {
        (0..self.super_block.device_count())
            .map_while(|index| self.super_block.device_slot_offset(index))
            .map(|offset| {
                Ok(DeviceSlot::parse(
                    &self.super_block,
                    &self.read(offset, DEVICE_SLOT_SIZE as u64)?,
                )?)
            })
            .collect()
    }

    /// The inode whose data an area is; `None` for the file itself.
    fn holder(&self, area: Area) -> Result<Option<&Inode>> {
        match area {
            Area::Primary => Ok(None),
            Area::Metabox => self.metabox.as_ref().map(Some).context("no metabox"),
            Area::Packed => bail!("no inodes are there"),
        }
    }

    /// Reads a range of an area. The data of an area are in the file itself, so this goes down by one step at most.
    fn read_area(&self, area: Area, start: u64, len: u64) -> Result<Vec<u8>> {
        match self.holder(area)? {
            None => self.read(start, len),
            Some(inode) if inode.area == Area::Primary => self.data(inode, start, len),
            Some(_) => bail!("the metabox is in itself"),
        }
    }

    /// Reads a range of the data of an inode, which have to be in this file.
    fn data(&self, inode: &Inode, start: u64, len: u64) -> Result<Vec<u8>> {
        let end = start
            .checked_add(len)
            .filter(|&end| end <= inode.size)
            .with_context(|| format!("inode {} ends before {start}+{len}", inode.nid))?;
        let mut bytes = Vec::new();
        let mut pos = start;
        while pos < end {
            let sb = &self.super_block;
            let extent = inode
                .extent(
                    sb,
                    pos,
                    |address| resolve(sb, &self.devices, address),
                    |area, at, entry: &mut [u8]| -> Result<()> {
                        let read = self.read_area(area, at, entry.len() as u64)?;
                        entry.copy_from_slice(&read);
                        Ok(())
                    },
                )
                .map_err(|error| match error {
                    ReadError::Image(error) => error.into(),
                    ReadError::Read(error) => error,
                })?;
            let skip = pos.saturating_sub(extent.pos);
            let part = extent.len.saturating_sub(skip).min(end.saturating_sub(pos));
            let (area, from) = match extent.data {
                ExtentData::Inline { start } => (inode.area, start),
                ExtentData::Blocks { device: 0, start } => (Area::Primary, start),
                _ => bail!("its data is not with the metadata"),
            };
            let from = from
                .checked_add(skip)
                .context("it lies beyond any device")?;
            bytes.extend(self.read_area(area, from, part)?);
            pos = pos.saturating_add(part);
        }
        Ok(bytes)
    }

    fn inode(&self, nid: u64) -> Result<Inode> {
        let area = self.super_block.inode_area(nid);
        let offset = self.super_block.inode_offset(nid)?;
        // An inode at the very end of its area may be smaller than the largest.
        let len = self
            .holder(area)?
            .map_or(self.size, |inode| inode.size)
            .saturating_sub(offset)
            .min(EXTENDED_INODE_SIZE as u64);
        let bytes = self.read_area(area, offset, len)?;
        Ok(Inode::parse(&self.super_block, nid, &bytes)?)
    }

    /// The bytes of the directory block at `pos` of a directory.
    fn dir_block(&self, dir: &Inode, pos: u64) -> Result<Vec<u8>> {
        let len = u64::from(self.super_block.block_size()).min(dir.size.saturating_sub(pos));
        self.data(dir, pos, len)
    }
}

/// Reads all of a buffer; says so when the file is too short.
fn read_exact(file: &File, bytes: &mut [u8], start: u64) -> Result<()> {
    file.read_exact_at(bytes, start)
        .map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => anyhow!("the file is too short"),
            _ => error.into(),
        })
}

/// Type and layout of an inode, as the report names them.
type Kind = (&'static str, &'static str);

/// Inodes of one kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// How many there are.
    pub inodes: u64,
    /// The sum of their sizes in bytes.
    pub bytes: u64,
}

/// What an image consists of. Displayed, it is the text of `demandd image inspect`.
#[derive(Debug)]
pub struct Report {
    /// The super block.
    pub super_block: SuperBlock,
    /// "none", "good" or "wrong".
    pub checksum: &'static str,
    /// The device table.
    pub devices: Vec<DeviceSlot>,
    /// What can be reached from the root, by type and layout.
    pub counts: BTreeMap<Kind, Count>,
}

/// The names that an image has for its other blobs, in order; empty where there is none.
pub fn device_names(path: &Path) -> Result<Vec<Vec<u8>>> {
    Image::open(path, false)
        .map(|image| {
            image
                .devices
                .iter()
                .map(|slot| slot.tag().to_vec())
                .collect()
        })
        .with_context(|| format!("cannot inspect {}", path.display()))
}

/// Looks into an image.
pub fn inspect(path: &Path) -> Result<Report> {
    Image::open(path, false)
        .and_then(|image| {
            let sb = &image.super_block;
            let checksum = if sb.feature_compat() & COMPAT_CHECKSUM == 0 {
                "none"
            } else if sb.verify_checksum(&image.checksum_bytes()?).is_ok() {
                "good"
            } else {
                "wrong"
            };
            Ok(Report {
                checksum,
                counts: walk(&image)?,
                devices: image.devices,
                super_block: image.super_block,
            })
        })
        .with_context(|| format!("cannot inspect {}", path.display()))
}

/// Counts the inodes that can be reached from the root.
fn walk(image: &Image) -> Result<BTreeMap<Kind, Count>> {
    let mut counts = BTreeMap::<Kind, Count>::new();
    let root = image.super_block.root_nid();
    // Seen before: a hard link, `..`, or the loop of a crafted image.
    let mut seen = HashSet::from([root]);
    let mut queue = vec![root];
    // Directories of an honest image do not share blocks, so all of them together fit into the file. Without the bound,
    // a crafted image could have many large directories in the same blocks.
    let mut budget = image.size;
    while let Some(nid) = queue.pop() {
        let inode = match image.inode(nid) {
            Ok(inode) => inode,
            // One file of a kind that is not known does not hide the others.
            Err(error) if matches!(error.downcast_ref(), Some(Error::Unsupported(_))) => {
                counts.entry(("any", "unsupported")).or_default().inodes += 1;
                continue;
            }
            Err(error) => return Err(error.context(format!("inode {nid}"))),
        };
        let count = counts.entry(kind(&inode)).or_default();
        count.inodes += 1;
        count.bytes = count.bytes.saturating_add(inode.size);
        if inode.is_dir() {
            budget = budget.checked_sub(inode.size).ok_or_else(|| {
                anyhow!("directory {nid}: more directory blocks than the file has")
            })?;
            children(image, &inode, &mut |child| {
                if seen.insert(child) {
                    queue.push(child);
                }
            })
            .with_context(|| format!("directory {nid}"))?;
        }
    }
    Ok(counts)
}

/// Calls `each` with the nid of every entry.
fn children(image: &Image, dir: &Inode, each: &mut dyn FnMut(u64)) -> Result<()> {
    let mut pos = 0;
    while pos < dir.size {
        let bytes = image.dir_block(dir, pos)?;
        for entry in DirBlock::new(&bytes)?.entries() {
            each(entry?.nid);
        }
        pos = pos.saturating_add(image.super_block.block_size().into());
    }
    Ok(())
}

fn kind(inode: &Inode) -> Kind {
    let kind = match () {
        () if inode.is_file() => "file",
        () if inode.is_dir() => "directory",
        () if inode.is_symlink() => "symlink",
        () => return ("special", "-"),
    };
    let layout = match inode.layout {
        Layout::Hole => "hole",
        Layout::Plain { .. } => "plain",
        Layout::Inline { .. } => "inline",
        Layout::Chunk(_) => "chunk",
    };
    (kind, layout)
}

/// The names of the bits that are set, and the bits that have no name.
fn features(names: &[(u32, &'static str)], bits: u32) -> (Vec<&'static str>, u32) {
    let mut rest = bits;
    let mut set = Vec::new();
    for (bit, name) in names {
        if bits & bit != 0 {
            set.push(*name);
            rest &= !bit;
        }
    }
    (set, rest)
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sb = &self.super_block;
        let [a, b, c, d, e, g, h, i, rest @ ..] = sb.uuid();
        write!(
            f,
            "uuid          {a:02x}{b:02x}{c:02x}{d:02x}-{e:02x}{g:02x}-{h:02x}{i:02x}-"
        )?;
        for (index, byte) in rest.iter().enumerate() {
            write!(f, "{}{byte:02x}", if index == 2 { "-" } else { "" })?;
        }
        writeln!(f, "\nlabel         {}", printable(sb.volume_name()))?;
        writeln!(f, "block size    {}", sb.block_size())?;
        writeln!(f, "blocks        {}", sb.blocks())?;
        writeln!(f, "inodes        {}", sb.inodes())?;
        writeln!(f, "root nid      {}", sb.root_nid())?;
        writeln!(f, "checksum      {}", self.checksum)?;
        let rows = [
            ("compatible", features(&COMPAT, sb.feature_compat())),
            ("incompatible", features(&INCOMPAT, sb.feature_incompat())),
        ];
        for (title, (names, rest)) in rows {
            write!(f, "{title:<13} {}", names.join(" "))?;
            match rest {
                0 => writeln!(f)?,
                rest => writeln!(f, " unknown:{rest:#x}")?,
            }
        }
        writeln!(
            f,
            "\n{:>6} {:>12} {:>12}  blob",
            "device", "blocks", "mapped at"
        )?;
        for (index, slot) in (1..).zip(&self.devices) {
            let mapped = slot
                .mapped()
                .map_or_else(|| "-".to_owned(), |block| block.to_string());
            writeln!(
                f,
                "{index:>6} {:>12} {mapped:>12}  {}",
                slot.blocks(),
                printable(slot.tag())
            )?;
        }
        writeln!(
            f,
            "\n{:<9} {:<11} {:>10} {:>16}",
            "type", "layout", "inodes", "bytes"
        )?;
        for ((kind, layout), count) in &self.counts {
            writeln!(
                f,
                "{kind:<9} {layout:<11} {:>10} {:>16}",
                count.inodes, count.bytes
            )?;
        }
        Ok(())
    }
}

/// A name from an image, so that it cannot play tricks on a terminal.
fn printable(bytes: &[u8]) -> String {
    match bytes {
        b"" => "-".to_owned(),
        bytes => String::from_utf8_lossy(bytes).escape_debug().to_string(),
    }
}

/// Writes blob names into the device table and mends the checksum; returns a line per blob: what was there, and what
/// is there now.
pub fn stamp(path: &Path, names: &[String]) -> Result<String> {
    try_stamp(path, names).with_context(|| format!("cannot stamp {}", path.display()))
}

fn try_stamp(path: &Path, names: &[String]) -> Result<String> {
    let image = Image::open(path, true)?;
    let sb = &image.super_block;
    let devices = &image.devices;
    ensure!(
        names.len() == devices.len(),
        "the image has {} blobs, and {} names were given",
        devices.len(),
        names.len()
    );
    for name in names {
        ensure!(
            name.len() <= TAG_SIZE,
            "{name:?} has more than {TAG_SIZE} bytes"
        );
        ensure!(!name.contains('\0'), "{name:?} has a NUL byte");
        cache::file_name(OsStr::from_bytes(name.as_bytes()))?;
    }
    // Nothing that is damaged gets a new, right checksum.
    sb.verify_checksum(&image.checksum_bytes()?)?;

    // The table may or may not share the block that the checksum covers. All of it is changed in memory and written at
    // once.
    let table_end = (0..sb.device_count())
        .filter_map(|index| {
            sb.device_slot_offset(index)?
                .checked_add(DEVICE_SLOT_SIZE as u64)
        })
        .max();
    let end = sb.checksum_range().end.max(table_end.unwrap_or(0));
    let mut bytes = image.read(SUPER_OFFSET, end.saturating_sub(SUPER_OFFSET))?;
    let mut lines = String::new();
    for ((index, slot), name) in (0..).zip(devices).zip(names) {
        let tag = sb
            .device_slot_offset(index)
            .and_then(|offset| offset.checked_sub(SUPER_OFFSET))
            .and_then(|start| usize::try_from(start).ok())
            .and_then(|start| bytes.get_mut(start..)?.get_mut(..TAG_SIZE))
            .ok_or_else(|| anyhow!("the device table is not where it says"))?;
        tag.fill(0);
        for (to, from) in tag.iter_mut().zip(name.bytes()) {
            *to = from;
        }
        lines += &format!(
            "{}\t{} -> {}\n",
            u32::from(index) + 1,
            printable(slot.tag()),
            printable(name.as_bytes())
        );
    }
    SuperBlock::fix_checksum(&mut bytes)?;
    image.file.write_all_at(&bytes, SUPER_OFFSET)?;
    image.file.sync_all()?;
    Ok(lines)
}
