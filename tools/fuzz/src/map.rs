// SPDX-License-Identifier: GPL-2.0
//! Where the bytes of a file are.
//!
//! An input is a super block (see `input`), whether all devices are in one, whether the inode is in the metabox, the
//! number of devices, two byte offsets in the file, the devices, and the metadata from the inode on (see `area`).

use erofs_disk::{resolve, resolve_flat, DeviceSlot, Extent, ExtentData, Inode};

use crate::area;
use crate::input::Input;

/// See the module.
pub fn run(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let Some(sb) = input.super_block() else {
        return;
    };
    let [flat, in_metabox, count] = input.bytes();
    let (one, another) = (input.u64(), input.u64());
    let slots: Vec<_> = (0..count % 8)
        .map(|_| {
            let mut slot = [0; 128];
            slot[64..76].copy_from_slice(&input.bytes::<12>());
            DeviceSlot::parse(&sb, &slot).expect("128 bytes")
        })
        .collect();
    let metadata = input.rest();
    let Ok(inode) = Inode::parse(&sb, u64::from(in_metabox % 2) << 63, metadata) else {
        return;
    };
    let resolve = if flat % 2 == 0 { resolve } else { resolve_flat };
    let extent_at = |pos| {
        inode.extent(
            &sb,
            pos,
            |address| resolve(&sb, &slots, address),
            |area, offset, buffer: &mut [u8]| {
                assert!(buffer.len() == 4 || buffer.len() == 8);
                area::read(metadata, area, offset, buffer)
            },
        )
    };

    assert!(extent_at(inode.size).is_err() && extent_at(u64::MAX).is_err());
    let Some(last) = inode.size.checked_sub(1) else {
        return;
    };
    let block = u64::from(sb.block_size());
    for pos in [0, one % inode.size, another % inode.size, last] {
        let Ok(extent) = extent_at(pos) else {
            continue;
        };
        let end = end(&extent);
        assert!(extent.pos <= pos && pos < end && extent.pos % block == 0);
        assert!(end % block == 0 || end == inode.size);
        match extent.data {
            ExtentData::Hole => (),
            ExtentData::Inline { start } => {
                assert!(start == inode.xattrs.end && start % block + extent.len <= block);
            }
            ExtentData::Blocks { device, start } => {
                assert!(start % block == 0 && end <= inode.size.next_multiple_of(block));
                let on_device = start.checked_add(extent.len).expect("an end");
                if let Some(index) = usize::from(device).checked_sub(1) {
                    assert!(on_device <= slots[index].blocks() << sb.block_bits());
                }
            }
        }
        // Whichever of its bytes in the file is asked for, it has the same place and the same end.
        for other in [end.min(inode.size) - 1, extent.pos + another % extent.len] {
            if other < inode.size {
                let same = extent_at(other).expect("it is in an extent");
                assert_eq!(from(&extent, same.pos), same, "{other} of {extent:?}");
            }
        }
    }
}

fn end(extent: &Extent) -> u64 {
    extent.pos.checked_add(extent.len).expect("an end")
}

/// The part of an extent from a byte of it on.
fn from(extent: &Extent, pos: u64) -> Extent {
    let skipped = pos.checked_sub(extent.pos).expect("it is in the extent");
    Extent {
        pos,
        len: extent
            .len
            .checked_sub(skipped)
            .expect("it is in the extent"),
        data: match extent.data {
            ExtentData::Hole => ExtentData::Hole,
            ExtentData::Inline { start } => ExtentData::Inline {
                start: start + skipped,
            },
            ExtentData::Blocks { device, start } => ExtentData::Blocks {
                device,
                start: start + skipped,
            },
        },
    }
}
