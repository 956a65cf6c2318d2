// SPDX-License-Identifier: GPL-2.0
//! Numbers that look random and are the same for the same seed, on every machine and for ever.

/// The generator SplitMix64.
pub struct Rng(u64);

impl Rng {
    /// A generator that gives the numbers of a seed.
    pub fn new(seed: u64) -> Self {
        Rng(seed)
    }

    /// The next one.
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `end`, and 0 if there is none.
    pub fn below(&mut self, end: usize) -> usize {
        match u64::try_from(end) {
            // Less than `end`.
            Ok(end) if end > 0 => usize::try_from(self.number() % end).unwrap_or(0),
            _ => 0,
        }
    }

    /// True once in so many times.
    pub fn once_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }

    /// One of these; `None` if there are none.
    pub fn one_of<'a, T>(&mut self, these: &'a [T]) -> Option<&'a T> {
        these.get(self.below(these.len()))
    }
}
