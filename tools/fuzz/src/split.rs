// SPDX-License-Identifier: GPL-2.0
//! Splitting: ranges of files into pieces of blobs, those into present and missing, and sets of blocks.
//!
//! An input is a file (its size, and the number of bits of a block), a range, and answers: of the map of the file, of
//! the file system that the cache is on, and changes of a set. Answers are used in turn, whatever is asked.

use std::cell::RefCell;

use netfs_split::{widen, BlockSet, File, Map, Presence, Runs, Slice, Slices, Source};

use crate::input::Input;

/// How many pieces are looked at: a large file can have more than there is time for.
const PIECES: usize = 100;

/// See the module.
pub fn run(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let file = File {
        block_size: 1u32.wrapping_shl(input.u8().into()) | u32::from(input.u8() == 1),
        size: input.u64(),
    };
    let (start, len) = (input.u64(), input.u64());
    let answers = input.rest();
    slices(file, start, len, Answers::new(answers));
    runs(start, len, Answers::new(answers));
    fetches(start, len, file);
    blocks(Input::new(answers));
}

/// Answers that are used in turn, and again from the first one on.
struct Answers<'a> {
    all: &'a [u8],
    left: RefCell<Input<'a>>,
}

impl<'a> Answers<'a> {
    fn new(all: &'a [u8]) -> Self {
        Self {
            all,
            left: RefCell::new(Input::new(all)),
        }
    }

    fn next<const N: usize>(&self) -> [u8; N] {
        let mut left = self.left.borrow_mut();
        if left.is_empty() {
            *left = Input::new(self.all);
        }
        left.bytes()
    }

    fn next_u64(&self) -> u64 {
        u64::from_le_bytes(self.next())
    }
}

impl Map for Answers<'_> {
    type Blob = u8;
    type Error = ();

    fn extent(&self, pos: u64) -> Result<Slice<u8>, ()> {
        let [kind, blob, before, after] = self.next();
        let physical = self.next_u64();
        // Near the byte that was asked for, in units that may be blocks, or hardly any answer would be taken.
        let near = |blocks: u8| u64::from(blocks) << (kind >> 4);
        let start = pos.saturating_sub(near(before)) & !(near(1) - 1);
        Ok(Slice {
            pos: start,
            len: near(after),
            source: match kind % 4 {
                0 => return Err(()),
                1 => Source::Zero,
                2 => Source::Inline { start: physical },
                _ => Source::Blob {
                    blob: blob % 2,
                    start: physical & !(near(1) - 1),
                },
            },
        })
    }
}

fn slices(file: File, start: u64, len: u64, map: Answers<'_>) {
    let (mut at, mut count) = (start, 0);
    for slice in Slices::new(file, &map, start, len).take(PIECES) {
        let Ok(slice) = slice else {
            return;
        };
        assert!(slice.pos == at && slice.len > 0);
        at = at.checked_add(slice.len).expect("the range has an end");
        assert!(at - start <= len);
        if let Source::Inline { start } | Source::Blob { start, .. } = slice.source {
            assert!(slice.end() <= file.size && start.checked_add(slice.len).is_some());
        }
        count += 1;
    }
    assert!(count == PIECES || at - start == len, "it ends early");
}

impl Presence for Answers<'_> {
    type Error = ();

    fn next_data(&self, pos: u64) -> Result<Option<u64>, ()> {
        Ok(match self.next() {
            [0, _] => return Err(()),
            [1, _] => None,
            [2, _] => Some(self.next_u64()),
            [_, by] => Some(pos.saturating_add(by.into())),
        })
    }

    fn next_hole(&self, pos: u64) -> Result<u64, ()> {
        self.next_data(pos).map(|data| data.unwrap_or(u64::MAX))
    }
}

fn runs(start: u64, len: u64, presence: Answers<'_>) {
    let end = start.saturating_add(len);
    let (mut at, mut count) = (start, 0);
    for run in Runs::new(&presence, start, len).take(PIECES) {
        let Ok(run) = run else {
            return;
        };
        assert!(run.start == at && run.len > 0 && run.len <= end - at);
        at += run.len;
        count += 1;
    }
    assert!(count == PIECES || at == end, "it ends early");
}

fn fetches(start: u64, len: u64, file: File) {
    let (granule, size) = (u64::from(file.block_size), file.size);
    match widen(start, len, granule, size) {
        None => assert!(len == 0 || start >= size || !granule.is_power_of_two()),
        Some((from, wide)) => {
            let end = from.checked_add(wide).expect("an end");
            assert!(from <= start && start - from < granule && from % granule == 0);
            assert!(end <= size && end >= start.saturating_add(len).min(size));
            assert!(end == size || end % granule == 0);
        }
    }
}

/// A set against one that has a `bool` for each block.
fn blocks(mut changes: Input<'_>) {
    let (mut set, mut model) = (BlockSet::new(), [false; BlockSet::BLOCKS]);
    for _ in 0..16 {
        if changes.is_empty() {
            return;
        }
        let add = changes.u8() % 2 == 1;
        let from = usize::from(u16::from_le_bytes(changes.bytes()));
        let to = usize::from(u16::from_le_bytes(changes.bytes()));
        let mut changed = 0;
        for block in model.iter_mut().take(to).skip(from) {
            changed += usize::from(*block != add);
            *block = add;
        }
        let said = if add {
            set.insert(from, to)
        } else {
            set.remove(from, to)
        };
        assert_eq!(said, changed);
        for at in [from, to, 0] {
            let Some(&contained) = model.get(at) else {
                continue;
            };
            let len = model[at..].iter().position(|&block| block != contained);
            let end = len.map_or(BlockSet::BLOCKS, |len| at + len);
            assert_eq!(set.run(at), (contained, end));
        }
    }
}
