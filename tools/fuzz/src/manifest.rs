// SPDX-License-Identifier: GPL-2.0
//! Manifests, and the lists of chunks that they ask for.
//!
//! An input is the text of a manifest.

use std::collections::HashSet;

use demandd::chunks::{count, is_chunk_size, Chunks, LIST_MAX};
use demandd::digest::{Digest, SIZE};
use demandd::manifest::{check_name, Entry, Manifest, Wanted, BLOBS_MAX};
use demandd::source::place::Address;

/// The longest list that is made here, in chunks.
const COUNT_MAX: u64 = 64;

/// See the module.
pub fn run(bytes: &[u8]) {
    let Ok(manifest) = Manifest::parse(bytes) else {
        return;
    };
    // There is one way to write it.
    assert_eq!(manifest.to_string().as_bytes(), bytes);
    assert_eq!(manifest.digest(), Digest::of(bytes));
    let entries = manifest.entries();
    assert!((1..=BLOBS_MAX).contains(&entries.len()));
    let names: HashSet<_> = entries.iter().map(|entry| &entry.name).collect();
    assert_eq!(names.len(), entries.len());
    assert_eq!(Manifest::new(entries.to_vec()).unwrap(), manifest);
    entries.iter().for_each(check);
    asked_for(&manifest, bytes);
}

fn check(entry: &Entry) {
    let Entry {
        name,
        size,
        chunk_size,
        ..
    } = entry;
    check_name(name).expect("it is a name");
    assert!(i64::try_from(*size).is_ok_and(|size| size > 0) && is_chunk_size(*chunk_size));
    let count = count(*size, *chunk_size).expect("there is a list");
    assert!(count * SIZE as u64 <= LIST_MAX);
    let all = u128::from(count) * u128::from(*chunk_size);
    assert!(u128::from(*size) <= all && all < u128::from(*size) + u128::from(*chunk_size));
    if count > COUNT_MAX {
        return;
    }
    let list = vec![0; count as usize * SIZE];
    assert_eq!(
        entry.chunks(list.clone()).is_ok(),
        Digest::of(&list) == entry.list
    );
    assert!(Chunks::new(*size, *chunk_size, list[1..].to_vec()).is_err());
    let chunks = Chunks::new(*size, *chunk_size, list).expect("it is long enough");
    assert_eq!(chunks.count(), count);
    let mut pos = 0;
    for chunk in 0..count {
        let range = chunks.bytes(chunk..chunk + 1);
        assert!(range.start == pos && range.end > pos);
        assert_eq!(chunks.touched(range.clone()), chunk..chunk + 1);
        pos = range.end;
    }
    assert_eq!(pos, *size);
}

/// The image is asked for by its digest, and by no other.
fn asked_for(manifest: &Manifest, bytes: &[u8]) {
    let name = &manifest.entries()[0].name;
    let text = format!("https://a.example/b@c/{name}@{}", manifest.digest());
    let address = Address::from(text.as_str());
    assert_eq!(address.place(), Some("https://a.example/b@c".as_ref()));
    let (text, _) = address.look_up(None).expect("it has a name");
    let wanted: Wanted = text.parse().expect("it has a name and a digest");
    assert_eq!(wanted.name, *name);
    assert_eq!(wanted.to_string(), text);
    assert_eq!(wanted.parse(bytes).unwrap(), *manifest);
    let other = Wanted {
        digest: Some(Digest::of(b"something else")),
        ..wanted
    };
    other.parse(bytes).unwrap_err();
}
