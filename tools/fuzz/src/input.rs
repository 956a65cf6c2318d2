// SPDX-License-Identifier: GPL-2.0
//! Takes an input apart.

use erofs_disk::SuperBlock;

/// Gives out an input from its front on. What is not there is 0, so that no input is too short.
pub struct Input<'a> {
    rest: &'a [u8],
}

impl<'a> Input<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    pub fn bytes<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        let there = self.slice(N);
        bytes[..there.len()].copy_from_slice(there);
        bytes
    }

    pub fn u8(&mut self) -> u8 {
        u8::from_le_bytes(self.bytes())
    }

    pub fn u64(&mut self) -> u64 {
        u64::from_le_bytes(self.bytes())
    }

    /// The next `len` bytes, or as many as there are.
    pub fn slice(&mut self, len: usize) -> &'a [u8] {
        let (slice, rest) = self.rest.split_at(len.min(self.rest.len()));
        self.rest = rest;
        slice
    }

    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    pub fn rest(self) -> &'a [u8] {
        self.rest
    }

    /// A right super block with up to 15 of its bytes changed; `None` if it is refused then.
    ///
    /// Blocks have 512 bytes. The metadata, the shared attributes and the long prefixes of names all begin at byte
    /// 1024 of the image.
    pub fn super_block(&mut self) -> Option<SuperBlock> {
        let mut bytes = [0; 144];
        let mut put = |offset: usize, value: &[u8]| {
            bytes[offset..offset + value.len()].copy_from_slice(value);
        };
        put(0, &erofs_disk::MAGIC.to_le_bytes());
        put(12, &[9, 1]);
        put(40, &2u32.to_le_bytes());
        put(44, &2u32.to_le_bytes());
        put(86, &2u16.to_le_bytes());
        put(88, &10u16.to_le_bytes());
        put(92, &256u32.to_le_bytes());
        for _ in 0..self.u8() % 16 {
            let [offset, value] = self.bytes();
            if let Some(byte) = bytes.get_mut(usize::from(offset)) {
                *byte = value;
            }
        }
        SuperBlock::parse(&bytes).ok()
    }
}
