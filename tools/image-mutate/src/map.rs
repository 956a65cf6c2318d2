// SPDX-License-Identifier: GPL-2.0
//! Where the fields of an image are: its structures, found from the super block on.

use std::collections::{BTreeSet, VecDeque};

use anyhow::{Context, Result};
use erofs_disk::{
    Area, ChunkMap, Inode, Layout, SuperBlock, DEVICE_SLOT_SIZE, EXTENDED_INODE_SIZE, SUPER_OFFSET,
};

use crate::field::{self, Part};

/// As many inodes, and as many of anything that one inode has, are looked at.
const INODES_MAX: usize = 2000;
const OF_ONE_MAX: usize = 200;

/// A field that is somewhere in the image.
#[derive(Clone, Copy, Debug)]
pub struct Field {
    /// Its name, one of [`field::names`].
    pub name: &'static str,
    /// The nid of the inode that it belongs to, or the number of the device.
    pub owner: u64,
    /// Byte offset in the image, and size.
    pub offset: usize,
    /// See `offset`.
    pub len: usize,
}

/// An inode of the image.
#[derive(Clone, Copy, Debug)]
pub struct Node {
    /// Its number.
    pub nid: u64,
    /// Byte offset in the image, and size.
    pub offset: usize,
    /// See `offset`.
    pub len: usize,
    /// Whether it is a directory.
    pub is_dir: bool,
    /// Whether its data, or part of it, is in consecutive blocks.
    pub is_flat: bool,
}

/// A directory entry.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    /// The directory.
    pub dir: u64,
    /// Where it leads.
    pub nid: u64,
    /// Byte offset in the image.
    pub offset: usize,
    /// Byte offset and size of its name.
    pub name: usize,
    /// See `name`.
    pub name_len: usize,
    /// Whether it is `.` or `..`.
    pub is_dot: bool,
}

/// What an image consists of.
pub struct Map {
    /// The super block.
    pub super_block: SuperBlock,
    /// All fields.
    pub fields: Vec<Field>,
    /// The inodes, the root directory first.
    pub nodes: Vec<Node>,
    /// The entries of all directories.
    pub entries: Vec<Entry>,
}

impl Map {
    /// Finds what is in an image that is whole.
    pub fn new(image: &[u8]) -> Result<Self> {
        let bytes = image
            .get(usize::try_from(SUPER_OFFSET)?..)
            .unwrap_or_default();
        let super_block = SuperBlock::parse(bytes)?;
        let mut finder = Finder {
            image,
            metabox: None,
            packed: None,
            shared: BTreeSet::new(),
            map: Map {
                super_block,
                fields: Vec::new(),
                nodes: Vec::new(),
                entries: Vec::new(),
            },
        };
        finder.find().context("this image is not whole")?;
        Ok(finder.map)
    }
}

struct Finder<'a> {
    image: &'a [u8],
    /// Where the data of the inodes of these areas begins.
    metabox: Option<u64>,
    packed: Option<u64>,
    /// Ids of shared attributes.
    shared: BTreeSet<u32>,
    map: Map,
}

impl Finder<'_> {
    /// Byte offset in the image of what is at an offset of an area.
    fn place(&self, area: Area, offset: u64) -> Option<usize> {
        let base = match area {
            Area::Primary => Some(0),
            Area::Metabox => self.metabox,
            Area::Packed => self.packed,
        };
        usize::try_from(base?.checked_add(offset)?).ok()
    }

    fn bytes(&self, offset: usize, len: usize) -> Option<&[u8]> {
        self.image.get(offset..offset.checked_add(len)?)
    }

    fn number(&self, offset: usize, len: usize) -> Option<u64> {
        let mut number = [0; 8];
        number
            .get_mut(..len)?
            .copy_from_slice(self.bytes(offset, len)?);
        Some(u64::from_le_bytes(number))
    }

    /// Notes a field, if the image has it.
    fn field(&mut self, name: &'static str, owner: u64, offset: usize, len: usize) {
        if len > 0 && self.bytes(offset, len).is_some() {
            self.map.fields.push(Field {
                name,
                owner,
                offset,
                len,
            });
        }
    }

    fn structure(&mut self, parts: &[Part], owner: u64, offset: usize) {
        for (name, at, len) in parts {
            self.field(name, owner, offset.saturating_add(*at), *len);
        }
    }

    fn find(&mut self) -> Result<()> {
        let super_block = self.map.super_block.clone();
        self.structure(field::SUPER, 0, usize::try_from(SUPER_OFFSET)?);
        for index in 0..super_block.device_count() {
            let offset = super_block.device_slot_offset(index).unwrap_or(u64::MAX);
            let offset = usize::try_from(offset)?;
            self.bytes(offset, DEVICE_SLOT_SIZE)
                .context("device table")?;
            self.structure(field::DEVICE, u64::from(index), offset);
        }
        for nid in [super_block.metabox_nid(), super_block.packed_nid()] {
            let Some(nid) = nid else { continue };
            let inode = self.inode(nid)?.1;
            let start = match inode.layout {
                Layout::Plain { start } => Some(start),
                Layout::Inline { tail, .. } if inode.tail_pos() == 0 => Some(tail),
                _ => None,
            };
            match super_block.metabox_nid() == Some(nid) {
                true => self.metabox = start,
                false => self.packed = start,
            }
        }
        self.prefixes();

        let mut seen = BTreeSet::new();
        let mut queue = VecDeque::from([super_block.root_nid()]);
        queue.extend(super_block.metabox_nid());
        queue.extend(super_block.packed_nid());
        while let Some(nid) = queue.pop_front() {
            if seen.len() == INODES_MAX || !seen.insert(nid) {
                continue;
            }
            let (offset, inode) = self.inode(nid)?;
            self.node(offset, &inode)?;
            if inode.is_dir() {
                let before = self.map.entries.len();
                self.directory(&inode);
                let entries = self.map.entries.iter().skip(before);
                queue.extend(entries.map(|entry| entry.nid));
            }
        }
        for id in std::mem::take(&mut self.shared) {
            self.shared_xattr(id);
        }
        Ok(())
    }

    /// An inode, and its place in the image.
    fn inode(&self, nid: u64) -> Result<(usize, Inode)> {
        let super_block = &self.map.super_block;
        let offset = super_block.inode_offset(nid)?;
        let offset = self
            .place(super_block.inode_area(nid), offset)
            .with_context(|| format!("inode {nid}"))?;
        let mut bytes = [0; EXTENDED_INODE_SIZE];
        let there = self.image.get(offset..).unwrap_or_default();
        for (byte, on_disk) in bytes.iter_mut().zip(there) {
            *byte = *on_disk;
        }
        let inode =
            Inode::parse(super_block, nid, &bytes).with_context(|| format!("inode {nid}"))?;
        Ok((offset, inode))
    }

    /// The fields of an inode, and of what is behind it.
    fn node(&mut self, offset: usize, inode: &Inode) -> Result<()> {
        let len = Inode::size_of(self.image.get(offset..).unwrap_or_default())?;
        let parts = match len {
            EXTENDED_INODE_SIZE => field::EXTENDED,
            _ => field::COMPACT,
        };
        self.structure(parts, inode.nid, offset);
        self.map.nodes.push(Node {
            nid: inode.nid,
            offset,
            len,
            is_dir: inode.is_dir(),
            is_flat: matches!(inode.layout, Layout::Plain { .. } | Layout::Inline { .. }),
        });
        self.xattrs(inode);
        if let Layout::Chunk(chunks) = inode.layout {
            self.structure(field::CHUNK_FORMAT, inode.nid, offset);
            self.chunks(inode, &chunks);
        }
        Ok(())
    }

    fn chunks(&mut self, inode: &Inode, chunks: &ChunkMap) {
        let count = inode.size.div_ceil(chunks.chunk_size());
        for index in (0..count).take(OF_ONE_MAX) {
            let Ok(entry) = chunks.entry(index.saturating_mul(chunks.chunk_size())) else {
                return;
            };
            let Some(offset) = self.place(inode.area, entry.offset) else {
                return;
            };
            let parts = match entry.len {
                8 => field::INDEX,
                _ => field::BLOCK,
            };
            self.structure(parts, inode.nid, offset);
        }
    }

    fn directory(&mut self, dir: &Inode) {
        let block_size = u64::from(self.map.super_block.block_size());
        let (Layout::Plain { start } | Layout::Inline { start, .. }) = dir.layout else {
            return;
        };
        let mut pos = 0;
        while pos < dir.size {
            let base = match dir.layout {
                Layout::Inline { tail, .. } if pos == dir.tail_pos() => self.place(dir.area, tail),
                _ => self.place(Area::Primary, start.saturating_add(pos)),
            };
            let len = block_size.min(dir.size - pos);
            if let (Some(base), Ok(len)) = (base, usize::try_from(len)) {
                self.directory_block(dir.nid, base, len);
            }
            pos += block_size;
        }
    }

    fn directory_block(&mut self, dir: u64, base: usize, len: usize) {
        let start_of = |finder: &Self, index: usize| {
            let offset = finder.number(base + 12 * index + 8, 2)?;
            usize::try_from(offset).ok()
        };
        let count = start_of(self, 0).unwrap_or(0) / 12;
        for index in 0..count.min(OF_ONE_MAX) {
            let offset = base + 12 * index;
            let (Some(nid), Some(start)) = (self.number(offset, 8), start_of(self, index)) else {
                return;
            };
            let end = match index + 1 < count {
                true => start_of(self, index + 1).unwrap_or(start),
                false => len,
            };
            let name = self
                .bytes(base + start, end.saturating_sub(start))
                .unwrap_or_default();
            let name_len = name
                .iter()
                .position(|byte| *byte == 0)
                .unwrap_or(name.len());
            let is_dot = matches!(name.get(..name_len), Some(b"." | b".."));
            self.structure(field::DIRENT, dir, offset);
            self.field(field::NAME, dir, base + start, name_len);
            self.map.entries.push(Entry {
                dir,
                nid,
                offset,
                name: base + start,
                name_len,
                is_dot,
            });
        }
    }

    /// The attributes behind an inode.
    fn xattrs(&mut self, inode: &Inode) {
        let (Some(start), Some(end)) = (
            self.place(inode.area, inode.xattrs.start),
            self.place(inode.area, inode.xattrs.end),
        ) else {
            return;
        };
        if start == end {
            return;
        }
        self.structure(field::XATTR_HEADER, inode.nid, start);
        let shared = self.number(start + 4, 1).unwrap_or(0);
        let mut at = start + 12;
        for _ in 0..shared {
            self.structure(field::XATTR_ID, inode.nid, at);
            let id = self.number(at, 4).and_then(|id| u32::try_from(id).ok());
            self.shared.extend(id);
            at += 4;
        }
        for _ in 0..OF_ONE_MAX {
            if at >= end {
                break;
            }
            let Some(next) = self.xattr(inode.nid, at, field::XATTR, field::XATTR_BYTES) else {
                break;
            };
            at = next;
        }
    }

    /// An attribute; returns where the next one would be.
    fn xattr(
        &mut self,
        owner: u64,
        at: usize,
        parts: &[Part],
        bytes: [&'static str; 2],
    ) -> Option<usize> {
        let size = |len| usize::try_from(len).ok();
        let name_len = size(self.number(at, 1)?)?;
        let value_len = size(self.number(at + 2, 2)?)?;
        self.structure(parts, owner, at);
        let [name, value] = bytes;
        self.field(name, owner, at + 4, name_len);
        self.field(value, owner, at + 4 + name_len, value_len);
        Some((at + 4 + name_len + value_len).next_multiple_of(4))
    }

    fn shared_xattr(&mut self, id: u32) {
        let super_block = &self.map.super_block;
        let offset = super_block
            .shared_xattrs_offset()
            .saturating_add(u64::from(id) * 4);
        let Ok(area) = super_block.shared_xattrs_area() else {
            return;
        };
        if let Some(at) = self.place(area, offset) {
            self.xattr(u64::from(id), at, field::SHARED, field::SHARED_BYTES);
        }
    }

    /// The long prefixes of attribute names.
    fn prefixes(&mut self) {
        let super_block = &self.map.super_block;
        let count = super_block.xattr_prefix_count();
        let place = self.place(
            super_block.xattr_prefix_area(),
            super_block.xattr_prefix_offset(),
        );
        let Some(mut at) = place else { return };
        for index in 0..count {
            let Some(size) = self
                .number(at, 2)
                .and_then(|size| usize::try_from(size).ok())
            else {
                return;
            };
            self.structure(field::PREFIX, u64::from(index), at);
            self.field(
                field::INFIX,
                u64::from(index),
                at + 3,
                size.saturating_sub(1),
            );
            at = (at + 2 + size).next_multiple_of(4);
        }
    }
}
