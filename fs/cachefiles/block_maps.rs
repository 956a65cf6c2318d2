// SPDX-License-Identifier: GPL-2.0

//! Sets of blocks of a file of any size: which are on disk, and which may be in memory only.

use kernel::{
    prelude::*,
    rbtree::{RBTree, RBTreeNode},
};
use netfs_split::BlockSet;
use vfs::u64_from;

/// Blocks of a leaf of the map: 16 MiB of the blob.
const LEAF: u64 = BlockSet::BLOCKS as u64;

/// Leaves that one answer of the file system fills at most, so that a huge file costs a seek for
/// each GiB rather than a long time under a lock for the first one.
const LEAVES_AT_ONCE: u64 = 64;

/// What is known, block by block. No block is in both.
pub(crate) struct Maps {
    /// What is on disk.
    pub(crate) settled: Map,
    /// What is present as long as it is in memory.
    pub(crate) unsettled: Map,
}

/// What is known of a block.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    Settled,
    Unsettled,
    Unknown,
}

impl Maps {
    pub(crate) fn new() -> Self {
        Self {
            settled: Map::new(),
            unsettled: Map::new(),
        }
    }

    /// What is known of the block `at`, and the first block up to `end` of which something else is,
    /// or else `end`.
    pub(crate) fn state(&self, at: u64, end: u64) -> (State, u64) {
        match self.settled.run(at, end) {
            (true, to) => (State::Settled, to),
            (false, to) => match self.unsettled.run(at, to) {
                (true, to) => (State::Unsettled, to),
                (false, to) => (State::Unknown, to),
            },
        }
    }
}

/// A set of blocks of a file of any size, in leaves of [`LEAF`] blocks.
pub(crate) struct Map {
    leaves: RBTree<u64, Leaf>,
    /// How many blocks are in the set.
    pub(crate) blocks: u64,
}

enum Leaf {
    /// All of its blocks.
    Full,
    /// Some of its blocks.
    Part(KBox<BlockSet>),
}

impl Map {
    pub(crate) fn new() -> Self {
        Self {
            leaves: RBTree::new(),
            blocks: 0,
        }
    }

    /// Whether the block `at` is in the set, and the first block up to `end` of which the opposite
    /// is true, or else `end`.
    pub(crate) fn run(&self, at: u64, end: u64) -> (bool, u64) {
        let (contained, mut to) = self.run_in_leaf(at);
        while to < end {
            match self.run_in_leaf(to) {
                (same, next) if same == contained => to = next,
                _ => break,
            }
        }
        (contained, to.min(end))
    }

    /// The run that `at` is in, up to the end of its leaf, or up to the next leaf if it has none.
    fn run_in_leaf(&self, at: u64) -> (bool, u64) {
        let first = at / LEAF * LEAF;
        match self.leaves.get(&(at / LEAF)) {
            Some(Leaf::Part(set)) => {
                let (contained, to) = set.run(usize::try_from(at % LEAF).unwrap_or(0));
                (contained, first.saturating_add(u64_from(to)))
            }
            Some(Leaf::Full) => (true, first.saturating_add(LEAF)),
            None => {
                let next = self.leaves.cursor_lower_bound(&(at / LEAF));
                let next = next.map(|leaf| leaf.current().0.saturating_mul(LEAF));
                (false, next.unwrap_or(u64::MAX))
            }
        }
    }

    /// Adds the blocks `from..to`, or fewer of them: what there is no memory for is forgotten, and
    /// asked for again.
    pub(crate) fn insert(&mut self, from: u64, to: u64) {
        let last = (from / LEAF).saturating_add(LEAVES_AT_ONCE);
        let mut at = from;
        while at < to && at / LEAF <= last {
            let first = at / LEAF * LEAF;
            let leaf_end = first.saturating_add(LEAF);
            let end = to.min(leaf_end);
            let inside = |block: u64| usize::try_from(block.saturating_sub(first)).unwrap_or(0);
            match self.insert_in_leaf(at / LEAF, inside(at), inside(end)) {
                Some(added) => self.blocks = self.blocks.saturating_add(u64_from(added)),
                None => return,
            }
            at = end;
        }
    }

    /// Takes out the blocks `from..to`, or more of them when there is no memory to keep some of a
    /// leaf: those are asked for again.
    pub(crate) fn remove(&mut self, from: u64, to: u64) {
        let mut at = from;
        while at < to {
            let index = match self.leaves.cursor_lower_bound(&(at / LEAF)) {
                Some(leaf) => *leaf.current().0,
                None => return,
            };
            let first = index.saturating_mul(LEAF);
            at = at.max(first);
            let end = to.min(first.saturating_add(LEAF));
            if at < end {
                let inside = |block: u64| usize::try_from(block.saturating_sub(first)).unwrap_or(0);
                let removed = self.remove_in_leaf(index, inside(at), inside(end));
                self.blocks = self.blocks.saturating_sub(u64_from(removed));
            }
            at = end.max(first.saturating_add(1));
        }
    }

    /// Takes out blocks of one leaf and returns how many went.
    fn remove_in_leaf(&mut self, index: u64, from: usize, to: usize) -> usize {
        let Some(leaf) = self.leaves.get_mut(&index) else {
            return 0;
        };
        if let Leaf::Full = leaf {
            let whole = (from, to) == (0, BlockSet::BLOCKS);
            // Under a spin lock, and not worth the last reserves.
            let set = (!whole)
                .then(|| KBox::new(BlockSet::new(), GFP_NOWAIT).ok())
                .flatten();
            let Some(mut set) = set else {
                self.leaves.remove(&index);
                return BlockSet::BLOCKS;
            };
            set.insert(0, BlockSet::BLOCKS);
            *leaf = Leaf::Part(set);
        }
        let Leaf::Part(set) = leaf else { return 0 };
        let removed = set.remove(from, to);
        if set.run(0) == (false, BlockSet::BLOCKS) {
            self.leaves.remove(&index);
        }
        removed
    }

    /// Adds blocks of one leaf and returns how many are new; none when there is no memory.
    fn insert_in_leaf(&mut self, index: u64, from: usize, to: usize) -> Option<usize> {
        match self.leaves.get_mut(&index) {
            Some(Leaf::Full) => Some(0),
            Some(leaf @ Leaf::Part(_)) => {
                let Leaf::Part(set) = leaf else { return None };
                let added = set.insert(from, to);
                if set.run(0) == (true, BlockSet::BLOCKS) {
                    *leaf = Leaf::Full;
                }
                Some(added)
            }
            None => {
                // Under a spin lock, and not worth the last reserves.
                let leaf = match (from, to) {
                    (0, BlockSet::BLOCKS) => Leaf::Full,
                    _ => {
                        let mut set = KBox::new(BlockSet::new(), GFP_NOWAIT).ok()?;
                        set.insert(from, to);
                        Leaf::Part(set)
                    }
                };
                let node = RBTreeNode::new(index, leaf, GFP_NOWAIT).ok()?;
                self.leaves.insert(node);
                to.checked_sub(from)
            }
        }
    }
}

#[kunit_tests(cachefiles_demand_block_maps)]
mod tests {
    use super::*;

    /// Every block of a small range against the answers, and the answers against each other.
    fn contains(map: &Map, block: u64) -> bool {
        map.run(block, block + 1).0
    }

    #[test]
    fn an_empty_map_knows_nothing() {
        let map = Map::new();
        assert_eq!(map.blocks, 0);
        assert_eq!(map.run(0, u64::MAX), (false, u64::MAX));
    }

    #[test]
    fn runs_cross_leaves() {
        let mut map = Map::new();
        map.insert(LEAF - 2, 2 * LEAF + 3);
        assert_eq!(map.blocks, LEAF + 5);
        assert_eq!(map.run(LEAF - 2, u64::MAX), (true, 2 * LEAF + 3));
        assert_eq!(map.run(0, u64::MAX), (false, LEAF - 2));
        assert_eq!(map.run(2 * LEAF + 3, 3 * LEAF), (false, 3 * LEAF));
    }

    #[test]
    fn blocks_are_counted_once() {
        let mut map = Map::new();
        map.insert(10, 20);
        map.insert(15, 25);
        map.insert(10, 25);
        assert_eq!(map.blocks, 15);
        assert!(contains(&map, 10) && contains(&map, 24));
        assert!(!contains(&map, 9) && !contains(&map, 25));
    }

    #[test]
    fn a_leaf_that_fills_up_takes_no_memory() {
        let mut map = Map::new();
        map.insert(0, LEAF - 1);
        assert!(matches!(map.leaves.get(&0), Some(Leaf::Part(_))));
        map.insert(LEAF - 1, LEAF);
        assert!(matches!(map.leaves.get(&0), Some(Leaf::Full)));
        assert_eq!(map.blocks, LEAF);
    }

    #[test]
    fn what_is_taken_out_is_not_there_and_not_counted() {
        let mut map = Map::new();
        map.insert(0, 3 * LEAF);
        map.remove(LEAF + 1, LEAF + 3);
        assert_eq!(map.blocks, 3 * LEAF - 2);
        assert!(contains(&map, LEAF) && contains(&map, LEAF + 3));
        assert!(!contains(&map, LEAF + 1) && !contains(&map, LEAF + 2));
        map.remove(0, u64::MAX);
        assert_eq!(map.blocks, 0);
        assert_eq!(map.run(0, u64::MAX), (false, u64::MAX));
    }

    #[test]
    fn a_leaf_that_gets_empty_goes() {
        let mut map = Map::new();
        map.insert(7 * LEAF + 5, 7 * LEAF + 6);
        map.remove(7 * LEAF + 5, 7 * LEAF + 6);
        assert!(map.leaves.get(&7).is_none());
        map.remove(0, 9 * LEAF);
        assert_eq!(map.blocks, 0);
    }

    #[test]
    fn what_is_on_disk_comes_first() {
        let mut maps = Maps::new();
        maps.unsettled.insert(0, 10);
        maps.settled.insert(4, 6);
        maps.unsettled.remove(4, 6);
        assert!(maps.state(0, 20) == (State::Unsettled, 4));
        assert!(maps.state(4, 20) == (State::Settled, 6));
        assert!(maps.state(6, 20) == (State::Unsettled, 10));
        assert!(maps.state(10, 20) == (State::Unknown, 20));
    }

    #[test]
    fn a_huge_run_is_taken_in_parts() {
        let mut map = Map::new();
        map.insert(1, u64::MAX);
        assert_eq!(map.run(1, u64::MAX), (true, (LEAVES_AT_ONCE + 1) * LEAF));
    }
}
