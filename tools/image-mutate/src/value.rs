// SPDX-License-Identifier: GPL-2.0
//! Values that a reader may stumble over.

use crate::map::Map;
use crate::rng::Rng;

/// Another value for a number of `len` bytes, up to 8, that is `old`. `others` are values of the
/// same field elsewhere.
pub fn number(rng: &mut Rng, map: &Map, old: u64, len: usize, others: &[u64]) -> u64 {
    let max = match len {
        8.. => u64::MAX,
        len => (1 << (8 * len)) - 1,
    };
    for _ in 0..16 {
        let value = suggest(rng, map, old, max, others) & max;
        if value != old {
            return value;
        }
    }
    old ^ 1
}

fn suggest(rng: &mut Rng, map: &Map, old: u64, max: u64, others: &[u64]) -> u64 {
    let (bit, step) = (rng.below(64), rng.below(3));
    let around = |value: u64| match step {
        0 => value.wrapping_sub(1),
        1 => value,
        _ => value.wrapping_add(1),
    };
    let super_block = &map.super_block;
    match rng.below(16) {
        0 => 0,
        1 => 1,
        2 => max,
        3 => around(max / 2),
        4 | 5 => around(old),
        6 | 7 => old ^ (1 << bit),
        8 => old.wrapping_mul(2),
        9 => old / 2,
        10 => around(u64::from(super_block.block_size())),
        11 => around(super_block.blocks()),
        12 => around(1 << (31 + bit % 2)),
        13 => around(1 << (47 + bit % 17)),
        14 => rng.one_of(others).copied().unwrap_or(0),
        _ => rng.number(),
    }
}

/// A byte for a text.
pub fn byte(rng: &mut Rng, old: u8) -> u8 {
    let new = match rng.below(6) {
        0 => 0,
        1 => b'/',
        2 => b'.',
        3 => 0xff,
        4 => old.wrapping_add(1),
        _ => rng.number().to_le_bytes()[0],
    };
    match new == old {
        true => old ^ 1,
        false => new,
    }
}
