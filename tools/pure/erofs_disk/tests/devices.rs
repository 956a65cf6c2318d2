// SPDX-License-Identifier: GPL-2.0

//! Addresses and devices: each byte has one place, whatever the device table says.

mod craft;

use craft::{slot, super_block, BITS_48};
use erofs_disk::{resolve, resolve_flat, Address, DeviceSlot, SuperBlock};
use proptest::collection::vec;
use proptest::prelude::*;

const BLOCK: u64 = 512;

/// Blocks of the unified address space that are looked at.
const SPACE: u64 = 64;

/// The device of a block of the unified address space, and the block there: the first device of the
/// table that has it, as in the kernel's `erofs_map_dev()`.
fn first_in_table(table: &[(u64, u64)], block: u64) -> (u16, u64) {
    for (device, &(blocks, mapped)) in (1..).zip(table) {
        if mapped != 0 && (mapped..mapped + blocks).contains(&block) {
            return (device, block - mapped);
        }
    }
    (0, block)
}

fn slots(super_block: &SuperBlock, table: &[(u64, u64)]) -> Vec<DeviceSlot> {
    table
        .iter()
        .map(|&(blocks, mapped)| slot(super_block, blocks, mapped))
        .collect()
}

#[test]
fn a_device_ends_where_one_before_it_in_the_table_begins() {
    let sb = super_block(9, 2, 0);
    let slots = slots(&sb, &[(100, 100), (100, 50)]);
    let find = |block| {
        let start = block * BLOCK;
        let place = resolve(&sb, &slots, Address { device: 0, start }).expect("somewhere");
        (place.device, place.start / BLOCK, place.len / BLOCK)
    };
    assert_eq!(find(60), (2, 10, 40));
    assert_eq!(find(99), (2, 49, 1));
    assert_eq!(find(100), (1, 0, 100));
    assert_eq!(find(149), (1, 49, 51));
}

proptest! {
    #[test]
    fn each_block_of_the_unified_address_space_has_one_place(
        table in vec((0u64..20, 0u64..50), 0..6),
    ) {
        let sb = super_block(9, table.len() as u16, 0);
        let slots = slots(&sb, &table);
        for from in 0..SPACE {
            let start = from * BLOCK;
            let place = resolve(&sb, &slots, Address { device: 0, start }).expect("somewhere");
            prop_assert!(place.len > 0 && place.start % BLOCK == 0);
            // Whatever block a place was asked for, it says the same of all blocks in it.
            for block in from..SPACE.min(from + place.len / BLOCK) {
                let there = place.start / BLOCK + block - from;
                prop_assert_eq!((place.device, there), first_in_table(&table, block));
            }
        }
    }

    #[test]
    fn a_device_of_its_own_has_the_blocks_that_the_table_says(
        table in vec((0u64..20, 0u64..50), 1..6),
    ) {
        let sb = super_block(9, table.len() as u16, 0);
        let slots = slots(&sb, &table);
        for (device, &(blocks, mapped)) in (1..).zip(&table) {
            for block in 0..30 {
                let start = block * BLOCK;
                let address = Address { device, start };
                let left = blocks.checked_sub(block).filter(|&left| left > 0);
                let place = resolve(&sb, &slots, address).ok();
                prop_assert_eq!(
                    place.map(|place| (place.device, place.start, place.len)),
                    left.map(|left| (device, start, left * BLOCK))
                );
                let place = resolve_flat(&sb, &slots, address).ok();
                prop_assert_eq!(
                    place.map(|place| (place.device, place.start, place.len)),
                    left.filter(|_| mapped != 0)
                        .map(|left| (0, mapped * BLOCK + start, left * BLOCK))
                );
            }
        }
        let device = table.len() as u16 + 1;
        let address = Address { device, start: 0 };
        prop_assert!(resolve(&sb, &slots, address).is_err());
        prop_assert!(resolve_flat(&sb, &slots, address).is_err());
    }

    #[test]
    fn places_never_pass_the_end_of_anything(
        table in vec((0u64..1 << 48, 0u64..1 << 48), 0..6), device in 0u16..8, start: u64,
        near in any::<bool>(), by in -3i64..3,
    ) {
        let sb = super_block(12, table.len() as u16, BITS_48);
        let slots = slots(&sb, &table);
        // Where something begins or ends, rather than anywhere.
        let border = table.first().map_or(0, |&(blocks, mapped)| {
            (mapped + if by < 0 { blocks } else { 0 }) << 12
        });
        let start = if near { border.saturating_add_signed(by) } else { start };
        let address = Address { device, start };
        if let Ok(place) = resolve(&sb, &slots, address) {
            prop_assert!(place.len > 0);
            let end = place.start.checked_add(place.len);
            match usize::from(place.device).checked_sub(1) {
                Some(index) => prop_assert!(end.expect("an end") <= table[index].0 << 12),
                None => prop_assert!(end.is_some() && device == 0 && place.start == start),
            }
        }
        if let Ok(place) = resolve_flat(&sb, &slots, address) {
            prop_assert!(place.device == 0 && place.len > 0);
            prop_assert!(place.start.checked_add(place.len).is_some());
        }
    }
}
