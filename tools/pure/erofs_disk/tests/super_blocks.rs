// SPDX-License-Identifier: GPL-2.0

//! Super blocks: what is taken and what is refused, against the rules one by one; and what the
//! checksum sees.

mod craft;

use craft::{put, super_bytes};
use erofs_disk::{Area, Error, SuperBlock};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;

/// The incompatible features that are supported, and of those, the ones that change the meaning of
/// other fields.
const SUPPORTED: u32 = 0x1ed;
const DEVICE_TABLE: u32 = 0x8;
const FRAGMENTS: u32 = 0x20;
const LONG_NUMBERS: u32 = 0x80;
const METABOX: u32 = 0x100;

/// What decides whether a super block is taken.
#[derive(Clone, Debug)]
struct Fields {
    magic: u32,
    block_bits: u8,
    ext_slots: u8,
    fixed_nsec: u32,
    incompat: u32,
    devices: u16,
    device_table: u16,
    dir_block_bits: u8,
    metabox_nid: u64,
    root_nid: u16,
    root_nid_48: u64,
    packed_nid: u64,
    /// How many of its bytes are there.
    len: usize,
}

impl Fields {
    fn bytes(&self) -> Vec<u8> {
        let mut bytes = super_bytes(self.block_bits, 0, 0);
        put(&mut bytes, 0, &self.magic.to_le_bytes());
        put(&mut bytes, 13, &[self.ext_slots]);
        put(&mut bytes, 14, &self.root_nid.to_le_bytes());
        put(&mut bytes, 32, &self.fixed_nsec.to_le_bytes());
        put(&mut bytes, 36, &7u32.to_le_bytes());
        put(&mut bytes, 80, &self.incompat.to_le_bytes());
        put(&mut bytes, 86, &self.devices.to_le_bytes());
        put(&mut bytes, 88, &self.device_table.to_le_bytes());
        put(&mut bytes, 90, &[self.dir_block_bits]);
        put(&mut bytes, 96, &self.packed_nid.to_le_bytes());
        put(&mut bytes, 112, &self.root_nid_48.to_le_bytes());
        put(&mut bytes, 128, &self.metabox_nid.to_le_bytes());
        bytes.truncate(self.len);
        bytes
    }

    fn has(&self, feature: u32) -> bool {
        self.incompat & feature != 0
    }

    /// The rules that it breaks.
    fn broken(&self) -> Vec<&'static str> {
        let end = 1024 + 128 + 16 * u32::from(self.ext_slots);
        let table = u32::from(self.device_table) * 128;
        let rules = [
            ("all bytes are there", self.len >= 128),
            ("it is EROFS", self.magic == 0xe0f5_e1e2),
            (
                "blocks of 512 to 4096 bytes",
                (9..=12).contains(&self.block_bits),
            ),
            ("directory blocks are blocks", self.dir_block_bits == 0),
            ("known features", self.incompat & !SUPPORTED == 0),
            ("it ends before byte 4096", end <= 4096),
            ("less than a second", self.fixed_nsec < 1_000_000_000),
            (
                "the device table is behind it",
                !self.has(DEVICE_TABLE) || self.devices == 0 || table >= end,
            ),
            (
                "the metabox is told, and in the primary device",
                !self.has(METABOX)
                    || (self.ext_slots > 0 && self.len >= 144 && self.metabox_nid >> 63 == 0),
            ),
        ];
        rules
            .into_iter()
            .filter(|(_, held)| !held)
            .map(|(rule, _)| rule)
            .collect()
    }
}

prop_compose! {
    fn any_fields()(
        magic in prop_oneof![20 => Just(0xe0f5_e1e2), 1 => any::<u32>()],
        block_bits in prop_oneof![20 => 9u8..=12, 1 => any::<u8>()],
        ext_slots in prop_oneof![5 => 0u8..4, 1 => 180u8..190, 1 => any::<u8>()],
        fixed_nsec in prop_oneof![10 => 0u32..1_000_000_000, 1 => 999_999_998u32..1_000_000_002],
        incompat in prop_oneof![9 => any::<u32>().prop_map(|bits| bits & SUPPORTED),
            1 => (0u32..32).prop_map(|bit| 1 << bit)],
        devices in prop_oneof![0u16..4, any::<u16>()],
        device_table in prop_oneof![3 => 8u16..14, 1 => any::<u16>()],
        dir_block_bits in prop_oneof![20 => Just(0u8), 1 => any::<u8>()],
        metabox_nid in prop_oneof![3 => 0u64..100, 1 => any::<u64>()],
        root_nid: u16, root_nid_48 in prop_oneof![Just(0), any::<u64>()],
        packed_nid in prop_oneof![Just(0), any::<u64>()],
        len in prop_oneof![10 => Just(144usize), 1 => 120usize..144],
    ) -> Fields {
        Fields {
            magic, block_bits, ext_slots, fixed_nsec, incompat, devices, device_table,
            dir_block_bits, metabox_nid, root_nid, root_nid_48, packed_nid, len,
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 8 * ProptestConfig::default().cases, ..ProptestConfig::default() })]

    #[test]
    fn a_super_block_is_refused_exactly_if_it_breaks_a_rule(fields in any_fields()) {
        let broken = fields.broken();
        let sb = match SuperBlock::parse(&fields.bytes()) {
            Ok(sb) => sb,
            Err(error) => {
                prop_assert!(!broken.is_empty(), "{:?}", error);
                // No image at all is told from one that is wrong.
                if fields.len >= 128 {
                    let other = fields.magic != 0xe0f5_e1e2;
                    prop_assert_eq!(matches!(error, Error::BadMagic(_)), other);
                }
                return Ok(());
            }
        };
        prop_assert!(broken.is_empty(), "{:?}", broken);

        prop_assert_eq!(sb.block_size(), 1 << fields.block_bits);
        prop_assert_eq!(sb.feature_incompat(), fields.incompat);
        prop_assert_eq!(sb.fixed_nsec(), fields.fixed_nsec);
        let long = fields.has(LONG_NUMBERS) && fields.root_nid_48 != 0;
        let (root, high) = match long {
            true => (fields.root_nid_48, u64::from(fields.root_nid)),
            false => (u64::from(fields.root_nid), 0),
        };
        prop_assert_eq!((sb.root_nid(), sb.blocks()), (root, (high << 32) | 7));
        prop_assert_eq!(sb.metabox_nid(), fields.has(METABOX).then_some(fields.metabox_nid));
        let packed = Some(fields.packed_nid).filter(|&nid| nid != 0 && fields.has(FRAGMENTS));
        prop_assert_eq!(sb.packed_nid(), packed);

        let devices = if fields.has(DEVICE_TABLE) { fields.devices } else { 0 };
        prop_assert_eq!(sb.device_count(), devices);
        prop_assert_eq!(u32::from(sb.device_mask()) + 1, (u32::from(devices) + 1).next_power_of_two());
        let table = u64::from(fields.device_table) * 128;
        for index in [0, 1, devices.saturating_sub(1), devices, u16::MAX] {
            let there = (index < devices).then_some(table + 128 * u64::from(index));
            prop_assert_eq!(sb.device_slot_offset(index), there);
        }
    }
}

proptest! {
    #[test]
    fn a_nid_is_one_place_within_its_area(nid: u64, other: u64, small: bool, metabox: bool) {
        let features = if metabox { METABOX } else { 0 };
        let sb = SuperBlock::parse(&super_bytes(12, 0, features)).expect("right");
        let nid = if small { ((nid >> 8) & !(1 << 63)) | (nid & (1 << 63)) } else { nid };
        let in_metabox = nid >> 63 == 1;
        prop_assert_eq!(sb.inode_area(nid) == Area::Metabox, in_metabox);
        let expected = u128::from(nid & !(1 << 63)) * 32 + if in_metabox { 0 } else { 4096 };
        match sb.inode_offset(nid) {
            Ok(offset) => {
                prop_assert_eq!(u128::from(offset), expected);
                prop_assert!(metabox || !in_metabox);
            }
            Err(_) => prop_assert!((in_metabox && !metabox) || expected > (1 << 62) - 1),
        }
        // No two inodes that exist have the same number.
        if nid != other && sb.inode_offset(nid).is_ok() && sb.inode_offset(other).is_ok() {
            prop_assert_ne!(sb.inode_number(nid), sb.inode_number(other));
        }
    }

    #[test]
    fn the_checksum_sees_each_bit(
        block_bits in 9u8..=12, rest in vec(any::<u8>(), 3072 - 144), at: Index, bit in 0u32..8,
    ) {
        let mut bytes = super_bytes(block_bits, 0, 0);
        put(&mut bytes, 8, &1u32.to_le_bytes());
        bytes.extend(rest);
        SuperBlock::fix_checksum(&mut bytes).expect("right");
        let sb = SuperBlock::parse(&bytes).expect("right");
        prop_assert_eq!(sb.verify_checksum(&bytes), Ok(()));

        let covered = (sb.checksum_range().end - sb.checksum_range().start) as usize;
        let at = at.index(covered);
        bytes[at] ^= 1 << bit;
        match SuperBlock::parse(&bytes) {
            // The bit that says that there is a checksum.
            Ok(sb) if at == 8 && bit == 0 => prop_assert_eq!(sb.verify_checksum(&bytes), Ok(())),
            Ok(sb) => prop_assert!(sb.verify_checksum(&bytes).is_err()),
            Err(_) => (),
        }
    }
}
