// SPDX-License-Identifier: GPL-2.0

//! Makes the parts of an image byte by byte.

#![allow(dead_code)] // each test uses a part

use erofs_disk::{DeviceSlot, SuperBlock};

pub fn put(bytes: &mut [u8], offset: usize, value: &[u8]) {
    bytes[offset..offset + value.len()].copy_from_slice(value);
}

/// Incompatible features.
pub const DEVICES: u32 = 0x8;
pub const BITS_48: u32 = 0x80;

/// A super block of 128 bytes and the first extension slot: metadata at block 1.
pub fn super_bytes(block_bits: u8, devices: u16, features: u32) -> Vec<u8> {
    let mut bytes = vec![0; 144];
    put(&mut bytes, 0, &0xe0f5_e1e2u32.to_le_bytes());
    put(&mut bytes, 12, &[block_bits, 1]);
    put(&mut bytes, 14, &36u16.to_le_bytes());
    put(&mut bytes, 40, &1u32.to_le_bytes());
    let devices_feature = if devices > 0 { DEVICES } else { 0 };
    put(&mut bytes, 80, &(features | devices_feature).to_le_bytes());
    put(&mut bytes, 86, &devices.to_le_bytes());
    put(&mut bytes, 88, &10u16.to_le_bytes());
    bytes
}

pub fn super_block(block_bits: u8, devices: u16, features: u32) -> SuperBlock {
    SuperBlock::parse(&super_bytes(block_bits, devices, features)).expect("a right super block")
}

/// A slot of the device table, of which `mapped` is 0 for a device that is not in the unified
/// address space.
pub fn slot(super_block: &SuperBlock, blocks: u64, mapped: u64) -> DeviceSlot {
    let mut bytes = [0; 128];
    let (blocks, mapped) = (blocks.to_le_bytes(), mapped.to_le_bytes());
    put(&mut bytes, 64, &blocks[..4]);
    put(&mut bytes, 68, &mapped[..4]);
    put(&mut bytes, 72, &blocks[4..6]);
    put(&mut bytes, 74, &mapped[4..6]);
    DeviceSlot::parse(super_block, &bytes).expect("128 bytes")
}

/// An extended regular file: format, size of the attributes as its field has it, size, start.
pub fn inode_bytes(format: u16, xattr_count: u16, size: u64, start: u64) -> Vec<u8> {
    let mut bytes = vec![0; 64];
    let start = start.to_le_bytes();
    put(&mut bytes, 0, &format.to_le_bytes());
    put(&mut bytes, 2, &xattr_count.to_le_bytes());
    put(&mut bytes, 4, &0o100644u16.to_le_bytes());
    put(&mut bytes, 6, &start[4..6]);
    put(&mut bytes, 8, &size.to_le_bytes());
    put(&mut bytes, 16, &start[..4]);
    put(&mut bytes, 44, &1u32.to_le_bytes());
    bytes
}
