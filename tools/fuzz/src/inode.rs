// SPDX-License-Identifier: GPL-2.0
//! Inodes.
//!
//! An input is a super block (see `input`), a nid, a byte offset in the file, and the bytes of the inode.

use erofs_disk::{device_number, Inode, Layout, EXTENDED_INODE_SIZE};

use crate::input::Input;

/// See the module.
pub fn run(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let Some(sb) = input.super_block() else {
        return;
    };
    let (nid, pos) = (input.u64(), input.u64());
    let bytes = input.rest();
    let Ok(inode) = Inode::parse(&sb, nid, bytes) else {
        return;
    };
    let size = Inode::size_of(bytes).expect("there are enough bytes");
    assert!(size <= bytes.len() && size <= EXTENDED_INODE_SIZE);
    // Its own bytes are enough, and one less is not.
    assert!(Inode::parse(&sb, nid, &bytes[..size]).is_ok());
    assert!(Inode::parse(&sb, nid, &bytes[..size - 1]).is_err());

    let place = sb.inode_offset(nid).expect("the inode is somewhere");
    assert_eq!(inode.area, sb.inode_area(nid));
    assert_eq!(inode.xattrs.start, place + size as u64);
    assert!(inode.xattrs.end - inode.xattrs.start <= 12 + 4 * 65534);
    assert!(i64::try_from(inode.size).is_ok() && i64::try_from(inode.xattrs.end).is_ok());
    assert!(inode.mtime_nsec < 1_000_000_000 && inode.nlink > 0);
    assert!(
        [inode.is_file(), inode.is_dir(), inode.is_symlink()]
            .map(usize::from)
            .iter()
            .sum::<usize>()
            <= 1
    );
    assert!(!inode.dot_omitted || inode.is_dir());
    let (major, minor) = device_number(inode.rdev);
    assert!(major < 1 << 12 && minor < 1 << 20);

    let block = u64::from(sb.block_size());
    let tail_pos = inode.tail_pos();
    assert!(tail_pos % block == 0 && inode.size - tail_pos <= block);
    match inode.layout {
        Layout::Hole => (),
        Layout::Plain { start } => {
            assert!(start % block == 0 && i64::try_from(start + inode.size).is_ok());
        }
        Layout::Inline { start, tail } => {
            assert!(start % block == 0 && i64::try_from(start + inode.size).is_ok());
            assert!(tail == inode.xattrs.end && tail % block + inode.size - tail_pos <= block);
        }
        Layout::Chunk(map) => {
            let chunk = map.chunk_size();
            assert!(chunk.is_power_of_two() && chunk >= block);
            if let Some(pos) = pos.checked_rem(inode.size) {
                let entry = map.entry(pos).expect("there is one for each byte");
                assert!(entry.pos == pos / chunk * chunk && entry.size == chunk);
                assert!(entry.offset >= inode.xattrs.end && i64::try_from(entry.offset).is_ok());
                let in_block = entry.offset % block + entry.len as u64;
                assert!(in_block <= block, "an entry in two blocks");
                assert!(map.decode(&bytes[..entry.len - 1]).is_err());
                if let Ok(Some(address)) = map.decode(bytes) {
                    assert!(address.device <= sb.device_count() && address.start % block == 0);
                }
            }
        }
    }
}
