// SPDX-License-Identifier: GPL-2.0

//! The Castagnoli CRC of 32 bits (RFC 3720, appendix B.4), in the form that EROFS stores.

/// The polynomial with its bits reversed: the lowest bit is the highest power.
const POLYNOMIAL: u32 = 0x82f6_3b78;

/// State before the first byte.
pub(crate) const SEED: u32 = !0;

/// Feeds bytes into the state `crc`. EROFS stores the state itself, without the usual inversion at
/// the end.
///
/// Bit by bit and without a table: it runs once per mount, over one block.
pub(crate) fn update(crc: u32, bytes: &[u8]) -> u32 {
    bytes.iter().fold(crc, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| {
            let carry = crc & 1;
            crc.wrapping_shr(1) ^ POLYNOMIAL.wrapping_mul(carry)
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn matches_the_check_value_and_rfc_3720() {
        assert_eq!(!update(SEED, b"123456789"), 0xe306_9283);
        assert_eq!(!update(SEED, &[0; 32]), 0x8a91_36aa);
        assert_eq!(!update(SEED, &[0xff; 32]), 0x62a8_ab43);
    }

    #[test]
    fn may_be_fed_in_parts() {
        let whole = update(SEED, b"erofs");
        assert_eq!(update(update(SEED, b"er"), b"ofs"), whole);
    }
}
