// SPDX-License-Identifier: GPL-2.0

//! Name filters of attributes: whatever names there are, none is hidden, and hardly ever is one
//! looked for in vain.

mod craft;

use std::collections::BTreeMap;

use craft::{put, super_bytes};
use erofs_disk::{Area, Inode, LongPrefix, LongPrefixes, Namespace, SuperBlock, Xattrs};
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;

/// Compatible feature: there are name filters.
const FILTERS: u32 = 0x4;

/// Byte offset of the inode. Its attributes are behind it, then come the shared ones.
const INODE: usize = 512;
const SHARED: usize = 64 * 512;
const PREFIXES: usize = 96 * 512;
const END: usize = 128 * 512;

const LONG: u8 = 0x80;

/// Long prefixes: the number of a well-known one, and what comes behind it.
const TABLE: [(u8, &[u8]); 4] = [(1, b"a"), (1, b"ab."), (4, b""), (6, b"\xff\x01")];

const NAMESPACES: [(Namespace, u8); 5] = [
    (Namespace::User, 1),
    (Namespace::PosixAclAccess, 2),
    (Namespace::PosixAclDefault, 3),
    (Namespace::Trusted, 4),
    (Namespace::Security, 6),
];

/// XXH32, step by step as its specification has it. The crate has one of its own, which this one is
/// compared with.
fn xxh32(seed: u32, bytes: &[u8]) -> u32 {
    const P: [u32; 5] = [
        2_654_435_761,
        2_246_822_519,
        3_266_489_917,
        668_265_263,
        374_761_393,
    ];
    let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("4 bytes"));
    let round = |acc: u32, at| {
        let acc = acc.wrapping_add(word(at).wrapping_mul(P[1]));
        acc.rotate_left(13).wrapping_mul(P[0])
    };
    let mut at = 0;
    let mut hash = seed.wrapping_add(P[4]);
    if bytes.len() >= 16 {
        let mut acc1 = seed.wrapping_add(P[0]).wrapping_add(P[1]);
        let mut acc2 = seed.wrapping_add(P[1]);
        let mut acc3 = seed;
        let mut acc4 = seed.wrapping_sub(P[0]);
        while at + 16 <= bytes.len() {
            acc1 = round(acc1, at);
            acc2 = round(acc2, at + 4);
            acc3 = round(acc3, at + 8);
            acc4 = round(acc4, at + 12);
            at += 16;
        }
        hash = acc1
            .rotate_left(1)
            .wrapping_add(acc2.rotate_left(7))
            .wrapping_add(acc3.rotate_left(12))
            .wrapping_add(acc4.rotate_left(18));
    }
    hash = hash.wrapping_add(bytes.len() as u32);
    while at + 4 <= bytes.len() {
        hash = hash.wrapping_add(word(at).wrapping_mul(P[2]));
        hash = hash.rotate_left(17).wrapping_mul(P[3]);
        at += 4;
    }
    for &byte in &bytes[at..] {
        hash = hash.wrapping_add(u32::from(byte).wrapping_mul(P[4]));
        hash = hash.rotate_left(11).wrapping_mul(P[0]);
    }
    hash = (hash ^ (hash >> 15)).wrapping_mul(P[1]);
    hash = (hash ^ (hash >> 13)).wrapping_mul(P[2]);
    hash ^ (hash >> 16)
}

/// The bit of a name: `0x25bbe08f` and the number of the prefix are the seed.
fn filter_bit(index: u8, name: &[u8]) -> u32 {
    1 << (xxh32(0x25bb_e08f + u32::from(index), name) % 32)
}

/// An attribute: where it is, with which long prefix if it has one, and its value.
#[derive(Clone, Debug)]
struct Attribute {
    shared: bool,
    long: bool,
    value: Vec<u8>,
}

/// Attributes by the position of their namespace and the name behind its prefix.
type Attributes = BTreeMap<(usize, Vec<u8>), Attribute>;

struct Image {
    super_block: SuperBlock,
    bytes: Vec<u8>,
}

impl Image {
    fn new(attributes: &Attributes) -> Self {
        let mut sb = super_bytes(9, 0, 0);
        put(&mut sb, 8, &FILTERS.to_le_bytes());
        put(&mut sb, 44, &(SHARED as u32 / 512).to_le_bytes());
        put(&mut sb, 91, &[TABLE.len() as u8]);
        put(&mut sb, 92, &(PREFIXES as u32 / 4).to_le_bytes());

        let (mut own, mut ids, mut shared) = (Vec::new(), Vec::new(), Vec::new());
        let mut filter = u32::MAX;
        for ((namespace, name), attribute) in attributes {
            let index = NAMESPACES[*namespace].1;
            filter &= !filter_bit(index, name);
            let long = TABLE.iter().enumerate().find_map(|(at, (base, infix))| {
                let rest = name.strip_prefix(*infix)?;
                (attribute.long && *base == index).then_some((LONG | at as u8, rest))
            });
            let (prefix, rest) = long.unwrap_or((index, name));
            let mut bytes = vec![rest.len() as u8, prefix];
            bytes.extend((attribute.value.len() as u16).to_le_bytes());
            bytes.extend(rest);
            bytes.extend(&attribute.value);
            bytes.resize(bytes.len().next_multiple_of(4), 0);
            if attribute.shared {
                ids.extend((shared.len() as u32 / 4).to_le_bytes());
                shared.extend(bytes);
            } else {
                own.extend(bytes);
            }
        }

        let mut bytes = vec![0; END];
        let header = INODE + 32;
        put(&mut bytes, header, &filter.to_le_bytes());
        put(&mut bytes, header + 4, &[(ids.len() / 4) as u8]);
        put(&mut bytes, header + 12, &ids);
        put(&mut bytes, header + 12 + ids.len(), &own);
        put(&mut bytes, SHARED, &shared);
        let count = (ids.len() + own.len()) / 4 + 1;
        put(&mut bytes, INODE + 2, &(count as u16).to_le_bytes());
        put(&mut bytes, INODE + 4, &0o100644u16.to_le_bytes());
        put(&mut bytes, INODE + 6, &1u16.to_le_bytes());
        let mut at = PREFIXES;
        for (base, infix) in TABLE {
            put(&mut bytes, at, &(infix.len() as u16 + 1).to_le_bytes());
            put(&mut bytes, at + 2, &[base]);
            put(&mut bytes, at + 3, infix);
            at += (3 + infix.len()).next_multiple_of(4);
        }
        Image {
            super_block: SuperBlock::parse(&sb).expect("right"),
            bytes,
        }
    }

    fn read(&self, area: Area, offset: u64, buffer: &mut [u8]) -> Result<(), ()> {
        assert_eq!(area, Area::Primary);
        let found = self.bytes.get(offset as usize..).ok_or(())?;
        buffer.copy_from_slice(found.get(..buffer.len()).ok_or(())?);
        Ok(())
    }

    fn prefixes(&self) -> Vec<LongPrefix> {
        let mut records = LongPrefixes::new(&self.super_block);
        std::iter::from_fn(|| {
            records
                .next(|area, offset, buffer: &mut [u8]| self.read(area, offset, buffer))
                .expect("right")
        })
        .collect()
    }

    /// Does something with the attributes of the inode.
    fn with<T>(&self, f: impl FnOnce(Xattrs<'_>) -> T) -> T {
        let prefixes = self.prefixes();
        assert_eq!(prefixes.len(), TABLE.len());
        let inode = Inode::parse(&self.super_block, 0, &self.bytes[INODE..]).expect("right");
        let xattrs = Xattrs::open(
            &self.super_block,
            &prefixes,
            &inode,
            |area, offset, buffer| self.read(area, offset, buffer),
        );
        f(xattrs.expect("right").expect("there are some"))
    }

    /// The value of an attribute, and how often it took to read.
    fn find(&self, namespace: Namespace, name: &[u8]) -> (Option<Vec<u8>>, usize) {
        let mut reads = 0;
        let found = self.with(|xattrs| {
            xattrs.find(namespace, name, |area, offset, buffer: &mut [u8]| {
                reads += 1;
                self.read(area, offset, buffer)
            })
        });
        let value = found.expect("right").map(|value| {
            let start = value.offset as usize;
            self.bytes[start..start + value.len].to_vec()
        });
        (value, reads)
    }
}

fn any_name() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        3 => vec(prop_oneof![Just(b'a'), Just(b'b'), Just(b'.'), Just(255), Just(1)], 0..6),
        2 => vec(1u8..=255, 0..40),
        1 => vec(1u8..=255, 200..=255),
    ]
}

fn any_attributes() -> impl Strategy<Value = Attributes> {
    let attribute = (any::<bool>(), any::<bool>(), vec(any::<u8>(), 0..20)).prop_map(
        |(shared, long, value)| Attribute {
            shared,
            long,
            value,
        },
    );
    // Miri takes its time.
    btree_map(
        (0usize..5, any_name()),
        attribute,
        1..if cfg!(miri) { 5 } else { 30 },
    )
}

proptest! {
    #[test]
    fn a_filter_hides_no_attribute(
        attributes in any_attributes(), others in vec((0usize..5, any_name()), 20),
    ) {
        let image = Image::new(&attributes);
        for ((namespace, name), attribute) in &attributes {
            let namespace = NAMESPACES[*namespace].0;
            prop_assert!(image.with(|xattrs| xattrs.may_have(namespace, name)));
            let (found, _) = image.find(namespace, name);
            prop_assert_eq!(found.as_ref(), Some(&attribute.value));
        }
        let filter = u32::from_le_bytes(image.bytes[INODE + 32..INODE + 36].try_into().expect("4"));
        for (at, name) in others {
            let (namespace, index) = NAMESPACES[at];
            let expected = attributes.get(&(at, name.clone()));
            let (found, reads) = image.find(namespace, &name);
            prop_assert_eq!(found.as_ref(), expected.map(|attribute| &attribute.value));
            // What the filter knows to be absent takes no read at all.
            let absent = filter & filter_bit(index, &name) != 0;
            prop_assert_eq!(image.with(|xattrs| xattrs.may_have(namespace, &name)), !absent);
            prop_assert_eq!(reads == 0, absent);
        }
    }

    #[test]
    fn damaged_attributes_are_an_answer_or_an_error_after_few_reads(
        attributes in any_attributes(),
        damage in vec((any::<prop::sample::Index>(), any::<u8>()), 1..20),
    ) {
        let mut image = Image::new(&attributes);
        // Header, ids and own attributes, as the inode says that there are.
        let count = u16::from_le_bytes([image.bytes[INODE + 2], image.bytes[INODE + 3]]);
        let len = 12 + 4 * (usize::from(count) - 1);
        for (at, value) in damage {
            image.bytes[INODE + 32 + at.index(len)] = value;
        }
        let inode = Inode::parse(&image.super_block, 0, &image.bytes[INODE..]).expect("right");
        let prefixes = image.prefixes();
        let mut reads = 0;
        let mut read = |area, offset, buffer: &mut [u8]| {
            reads += 1;
            image.read(area, offset, buffer)
        };
        let Ok(Some(xattrs)) = Xattrs::open(&image.super_block, &prefixes, &inode, &mut read) else {
            return Ok(());
        };
        let (mut entries, mut listed) = (xattrs.entries(), 0);
        while let Ok(Some(entry)) = entries.next(&mut read) {
            listed += 1;
            let own = (INODE as u64..(INODE + 32 + len) as u64).contains(&(entry.value.offset - 1));
            prop_assert!(own || entry.value.offset > SHARED as u64);
            if own {
                let end = entry.value.offset + entry.value.len as u64;
                prop_assert!(end <= (INODE + 32 + len) as u64);
            }
        }
        // An own attribute takes 4 bytes, and one read; a shared one two.
        prop_assert!(listed <= len / 4 + 255 && reads <= 1 + len / 4 + 2 * 255);
    }
}
