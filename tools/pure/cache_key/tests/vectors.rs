// SPDX-License-Identifier: GPL-2.0

//! The names and attributes that the kernel's cachefiles gives, and that it accepts.

use cache_key::{
    check_file_xattr, cookie_hash, fan, file_name, file_xattr, volume_hash, volume_name, KeyError,
    Stale, KEY_MAX, VOLUME_XATTR,
};
use proptest::prelude::*;

fn name(key: &[u8]) -> Result<String, KeyError> {
    let mut buf = [0; 256];
    file_name(key, &mut buf).map(|name| String::from_utf8(name.to_vec()).expect("names are ASCII"))
}

fn volume(key: &[u8]) -> Result<Vec<u8>, KeyError> {
    let mut buf = [0; 256];
    volume_name(key, &mut buf).map(<[u8]>::to_vec)
}

/// The two fan-out directories are those that the 2022 cover letter and its daemon's README show.
#[test]
fn hashes_lead_to_the_published_directories() {
    let erofs = volume_hash(b"erofs");
    assert_eq!(erofs, 0x864a_da3e);
    for (key, hash, directory) in [
        ("test.img", 0x0cb5_e09c, b"@9c"),
        ("blob1.img", 0x4fec_78b5, b"@b5"),
    ] {
        assert_eq!(cookie_hash(erofs, key.as_bytes()), hash, "{key}");
        assert_eq!(&fan(hash), directory, "{key}");
    }
    assert_eq!(&fan(0xffff_ff00), b"@00");
    assert_eq!(&fan(0x0000_000f), b"@0f");
}

#[test]
fn printable_keys_are_verbatim() {
    assert_eq!(name(b"test.img").unwrap(), "Dtest.img");
    assert_eq!(name(b"!").unwrap(), "D!");
    assert_eq!(name(b"~\x7f").unwrap(), "D~\x7f");
    assert_eq!(name(b".").unwrap(), "D.");
}

#[test]
fn other_keys_are_words_or_base64() {
    // Big-endian words are shorter, and win ties.
    assert_eq!(name(&[0, 0, 0, 1]).unwrap(), "S1");
    assert_eq!(name(&[0]).unwrap(), "S");
    assert_eq!(name(&[0; 12]).unwrap(), "S,,");
    assert_eq!(name(&[0, 0, 1, 0, 0, 0, 2]).unwrap(), "S100,200");
    // Little-endian words are shorter.
    assert_eq!(name(&[1, 0, 0, 0]).unwrap(), "T1");
    assert_eq!(name(&[1]).unwrap(), "T1");
    assert_eq!(name(&[0xff, 0x01, 0, 0, 7]).unwrap(), "T1ff,7");
    // Both word forms need as many bytes as base 64 or more; digits go up from the lowest six bits.
    assert_eq!(name(b"a/b").unwrap(), "E0xZyo");
    assert_eq!(name(&[0xff; 3]).unwrap(), "E0----");
    assert_eq!(name(&[0xff; 6]).unwrap(), "E0--------");
    assert_eq!(name(&[0xff; 7]).unwrap(), "E2---------300");
    assert_eq!(name(&[0xff; 8]).unwrap(), "E1----------f0");
}

#[test]
fn lengths_are_limited() {
    assert_eq!(name(b""), Err(KeyError::Empty));
    for len in [1, 3, 4, KEY_MAX] {
        assert_eq!(name(&vec![b'k'; len]).unwrap().len(), len + 1);
    }
    for len in 253..=256 {
        assert_eq!(name(&vec![b'k'; len]), Err(KeyError::KeyTooLong(len)));
    }
    // 189 bytes are 254 in base 64; three more do not fit.
    assert_eq!(name(&[0xff; 189]).unwrap().len(), 254);
    assert_eq!(name(&[0xff; 190]), Err(KeyError::NameTooLong));
    assert_eq!(name(&[0xff; KEY_MAX]), Err(KeyError::NameTooLong));
}

#[test]
fn volumes_have_no_encoding() {
    assert_eq!(volume(b"erofs").unwrap(), b"Ierofs");
    assert_eq!(volume(b"a b,\xff").unwrap(), b"Ia b,\xff");
    assert_eq!(volume(b""), Err(KeyError::Empty));
    assert_eq!(volume(b"a/b"), Err(KeyError::BadByte(b'/')));
    assert_eq!(volume(b"a\0"), Err(KeyError::BadByte(0)));
    assert_eq!(volume(&[b'v'; 254]).unwrap().len(), 255);
    assert_eq!(volume(&[b'v'; 255]), Err(KeyError::KeyTooLong(255)));
}

#[test]
fn xattrs_vouch_for_one_size() {
    let good = file_xattr(0x0102_0304_0506_0708);
    assert_eq!(good, [1, 2, 3, 4, 5, 6, 7, 8, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0]);
    assert_eq!(check_file_xattr(&good, 0x0102_0304_0506_0708), Ok(()));
    assert_eq!(
        check_file_xattr(&file_xattr(4096), 8192),
        Err(Stale::Size {
            stored: 4096,
            expected: 8192
        })
    );
    let mut bad = file_xattr(1);
    bad[16] = 2;
    assert_eq!(check_file_xattr(&bad, 1), Err(Stale::Type(2)));
    let mut bad = file_xattr(1);
    bad[17] = 4;
    assert_eq!(check_file_xattr(&bad, 1), Err(Stale::Dirty));
    bad[17] = 3;
    assert_eq!(check_file_xattr(&bad, 1), Ok(()));
    for len in [0, 17] {
        assert_eq!(check_file_xattr(&good[..len], 1), Err(Stale::Length(len)));
    }
    assert_eq!(check_file_xattr(&[0; 19], 0), Err(Stale::Length(19)));

    assert_eq!(VOLUME_XATTR, [0; 4]);
}

/// Reads a name back; the daemon never needs this, the test does.
fn decode(name: &str, len: usize) -> Vec<u8> {
    let (mark, rest) = name.split_at(1);
    let word = |digits: &str| match digits {
        "" => 0,
        digits => u32::from_str_radix(digits, 16).expect("hexadecimal"),
    };
    let mut key = match mark {
        "D" => rest.as_bytes().to_vec(),
        "S" => rest
            .split(',')
            .flat_map(|w| word(w).to_be_bytes())
            .collect(),
        "T" => rest
            .split(',')
            .flat_map(|w| word(w).to_le_bytes())
            .collect(),
        "E" => {
            let alphabet = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_-";
            let digits: Vec<_> = rest[1..]
                .chars()
                .map(|c| alphabet.find(c).expect("base 64") as u32)
                .collect();
            let padding: usize = rest[..1].parse().expect("a digit");
            assert_eq!(digits.len() / 4 * 3 - padding, len);
            digits
                .chunks(4)
                .flat_map(|d| {
                    let bits = d.iter().rev().fold(0, |bits, digit| (bits << 6) | digit);
                    u32::to_le_bytes(bits)[..3].to_vec()
                })
                .collect()
        }
        other => panic!("unknown encoding {other}"),
    };
    assert!(key.len() >= len && key[len..].iter().all(|&byte| byte == 0));
    key.truncate(len);
    key
}

proptest! {
    #[test]
    fn names_are_legal_and_unique(key in proptest::collection::vec(any::<u8>(), 1..=KEY_MAX)) {
        match name(&key) {
            Ok(name) => {
                prop_assert!(name.len() <= 255 && !name.contains(['/', '\0', ' ']));
                prop_assert_eq!(decode(&name, key.len()), key);
            }
            Err(error) => prop_assert!(error == KeyError::NameTooLong && key.len() > 189),
        }
    }

    #[test]
    fn short_keys_of_few_values_use_words(
        key in proptest::collection::vec(prop::sample::select(&b"\0\x01 \xff"[..]), 1..20),
    ) {
        let name = name(&key).expect("short keys have names");
        prop_assert_eq!(decode(&name, key.len()), key);
    }

    #[test]
    fn xattrs_round_trip(size: u64) {
        prop_assert_eq!(check_file_xattr(&file_xattr(size), size), Ok(()));
    }
}
