// SPDX-License-Identifier: GPL-2.0
//! The super block and the device table.
//!
//! An input is an address (a device and a byte offset), a length, and the bytes of an image from its super block on:
//! as many as the length says, be it that some of them are left out, or that there are zeros behind them.

use erofs_disk::{
    resolve, resolve_flat, Address, DeviceSlot, SuperBlock, SUPER_OFFSET, SUPER_SIZE,
    SUPER_SIZE_MAX,
};

use crate::input::Input;

/// To the end of the largest block.
const LEN_MAX: usize = 3072;

/// See the module.
pub fn run(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let device = u16::from_le_bytes(input.bytes());
    let start = input.u64();
    let len = usize::from(u16::from_le_bytes(input.bytes())) % (LEN_MAX + 1);
    let mut bytes = input.rest().to_vec();
    bytes.resize(len, 0);
    let bytes = &bytes[..];
    let Ok(sb) = SuperBlock::parse(bytes) else {
        return;
    };
    assert!(bytes.len() >= SUPER_SIZE);
    // What comes behind the slot that has a meaning does not matter.
    let short = &bytes[..bytes.len().min(SUPER_SIZE_MAX)];
    assert!(SuperBlock::parse(short).is_ok());

    let range = sb.checksum_range();
    assert!(range.start == SUPER_OFFSET && range.end <= 4096);
    let mut mended = bytes.to_vec();
    if SuperBlock::fix_checksum(&mut mended).is_ok() {
        let mended_sb = SuperBlock::parse(&mended).expect("only its checksum has changed");
        assert_eq!(mended_sb.verify_checksum(&mended), Ok(()));
        assert_eq!(sb.verify_checksum(bytes).is_ok(), {
            let has_checksum = sb.feature_compat() & 1 != 0;
            !has_checksum || mended[..8] == bytes[..8]
        });
    }

    assert!((512..=4096).contains(&sb.block_size()) && sb.block_size() == 1 << sb.block_bits());
    assert!(sb.fixed_nsec() < 1_000_000_000 && sb.blocks() < 1 << 48);
    assert!(sb.shared_xattrs_offset() < 1 << 44 && sb.xattr_prefix_offset() < 1 << 34);
    assert!(sb.volume_name().len() <= 16 && !sb.volume_name().contains(&0));
    assert!(sb.metabox_nid().is_none_or(|nid| nid >> 63 == 0));
    // A nid is a place, and each place has an inode number of its own.
    for nid in [start, sb.root_nid()] {
        let offset = sb.inode_offset(nid);
        assert!(offset.is_err() || sb.inode_offset(nid ^ 1) != offset);
        assert!(sb.inode_number(nid) != sb.inode_number(nid ^ 1));
    }

    let mut slots = Vec::new();
    for index in 0..sb.device_count() {
        let offset = sb.device_slot_offset(index).expect("it is in the table");
        let found = usize::try_from(offset - SUPER_OFFSET).expect("a small number");
        let Some(Ok(slot)) = bytes
            .get(found..)
            .map(|bytes| DeviceSlot::parse(&sb, bytes))
        else {
            return;
        };
        assert!(slot.tag().len() <= 64 && slot.blocks() < 1 << 48);
        slots.push(slot);
    }
    assert_eq!(sb.device_slot_offset(sb.device_count()), None);
    let mask = usize::from(sb.device_mask());
    assert!(slots.len() <= mask && mask <= 2 * slots.len());

    let address = Address { device, start };
    for resolve in [resolve, resolve_flat] {
        let Ok(place) = resolve(&sb, &slots, address) else {
            continue;
        };
        assert!(place.len > 0);
        let end = place.start.checked_add(place.len).expect("an end");
        if let Some(index) = usize::from(place.device).checked_sub(1) {
            assert!(end <= slots[index].blocks() << sb.block_bits());
        }
        // The last byte is on the same device, and the last one there, too.
        let last = Address {
            start: start
                .checked_add(place.len - 1)
                .expect("it is in the place"),
            ..address
        };
        let last = resolve(&sb, &slots, last).expect("it is in the place");
        assert_eq!(
            (last.device, last.start, last.len),
            (place.device, end - 1, 1)
        );
    }
}
