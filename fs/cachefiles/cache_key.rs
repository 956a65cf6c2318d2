// SPDX-License-Identifier: GPL-2.0

//! The names and attributes by which a cache directory is found again: the on-disk contract of
//! cachefiles.
//!
//! A volume is the directory `cache/I<volume key>` under the cache's root; it has 256 fan-out
//! directories `@00` to `@ff`, and the file of a cookie lies in the one that the low byte of the
//! cookie's hash names. The kernel, and a daemon that lays out a cache before the first mount, must
//! agree on every byte of this.
//!
//! The format is that of the kernel's cachefiles: `fs/cachefiles/key.c` (names),
//! `fs/cachefiles/xattr.c` (attributes), `fs/cachefiles/volume.c` (directories) and
//! `fscache_hash()` in `fs/netfs/fscache_main.c`.
//!
//! Pure functions, no allocation: names are written into a buffer of the caller.

// Kbuild gives `no_std` on the command line, and warns when it is given twice.
#![cfg_attr(not(CONFIG_RUST), no_std)]
#![forbid(unsafe_code)]
#![deny(missing_docs)]
#![deny(
    clippy::arithmetic_side_effects,
    clippy::cast_possible_truncation,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used
)]

use core::fmt;

/// Longest cookie key in bytes; cachefiles takes no longer one.
pub const KEY_MAX: usize = 252;

/// Longest file name in bytes (`NAME_MAX`).
pub const NAME_MAX: usize = 255;

/// Space for any name, and the terminating NUL that a caller may want to add.
pub type NameBuf = [u8; NAME_MAX + 1];

/// Name of the extended attribute on backing files and on volume directories.
pub const FILE_XATTR_NAME: &str = "user.CacheFiles.cache";

/// Value of the attribute on a volume directory whose volume has no coherency data: a reserved
/// big-endian word of 0.
pub const VOLUME_XATTR: [u8; 4] = [0; 4];

/// `type` byte of a file's attribute: the only type that there is, data.
const TYPE_DATA: u8 = 1;

/// `content` byte of a file's attribute: nothing is said about what the file holds.
const CONTENT_NO_DATA: u8 = 0;

/// `content` byte of a file's attribute: the file was being written when the cache went away.
const CONTENT_DIRTY: u8 = 4;

/// Digits of the base-64 form; the order is cachefiles' own.
const BASE64: &[u8; 64] = b"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_-";

/// Digits of the hexadecimal forms.
const HEX: &[u8; 16] = b"0123456789abcdef";

/// Why a key has no name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyError {
    /// The key has no bytes.
    Empty,
    /// The key is longer than its kind allows; the number is its length.
    KeyTooLong(usize),
    /// The key is short enough, but its encoded name is longer than [`NAME_MAX`].
    NameTooLong,
    /// A volume key holds this byte, which no directory name can hold.
    BadByte(u8),
}

impl fmt::Display for KeyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            KeyError::Empty => f.write_str("the key is empty"),
            KeyError::KeyTooLong(len) => write!(f, "a key of {len} bytes is too long"),
            KeyError::NameTooLong => f.write_str("the key's file name would be too long"),
            KeyError::BadByte(byte) => write!(f, "the volume key holds the byte {byte:#04x}"),
        }
    }
}

impl core::error::Error for KeyError {}

/// Why an extended attribute does not vouch for the file that it is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stale {
    /// The attribute has this length, which is not the right one.
    Length(usize),
    /// The type is this one, not data.
    Type(u8),
    /// The attribute was written for an object of another size.
    Size {
        /// The size in the attribute, in bytes.
        stored: u64,
        /// The object's size, in bytes.
        expected: u64,
    },
    /// The file was being written when the cache went away.
    Dirty,
}

impl fmt::Display for Stale {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Stale::Length(len) => write!(f, "{FILE_XATTR_NAME} has a wrong length of {len} bytes"),
            Stale::Type(kind) => write!(f, "{FILE_XATTR_NAME} has the unknown type {kind}"),
            Stale::Size { stored, expected } => write!(
                f,
                "{FILE_XATTR_NAME} is for a size of {stored} bytes, the size is {expected}"
            ),
            Stale::Dirty => write!(f, "{FILE_XATTR_NAME} says that a write was cut off"),
        }
    }
}

impl core::error::Error for Stale {}

/// Hash of a volume, the salt of its cookies' hashes. The key is one that [`volume_name`] takes.
pub fn volume_hash(key: &[u8]) -> u32 {
    // The kernel hashes the key with its length in front and at least one NUL behind. Longer keys
    // do not exist there, so the lowest byte is the whole length.
    let [len, ..] = key.len().to_le_bytes();
    hash(0, [len].into_iter().chain(key.iter().copied()).chain([0]))
}

/// Hash of the cookie `key` of the volume with the hash `volume_hash`.
pub fn cookie_hash(volume_hash: u32, key: &[u8]) -> u32 {
    hash(volume_hash, key.iter().copied())
}

/// Name of the fan-out directory for a cookie's hash: `@` and two lower-case hexadecimal digits.
pub fn fan(cookie_hash: u32) -> [u8; 3] {
    [
        b'@',
        hex_digit(cookie_hash.wrapping_shr(4)),
        hex_digit(cookie_hash),
    ]
}

/// Writes the file name of a cookie key of 1 to [`KEY_MAX`] bytes into `buf` and returns it
/// (without a NUL).
///
/// The first byte tells the encoding. `D`: the key verbatim, if all its bytes are printable and
/// none is a space or a slash. Else the shortest of `S`, comma-separated hexadecimal words that are
/// read from the key as big-endian numbers, `T`, the same with little-endian numbers, and `E`, base
/// 64 after a digit that counts the padding bytes.
pub fn file_name<'b>(key: &[u8], buf: &'b mut NameBuf) -> Result<&'b [u8], KeyError> {
    match key.len() {
        0 => return Err(KeyError::Empty),
        len if len > KEY_MAX => return Err(KeyError::KeyTooLong(len)),
        _ => (),
    }
    let mut name = Name::new(buf);
    if key.iter().copied().all(is_verbatim) {
        name.push(b'D')?;
        name.extend(key)?;
        return Ok(name.finish());
    }

    let big: usize = words(key)
        .map(|word| hex_len(u32::from_be_bytes(word)))
        .sum();
    let little: usize = words(key)
        .map(|word| hex_len(u32::from_le_bytes(word)))
        .sum();
    let base64 = key.len().div_ceil(3).saturating_mul(4).saturating_add(2);
    if big.min(little) >= base64 {
        push_base64(&mut name, key)?;
    } else if big <= little {
        push_hex(&mut name, b'S', words(key).map(u32::from_be_bytes))?;
    } else {
        push_hex(&mut name, b'T', words(key).map(u32::from_le_bytes))?;
    }
    Ok(name.finish())
}

/// Writes the directory name of a volume key into `buf` and returns it: `I` and the key verbatim.
///
/// There is no encoding for volume keys, so one with a slash or a NUL has no name.
pub fn volume_name<'b>(key: &[u8], buf: &'b mut NameBuf) -> Result<&'b [u8], KeyError> {
    match key.len() {
        0 => return Err(KeyError::Empty),
        // One byte is for the `I`.
        len if len >= NAME_MAX => return Err(KeyError::KeyTooLong(len)),
        _ => (),
    }
    if let Some(&byte) = key.iter().find(|&&byte| byte == b'/' || byte == 0) {
        return Err(KeyError::BadByte(byte));
    }
    let mut name = Name::new(buf);
    name.push(b'I')?;
    name.extend(key)?;
    Ok(name.finish())
}

/// Builds the attribute of a backing file for an object of `size` bytes without auxiliary data.
///
/// | offset | size | field |
/// | --- | --- | --- |
/// | 0 | 8 | object size in bytes, big-endian |
/// | 8 | 8 | zero point in bytes, big-endian: always 0 here, and not looked at |
/// | 16 | 1 | type: 1, data |
/// | 17 | 1 | content: 0, nothing is said; 4 would mean a write that was cut off |
pub fn file_xattr(size: u64) -> [u8; 18] {
    let [s0, s1, s2, s3, s4, s5, s6, s7] = size.to_be_bytes();
    [
        s0,
        s1,
        s2,
        s3,
        s4,
        s5,
        s6,
        s7, // object size
        0,
        0,
        0,
        0,
        0,
        0,
        0,
        0, // zero point
        TYPE_DATA,
        CONTENT_NO_DATA,
    ]
}

/// Checks the attribute of a backing file of an object of `size` bytes, as [`file_xattr`] describes
/// it.
pub fn check_file_xattr(bytes: &[u8], size: u64) -> Result<(), Stale> {
    let &[s0, s1, s2, s3, s4, s5, s6, s7, _, _, _, _, _, _, _, _, kind, content] = bytes else {
        return Err(Stale::Length(bytes.len()));
    };
    if kind != TYPE_DATA {
        return Err(Stale::Type(kind));
    }
    let stored = u64::from_be_bytes([s0, s1, s2, s3, s4, s5, s6, s7]);
    if stored != size {
        return Err(Stale::Size {
            stored,
            expected: size,
        });
    }
    if content == CONTENT_DIRTY {
        return Err(Stale::Dirty);
    }
    Ok(())
}

/// A name that is being written.
struct Name<'b> {
    buf: &'b mut NameBuf,
    len: usize,
}

impl<'b> Name<'b> {
    fn new(buf: &'b mut NameBuf) -> Self {
        Name { buf, len: 0 }
    }

    fn push(&mut self, byte: u8) -> Result<(), KeyError> {
        if self.len >= NAME_MAX {
            return Err(KeyError::NameTooLong);
        }
        let place = self.buf.get_mut(self.len).ok_or(KeyError::NameTooLong)?;
        *place = byte;
        self.len = self.len.saturating_add(1);
        Ok(())
    }

    fn extend(&mut self, bytes: &[u8]) -> Result<(), KeyError> {
        bytes.iter().try_for_each(|&byte| self.push(byte))
    }

    fn finish(self) -> &'b [u8] {
        self.buf.get(..self.len).unwrap_or_default()
    }
}

/// Whether a byte may stand in a name as it is: `!` to DEL, but not the slash.
fn is_verbatim(byte: u8) -> bool {
    (b'!'..=0x7f).contains(&byte) && byte != b'/'
}

/// The key as 4-byte words, the last one padded with NULs.
fn words(key: &[u8]) -> impl Iterator<Item = [u8; 4]> + '_ {
    key.chunks(4).map(|bytes| {
        let mut word = [0; 4];
        for (to, from) in word.iter_mut().zip(bytes) {
            *to = *from;
        }
        word
    })
}

/// Digits of a word without leading zeros; 0 has none.
fn hex_digits(word: u32) -> u32 {
    u32::BITS.saturating_sub(word.leading_zeros()).div_ceil(4)
}

/// Length of a word with the separator before it.
fn hex_len(word: u32) -> usize {
    usize::try_from(hex_digits(word)).map_or(usize::MAX, |digits| digits.saturating_add(1))
}

/// The digit for the lowest four bits.
fn hex_digit(bits: u32) -> u8 {
    pick(HEX, bits)
}

/// The digit for the lowest bits of `bits`, as many as the alphabet has.
fn pick<const N: usize>(alphabet: &[u8; N], bits: u32) -> u8 {
    let index = usize::try_from(bits).map_or(0, |bits| bits.checked_rem(N).unwrap_or(0));
    alphabet.get(index).copied().unwrap_or_default()
}

/// Appends words in hexadecimal: `mark`, the first word, and the others after commas.
fn push_hex(
    name: &mut Name<'_>,
    mark: u8,
    words: impl Iterator<Item = u32>,
) -> Result<(), KeyError> {
    let mut separator = mark;
    for word in words {
        name.push(separator)?;
        for digit in (0..hex_digits(word)).rev() {
            name.push(hex_digit(word.wrapping_shr(digit.saturating_mul(4))))?;
        }
        separator = b',';
    }
    Ok(())
}

/// Appends the base-64 form: three bytes are a little-endian number of four digits, the lowest
/// digit first.
fn push_base64(name: &mut Name<'_>, key: &[u8]) -> Result<(), KeyError> {
    name.push(b'E')?;
    name.push(match key.len().checked_rem(3) {
        Some(1) => b'2',
        Some(2) => b'1',
        _ => b'0',
    })?;
    for bytes in key.chunks(3) {
        let mut bits = 0u32;
        for &byte in bytes.iter().rev() {
            bits = bits.wrapping_shl(8) | u32::from(byte);
        }
        for _ in 0..4 {
            name.push(pick(BASE64, bits))?;
            bits = bits.wrapping_shr(6);
        }
    }
    Ok(())
}

/// The hash that fscache keeps stable across architectures and versions, because it ends up on
/// disk.
///
/// The bytes are taken as little-endian words, the last one padded with NULs.
fn hash(salt: u32, bytes: impl Iterator<Item = u8>) -> u32 {
    let (mut x, mut y) = (0u32, salt);
    let mut bytes = bytes.peekable();
    while bytes.peek().is_some() {
        let word = [(); 4].map(|()| bytes.next().unwrap_or(0));
        x ^= u32::from_le_bytes(word);
        y ^= x;
        x = x.rotate_left(7).wrapping_add(y);
        y = y.rotate_left(20).wrapping_mul(9);
    }
    golden(y ^ golden(x))
}

/// The kernel's multiplicative hash of a word (`__hash_32()`).
fn golden(word: u32) -> u32 {
    word.wrapping_mul(0x61c8_8647)
}
