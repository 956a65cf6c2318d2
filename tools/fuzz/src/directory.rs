// SPDX-License-Identifier: GPL-2.0
//! Directories: listing them, and looking for a name.
//!
//! An input is the size of a block, the length of a name, the name, and the bytes of the directory. Blocks are smaller
//! here than in any image, so that there are several of them.

use erofs_disk::{BlockSearch, DirBlock, Error, Step, NAME_MAX};

use crate::input::Input;

/// See the module.
pub fn run(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let size = 13 + usize::from(input.u8());
    let len = usize::from(input.u8());
    let name = input.slice(len);
    let blocks: Vec<_> = input.rest().chunks(size).collect();

    let names = list(&blocks);
    let found = find(&blocks, name);
    let Ok(names) = names else {
        return;
    };
    // What is found is there, also if the names are in no order.
    if let Ok(Some(nid)) = found {
        assert!(names.contains(&(name, nid)));
    }
    if names.is_sorted_by(|(a, _), (b, _)| a < b) {
        for (name, nid) in &names {
            assert_eq!(find(&blocks, name), Ok(Some(*nid)));
        }
        let there = names.iter().find(|(there, _)| *there == name);
        assert_eq!(found, Ok(there.map(|(_, nid)| *nid)));
    }
}

/// All names with their nids.
fn list<'a>(blocks: &[&'a [u8]]) -> Result<Vec<(&'a [u8], u64)>, Error> {
    let mut names = Vec::new();
    for bytes in blocks {
        let block = DirBlock::new(bytes)?;
        assert!(block.count() > 0 && block.get(block.count()).is_none());
        assert_eq!(block.entries().count(), block.count());
        for (index, entry) in block.entries().enumerate() {
            assert_eq!(block.get(index), Some(entry));
            let entry = entry?;
            assert!((1..=NAME_MAX).contains(&entry.name.len()) && entry.file_type <= 7);
            assert!(!entry.name.contains(&0) && !entry.name.contains(&b'/'));
            names.push((entry.name, entry.nid));
        }
        assert_eq!(
            Ok(block.first_name()?),
            block.get(0).expect("one").map(|first| first.name)
        );
    }
    Ok(names)
}

fn find(blocks: &[&[u8]], name: &[u8]) -> Result<Option<u64>, Error> {
    let mut search = BlockSearch::new(blocks.len() as u64);
    let mut reads = 0;
    while let Some(index) = search.next_block() {
        reads += 1;
        assert!(reads <= blocks.len().ilog2() + 1, "a block is read again");
        let block = DirBlock::new(blocks[index as usize])?;
        if let Step::Found(entry) = search.step(&block, name)? {
            assert_eq!(entry.name, name);
            return Ok(Some(entry.nid));
        }
    }
    Ok(None)
}
