// SPDX-License-Identifier: GPL-2.0

//! A set of blocks that are neighbours: which of them are in the cache.

/// Bits in a word of the set.
const BITS: usize = u64::BITS as usize;

/// A set of block numbers below [`BlockSet::BLOCKS`], as a bit map of 512 bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockSet {
    words: [u64; Self::BLOCKS / BITS],
}

impl BlockSet {
    /// How many blocks one set is about.
    pub const BLOCKS: usize = 4096;

    /// The empty set.
    pub const fn new() -> Self {
        Self {
            words: [0; Self::BLOCKS / BITS],
        }
    }

    /// Adds the blocks `from..to`, as far as they are below [`BlockSet::BLOCKS`], and returns how
    /// many of them were not in the set before.
    pub fn insert(&mut self, from: usize, to: usize) -> usize {
        let mut added = 0usize;
        for (first, word) in (0..).step_by(BITS).zip(self.words.iter_mut()) {
            let mask = mask(from.saturating_sub(first)) & !mask(to.saturating_sub(first));
            let new = mask & !*word;
            *word |= new;
            added = added.saturating_add(new.count_ones() as usize);
        }
        added
    }

    /// Takes out the blocks `from..to`, and returns how many of them were in the set.
    pub fn remove(&mut self, from: usize, to: usize) -> usize {
        let mut removed = 0usize;
        for (first, word) in (0..).step_by(BITS).zip(self.words.iter_mut()) {
            let mask = mask(from.saturating_sub(first)) & !mask(to.saturating_sub(first));
            let old = mask & *word;
            *word &= !old;
            removed = removed.saturating_add(old.count_ones() as usize);
        }
        removed
    }

    /// Whether the block `at` is in the set, and the first block after it of which the opposite is
    /// true, or [`BlockSet::BLOCKS`].
    pub fn run(&self, at: usize) -> (bool, usize) {
        let word = |index: usize| self.words.get(index).copied().unwrap_or(0);
        let contained = word(at / BITS) & (1 << (at % BITS)) != 0;
        // Ones are the blocks for which the run would end.
        let ends = |index: usize| if contained { !word(index) } else { word(index) };
        let mut index = at / BITS;
        let mut found = ends(index) & mask(at % BITS);
        while found == 0 {
            index = index.saturating_add(1);
            if index >= self.words.len() {
                return (contained, Self::BLOCKS);
            }
            found = ends(index);
        }
        let end = index
            .saturating_mul(BITS)
            .saturating_add(found.trailing_zeros() as usize);
        (contained, end)
    }
}

impl Default for BlockSet {
    fn default() -> Self {
        Self::new()
    }
}

/// All bits from `bit` on.
fn mask(bit: usize) -> u64 {
    match u32::try_from(bit) {
        Ok(bit) => u64::MAX.checked_shl(bit).unwrap_or(0),
        Err(_) => 0,
    }
}
