// SPDX-License-Identifier: GPL-2.0

//! Crafted bytes: each rule that they break has its error, and none of them makes the crate panic.

use erofs_disk::{
    device_number, resolve, Address, Area, DeviceSlot, DirBlock, Error, FirstName, Inode, Layout,
    SuperBlock,
};
use proptest::collection::{btree_set, vec};
use proptest::prelude::*;

fn put(bytes: &mut [u8], offset: usize, value: &[u8]) {
    bytes[offset..offset + value.len()].copy_from_slice(value);
}

/// A super block with 4096-byte blocks, metadata at block 1, root nid 36, and `devices` extra
/// devices.
fn super_bytes(devices: u16) -> Vec<u8> {
    let mut bytes = vec![0; 3072];
    put(&mut bytes, 0, &0xe0f5_e1e2u32.to_le_bytes());
    put(&mut bytes, 12, &[12]);
    put(&mut bytes, 14, &36u16.to_le_bytes());
    put(&mut bytes, 24, &1_700_000_000u64.to_le_bytes());
    put(&mut bytes, 36, &1000u32.to_le_bytes());
    put(&mut bytes, 40, &1u32.to_le_bytes());
    put(
        &mut bytes,
        80,
        &(0x4u32 | if devices > 0 { 0x8 } else { 0 }).to_le_bytes(),
    );
    put(&mut bytes, 86, &devices.to_le_bytes());
    put(&mut bytes, 88, &9u16.to_le_bytes());
    bytes
}

fn super_block(devices: u16) -> SuperBlock {
    SuperBlock::parse(&super_bytes(devices)).expect("a right super block")
}

/// Parses a super block with one field changed.
fn with(offset: usize, value: &[u8]) -> Result<SuperBlock, Error> {
    let mut bytes = super_bytes(1);
    put(&mut bytes, offset, value);
    SuperBlock::parse(&bytes)
}

#[test]
fn super_blocks_are_checked() {
    let good = super_block(1);
    assert_eq!(good.root_nid(), 36);
    assert_eq!(good.block_size(), 4096);
    assert_eq!(good.inode_offset(36), Ok(4096 + 36 * 32));
    assert_eq!(good.device_slot_offset(0), Some(1152));
    assert_eq!(good.device_slot_offset(1), None);

    assert_eq!(
        with(0, b"ext4").unwrap_err(),
        Error::BadMagic(u32::from_le_bytes(*b"ext4"))
    );
    assert_eq!(
        SuperBlock::parse(&super_bytes(0)[..127]).unwrap_err(),
        Error::Corrupt("super block: too short")
    );
    for bits in [0, 8, 13, 255] {
        let error = Error::Unsupported("blkszbits: not 9 to 12");
        assert_eq!(with(12, &[bits]).unwrap_err(), error);
    }
    assert!(matches!(with(13, &[185]), Err(Error::Corrupt(what)) if what.starts_with("sb_ext")));
    assert!(matches!(with(90, &[1]), Err(Error::Unsupported(what)) if what.starts_with("dirblk")));
    assert!(matches!(with(88, &[8]), Err(Error::Corrupt(what)) if what.starts_with("devt")));
    let second = 1_000_000_000u32.to_le_bytes();
    assert!(matches!(with(32, &second), Err(Error::Corrupt(what)) if what.starts_with("fixed")));
    assert!(
        with(8, &[0xfe, 0xff, 0xff, 0xff]).is_ok(),
        "compatible features never refuse"
    );
}

#[test]
fn each_incompatible_feature_is_named() {
    for (bit, name) in [
        (0x2, Some("compression configurations")),
        (0x10, Some("tail packing")),
        (0x200, Some("an unknown bit")),
        (0x8000_0000, Some("an unknown bit")),
        (0x1, None),
        (0x4, None),
        (0x8, None),
        (0x20, None),
        (0x40, None),
        (0x80, None),
    ] {
        match (with(80, &u32::to_le_bytes(bit)), name) {
            (Ok(_), None) => (),
            (Err(Error::Unsupported(what)), Some(name)) => assert!(what.contains(name), "{what}"),
            (result, _) => panic!("{bit:#x}: {result:?}"),
        }
    }
}

/// A super block with these incompatible features, and the nid of the root directory, the high bits
/// of the number of blocks, and the nid of the metabox where these features have them.
fn long_super_bytes(features: u32, root: u64, metabox: u64) -> Vec<u8> {
    let mut bytes = super_bytes(2);
    put(&mut bytes, 13, &[1]);
    put(&mut bytes, 14, &7u16.to_le_bytes());
    put(&mut bytes, 80, &(0x8 | features).to_le_bytes());
    put(&mut bytes, 88, &10u16.to_le_bytes());
    put(&mut bytes, 112, &root.to_le_bytes());
    put(&mut bytes, 128, &metabox.to_le_bytes());
    bytes
}

#[test]
fn numbers_of_48_bits_need_their_feature() {
    let slot = {
        let mut bytes = [0; 128];
        put(&mut bytes, 64, &3u32.to_le_bytes());
        put(&mut bytes, 68, &5u32.to_le_bytes());
        put(&mut bytes, 72, &2u16.to_le_bytes());
        put(&mut bytes, 74, &0xffffu16.to_le_bytes());
        bytes
    };
    let read = |features, root| {
        let sb = SuperBlock::parse(&long_super_bytes(features, root, 0)).expect("right");
        let slot = DeviceSlot::parse(&sb, &slot).expect("128 bytes");
        (sb.root_nid(), sb.blocks(), slot.blocks(), slot.mapped())
    };
    let big = 1 << 40;
    assert_eq!(read(0, big), (7, 1000, 3, Some(5)));
    assert_eq!(
        read(0x80, big),
        (big, 0x7_0000_03e8, 0x2_0000_0003, Some(0xffff_0000_0005))
    );
    // Without a long root nid, the field that it shares is the short one.
    assert_eq!(
        read(0x80, 0),
        (7, 1000, 0x2_0000_0003, Some(0xffff_0000_0005))
    );
}

#[test]
fn the_metabox_is_checked() {
    let features = 0x180;
    let in_metabox = 1 << 63;
    let bytes = long_super_bytes(features, in_metabox | 9, 40);
    let sb = SuperBlock::parse(&bytes[..144]).expect("right");
    assert_eq!(
        (sb.root_nid(), sb.metabox_nid()),
        (in_metabox | 9, Some(40))
    );
    assert_eq!(sb.inode_area(in_metabox | 9), Area::Metabox);
    assert_eq!(sb.inode_offset(in_metabox | 9), Ok(9 * 32));
    assert_eq!(sb.inode_area(40), Area::Primary);
    assert_eq!(sb.inode_offset(40), Ok(4096 + 40 * 32));
    assert!(sb.inode_offset(u64::MAX).is_err());

    // As Linux tells them to programs.
    assert_eq!(sb.inode_number(40), 40);
    assert_eq!(sb.inode_number(in_metabox | 9), 0x8000_0009);
    assert_eq!(sb.inode_number(0x1_8000_0001), 0x3_0000_0001);
    assert_eq!(super_block(0).inode_number(in_metabox | 9), in_metabox | 9);

    let error = |bytes: &[u8]| SuperBlock::parse(bytes).map(|_| ()).unwrap_err();
    assert_eq!(
        error(&bytes[..128]),
        Error::Corrupt("super block: too short for metabox_nid")
    );
    assert_eq!(
        error(&long_super_bytes(features, 0, in_metabox | 40)),
        Error::Corrupt("metabox_nid: in the metabox")
    );
    let mut short = bytes.clone();
    put(&mut short, 13, &[0]);
    assert_eq!(
        error(&short),
        Error::Corrupt("sb_extslots: no room for metabox_nid")
    );

    // Nothing is in the metabox of an image that has none.
    let sb = SuperBlock::parse(&long_super_bytes(0x80, 0, 40)).expect("right");
    assert_eq!(sb.metabox_nid(), None);
    assert_eq!(
        sb.inode_offset(in_metabox | 9),
        Err(Error::Corrupt("nid: in the metabox, and there is none"))
    );
}

#[test]
fn inodes_in_the_metabox_have_their_tail_there() {
    let bytes = long_super_bytes(0x180, 0, 40);
    let sb = SuperBlock::parse(&bytes).expect("right");
    let nid = (1 << 63) | 2;
    let inode = Inode::parse(&sb, nid, &inode_bytes(5, 5000, 7)).expect("right");
    assert_eq!((inode.nid, inode.area), (nid, Area::Metabox));
    assert_eq!(
        inode.layout,
        Layout::Inline {
            start: 7 * 4096,
            tail: 2 * 32 + 64
        }
    );
    let inode = Inode::parse(&sb, 2, &inode_bytes(1, 5000, 7)).expect("right");
    assert_eq!(inode.area, Area::Primary);
}

#[test]
fn the_place_of_long_prefixes_depends_on_features() {
    let area = |compat: u32, incompat, packed: u64| {
        let mut bytes = long_super_bytes(incompat, 0, 40);
        put(&mut bytes, 8, &compat.to_le_bytes());
        put(&mut bytes, 92, &3u32.to_le_bytes());
        put(&mut bytes, 96, &packed.to_le_bytes());
        let sb = SuperBlock::parse(&bytes).expect("right");
        assert_eq!(sb.xattr_prefix_offset(), 12);
        sb.xattr_prefix_area()
    };
    assert_eq!(area(0, 0x40, 0), Area::Primary);
    assert_eq!(area(0, 0x40, 5), Area::Primary);
    assert_eq!(area(0, 0x60, 0), Area::Primary);
    assert_eq!(area(0, 0x60, 5), Area::Packed);
    assert_eq!(area(0, 0x160, 5), Area::Metabox);
    assert_eq!(area(0x10, 0x160, 5), Area::Primary);
    assert_eq!(area(0x10, 0x60, 5), Area::Primary);
}

#[test]
fn checksums_are_checked_and_fixed() {
    for block_bits in 9..=12u8 {
        let mut bytes = super_bytes(0);
        put(&mut bytes, 8, &1u32.to_le_bytes());
        put(&mut bytes, 12, &[block_bits]);
        let covered = [512, 1024, 1024, 3072][usize::from(block_bits) - 9];
        let parsed = SuperBlock::parse(&bytes).expect("right but for the checksum");
        assert_eq!(parsed.checksum_range(), 1024..1024 + covered as u64);
        assert!(parsed.verify_checksum(&bytes).is_err());

        SuperBlock::fix_checksum(&mut bytes).expect("can be fixed");
        let parsed = SuperBlock::parse(&bytes).expect("still right");
        assert_eq!(parsed.verify_checksum(&bytes), Ok(()));
        assert!(parsed.verify_checksum(&bytes[..covered - 1]).is_err());
        bytes[covered - 1] ^= 1;
        assert!(parsed.verify_checksum(&bytes).is_err());
    }
}

/// An extended regular file: format, size, start.
fn inode_bytes(format: u16, size: u64, start: u32) -> Vec<u8> {
    let mut bytes = vec![0; 64];
    put(&mut bytes, 0, &format.to_le_bytes());
    put(&mut bytes, 4, &0o100644u16.to_le_bytes());
    put(&mut bytes, 8, &size.to_le_bytes());
    put(&mut bytes, 16, &start.to_le_bytes());
    put(&mut bytes, 44, &1u32.to_le_bytes());
    bytes
}

#[test]
fn inodes_are_checked() {
    let sb = super_block(0);
    let parse = |format, size, start| Inode::parse(&sb, 0, &inode_bytes(format, size, start));
    let layout = |format, size, start| parse(format, size, start).map(|inode| inode.layout);

    assert_eq!(layout(1, 5000, 7), Ok(Layout::Plain { start: 7 * 4096 }));
    assert_eq!(
        layout(1, 0, u32::MAX),
        Ok(Layout::Plain {
            start: 0x0fff_ffff_f000
        })
    );
    assert_eq!(
        layout(5, 5000, 7),
        Ok(Layout::Inline {
            start: 7 * 4096,
            tail: 4096 + 64
        })
    );
    assert_eq!(parse(5, 5000, 7).map(|inode| inode.tail_pos()), Ok(4096));
    // The inode takes 64 bytes of the block, so 4032 are left for a tail.
    assert!(layout(5, 4096 + 4032, 7).is_ok());
    for size in [4033, 4096, 8192] {
        let error = Error::Corrupt("inline tail: crosses a block");
        assert_eq!(layout(5, size, 7), Err(error));
    }
    assert_eq!(
        layout(1, 1 << 63, 0),
        Err(Error::Corrupt("i_size: negative"))
    );
    assert!(matches!(
        layout(1, (1 << 63) - 1, 7),
        Err(Error::Corrupt(_))
    ));
    for format in [3, 7] {
        let error = Error::Unsupported("i_format: a compressed file");
        assert_eq!(layout(format, 1, 0), Err(error));
    }
    for format in [0xb, 0xf, 0x21, 0x8001] {
        assert!(
            matches!(layout(format, 1, 0), Err(Error::Unsupported(_))),
            "{format:#x}"
        );
    }
    let mut bytes = inode_bytes(1, 0, 0);
    put(&mut bytes, 4, &0o000644u16.to_le_bytes());
    let error = Error::Corrupt("i_mode: not a file type");
    assert_eq!(Inode::parse(&sb, 0, &bytes).unwrap_err(), error);
    let mut bytes = inode_bytes(1, 0, 0);
    put(&mut bytes, 44, &0u32.to_le_bytes());
    let error = Error::Corrupt("i_nlink: 0");
    assert_eq!(Inode::parse(&sb, 0, &bytes).unwrap_err(), error);
    let error = Error::Corrupt("inode: too short");
    assert_eq!(Inode::parse(&sb, 0, &bytes[..63]).unwrap_err(), error);
    assert_eq!(Inode::size_of(&bytes), Ok(64));
    assert_eq!(Inode::size_of(&[4, 0]), Ok(32));
    assert_eq!(Inode::size_of(&[4]), Err(error));

    for nid in [1 << 63, u64::MAX, 1 << 58] {
        assert!(sb.inode_offset(nid).is_err());
    }
    assert_eq!(device_number(0x0080_1234), (0x12, 0x834));
}

#[test]
fn compact_inodes_take_their_times_from_the_super_block() {
    let sb = super_block(0);
    let mut bytes = vec![0; 32];
    put(&mut bytes, 4, &0o100600u16.to_le_bytes());
    put(&mut bytes, 6, &3u16.to_le_bytes());
    put(&mut bytes, 16, &u32::MAX.to_le_bytes());
    let inode = Inode::parse(&sb, 2, &bytes).expect("right");
    assert_eq!(
        (inode.nlink, inode.mtime, inode.layout),
        (3, 1_700_000_000, Layout::Hole)
    );
    put(&mut bytes, 0, &0x10u16.to_le_bytes());
    let inode = Inode::parse(&sb, 2, &bytes).expect("right");
    assert_eq!(
        (inode.nlink, inode.layout),
        (
            1,
            Layout::Plain {
                start: 0x3_ffff_ffff << 12
            }
        )
    );
    put(&mut bytes, 4, &0o040700u16.to_le_bytes());
    let inode = Inode::parse(&sb, 2, &bytes).expect("right");
    assert!(inode.dot_omitted && inode.nlink == 3);
}

#[test]
fn chunk_maps_are_checked() {
    let sb = super_block(2);
    let parse = |format| {
        // Behind 16 bytes of attributes: an 8-byte index goes to the next multiple of 8.
        let mut bytes = inode_bytes(9, 100_000, format);
        put(&mut bytes, 2, &2u16.to_le_bytes());
        match Inode::parse(&sb, 0, &bytes)?.layout {
            Layout::Chunk(map) => Ok(map),
            other => panic!("{other:?}"),
        }
    };
    let map = parse(0x21).expect("right");
    let entry = map.entry(20_000).expect("in the file");
    assert_eq!(
        (entry.index, entry.offset, entry.len),
        (2, 4096 + 80 + 16, 8)
    );
    assert_eq!((entry.pos, entry.size), (16_384, 8192));
    let at = |device, start| Ok(Some(Address { device, start }));
    // Two devices take two bits of the device id.
    assert_eq!(map.decode(&[0, 0, 0xfe, 0xff, 5, 0, 0, 0]), at(2, 5 * 4096));
    assert!(map.decode(&[0, 0, 3, 0, 5, 0, 0, 0]).is_err());
    assert_eq!(map.decode(&[0, 0, 3, 0, 255, 255, 255, 255]), Ok(None));
    assert!(map.decode(&[0; 7]).is_err());

    let map = parse(0x00).expect("right");
    assert_eq!(
        map.entry(99_999).map(|entry| entry.offset),
        Ok(4096 + 80 + 24 * 4)
    );
    assert_eq!(map.decode(&[7, 0, 0, 0]), at(0, 7 * 4096));
    assert_eq!(map.decode(&[255; 4]), Ok(None));

    // 48 bits: only an entry of all ones is a hole, and only indexes have room for as many.
    let map = parse(0x60).expect("right");
    let high = |block: u64| block << 32;
    assert_eq!(
        map.decode(&[2, 1, 1, 0, 5, 0, 0, 0]),
        at(1, (high(0x102) | 5) << 12)
    );
    assert_eq!(
        map.decode(&[0, 0, 0, 0, 255, 255, 255, 255]),
        at(0, 0xffff_ffff << 12)
    );
    assert_eq!(
        map.decode(&[255, 255, 0, 0, 0, 0, 0, 0]),
        at(0, high(0xffff) << 12)
    );
    assert_eq!(map.decode(&[255, 255, 9, 9, 255, 255, 255, 255]), Ok(None));
    let map = parse(0x20).expect("right");
    assert_eq!(map.decode(&[9, 9, 1, 0, 5, 0, 0, 0]), at(1, 5 * 4096));
    assert_eq!(map.decode(&[9, 9, 0, 0, 255, 255, 255, 255]), Ok(None));
    let map = parse(0x40).expect("right");
    assert_eq!(map.entry(0).map(|entry| entry.len), Ok(4));
    assert_eq!(map.decode(&[255; 4]), Ok(None));
    assert_eq!(map.decode(&[7, 0, 0, 0]), at(0, 7 * 4096));

    for format in [0x80, 0xc0, 0x8000] {
        assert!(
            matches!(parse(format), Err(Error::Unsupported(_))),
            "{format:#x}"
        );
    }
}

fn slot(tag: &[u8], blocks: u32, mapped: u32) -> DeviceSlot {
    let mut bytes = [0; 128];
    put(&mut bytes, 0, tag);
    put(&mut bytes, 64, &blocks.to_le_bytes());
    put(&mut bytes, 68, &mapped.to_le_bytes());
    DeviceSlot::parse(&super_block(0), &bytes).expect("128 bytes")
}

#[test]
fn addresses_lead_to_devices() {
    let sb = super_block(2);
    let slots = [slot(b"first", 10, 100), slot(&[b'x'; 64], 5, 0)];
    assert_eq!(slots[0].tag(), b"first");
    assert_eq!(slots[1].tag(), [b'x'; 64]);
    let find = |device, block: u64| {
        let address = Address {
            device,
            start: block << 12,
        };
        resolve(&sb, &slots, address)
            .map(|place| (place.device, place.start >> 12, place.len >> 12))
    };
    assert_eq!(find(1, 3), Ok((1, 3, 7)));
    assert_eq!(find(2, 4), Ok((2, 4, 1)));
    assert!(find(1, 10).is_err() && find(2, 5).is_err() && find(3, 0).is_err());
    assert_eq!(find(0, 100), Ok((1, 0, 10)));
    assert_eq!(find(0, 109), Ok((1, 9, 1)));
    assert_eq!(
        find(0, 99),
        Ok((0, 99, 1)),
        "ends where the first device begins"
    );
    assert_eq!(
        find(0, 110).map(|(device, block, _)| (device, block)),
        Ok((0, 110))
    );
}

#[test]
fn addresses_of_48_bits_lead_to_devices() {
    let sb = SuperBlock::parse(&long_super_bytes(0x80, 0, 0)).expect("right");
    let mut bytes = [0; 128];
    put(&mut bytes, 64, &10u32.to_le_bytes());
    put(&mut bytes, 74, &0xffffu16.to_le_bytes());
    let slots = [DeviceSlot::parse(&sb, &bytes).expect("128 bytes")];
    let mapped = 0xffff_0000_0000;
    let find = |block: u64| {
        let start = block << 12;
        resolve(&sb, &slots, Address { device: 0, start })
            .map(|place| (place.device, place.start >> 12))
    };
    assert_eq!(find(mapped + 9), Ok((1, 9)));
    assert_eq!(find(mapped - 1), Ok((0, mapped - 1)));
    assert_eq!(find(0xffff_ffff_fffe), Ok((0, 0xffff_ffff_fffe)));
}

#[test]
fn the_largest_device_table_is_searched_to_its_end() {
    let sb = super_block(u16::MAX);
    assert_eq!(sb.device_mask(), u16::MAX);
    let mut slots = vec![slot(b"", 1, 0); usize::from(u16::MAX)];
    slots[usize::from(u16::MAX) - 1] = slot(b"last", 10, 100);
    let find = |block: u64| {
        let start = block << 12;
        resolve(&sb, &slots, Address { device: 0, start }).map(|place| place.device)
    };
    assert_eq!(find(100), Ok(u16::MAX));
    assert_eq!(find(110), Ok(0));
}

/// A directory block of at most `size` bytes; the names that fit, and how many did.
fn dir_block<'n>(names: impl Iterator<Item = &'n Vec<u8>>, size: usize) -> (Vec<u8>, usize) {
    let mut fitting: Vec<&[u8]> = Vec::new();
    let mut used = 0;
    for name in names {
        used += 12 + name.len();
        if used > size {
            break;
        }
        fitting.push(name);
    }
    let mut bytes = Vec::new();
    let mut offset = fitting.len() * 12;
    for name in &fitting {
        bytes.extend_from_slice(&nid(name).to_le_bytes());
        bytes.extend_from_slice(&(offset as u16).to_le_bytes());
        bytes.extend_from_slice(&[1, 0]);
        offset += name.len();
    }
    bytes.extend(fitting.concat());
    (bytes, fitting.len())
}

/// The nid that the tests give to a name.
fn nid(name: &[u8]) -> u64 {
    name.iter().fold(7, |nid, &byte| {
        nid.wrapping_mul(31).wrapping_add(u64::from(byte))
    })
}

fn any_name() -> impl Strategy<Value = Vec<u8>> {
    let byte = prop_oneof![4 => b'a'..=b'c', 1 => 1u8..=255].prop_map(|byte| {
        if byte == b'/' {
            b'0'
        } else {
            byte
        }
    });
    vec(byte, 1..12)
}

#[test]
fn directory_entries_are_checked() {
    let names = [b"..".to_vec(), b"a".to_vec(), b"bc".to_vec()];
    let (good, count) = dir_block(names.iter(), 512);
    assert_eq!(count, 3);
    let check = |offset: usize, value: u8| {
        let mut bytes = good.clone();
        bytes[offset] = value;
        let block = DirBlock::new(&bytes)?;
        let checked = block.entries().try_for_each(|entry| entry.map(drop));
        checked
    };
    assert_eq!(
        check(10, 200),
        Ok(()),
        "an unknown file type is unknown, not wrong"
    );
    for name_offset in [0, 12 * 4, 35, 41, 255] {
        assert!(
            check(8, name_offset).is_err(),
            "first nameoff {name_offset}"
        );
    }
    for name_offset in [0, 35, 36, 39, 255] {
        assert!(
            check(20, name_offset).is_err(),
            "second nameoff {name_offset}"
        );
    }
    assert!(check(36, 0).is_err() && check(36, b'/').is_err() && check(39, 0).is_err());
    // A NUL ends the last name.
    assert_eq!(check(40, 0), Ok(()));
    assert!(DirBlock::new(&good[..11]).is_err() && DirBlock::new(&good[..36]).is_err());

    let (long, _) = dir_block([vec![b'n'; 255]].iter(), 512);
    let first = |bytes| DirBlock::new(bytes)?.get(0).expect("one");
    assert_eq!(first(&long).map(|entry| entry.name.len()), Ok(255));
    let (long, _) = dir_block([vec![b'n'; 256]].iter(), 512);
    assert!(first(&long).is_err());
}

proptest! {
    #[test]
    fn a_block_is_searched_as_a_list_is(
        names in btree_set(any_name(), 1..10), others in vec(any_name(), 20),
    ) {
        let (bytes, count) = dir_block(names.iter(), 512);
        let block = DirBlock::new(&bytes).expect("right");
        prop_assert_eq!(count, names.len());
        for name in names.iter().chain(&others) {
            let found = block.find(name).expect("right").map(|entry| entry.nid);
            prop_assert_eq!(found, names.contains(name).then(|| nid(name)));
        }
    }

    #[test]
    fn random_directory_blocks_never_panic(
        mut bytes in vec(any::<u8>(), 0..4096), entries in 0u16..40, name in any_name(),
    ) {
        // Without this nearly every block fails at the first check.
        if entries > 0 && bytes.len() > 10 {
            put(&mut bytes, 8, &(entries * 12).to_le_bytes());
        }
        if let Ok(block) = DirBlock::new(&bytes) {
            prop_assert_eq!(block.entries().count(), block.count());
            for entry in block.entries().flatten() {
                prop_assert!((1..=255).contains(&entry.name.len()));
                prop_assert!(!entry.name.contains(&0) && !entry.name.contains(&b'/'));
            }
            prop_assert!(block.get(block.count()).is_none());
            let _ = block.find(&name);
        }
        if let Ok(first) = FirstName::locate(&bytes, bytes.len()) {
            let _ = first.check(&bytes[first.place()]);
        }
    }

    #[test]
    fn random_super_blocks_never_panic(
        random in vec(any::<u8>(), 144), kept in vec(any::<bool>(), 144), features in 0u32..0x200,
        nid: u64, device: u16,
    ) {
        let mut bytes = super_bytes(3);
        // Without those that are refused.
        put(&mut bytes, 80, &(features & !0x12).to_le_bytes());
        for (at, random) in random.into_iter().enumerate() {
            // What nearly every random value would fail at: magic, features, block sizes.
            let fixed = matches!(at, 0..4 | 80..84 | 12 | 90);
            if !kept[at] && !fixed {
                bytes[at] = random;
            }
        }
        if let Ok(sb) = SuperBlock::parse(&bytes) {
            let _ = (sb.verify_checksum(&bytes), sb.inode_offset(nid));
            let _ = sb.device_slot_offset(device);
            let _ = (sb.volume_name(), sb.shared_xattrs_area(), sb.xattr_prefix_area());
            let _ = (sb.inode_number(nid), sb.inode_area(nid));
            prop_assert!(sb.shared_xattrs_offset() < 1 << 44);
            prop_assert!(sb.xattr_prefix_offset() < 1 << 34);
            prop_assert!(sb.device_mask() >= sb.device_count());
        }
    }

    #[test]
    fn random_inodes_never_panic(
        mut bytes in vec(any::<u8>(), 0..70), format in 0u16..32, mode in 0u16..16,
        nid: u64, pos: u64,
        small in any::<bool>(),
    ) {
        if bytes.len() >= 8 {
            put(&mut bytes, 0, &format.to_le_bytes());
            put(&mut bytes, 4, &(mode << 12).to_le_bytes());
        }
        let nid = if small { nid >> 40 } else { nid };
        let sb = super_block(3);
        if let Ok(inode) = Inode::parse(&sb, nid, &bytes) {
            prop_assert!(i64::try_from(inode.size).is_ok());
            prop_assert!(inode.xattrs.start <= inode.xattrs.end);
            match inode.layout {
                Layout::Hole => (),
                Layout::Plain { start } =>
                    prop_assert!(start.checked_add(inode.size).is_some()),
                Layout::Inline { start, tail } => {
                    prop_assert!(start.checked_add(inode.size).is_some());
                    let len = inode.size - inode.tail_pos();
                    prop_assert!(tail % 4096 + len <= 4096);
                }
                Layout::Chunk(map) => {
                    // Within the file every entry has its place, anywhere else an error is right.
                    if inode.size > 0 {
                        let entry = map.entry(pos % inode.size).expect("in the file");
                        prop_assert!(entry.pos <= pos % inode.size);
                        prop_assert!(pos % inode.size - entry.pos < entry.size);
                    }
                    let _ = (map.entry(pos), map.decode(&bytes));
                }
            }
        }
    }

    #[test]
    fn random_addresses_never_panic(
        table in vec((any::<u32>(), any::<u32>()), 0..4), device in 0u16..6, start: u64,
    ) {
        let slots: Vec<_> = table
            .iter()
            .map(|&(blocks, mapped)| slot(b"", blocks, mapped))
            .collect();
        if let Ok(place) = resolve(&super_block(0), &slots, Address { device, start }) {
            prop_assert!(place.len > 0 && place.start.checked_add(place.len).is_some());
            prop_assert!(place.device != 0 || place.start == start);
        }
    }
}
