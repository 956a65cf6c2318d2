// SPDX-License-Identifier: GPL-2.0

//! Where the bytes of a file are: extents against a model that knows each byte by itself.

mod craft;

use craft::{inode_bytes, slot, super_block, BITS_48};
use erofs_disk::{
    resolve, resolve_flat, Area, DeviceSlot, Error, Extent, ExtentData, Inode, ReadError,
    SuperBlock,
};
use proptest::collection::vec;
use proptest::prelude::*;

/// The nid of the file: byte offset 1024 behind the first block.
const NID: u64 = 32;

/// How many blocks a file has at most; Miri takes its time.
const BLOCKS: u64 = if cfg!(miri) { 2 } else { 24 };

/// Incompatible features and format bits of chunk-based files.
const INDEXES: u64 = 0x20;
const LONG_BLOCKS: u64 = 0x40;

#[derive(Clone, Debug)]
enum Kind {
    Hole,
    /// With the number of the first block.
    Plain(u64),
    Inline(u64),
    /// Chunks of so many blocks, as a power of two; device and block of each, or a hole.
    Chunks {
        bits: u32,
        indexes: bool,
        long: bool,
        chunks: Vec<Option<(u16, u64)>>,
    },
}

/// A file, and the devices of its image as `(blocks, mapped)`.
#[derive(Clone, Debug)]
struct File {
    block_bits: u8,
    kind: Kind,
    size: u64,
    xattr_count: u16,
    table: Vec<(u64, u64)>,
    flat: bool,
}

/// Where one byte is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Byte {
    Zero,
    Inline(u64),
    On(u16, u64),
    Nowhere,
}

impl File {
    fn block(&self) -> u64 {
        1 << self.block_bits
    }

    fn super_block(&self) -> SuperBlock {
        super_block(self.block_bits, self.table.len() as u16, BITS_48)
    }

    fn slots(&self) -> Vec<DeviceSlot> {
        let sb = self.super_block();
        let table = self.table.iter();
        table
            .map(|&(blocks, mapped)| slot(&sb, blocks, mapped))
            .collect()
    }

    fn inode(&self) -> Result<Inode, Error> {
        let (layout, start) = match &self.kind {
            Kind::Hole => (0, 0xffff_ffff_ffff),
            Kind::Plain(start) => (0, *start),
            Kind::Inline(start) => (2, *start),
            Kind::Chunks {
                bits,
                indexes,
                long,
                ..
            } => {
                let indexes = if *indexes { INDEXES } else { 0 };
                let long = if *long { LONG_BLOCKS } else { 0 };
                (4, u64::from(*bits) | indexes | long)
            }
        };
        let bytes = inode_bytes(1 | (layout << 1), self.xattr_count, self.size, start);
        Inode::parse(&self.super_block(), NID, &bytes)
    }

    /// Where what comes behind the attributes of the inode begins.
    fn behind_the_inode(&self) -> u64 {
        let attributes = match u64::from(self.xattr_count) {
            0 => 0,
            count => 12 + 4 * (count - 1),
        };
        self.block() + NID * 32 + 64 + attributes
    }

    /// The chunk map as it is on disk, and where.
    fn chunk_map(&self) -> (u64, Vec<u8>) {
        let Kind::Chunks {
            indexes, chunks, ..
        } = &self.kind
        else {
            panic!("not in chunks");
        };
        let mut bytes = Vec::new();
        for chunk in chunks {
            let (device, block) = chunk.unwrap_or((0x5555, u64::MAX));
            let block = block.to_le_bytes();
            if *indexes {
                bytes.extend(&block[4..6]);
                bytes.extend(device.to_le_bytes());
            }
            bytes.extend(&block[..4]);
        }
        let unit = if *indexes { 8 } else { 4 };
        (self.behind_the_inode().next_multiple_of(unit), bytes)
    }

    /// Where the byte of an address is.
    fn on(&self, device: u16, start: u64) -> Byte {
        let block = start / self.block();
        let inside = start % self.block();
        let slot = usize::from(device).checked_sub(1).map(|at| self.table[at]);
        match slot {
            None if self.flat => Byte::On(0, start),
            None => {
                let mut devices = (1..).zip(&self.table);
                let found = devices.find(|(_, &(blocks, mapped))| {
                    mapped != 0 && block >= mapped && block < mapped + blocks
                });
                match found {
                    Some((device, (_, mapped))) => {
                        Byte::On(device, (block - mapped) * self.block() + inside)
                    }
                    None => Byte::On(0, start),
                }
            }
            Some((blocks, _)) if block >= blocks => Byte::Nowhere,
            Some((_, 0)) if self.flat => Byte::Nowhere,
            Some((_, mapped)) if self.flat => Byte::On(0, mapped * self.block() + start),
            Some(_) => Byte::On(device, start),
        }
    }

    /// Where the byte `pos` of the file is.
    fn byte(&self, pos: u64) -> Byte {
        // An empty last block is none.
        let tail = (self.size - 1) / self.block() * self.block();
        match &self.kind {
            Kind::Hole => Byte::Zero,
            Kind::Inline(_) if pos >= tail => Byte::Inline(self.behind_the_inode() + pos - tail),
            Kind::Plain(start) | Kind::Inline(start) => self.on(0, start * self.block() + pos),
            Kind::Chunks { bits, chunks, .. } => {
                let chunk = self.block() << bits;
                match chunks[(pos / chunk) as usize] {
                    None => Byte::Zero,
                    Some((device, block)) => self.on(device, block * self.block() + pos % chunk),
                }
            }
        }
    }

    fn extent(&self, inode: &Inode, pos: u64) -> Result<Extent, ReadError<()>> {
        let (sb, slots) = (self.super_block(), self.slots());
        let places = |address| match self.flat {
            true => resolve_flat(&sb, &slots, address),
            false => resolve(&sb, &slots, address),
        };
        inode.extent(&sb, pos, places, |area, offset, buffer: &mut [u8]| {
            assert_eq!(area, Area::Primary);
            let (start, bytes) = self.chunk_map();
            let at = offset.checked_sub(start).ok_or(())? as usize;
            let found = bytes.get(at..at + buffer.len()).ok_or(())?;
            // An entry is in one block.
            assert!(offset % self.block() + buffer.len() as u64 <= self.block());
            buffer.copy_from_slice(found);
            Ok(())
        })
    }

    /// Whether an extent is right about each of its bytes that is in the file.
    fn check(&self, extent: &Extent) -> Result<(), TestCaseError> {
        let end = extent.pos + extent.len;
        prop_assert!(extent.len > 0 && extent.pos % self.block() == 0);
        prop_assert!(end % self.block() == 0 || end == self.size);
        for pos in extent.pos..end.min(self.size) {
            let by = pos - extent.pos;
            let byte = match extent.data {
                ExtentData::Hole => Byte::Zero,
                ExtentData::Inline { start } => Byte::Inline(start + by),
                ExtentData::Blocks { device, start } => Byte::On(device, start + by),
            };
            prop_assert_eq!(byte, self.byte(pos), "byte {} of {:?}", pos, extent);
        }
        if let ExtentData::Blocks { device, start } = extent.data {
            prop_assert_eq!(start % self.block(), 0);
            prop_assert!(end <= self.size.next_multiple_of(self.block()));
            // All of it, also what is behind the end of the file.
            if let Some(index) = usize::from(device).checked_sub(1) {
                prop_assert!(start + extent.len <= self.table[index].0 * self.block());
            }
        }
        Ok(())
    }
}

fn any_kind() -> impl Strategy<Value = Kind> {
    let block = || 0u64..60;
    prop_oneof![
        1 => Just(Kind::Hole),
        2 => block().prop_map(Kind::Plain),
        2 => block().prop_map(Kind::Inline),
        6 => (0u32..4, any::<bool>(), any::<bool>(), vec(
            proptest::option::weighted(0.8, (0u16..5, block())), 24,
        )).prop_map(|(bits, indexes, long, chunks)| Kind::Chunks { bits, indexes, long, chunks }),
    ]
}

prop_compose! {
    fn any_file()(
        block_bits in 9u8..11, mut kind in any_kind(), blocks in 0..BLOCKS, rest in 1u64..=1024,
        xattr_count in prop_oneof![3 => Just(0u16), 1 => 1u16..40],
        table in vec((0u64..30, prop_oneof![Just(0), 1u64..60]), 0..5), flat: bool,
    ) -> File {
        if let Kind::Chunks { indexes, chunks, .. } = &mut kind {
            for chunk in chunks.iter_mut().flatten() {
                chunk.0 = if *indexes { chunk.0 % (table.len() as u16 + 1) } else { 0 };
            }
        }
        let block = 1 << block_bits;
        File {
            block_bits, kind, size: blocks * block + rest.min(block), xattr_count, table, flat,
        }
    }
}

proptest! {
    #[test]
    fn each_byte_is_where_the_layout_says(file in any_file(), odd in vec(0u64..20_000, 4)) {
        let inode = match file.inode() {
            Ok(inode) => inode,
            Err(error) => {
                // The tail has to be in one block.
                let tail = (file.size - 1) % file.block() + 1;
                prop_assert!(matches!(file.kind, Kind::Inline(_)));
                prop_assert!(file.behind_the_inode() % file.block() + tail > file.block());
                prop_assert_eq!(error, Error::Corrupt("inline tail: crosses a block"));
                return Ok(());
            }
        };
        // One behind the other, they cover the file.
        let mut pos = 0;
        while pos < file.size {
            match file.extent(&inode, pos) {
                Ok(extent) => {
                    prop_assert_eq!(extent.pos, pos);
                    file.check(&extent)?;
                    pos += extent.len;
                }
                Err(error) => {
                    prop_assert_eq!(file.byte(pos), Byte::Nowhere, "{:?}", error);
                    pos += file.block();
                }
            }
        }
        // From any byte on it is the same, and the byte is in it.
        for pos in odd.into_iter().map(|pos| pos % file.size) {
            match file.extent(&inode, pos) {
                Ok(extent) => {
                    prop_assert!(extent.pos <= pos && pos < extent.pos + extent.len);
                    file.check(&extent)?;
                }
                Err(_) => prop_assert_eq!(file.byte(pos), Byte::Nowhere),
            }
        }
        let error = Error::Corrupt("i_size: the file ends before this byte");
        prop_assert_eq!(file.extent(&inode, file.size), Err(error.into()));
    }

    #[test]
    fn no_place_is_beyond_the_end_of_anything(
        layout in prop_oneof![Just(0u16), Just(2), Just(4)], xattr_count: u16,
        size in prop_oneof![any::<u64>(), 0u64..100_000], start: u64, pos: u64, entry: [u8; 8],
        table in vec((0u64..1 << 48, 0u64..1 << 48), 0..4), flat: bool,
    ) {
        let sb = super_block(12, table.len() as u16, BITS_48);
        let slots: Vec<_> = table.iter().map(|&(blocks, mapped)| slot(&sb, blocks, mapped)).collect();
        // Of the chunk format only known bits, or hardly any would be taken.
        let start = if layout == 4 { start & 0x7f } else { start };
        let bytes = inode_bytes(1 | (layout << 1), xattr_count, size, start);
        let Ok(inode) = Inode::parse(&sb, NID, &bytes) else { return Ok(()) };
        let pos = if inode.size == 0 { pos } else { pos % inode.size };
        let places = |address| match flat {
            true => resolve_flat(&sb, &slots, address),
            false => resolve(&sb, &slots, address),
        };
        let extent = inode.extent(&sb, pos, places, |area, offset, buffer: &mut [u8]| {
            assert_eq!(area, Area::Primary);
            assert!(i64::try_from(offset).is_ok());
            buffer.copy_from_slice(&entry[..buffer.len()]);
            Ok::<_, ()>(())
        });
        prop_assert!(size > 0 || extent.is_err());
        let Ok(extent) = extent else { return Ok(()) };
        prop_assert!(extent.pos <= pos && pos < extent.pos.checked_add(extent.len).expect("an end"));
        match extent.data {
            ExtentData::Hole => (),
            ExtentData::Inline { start } => prop_assert!(start % 4096 + extent.len <= 4096),
            ExtentData::Blocks { device, start } => {
                let end = start.checked_add(extent.len).expect("an end");
                if let Some(index) = usize::from(device).checked_sub(1) {
                    prop_assert!(end <= table[index].0 << 12);
                }
            }
        }
    }
}
