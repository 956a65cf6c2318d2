// SPDX-License-Identifier: GPL-2.0
//! CRC-32C, as the super block has it: the format crate makes none for one that is not right.

/// Goes on from `crc` with these bytes.
pub fn crc32c(crc: u32, bytes: &[u8]) -> u32 {
    bytes.iter().fold(crc, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            let out = crc & 1 != 0;
            (crc >> 1) ^ if out { 0x82f6_3b78 } else { 0 }
        })
    })
}
