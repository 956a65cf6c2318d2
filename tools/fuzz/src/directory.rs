// SPDX-License-Identifier: GPL-2.0
//! Directories: listing them, and looking for a name.
//!
//! An input is the size of a block, the length of a name, the name, and the bytes of the directory. Blocks are smaller
//! here than in any image, so that there are several of them.

use erofs_disk::{BlockSearch, DirBlock, Error, FirstName, DIR_HEAD_SIZE, NAME_MAX};

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
        let first = block.get(0).expect("one").map(|first| first.name);
        assert_eq!(first_name(bytes), first);
    }
    Ok(names)
}

/// What a reader of the head of a block takes for its first name.
fn first_name(block: &[u8]) -> Result<&[u8], Error> {
    let head = &block[..block.len().min(DIR_HEAD_SIZE)];
    let first = FirstName::locate(head, block.len())?;
    first.check(&block[first.place()])
}

fn find(blocks: &[&[u8]], name: &[u8]) -> Result<Option<u64>, Error> {
    let mut search = BlockSearch::new(blocks.len() as u64);
    let mut looks = 0;
    while let Some(index) = search.next_block() {
        looks += 1;
        assert!(
            looks <= blocks.len().ilog2() + 1,
            "a block is looked at again"
        );
        search.step(first_name(blocks[index as usize])?, name);
    }
    let Some(index) = search.result() else {
        return Ok(None);
    };
    let found = DirBlock::new(blocks[index as usize])?.find(name)?;
    Ok(found.map(|entry| {
        assert_eq!(entry.name, name);
        entry.nid
    }))
}
