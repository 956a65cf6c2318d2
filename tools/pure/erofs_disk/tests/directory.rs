// SPDX-License-Identifier: GPL-2.0

//! Directories: a search finds what a walk over all entries finds, and reads few blocks, also in
//! damaged directories.

use std::collections::BTreeMap;

use erofs_disk::{BlockSearch, DirBlock, DirEntry, Error, FirstName, DIR_HEAD_SIZE};
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use proptest::sample::Index;

/// How many names a directory has at most; Miri takes its time.
const NAMES: usize = if cfg!(miri) { 8 } else { 80 };

/// The nid and the type of each name.
type Names = BTreeMap<Vec<u8>, (u64, u8)>;

/// Bytes that a name takes in a directory.
fn room(name: &[u8]) -> usize {
    12 + name.len()
}

/// The blocks of a directory: each has as many entries as fit, and all but the last are filled up
/// with NULs.
fn pack(names: &Names, size: usize) -> Vec<Vec<u8>> {
    let (mut blocks, mut left) = (Vec::new(), names.iter().peekable());
    while left.peek().is_some() {
        let (mut entries, mut used) = (Vec::new(), 0);
        while let Some(entry) = left.next_if(|(name, _)| used + room(name) <= size) {
            used += room(entry.0);
            entries.push(entry);
        }
        assert!(!entries.is_empty(), "each name fits into a block");
        let mut block = Vec::new();
        let mut offset = 12 * entries.len();
        for (name, (nid, file_type)) in &entries {
            block.extend(nid.to_le_bytes());
            block.extend((offset as u16).to_le_bytes());
            block.extend([*file_type, 0xaa]);
            offset += name.len();
        }
        block.extend(entries.iter().flat_map(|(name, _)| name.iter()));
        if left.peek().is_some() {
            block.resize(size, 0);
        }
        blocks.push(block);
    }
    blocks
}

/// What a search finds. It looks at few blocks, whatever is in them, and at one of them whole.
fn find<'a>(blocks: &'a [Vec<u8>], name: &[u8]) -> Result<Option<DirEntry<'a>>, Error> {
    let mut search = BlockSearch::new(blocks.len() as u64);
    let mut looks = 0;
    while let Some(index) = search.next_block() {
        looks += 1;
        assert!(
            looks <= blocks.len().ilog2() + 1,
            "a block is looked at again"
        );
        let block = &blocks[index as usize];
        // Nothing but what a reader has read by then.
        let head = &block[..block.len().min(DIR_HEAD_SIZE)];
        let first = FirstName::locate(head, block.len())?;
        search.step(first.check(&block[first.place()])?, name);
    }
    match search.result() {
        Some(index) => DirBlock::new(&blocks[index as usize])?.find(name),
        None => Ok(None),
    }
}

fn any_name() -> impl Strategy<Value = Vec<u8>> {
    let any_byte = (1u8..=255).prop_filter("a slash", |&byte| byte != b'/');
    prop_oneof![
        // Many that begin alike.
        4 => vec(prop_oneof![Just(b'a'), Just(b'b'), Just(1), Just(255)], 1..8),
        2 => vec(any_byte.clone(), 1..30),
        1 => vec(any_byte, 200..=255),
    ]
}

fn any_names(count: usize) -> impl Strategy<Value = Names> {
    btree_map(any_name(), (any::<u64>(), 0u8..=7), 1..count)
}

/// Blocks of an image, or such that the first one is filled exactly, or lacks a byte for that.
fn size_of(names: &Names, size: usize, border: Option<(Index, usize)>) -> usize {
    let Some((index, less)) = border else {
        return size;
    };
    let sums = names.keys().scan(0, |sum, name| {
        *sum += room(name);
        Some(*sum)
    });
    let sums: Vec<_> = sums.filter(|&sum| sum - less >= 12 + 255).collect();
    match sums.len() {
        0 => size,
        count => sums[index.index(count)] - less,
    }
}

proptest! {
    #[test]
    fn a_search_finds_what_is_there_and_nothing_else(
        names in any_names(NAMES),
        others in vec(any_name(), 10),
        size in prop_oneof![Just(512), Just(1024), Just(4096)],
        border in proptest::option::of((any::<Index>(), 0usize..2)),
    ) {
        let blocks = pack(&names, size_of(&names, size, border));
        let walked: Vec<_> = blocks
            .iter()
            .flat_map(|block| DirBlock::new(block).expect("right").entries())
            .map(|entry| entry.expect("right"))
            .map(|entry| (entry.name.to_vec(), (entry.nid, entry.file_type)))
            .collect();
        prop_assert_eq!(&walked, &names.clone().into_iter().collect::<Vec<_>>());

        // Besides the names, those that come just before and behind them.
        let mut asked = others;
        for name in names.keys() {
            asked.push(name.clone());
            asked.push([&name[..], &[1]].concat());
            asked.push(name[..name.len() - 1].to_vec());
            for by in [1, 255] {
                let mut near = name.clone();
                let last = near.last_mut().expect("not empty");
                *last = last.wrapping_add(by);
                asked.push(near);
            }
        }
        for name in asked {
            let found = find(&blocks, &name).expect("right").map(|entry| {
                assert_eq!(entry.name, name);
                (entry.nid, entry.file_type)
            });
            prop_assert_eq!(found, names.get(&name).copied());
        }
    }

    #[test]
    fn a_search_in_a_damaged_directory_ends_with_a_real_entry_or_none(
        names in any_names(NAMES),
        damage in vec((any::<Index>(), any::<Index>(), any::<u8>(), any::<bool>()), 1..20),
        cut in proptest::option::of((any::<Index>(), any::<Index>())),
        swap in proptest::option::of((any::<Index>(), any::<Index>())),
    ) {
        let mut blocks = pack(&names, 512);
        for (block, at, value, in_entries) in damage {
            let block = block.index(blocks.len());
            let block = &mut blocks[block];
            // Most of it where it does the most.
            let len = if in_entries { 24.min(block.len()) } else { block.len() };
            let at = at.index(len);
            block[at] = value;
        }
        if let Some((block, len)) = cut {
            let block = block.index(blocks.len());
            let len = len.index(blocks[block].len());
            blocks[block].truncate(len);
        }
        if let Some((a, b)) = swap {
            let (a, b) = (a.index(blocks.len()), b.index(blocks.len()));
            blocks.swap(a, b);
        }
        for block in &blocks {
            let head = &block[..block.len().min(DIR_HEAD_SIZE)];
            let first = FirstName::locate(head, block.len())
                .and_then(|first| first.check(&block[first.place()]));
            let entry = DirBlock::new(block).and_then(|block| block.get(0).expect("one"));
            prop_assert_eq!(first.ok(), entry.ok().map(|entry| entry.name));
        }
        for name in names.keys() {
            if let Ok(Some(found)) = find(&blocks, name) {
                prop_assert_eq!(found.name, &name[..]);
                let mut entries = blocks
                    .iter()
                    .filter_map(|block| DirBlock::new(block).ok())
                    .flat_map(|block| block.entries().flatten().collect::<Vec<_>>());
                prop_assert!(entries.any(|entry| entry == found));
            }
        }
    }

    #[test]
    fn one_block_that_is_damaged_hides_no_name_of_the_others_from_a_walk(
        names in any_names(NAMES), damaged: Index,
    ) {
        let mut blocks = pack(&names, 512);
        let damaged = damaged.index(blocks.len());
        let lost = DirBlock::new(&blocks[damaged]).expect("right").count();
        blocks[damaged].fill(0xff);
        let readable = blocks
            .iter()
            .filter_map(|block| DirBlock::new(block).ok())
            .flat_map(|block| block.entries().flatten().collect::<Vec<_>>());
        prop_assert_eq!(readable.count(), names.len() - lost);
    }
}
