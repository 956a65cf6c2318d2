// SPDX-License-Identifier: GPL-2.0

//! Extended attributes in crafted images: what is written is found and listed, each rule that is
//! broken has its error, and no bytes make the crate panic or go on for ever.

use std::collections::BTreeMap;

use erofs_disk::{
    Area, Error, Inode, LongPrefix, LongPrefixes, Namespace, ReadError, SuperBlock, Xattrs,
};
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;

/// Byte offsets in the images here, all of which have blocks of 4096 bytes.
const INODE: usize = 4096;
const BODY: usize = INODE + 32;
const SHARED: usize = 100 * 4096;

/// Numbers of prefixes as they are on disk.
const USER: u8 = 1;
const TRUSTED: u8 = 4;
const LUSTRE: u8 = 5;
const SECURITY: u8 = 6;
const LONG: u8 = 0x80;

fn put(bytes: &mut [u8], offset: usize, value: &[u8]) {
    bytes[offset..offset + value.len()].copy_from_slice(value);
}

/// Fields of the super block that matter here.
#[derive(Clone, Copy, Default)]
struct Features {
    compat: u32,
    metabox: bool,
    filter_reserved: u8,
    prefixes: u8,
}

fn super_block(features: Features) -> SuperBlock {
    let mut bytes = [0; 144];
    put(&mut bytes, 0, &0xe0f5_e1e2u32.to_le_bytes());
    put(&mut bytes, 8, &features.compat.to_le_bytes());
    put(&mut bytes, 12, &[12, 1]);
    put(&mut bytes, 40, &1u32.to_le_bytes());
    put(&mut bytes, 44, &100u32.to_le_bytes());
    if features.metabox {
        put(&mut bytes, 80, &0x100u32.to_le_bytes());
    }
    put(&mut bytes, 91, &[features.prefixes]);
    put(&mut bytes, 92, &(SHARED as u32 / 4).to_le_bytes());
    put(&mut bytes, 104, &[features.filter_reserved]);
    SuperBlock::parse(&bytes).expect("a right super block")
}

/// An inode with `count` in its field for the size of the attributes.
fn inode(super_block: &SuperBlock, nid: u64, count: u16) -> Inode {
    let mut bytes = [0; 32];
    put(&mut bytes, 2, &count.to_le_bytes());
    put(&mut bytes, 4, &0o100644u16.to_le_bytes());
    put(&mut bytes, 6, &1u16.to_le_bytes());
    put(&mut bytes, 16, &u32::MAX.to_le_bytes());
    Inode::parse(super_block, nid, &bytes).expect("a right inode")
}

/// An attribute as it is on disk.
fn entry(prefix: u8, name: &[u8], value: &[u8]) -> Vec<u8> {
    let mut bytes = vec![name.len() as u8, prefix];
    bytes.extend((value.len() as u16).to_le_bytes());
    bytes.extend(name);
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

/// What is behind an inode: a header with this filter, shared attributes by their place among the
/// shared ones, and own attributes.
fn body(filter: u32, ids: &[u32], own: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = filter.to_le_bytes().to_vec();
    bytes.push(ids.len() as u8);
    bytes.extend([0; 7]);
    bytes.extend(ids.iter().flat_map(|id| id.to_le_bytes()));
    bytes.extend(own.concat());
    bytes
}

/// The bytes of the primary device from [`BODY`] and [`SHARED`] on.
struct Bytes {
    body: Vec<u8>,
    shared: Vec<u8>,
}

impl Bytes {
    fn count(&self) -> u16 {
        ((self.body.len() - 8) / 4) as u16
    }

    fn read(&self, offset: u64, buffer: &mut [u8]) -> Result<(), &'static str> {
        assert!(!buffer.is_empty() && buffer.len() <= 255);
        let offset = offset as usize;
        let found = if offset >= SHARED {
            self.shared.get(offset - SHARED..)
        } else {
            self.body
                .get(offset.checked_sub(BODY).expect("behind the inode")..)
        };
        let found = found.and_then(|bytes| bytes.get(..buffer.len()));
        buffer.copy_from_slice(found.ok_or("beyond the end")?);
        Ok(())
    }

    /// The function that the crate reads with, if all is in the primary device.
    fn primary(
        &self,
    ) -> impl FnMut(Area, u64, &mut [u8]) -> Result<(), &'static str> + Copy + use<'_> {
        |area, offset, buffer| {
            assert_eq!(area, Area::Primary);
            self.read(offset, buffer)
        }
    }
}

type Failure = ReadError<&'static str>;

/// A name, and a value.
type Pair = (Vec<u8>, Vec<u8>);

/// All attributes in the order in which they are listed, each name with the NUL at its end.
fn list(
    xattrs: &Xattrs<'_>,
    mut read: impl FnMut(Area, u64, &mut [u8]) -> Result<(), &'static str>,
) -> Result<Vec<Pair>, Failure> {
    let (mut found, mut entries) = (Vec::new(), xattrs.entries());
    while let Some(entry) = entries.next(&mut read)? {
        let mut name = vec![0xee; entry.list_len() + 3];
        assert_eq!(
            entry.list(&mut name[..entry.list_len() - 1], &mut read)?,
            None
        );
        assert_eq!(entry.list(&mut name, &mut read)?, Some(entry.list_len()));
        assert_eq!(name.split_off(entry.list_len()), [0xee; 3]);
        found.push((name, value(entry.value, &mut read)?));
    }
    Ok(found)
}

fn value(
    value: erofs_disk::XattrValue,
    mut read: impl FnMut(Area, u64, &mut [u8]) -> Result<(), &'static str>,
) -> Result<Vec<u8>, Failure> {
    let mut bytes = vec![0; value.len];
    for (piece, offset) in bytes.chunks_mut(100).zip((value.offset..).step_by(100)) {
        read(value.area, offset, piece).map_err(ReadError::Read)?;
    }
    Ok(bytes)
}

fn pairs(expected: &[(&str, &str)]) -> Vec<Pair> {
    expected
        .iter()
        .map(|(name, value)| (format!("{name}\0").into_bytes(), value.as_bytes().to_vec()))
        .collect()
}

#[test]
fn own_attributes_come_before_shared_ones() {
    let shared = [
        entry(SECURITY, b"selinux", b"label"),
        entry(USER, b"x", b"shared"),
    ];
    let bytes = Bytes {
        body: body(
            0,
            &[shared[0].len() as u32 / 4, 0],
            &[
                entry(USER, b"x", b"own"),
                entry(2, b"", b"acl"),
                entry(3, b"", b"default"),
                entry(TRUSTED, b"overlay.opaque", b"y"),
                entry(USER, b"", b"no name"),
            ],
        ),
        shared: shared.concat(),
    };
    let sb = super_block(Features::default());
    let inode = inode(&sb, 0, bytes.count());
    let read = bytes.primary();
    let xattrs = Xattrs::open(&sb, &[], &inode, read)
        .expect("right")
        .expect("there are some");
    assert_eq!(
        list(&xattrs, read),
        Ok(pairs(&[
            ("user.x", "own"),
            ("system.posix_acl_access", "acl"),
            ("system.posix_acl_default", "default"),
            ("trusted.overlay.opaque", "y"),
            ("user.", "no name"),
            ("user.x", "shared"),
            ("security.selinux", "label"),
        ]))
    );
    let find = |namespace, name: &str| {
        xattrs
            .find(namespace, name.as_bytes(), read)
            .and_then(|found| found.map(|found| value(found, read)).transpose())
            .map(|found| found.map(|bytes| String::from_utf8(bytes).expect("text")))
    };
    let is = |text: &str| Ok(Some(text.to_owned()));
    assert_eq!(find(Namespace::User, "x"), is("own"));
    assert_eq!(find(Namespace::Security, "selinux"), is("label"));
    assert_eq!(find(Namespace::PosixAclAccess, ""), is("acl"));
    assert_eq!(find(Namespace::PosixAclDefault, ""), is("default"));
    assert_eq!(find(Namespace::Trusted, "overlay.opaque"), is("y"));
    assert_eq!(find(Namespace::User, ""), is("no name"));
    for (namespace, name) in [
        (Namespace::Trusted, "x"),
        (Namespace::User, "xx"),
        (Namespace::User, "y"),
        (Namespace::Trusted, "overlay.opaquf"),
        (Namespace::Security, ""),
    ] {
        assert_eq!(find(namespace, name), Ok(None), "{namespace:?} {name}");
    }
}

#[test]
fn unknown_prefixes_and_padding_are_skipped() {
    let shared = [entry(99, b"x", b"x"), entry(LONG | 1, b"x", b"x")];
    let mut bytes = Bytes {
        body: body(
            0,
            &[0, shared[0].len() as u32 / 4],
            &[
                entry(0, b"x", b"x"),
                entry(LUSTRE, b"x", b"x"),
                entry(7, b"x", b"x"),
                entry(LONG, b"x", b"x"),
                entry(SECURITY, b"x", b"found"),
            ],
        ),
        shared: shared.concat(),
    };
    bytes.body.extend([0; 400]);
    let sb = super_block(Features::default());
    let inode = inode(&sb, 0, bytes.count());
    let read = bytes.primary();
    let xattrs = Xattrs::open(&sb, &[], &inode, read)
        .expect("right")
        .expect("there are some");
    assert_eq!(list(&xattrs, read), Ok(pairs(&[("security.x", "found")])));
}

#[test]
fn headers_are_checked() {
    let sb = super_block(Features::default());
    let open = |bytes: &Bytes, count| {
        Xattrs::open(&sb, &[], &inode(&sb, 0, count), bytes.primary())
            .map(|xattrs| xattrs.is_some())
    };
    let with = |ids: &[u32], own: &[Vec<u8>]| Bytes {
        body: body(0, ids, own),
        shared: Vec::new(),
    };
    assert_eq!(open(&with(&[], &[]), 0), Ok(false));
    let error = Error::Unsupported("i_xattr_icount: a header without attributes");
    assert_eq!(open(&with(&[], &[]), 1), Err(error.into()));
    assert_eq!(open(&with(&[1], &[]), 1), Err(error.into()));
    assert_eq!(open(&with(&[1], &[]), 2), Ok(true));
    let error = Error::Corrupt("h_shared_count: more than i_xattr_icount has room for");
    assert_eq!(open(&with(&[1, 2], &[]), 2), Err(error.into()));
    assert_eq!(open(&with(&[0; 255], &[]), 255), Err(error.into()));
    assert_eq!(open(&with(&[0; 255], &[]), 256), Ok(true));

    let mut short = with(&[1], &[]);
    short.body.truncate(11);
    assert_eq!(open(&short, 2), Err(ReadError::Read("beyond the end")));
}

#[test]
fn attributes_end_within_their_room() {
    let sb = super_block(Features::default());
    let good = entry(USER, b"name", b"value");
    let bytes = Bytes {
        body: body(0, &[], &[good.clone(), good]),
        shared: Vec::new(),
    };
    let list_of = |count| {
        let inode = inode(&sb, 0, count);
        let read = bytes.primary();
        let xattrs = Xattrs::open(&sb, &[], &inode, read).map(|xattrs| xattrs.expect("some"))?;
        list(&xattrs, read).map(|names| names.len())
    };
    // An attribute of 4 + 4 + 5 bytes takes 16.
    assert_eq!(list_of(1 + 8), Ok(2));
    let error = Error::Corrupt("e_value_size: the attribute goes beyond i_xattr_icount");
    for count in 1 + 5..1 + 8 {
        assert_eq!(list_of(count), Err(error.into()));
    }
    assert_eq!(list_of(1 + 4), Ok(1));

    // It is not looked for behind the error, either.
    let inode = inode(&sb, 0, 1 + 5);
    let read = bytes.primary();
    let xattrs = Xattrs::open(&sb, &[], &inode, read)
        .expect("right")
        .expect("some");
    assert_eq!(
        xattrs.find(Namespace::User, b"other", read),
        Err(error.into())
    );
    assert!(matches!(
        xattrs.find(Namespace::User, b"name", read),
        Ok(Some(_))
    ));
    let mut entries = xattrs.entries();
    assert!(matches!(entries.next(read), Ok(Some(_))));
    assert!(entries.next(read).is_err());
    assert!(matches!(entries.next(read), Ok(None)));
}

#[test]
fn errors_of_reading_are_handed_on() {
    let sb = super_block(Features::default());
    let bytes = Bytes {
        body: body(0, &[1000], &[entry(USER, b"name", b"value")]),
        shared: Vec::new(),
    };
    let inode = inode(&sb, 0, bytes.count());
    let read = bytes.primary();
    let xattrs = Xattrs::open(&sb, &[], &inode, read)
        .expect("right")
        .expect("some");
    let error = ReadError::Read("beyond the end");
    assert_eq!(xattrs.find(Namespace::User, b"other", read), Err(error));
    assert_eq!(list(&xattrs, read), Err(error));
    let mut entries = xattrs.entries();
    assert!(matches!(entries.next(read), Ok(Some(_))));
    assert!(entries.next(read).is_err());
    assert!(matches!(entries.next(read), Ok(None)));
}

#[test]
fn names_cannot_be_listed_with_a_nul() {
    let sb = super_block(Features::default());
    let bytes = Bytes {
        body: body(0, &[], &[entry(USER, b"a\0user.b", b"")]),
        shared: Vec::new(),
    };
    let inode = inode(&sb, 0, bytes.count());
    let read = bytes.primary();
    let xattrs = Xattrs::open(&sb, &[], &inode, read)
        .expect("right")
        .expect("some");
    let error = Error::Corrupt("e_name: NUL in the name of an attribute");
    assert_eq!(list(&xattrs, read), Err(error.into()));
}

#[test]
fn filters_are_used_if_the_image_has_known_ones() {
    let bytes = Bytes {
        body: body(
            1 << 30,
            &[],
            &[entry(2, b"", b"access"), entry(3, b"", b"default")],
        ),
        shared: Vec::new(),
    };
    let read = bytes.primary();
    let has = |features| {
        let sb = super_block(features);
        let inode = inode(&sb, 0, bytes.count());
        let xattrs = Xattrs::open(&sb, &[], &inode, read)
            .expect("right")
            .expect("some");
        // The kernel has bit 30 for the access ACL, and bit 21 for the default one, as numbers in
        // its source.
        [Namespace::PosixAclAccess, Namespace::PosixAclDefault].map(|namespace| {
            let found = xattrs.find(namespace, b"", read).expect("right").is_some();
            assert_eq!(xattrs.may_have(namespace, b""), found);
            found
        })
    };
    let features = Features::default();
    assert_eq!(has(features), [true, true]);
    assert_eq!(
        has(Features {
            compat: 4,
            ..features
        }),
        [false, true]
    );
    assert_eq!(
        has(Features {
            compat: 4,
            filter_reserved: 1,
            ..features
        }),
        [true, true],
        "a filter of another kind says nothing"
    );
    assert_eq!(bytes.body[..4], (1u32 << 30).to_le_bytes());

    let sb = super_block(Features {
        compat: 4,
        ..features
    });
    let default = Bytes {
        body: body(1 << 21, &[], &[entry(USER, b"x", b"")]),
        shared: Vec::new(),
    };
    let inode = inode(&sb, 0, default.count());
    let xattrs = Xattrs::open(&sb, &[], &inode, default.primary())
        .expect("right")
        .expect("some");
    assert!(xattrs.may_have(Namespace::PosixAclAccess, b""));
    assert!(!xattrs.may_have(Namespace::PosixAclDefault, b""));
}

#[test]
fn areas_are_kept_apart() {
    let shared = entry(TRUSTED, b"s", b"shared");
    let bytes = Bytes {
        body: body(0, &[0], &[entry(USER, b"o", b"own")]),
        shared,
    };
    // The inode in the metabox is at byte 0 of it.
    let in_metabox = 1 << 63;
    let run = |compat, metabox, nid| {
        let sb = super_block(Features {
            compat,
            metabox,
            ..Features::default()
        });
        let inode = inode(&sb, nid, bytes.count());
        let own = if nid == in_metabox { 32 } else { BODY as u64 };
        let read = |area: Area, offset: u64, buffer: &mut [u8]| {
            let shared = offset >= SHARED as u64;
            let expected = match shared {
                true if compat & 8 != 0 => Area::Metabox,
                false if nid == in_metabox => Area::Metabox,
                _ => Area::Primary,
            };
            assert_eq!(area, expected, "{offset}");
            let base = if shared { 0 } else { own };
            let start = if shared { 0 } else { BODY as u64 };
            bytes.read(offset - base + start, buffer)
        };
        let xattrs = Xattrs::open(&sb, &[], &inode, read)?.expect("some");
        list(&xattrs, read)
    };
    let all = pairs(&[("user.o", "own"), ("trusted.s", "shared")]);
    assert_eq!(run(0, false, 0), Ok(all.clone()));
    assert_eq!(run(0, true, 0), Ok(all.clone()));
    assert_eq!(run(0, true, in_metabox), Ok(all.clone()));
    assert_eq!(run(8, true, in_metabox), Ok(all.clone()));
    assert_eq!(run(8, true, 0), Ok(all));
    let error = Error::Corrupt("shared attributes: in the metabox, and there is none");
    assert_eq!(run(8, false, 0), Err(error.into()));
}

/// A record of the table of long prefixes.
fn record(index: u8, infix: &[u8]) -> Vec<u8> {
    let mut bytes = (infix.len() as u16 + 1).to_le_bytes().to_vec();
    bytes.push(index);
    bytes.extend(infix);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

/// Reads a table of `count` long prefixes.
fn prefixes(count: u8, table: &[u8]) -> Result<Vec<LongPrefix>, Failure> {
    let sb = super_block(Features {
        prefixes: count,
        ..Features::default()
    });
    let bytes = Bytes {
        body: Vec::new(),
        shared: table.to_vec(),
    };
    let (mut found, mut left) = (Vec::new(), LongPrefixes::new(&sb));
    assert_eq!(left.left(), count);
    while let Some(prefix) = left.next(bytes.primary())? {
        found.push(prefix);
    }
    assert_eq!(left.left(), 0);
    Ok(found)
}

#[test]
fn long_prefixes_are_read_and_checked() {
    let long = [b'l'; 255];
    let table = [
        record(USER, b"overlay."),
        record(TRUSTED, b""),
        record(SECURITY, &long),
        record(LUSTRE, b"x"),
        record(USER, b"abc"),
    ];
    let found = prefixes(5, &table.concat()).expect("right");
    let infixes: Vec<_> = found
        .iter()
        .map(|prefix| (prefix.namespace(), prefix.infix()))
        .collect();
    assert_eq!(
        infixes,
        [
            (Some(Namespace::User), &b"overlay."[..]),
            (Some(Namespace::Trusted), b""),
            (Some(Namespace::Security), &long),
            (None, b"x"),
            (Some(Namespace::User), b"abc"),
        ]
    );
    assert_eq!(prefixes(2, &table.concat()).map(|all| all.len()), Ok(2));
    assert_eq!(prefixes(0, &[]).map(|all| all.len()), Ok(0));
    assert_eq!(
        prefixes(6, &table.concat()),
        Err(ReadError::Read("beyond the end"))
    );
    let error = Error::Corrupt("long prefix of attributes: wrong size");
    for size in [0u16, 257, 0xffff] {
        let mut table = size.to_le_bytes().to_vec();
        table.extend([1; 300]);
        assert_eq!(prefixes(1, &table), Err(error.into()));
    }
    assert_eq!(prefixes(1, &[1, 0]), Err(ReadError::Read("beyond the end")));
}

#[test]
fn attributes_with_a_long_prefix_are_found_by_their_whole_name() {
    let table = [
        record(USER, b"over."),
        record(LUSTRE, b"x"),
        record(TRUSTED, b"whole"),
    ];
    let prefixes = prefixes(3, &table.concat()).expect("right");
    let bytes = Bytes {
        body: body(
            0,
            &[],
            &[
                entry(LONG, b"name", b"1"),
                entry(LONG | 1, b"name", b"2"),
                entry(LONG | 2, b"", b"3"),
                entry(LONG | 3, b"name", b"4"),
                entry(USER, b"over.name", b"5"),
            ],
        ),
        shared: Vec::new(),
    };
    let sb = super_block(Features::default());
    let inode = inode(&sb, 0, bytes.count());
    let read = bytes.primary();
    let xattrs = Xattrs::open(&sb, &prefixes, &inode, read)
        .expect("right")
        .expect("some");
    assert_eq!(
        list(&xattrs, read),
        Ok(pairs(&[
            ("user.over.name", "1"),
            ("trusted.whole", "3"),
            ("user.over.name", "5"),
        ]))
    );
    let find = |namespace, name: &[u8]| {
        let found = xattrs.find(namespace, name, read).expect("right")?;
        Some(value(found, read).expect("right"))
    };
    assert_eq!(find(Namespace::User, b"over.name"), Some(b"1".to_vec()));
    assert_eq!(find(Namespace::Trusted, b"whole"), Some(b"3".to_vec()));
    for (namespace, name) in [
        (Namespace::User, &b"name"[..]),
        (Namespace::User, b"over."),
        (Namespace::User, b"over"),
        (Namespace::User, b"over.nam"),
        (Namespace::Trusted, b"over.name"),
        (Namespace::Trusted, b""),
    ] {
        assert_eq!(find(namespace, name), None);
    }
}

/// A namespace, its number, and what names in it begin with.
fn namespaces() -> impl Strategy<Value = (Namespace, u8, &'static str)> {
    prop_oneof![
        Just((Namespace::User, USER, "user.")),
        Just((Namespace::PosixAclAccess, 2, "system.posix_acl_access")),
        Just((Namespace::PosixAclDefault, 3, "system.posix_acl_default")),
        Just((Namespace::Trusted, TRUSTED, "trusted.")),
        Just((Namespace::Security, SECURITY, "security.")),
    ]
}

fn any_name() -> impl Strategy<Value = Vec<u8>> {
    // Many names that begin alike, some of them longer than the pieces in which they are compared.
    (
        vec(b'a'..=b'b', 0..5),
        prop_oneof![4 => Just(0), 1 => 50usize..190],
    )
        .prop_map(|(mut name, more)| {
            name.extend(vec![b'n'; more]);
            name
        })
}

proptest! {
    #[test]
    fn what_is_written_is_listed_and_found(
        written in btree_map(
            any_name(),
            (namespaces(), vec(any::<u8>(), 0..300), any::<bool>(), 0usize..3),
            1..40,
        ),
        absent in vec(any_name(), 5),
    ) {
        let infixes = [&b"a"[..], b"ab"];
        let table = [record(USER, infixes[0]), record(TRUSTED, infixes[1])].concat();
        let prefixes = prefixes(2, &table).expect("right");
        let (mut own, mut ids, mut shared) = (Vec::new(), Vec::new(), Vec::new());
        let mut expected = BTreeMap::new();
        for (name, ((namespace, index, prefix), value, is_shared, long)) in &written {
            expected.insert([prefix.as_bytes(), name, b"\0"].concat(), (*namespace, value.clone()));
            let rest = long
                .checked_sub(1)
                .filter(|&long| [USER, TRUSTED][long] == *index)
                .and_then(|at| Some((LONG | at as u8, name.strip_prefix(infixes[at])?)));
            let (prefix, rest) = rest.unwrap_or((*index, name));
            let bytes = entry(prefix, rest, value);
            if *is_shared {
                ids.push(shared.len() as u32 / 4);
                shared.extend(bytes);
            } else {
                own.push(bytes);
            }
        }
        let bytes = Bytes { body: body(u32::MAX, &ids, &own), shared };
        let sb = super_block(Features::default());
        let inode = inode(&sb, 0, bytes.count());
        let read = bytes.primary();
        let xattrs = Xattrs::open(&sb, &prefixes, &inode, read).expect("right").expect("some");

        let listed: BTreeMap<_, _> = list(&xattrs, read).expect("right").into_iter().collect();
        let plain: BTreeMap<_, _> = expected
            .iter()
            .map(|(name, (_, value))| (name.clone(), value.clone()))
            .collect();
        prop_assert_eq!(listed, plain);
        for (name, ((namespace, _, prefix), ..)) in &written {
            let found = xattrs.find(*namespace, name, read).expect("right").expect("written");
            let (_, value_there) = &expected[&[prefix.as_bytes(), name, b"\0"].concat()];
            prop_assert_eq!(&value(found, read).expect("right"), value_there);
        }
        for name in absent.iter().filter(|name| !written.contains_key(*name)) {
            for namespace in [Namespace::User, Namespace::Trusted, Namespace::PosixAclAccess] {
                prop_assert_eq!(xattrs.find(namespace, name, read), Ok(None));
            }
        }
    }

    #[test]
    fn random_attributes_never_panic_and_end(
        mut bytes in vec(prop_oneof![3 => 0u8..8, 1 => any::<u8>()], 12..2000),
        shared in vec(prop_oneof![3 => 0u8..8, 1 => any::<u8>()], 0..300),
        shared_count in prop_oneof![3 => 0u8..4, 1 => any::<u8>()],
        count in prop_oneof![3 => 1u16..500, 1 => any::<u16>()],
        compat: u32, known in any::<bool>(),
    ) {
        bytes[4] = shared_count;
        let bytes = Bytes { body: bytes, shared };
        let prefixes = prefixes(1, &record(USER, b"long")).expect("right");
        let sb = super_block(Features {
            compat, metabox: true, filter_reserved: u8::from(!known), prefixes: 1,
        });
        let inode = inode(&sb, 0, count);
        let mut reads = 0;
        let mut read = |_, offset, buffer: &mut [u8]| {
            reads += 1;
            bytes.read(offset, buffer)
        };
        if let Ok(Some(xattrs)) = Xattrs::open(&sb, &prefixes, &inode, &mut read) {
            let mut entries = xattrs.entries();
            let mut first = BTreeMap::new();
            loop {
                let entry = match entries.next(&mut read) {
                    Ok(Some(entry)) => entry,
                    Ok(None) => break,
                    Err(_) => {
                        prop_assert!(matches!(entries.next(&mut read), Ok(None)));
                        break;
                    }
                };
                let mut name = vec![0; entry.list_len()];
                if entry.list(&mut name, &mut read).is_ok() {
                    prop_assert_eq!(name.pop(), Some(0));
                    let prefix = entry.namespace.prefix();
                    prop_assert!(name.starts_with(prefix) && !name.contains(&0));
                    prop_assert_eq!(entry.is_named(&name[prefix.len()..], &mut read), Ok(true));
                    first.entry(name).or_insert((entry.namespace, entry.value));
                }
            }
            // What is listed is found, unless the filter says that it is not there.
            for (name, (namespace, there)) in &first {
                let rest = &name[namespace.prefix().len()..];
                match xattrs.find(*namespace, rest, &mut read) {
                    Ok(Some(found)) => prop_assert_eq!(&found, there),
                    Ok(None) => prop_assert!(!xattrs.may_have(*namespace, rest)),
                    // One before it has a name that cannot be read.
                    Err(_) => (),
                }
            }
            // Each time, an attribute takes an id, itself and up to four pieces of its name.
            let entries = usize::from(count) + 255;
            prop_assert!(reads <= (first.len() + 2) * 6 * entries);
        }
    }

    #[test]
    fn random_long_prefixes_never_panic(
        table in vec(prop_oneof![3 => 0u8..8, 1 => any::<u8>()], 0..2000), count: u8,
    ) {
        if let Ok(found) = prefixes(count, &table) {
            prop_assert_eq!(found.len(), usize::from(count));
        }
    }
}
