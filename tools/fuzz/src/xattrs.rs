// SPDX-License-Identifier: GPL-2.0
//! Extended attributes: listing them, and looking for one.
//!
//! An input is a super block (see `input`), whether the inode is in the metabox, and the metadata from the inode on (see
//! `area`), with the shared attributes and the long prefixes.

use std::collections::BTreeMap;

use erofs_disk::{Inode, LongPrefixes, Namespace, XattrValue, Xattrs};

use crate::area;
use crate::input::Input;

/// See the module.
pub fn run(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let Some(sb) = input.super_block() else {
        return;
    };
    let in_metabox = u64::from(input.u8() % 2) << 63;
    let metadata = input.rest();
    let Ok(inode) = Inode::parse(&sb, in_metabox, metadata) else {
        return;
    };
    let mut reads = 0usize;
    let mut read = |area, offset, buffer: &mut [u8]| {
        assert!((1..=255).contains(&buffer.len()));
        reads += 1;
        area::read(metadata, area, offset, buffer)
    };

    let mut prefixes = Vec::new();
    let mut records = LongPrefixes::new(&sb);
    while let Ok(Some(prefix)) = records.next(&mut read) {
        assert!(prefix.infix().len() <= 255);
        prefixes.push(prefix);
    }
    assert!(prefixes.len() <= usize::from(sb.xattr_prefix_count()) && records.left() == 0);

    let Ok(Some(xattrs)) = Xattrs::open(&sb, &prefixes, &inode, &mut read) else {
        return;
    };
    // The first one of each name counts.
    let mut first: BTreeMap<Vec<u8>, (Namespace, XattrValue)> = BTreeMap::new();
    let (mut listed, mut unreadable) = (0, false);
    let mut entries = xattrs.entries();
    loop {
        let entry = match entries.next(&mut read) {
            Ok(Some(entry)) => entry,
            Ok(None) => break,
            Err(_) => {
                assert!(
                    matches!(entries.next(&mut read), Ok(None)),
                    "it goes on behind an error"
                );
                break;
            }
        };
        listed += 1;
        let own =
            entry.value.area == inode.area && inode.xattrs.contains(&(entry.value.offset - 1));
        assert!(!own || listed <= 65534);
        let mut name = vec![0xff; entry.list_len()];
        assert!(matches!(entry.list(&mut name[1..], &mut read), Ok(None)));
        match entry.list(&mut name, &mut read) {
            Ok(len) => assert_eq!(len, Some(name.len())),
            Err(_) => {
                unreadable = true;
                continue;
            }
        }
        assert_eq!(name.pop(), Some(0));
        let prefix = entry.namespace.prefix();
        assert!(name.starts_with(prefix) && !name.contains(&0));
        assert_eq!(entry.is_named(&name[prefix.len()..], &mut read), Ok(true));
        first.entry(name).or_insert((entry.namespace, entry.value));
    }
    assert!(listed <= 65534 + 255);

    for (name, (namespace, value)) in &first {
        let rest = &name[namespace.prefix().len()..];
        match xattrs.find(*namespace, rest, &mut read) {
            Ok(Some(found)) => assert!(found == *value || unreadable),
            Ok(None) => assert!(!xattrs.may_have(*namespace, rest)),
            Err(_) => assert!(unreadable),
        }
    }
    // An attribute takes its id, its head, and pieces of its name: for the list, and each time that it is looked for.
    let each = usize::from(u16::MAX) + 255;
    assert!(reads <= 3 * 255 + 1 + (first.len() + 2) * 8 * each);
}
