// SPDX-License-Identifier: GPL-2.0

//! XXH32, the hash of the name filters of attributes (xxHash specification 0.1.1).

const PRIME_1: u32 = 0x9e37_79b1;
const PRIME_2: u32 = 0x85eb_ca77;
const PRIME_3: u32 = 0xc2b2_ae3d;
const PRIME_4: u32 = 0x27d4_eb2f;
const PRIME_5: u32 = 0x1656_67b1;

/// The bytes that are taken in at once, as four numbers.
const STRIPE: usize = 16;

/// Hashes `bytes`.
pub(crate) fn xxh32(seed: u32, bytes: &[u8]) -> u32 {
    let mut stripes = bytes.chunks_exact(STRIPE);
    let mut hash = if bytes.len() < STRIPE {
        seed.wrapping_add(PRIME_5)
    } else {
        let mut lanes = [
            seed.wrapping_add(PRIME_1).wrapping_add(PRIME_2),
            seed.wrapping_add(PRIME_2),
            seed,
            seed.wrapping_sub(PRIME_1),
        ];
        for stripe in stripes.by_ref() {
            for (lane, word) in lanes.iter_mut().zip(stripe.chunks_exact(4)) {
                *lane = lane
                    .wrapping_add(number(word).wrapping_mul(PRIME_2))
                    .rotate_left(13)
                    .wrapping_mul(PRIME_1);
            }
        }
        let [a, b, c, d] = lanes;
        a.rotate_left(1)
            .wrapping_add(b.rotate_left(7))
            .wrapping_add(c.rotate_left(12))
            .wrapping_add(d.rotate_left(18))
    };

    // The lower 32 bits of the length.
    let [a, b, c, d, ..] = bytes.len().to_le_bytes();
    hash = hash.wrapping_add(u32::from_le_bytes([a, b, c, d]));

    let mut words = stripes.remainder().chunks_exact(4);
    for word in words.by_ref() {
        hash = hash
            .wrapping_add(number(word).wrapping_mul(PRIME_3))
            .rotate_left(17)
            .wrapping_mul(PRIME_4);
    }
    for &byte in words.remainder() {
        hash = hash
            .wrapping_add(u32::from(byte).wrapping_mul(PRIME_5))
            .rotate_left(11)
            .wrapping_mul(PRIME_1);
    }

    hash ^= hash.wrapping_shr(15);
    hash = hash.wrapping_mul(PRIME_2);
    hash ^= hash.wrapping_shr(13);
    hash = hash.wrapping_mul(PRIME_3);
    hash ^ hash.wrapping_shr(16)
}

/// The number in four bytes.
fn number(word: &[u8]) -> u32 {
    word.iter().rev().fold(0, |number: u32, &byte| {
        number.wrapping_shl(8) | u32::from(byte)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The test data of xxHash (`tests/sanity_test.c`).
    fn test_data() -> [u8; 222] {
        let mut state = 2_654_435_761u64;
        [0; 222].map(|_: u8| {
            let [byte, ..] = state.to_be_bytes();
            state = state.wrapping_mul(11_400_714_785_074_694_797);
            byte
        })
    }

    #[test]
    fn matches_the_test_vectors_of_xxhash() {
        const SEED: u32 = 2_654_435_761;
        for (len, without_seed, with_seed) in [
            (0, 0x02cc_5d05, 0x36b7_8ae7),
            (1, 0xcf65_b03e, 0xb454_5aa4),
            (14, 0x1208_e7e2, 0x6af1_d1fe),
            (222, 0x5bd1_1dbd, 0x5880_3c5f),
        ] {
            let data = test_data();
            let hashes = data
                .get(..len)
                .map(|data| (xxh32(0, data), xxh32(SEED, data)));
            assert_eq!(hashes, Some((without_seed, with_seed)), "{len} bytes");
        }
    }

    #[test]
    fn matches_well_known_digests() {
        assert_eq!(xxh32(0, b"a"), 0x550d_7456);
        assert_eq!(xxh32(0, b"abc"), 0x32d1_53ff);
        // Two stripes, a word and three bytes.
        let text = b"Nobody inspects the spammish repetition";
        assert_eq!(xxh32(0, text), 0xe229_3b2f);
    }
}
