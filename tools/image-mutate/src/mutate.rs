// SPDX-License-Identifier: GPL-2.0
//! Damage: to fields, and to structures as a whole.

use std::collections::BTreeSet;

use anyhow::Result;
use erofs_disk::SUPER_OFFSET;

use crate::crc32c::crc32c;
use crate::edit::Edit;
use crate::field;
use crate::map::{Entry, Field, Map, Node};
use crate::rng::Rng;
use crate::value;

/// Damage to more than a field.
const STRUCTURAL: &[&str] = &[
    "dir.loop",
    "dir.alias",
    "dir.dot",
    "dir.order",
    "dir.duplicate",
    "dir.gap",
    "extent.swap",
    "extent.metadata",
    "inode.swap",
    "inode.copy",
    "block.zero",
    "image.cut",
];

/// How an image becomes one with 48-bit numbers, before it is damaged.
const TO_48BIT: &str = "image.48bit";

/// Damage to the super block, of which the checksum says nothing.
const CHECKSUM: &str = "image.checksum";

/// The names of all that can be done.
pub fn kinds() -> BTreeSet<&'static str> {
    field::names()
        .chain(STRUCTURAL.iter().copied())
        .chain([TO_48BIT, CHECKSUM])
        .collect()
}

/// Damages an image, in the way that belongs to the seed. Tells what was done, in order.
pub fn mutate(image: &mut Vec<u8>, seed: u64) -> Result<Vec<Edit>> {
    let mut rng = Rng::new(seed);
    let mut map = Map::new(image)?;
    let mut edits = Vec::new();
    if rng.once_in(10) {
        edits = to_48bit(image, &map);
        map = Map::new(image)?;
    }
    let times = match rng.below(16) {
        0..=11 => 1,
        12..=14 => 2,
        _ => 5,
    };
    let before = image.clone();
    let mut damage = Damage {
        image,
        map: &map,
        rng: &mut rng,
        edits: &mut edits,
        is_cut: false,
    };
    for _ in 0..times {
        damage.once();
    }
    while *damage.image == before {
        damage.field();
    }
    let by_itself = damage
        .edits
        .iter()
        .any(|edit| edit.what() == "super.checksum");
    if !by_itself && !damage.rng.once_in(32) {
        damage.fix_checksum();
    }
    Ok(edits)
}

/// Makes the numbers of an image 48 bits long. It stays as good as it was.
fn to_48bit(image: &mut [u8], map: &Map) -> Vec<Edit> {
    const INCOMPAT_48BIT: u32 = 0x80;
    let super_block = &map.super_block;
    if super_block.feature_incompat() & INCOMPAT_48BIT != 0 {
        return Vec::new();
    }
    let features = super_block.feature_incompat() | INCOMPAT_48BIT;
    let mut edits = Vec::new();
    for (at, new) in [
        (80, features.to_le_bytes().to_vec()),
        (14, vec![0; 2]),
        (112, super_block.root_nid().to_le_bytes().to_vec()),
    ] {
        let offset = to_usize(SUPER_OFFSET) + at;
        replace(image, &mut edits, TO_48BIT, 0, offset, new);
    }
    edits
}

/// Puts bytes into an image that has the room, and notes it, unless they are there already.
fn replace(
    image: &mut [u8],
    edits: &mut Vec<Edit>,
    what: &'static str,
    owner: u64,
    offset: usize,
    new: Vec<u8>,
) {
    let Some(bytes) = image.get_mut(offset..offset + new.len()) else {
        return;
    };
    let old = bytes.to_vec();
    if old != new {
        bytes.copy_from_slice(&new);
        edits.push(Edit::Bytes {
            what,
            owner,
            offset,
            old,
            new,
        });
    }
}

fn to_usize(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

/// Damage being done. The map is that of the image before.
struct Damage<'a> {
    image: &'a mut Vec<u8>,
    map: &'a Map,
    rng: &'a mut Rng,
    edits: &'a mut Vec<Edit>,
    is_cut: bool,
}

impl Damage<'_> {
    fn once(&mut self) {
        if self.rng.once_in(4) {
            let what = self.rng.one_of(STRUCTURAL).copied();
            if what.and_then(|what| self.structure(what)).is_some() {
                return;
            }
        }
        self.field();
    }

    /// One of [`STRUCTURAL`]. `None` where the image has nothing that it could be done to.
    fn structure(&mut self, what: &'static str) -> Option<()> {
        match what {
            "dir.loop" => self.dir_loop(),
            "dir.alias" => self.dir_alias(),
            "dir.dot" => self.dir_dot(),
            "dir.order" => self.dir_order(),
            "dir.duplicate" => self.dir_duplicate(),
            "dir.gap" => self.dir_gap(),
            "extent.swap" => self.extent_swap(),
            "extent.metadata" => self.extent_metadata(),
            "inode.swap" => self.inode_swap(),
            "inode.copy" => self.inode_copy(),
            "block.zero" => self.block_zero(),
            "image.cut" => self.image_cut(),
            _ => None,
        }
    }

    fn put(&mut self, what: &'static str, owner: u64, offset: usize, new: Vec<u8>) {
        replace(self.image, self.edits, what, owner, offset, new);
    }

    fn bytes(&self, offset: usize, len: usize) -> Option<&[u8]> {
        self.image.get(offset..offset.checked_add(len)?)
    }

    fn number(&self, field: &Field) -> u64 {
        let mut number = [0; 8];
        let bytes = self.bytes(field.offset, field.len).unwrap_or_default();
        for (to, from) in number.iter_mut().zip(bytes) {
            *to = *from;
        }
        u64::from_le_bytes(number)
    }

    // --- fields ------------------------------------------------------------------

    /// A field: each name is as likely as any other, however many there are of it. Only those of
    /// the super block, of which most are of no interest to a reader, come less often.
    fn field(&mut self) {
        let with_super = self.rng.once_in(4);
        let names = self.map.fields.iter().map(|field| field.name);
        let names: Vec<_> = names
            .filter(|name| with_super || !name.starts_with("super."))
            .collect();
        let names: Vec<_> = BTreeSet::from_iter(names).into_iter().collect();
        let Some(name) = self.rng.one_of(&names).copied() else {
            return;
        };
        let same: Vec<_> = self
            .map
            .fields
            .iter()
            .filter(|field| field.name == name)
            .collect();
        let Some(&&field) = self.rng.one_of(&same) else {
            return;
        };
        if Self::is_text(&field) {
            let at = self.rng.below(field.len);
            let Some(&[old]) = self.bytes(field.offset + at, 1) else {
                return;
            };
            let new = value::byte(self.rng, old);
            self.put(name, field.owner, field.offset + at, vec![new]);
            return;
        }
        let others: Vec<_> = match name {
            "dirent.nid" => self.map.nodes.iter().map(|node| node.nid).collect(),
            _ => same.iter().map(|field| self.number(field)).collect(),
        };
        let old = self.number(&field);
        let new = value::number(self.rng, self.map, old, field.len, &others);
        let mut new = new.to_le_bytes().to_vec();
        new.truncate(field.len);
        self.put(name, field.owner, field.offset, new);
    }

    fn is_text(field: &Field) -> bool {
        let is_text = field::XATTR_BYTES.contains(&field.name)
            || field::SHARED_BYTES.contains(&field.name)
            || [field::NAME, field::INFIX].contains(&field.name);
        is_text || field.len > 8
    }

    // --- directories -----------------------------------------------------------------

    /// An entry that is neither `.` nor `..`.
    fn entry(&mut self) -> Option<Entry> {
        let entries: Vec<_> = self
            .map
            .entries
            .iter()
            .filter(|entry| !entry.is_dot)
            .collect();
        self.rng.one_of(&entries).map(|entry| **entry)
    }

    fn node(&mut self, wanted: impl Fn(&Node) -> bool) -> Option<Node> {
        let nodes: Vec<_> = self.map.nodes.iter().filter(|node| wanted(node)).collect();
        self.rng.one_of(&nodes).map(|node| **node)
    }

    fn lead(&mut self, what: &'static str, entry: Entry, nid: u64) -> Option<()> {
        self.put(what, entry.dir, entry.offset, nid.to_le_bytes().to_vec());
        // The type is mostly that of a directory, but not always.
        if !self.rng.once_in(4) {
            self.put(what, entry.dir, entry.offset + 10, vec![2]);
        }
        Some(())
    }

    /// A directory that contains itself, or one that it is in.
    fn dir_loop(&mut self) -> Option<()> {
        let entry = self.entry()?;
        let up = self
            .map
            .entries
            .iter()
            .find(|up| up.nid == entry.dir && !up.is_dot);
        let above = match up {
            Some(up) if self.rng.once_in(2) => up.dir,
            _ => entry.dir,
        };
        self.lead("dir.loop", entry, above)
    }

    /// A directory with several names.
    fn dir_alias(&mut self) -> Option<()> {
        let entry = self.entry()?;
        let other = self.node(|node| node.is_dir && node.nid != entry.nid)?;
        self.lead("dir.alias", entry, other.nid)
    }

    /// `.` or `..` leads elsewhere.
    fn dir_dot(&mut self) -> Option<()> {
        let dots: Vec<_> = self
            .map
            .entries
            .iter()
            .filter(|entry| entry.is_dot)
            .collect();
        let entry = **self.rng.one_of(&dots)?;
        let other = self.node(|node| node.nid != entry.nid)?;
        self.lead("dir.dot", entry, other.nid)
    }

    /// Two entries of a directory, in each other's place: their names, too, are not in order then.
    fn two_entries(&mut self) -> Option<(Entry, Entry)> {
        let first = self.entry()?;
        let others = self.map.entries.iter().filter(|other| {
            other.dir == first.dir && other.offset != first.offset && !other.is_dot
        });
        let others: Vec<_> = others.collect();
        Some((first, **self.rng.one_of(&others)?))
    }

    fn dir_order(&mut self) -> Option<()> {
        let (one, two) = self.two_entries()?;
        let first = self.bytes(one.offset, 12)?.to_vec();
        let second = self.bytes(two.offset, 12)?.to_vec();
        self.put("dir.order", one.dir, one.offset, second);
        self.put("dir.order", one.dir, two.offset, first);
        Some(())
    }

    /// One name twice, or the beginning of one.
    fn dir_duplicate(&mut self) -> Option<()> {
        let (one, two) = self.two_entries()?;
        let name = self
            .bytes(one.name, one.name_len.min(two.name_len))?
            .to_vec();
        self.put("dir.duplicate", one.dir, two.name, name);
        Some(())
    }

    /// No names where the first entry says that they begin: there are fewer entries, or more.
    fn dir_gap(&mut self) -> Option<()> {
        let entry = self.entry()?;
        let entries = self.map.entries.iter();
        let first = entries
            .filter(|other| other.dir == entry.dir)
            .min_by_key(|other| other.offset)?;
        let count = u16::try_from(self.rng.below(8)).ok()?;
        let new = (count * 12).to_le_bytes().to_vec();
        self.put("dir.gap", entry.dir, first.offset + 8, new);
        Some(())
    }

    // --- inodes ----------------------------------------------------------------------

    /// Two files have each other's blocks, or share them.
    fn extent_swap(&mut self) -> Option<()> {
        let one = self.node(|node| node.is_flat)?;
        let two = self.node(|node| node.is_flat && node.nid != one.nid)?;
        let first = self.bytes(one.offset + 16, 4)?.to_vec();
        let second = self.bytes(two.offset + 16, 4)?.to_vec();
        self.put("extent.swap", one.nid, one.offset + 16, second);
        if self.rng.once_in(2) {
            self.put("extent.swap", two.nid, two.offset + 16, first);
        }
        Some(())
    }

    /// The data of a file is where metadata is.
    fn extent_metadata(&mut self) -> Option<()> {
        let file = self.node(|node| node.is_flat)?;
        let other = self.node(|_| true)?;
        let block_size = usize::try_from(self.map.super_block.block_size()).ok()?;
        let block = match self.rng.once_in(3) {
            true => 0,
            false => u32::try_from(other.offset / block_size).ok()?,
        };
        let block = block.to_le_bytes().to_vec();
        self.put("extent.metadata", file.nid, file.offset + 16, block);
        Some(())
    }

    fn two_inodes(&mut self) -> Option<(Node, Node)> {
        let one = self.node(|_| true)?;
        let two = self.node(|node| node.len == one.len && node.nid != one.nid)?;
        Some((one, two))
    }

    /// Two inodes in each other's place.
    fn inode_swap(&mut self) -> Option<()> {
        let (one, two) = self.two_inodes()?;
        let first = self.bytes(one.offset, one.len)?.to_vec();
        let second = self.bytes(two.offset, two.len)?.to_vec();
        self.put("inode.swap", one.nid, one.offset, second);
        self.put("inode.swap", two.nid, two.offset, first);
        Some(())
    }

    /// One inode in the place of another.
    fn inode_copy(&mut self) -> Option<()> {
        let (one, two) = self.two_inodes()?;
        let first = self.bytes(one.offset, one.len)?.to_vec();
        self.put("inode.copy", two.nid, two.offset, first);
        Some(())
    }

    // --- the image -------------------------------------------------------------------

    /// A block of metadata, from its middle or its beginning on, is lost.
    fn block_zero(&mut self) -> Option<()> {
        let node = self.node(|_| true)?;
        let block_size = usize::try_from(self.map.super_block.block_size()).ok()?;
        let from = match self.rng.once_in(2) {
            true => node.offset,
            false => node.offset - node.offset % block_size,
        };
        let end = from
            .next_multiple_of(block_size)
            .max(from + 1)
            .min(self.image.len());
        // The super block is damaged by its fields.
        let from = from.max(to_usize(SUPER_OFFSET) + 144);
        let zeros = vec![0; end.checked_sub(from)?];
        self.put("block.zero", node.nid, from, zeros);
        Some(())
    }

    /// The image ends early: anywhere, or in the middle of something.
    fn image_cut(&mut self) -> Option<()> {
        let old = self.image.len();
        let block_size = usize::try_from(self.map.super_block.block_size()).ok()?;
        let fields = &self.map.fields;
        let new = match self.rng.below(8) {
            0 => self.rng.below(1200),
            1 => *self
                .rng
                .one_of(&[0, 1024, 1024 + 128, 1024 + 144, block_size])?,
            2 => old.saturating_sub(1),
            3 => old.saturating_sub(block_size),
            4 => self.rng.below(old),
            5 => {
                let field = self.rng.one_of(fields)?;
                field.offset + field.len / 2
            }
            6 => self.rng.one_of(fields)?.offset,
            _ => self.rng.below(old) / block_size * block_size,
        };
        if new >= old || std::mem::replace(&mut self.is_cut, true) {
            return None;
        }
        self.image.truncate(new);
        self.edits.push(Edit::Cut { old, new });
        // Mostly as if it had been so short from the beginning: else the size gives it away.
        if !self.rng.once_in(4) {
            let blocks = u32::try_from(new / block_size).ok()?.to_le_bytes().to_vec();
            self.put("super.blocks_lo", 0, to_usize(SUPER_OFFSET) + 36, blocks);
        }
        Some(())
    }

    /// Makes the checksum of the super block right, so that what is damaged is looked at.
    fn fix_checksum(&mut self) {
        const COMPAT_SB_CHKSUM: u8 = 1;
        let start = to_usize(SUPER_OFFSET);
        let Some(&[.., features, _, _, _, bits]) = self.bytes(start, 13) else {
            return;
        };
        if features & COMPAT_SB_CHKSUM == 0 || !(9..=12).contains(&bits) {
            return;
        }
        // It covers the block from the super block on, without the magic and itself.
        let end = (1usize << bits).max(start + if bits <= 10 { 1 << bits } else { 0 });
        let covered = self.bytes(start + 8, end.saturating_sub(start + 8));
        let Some(new) = covered.map(|bytes| crc32c(0x5045_b54a, bytes)) else {
            return;
        };
        self.put(CHECKSUM, 0, start + 4, new.to_le_bytes().to_vec());
    }
}
