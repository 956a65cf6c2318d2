// SPDX-License-Identifier: GPL-2.0

//! Splitting, compared with a model that knows the source of every single byte.

use netfs_split::{
    next_slice, widen, BlockSet, File, Map, Presence, Run, Runs, Slice, Slices, Source, SplitError,
};
use proptest::prelude::*;

/// A file of chunks, each a hole or in a blob, with an inline tail if it does not end on a block.
#[derive(Clone, Debug)]
struct Chunked {
    size: u64,
    block: u64,
    chunk: u64,
    chunks: Vec<Option<(u8, u64)>>,
    inline: Option<u64>,
}

impl Chunked {
    fn file(&self) -> File {
        File {
            size: self.size,
            block_size: self.block as u32,
        }
    }

    fn tail(&self) -> Option<(u64, u64)> {
        self.inline
            .filter(|_| self.size % self.block != 0)
            .map(|start| (self.size - self.size % self.block, start))
    }

    /// The model: where one byte comes from.
    fn byte(&self, pos: u64) -> Source<u8> {
        if pos >= self.size {
            return Source::Zero;
        }
        match self.tail() {
            Some((tail, start)) if pos >= tail => Source::Inline {
                start: start + (pos - tail),
            },
            _ => match self.chunks[(pos / self.chunk) as usize] {
                None => Source::Zero,
                Some((blob, start)) => Source::Blob {
                    blob,
                    start: start + pos % self.chunk,
                },
            },
        }
    }
}

impl Map for Chunked {
    type Blob = u8;
    type Error = ();

    fn extent(&self, pos: u64) -> Result<Slice<u8>, ()> {
        assert!(pos < self.size, "asked for a byte past the end");
        let start = pos - pos % self.chunk;
        let (pos, len) = match self.tail() {
            Some((tail, _)) if pos >= tail => (tail, self.size - tail),
            Some((tail, _)) => (start, self.chunk.min(tail - start)),
            None => (start, self.chunk),
        };
        Ok(Slice {
            pos,
            len,
            source: self.byte(pos),
        })
    }
}

prop_compose! {
    fn chunked()(
        block_bits in 2u32..5,
        more_bits in 0u32..3,
        size in 0u64..400,
        chunks in proptest::collection::vec(
            // Few blobs and few places, so that neighbours often continue each other.
            proptest::option::weighted(0.8, (0u8..3, 0u64..6)), 100),
        run in any::<bool>(),
        inline in proptest::option::of(0u64..1000),
    ) -> Chunked {
        let (block, chunk) = (1 << block_bits, 1 << (block_bits + more_bits));
        let chunks = chunks.into_iter().enumerate().map(|(i, place)| {
            place.map(|(blob, at)| (blob, chunk * if run { at / 3 + i as u64 } else { at }))
        }).collect();
        Chunked { size, block, chunk, chunks, inline }
    }
}

fn source_at(slice: &Slice<u8>, pos: u64) -> Source<u8> {
    let by = pos - slice.pos;
    match slice.source {
        Source::Zero => Source::Zero,
        Source::Inline { start } => Source::Inline { start: start + by },
        Source::Blob { blob, start } => Source::Blob {
            blob,
            start: start + by,
        },
    }
}

proptest! {
    #[test]
    fn slices_name_the_source_of_every_byte(map in chunked(), pos in 0u64..500, len in 0u64..500) {
        let slices: Vec<_> = Slices::new(map.file(), &map, pos, len)
            .collect::<Result<_, _>>()
            .expect("the map is right");
        let mut at = pos;
        for slice in &slices {
            prop_assert_eq!(slice.pos, at);
            prop_assert!(slice.len > 0);
            for pos in slice.pos..slice.end() {
                prop_assert_eq!(source_at(slice, pos), map.byte(pos), "byte {}", pos);
            }
            at = slice.end();
        }
        prop_assert_eq!(at, pos + len);
        // As few as possible: no slice continues the one before it.
        for pair in slices.windows(2) {
            let mergeable = match (pair[0].source, pair[1].source) {
                (Source::Zero, Source::Zero) => true,
                (Source::Blob { .. }, Source::Blob { .. }) =>
                    source_at(&pair[0], pair[1].pos) == pair[1].source,
                _ => false,
            };
            prop_assert!(!mergeable, "{:?}", pair);
        }
    }

    #[test]
    fn a_part_of_a_slice_has_the_same_bytes(
        map in chunked(), pos in 0u64..500, asked in 0u64..500, len in 1u64..500,
    ) {
        let slice = next_slice(map.file(), &map, pos, 500).expect("the map is right").expect("one");
        let part = slice.part(asked, len);
        prop_assert_eq!(part.is_some(), (slice.pos..slice.end()).contains(&asked));
        if let Some(part) = part {
            prop_assert_eq!(part.pos, asked);
            prop_assert_eq!(part.end(), slice.end().min(asked + len));
            prop_assert_eq!(part.source, map.byte(asked));
        }
    }

    #[test]
    fn one_slice_is_within_its_range(map in chunked(), pos in 0u64..500, len in 0u64..500) {
        let slice = next_slice(map.file(), &map, pos, len).expect("the map is right");
        prop_assert_eq!(slice.is_none(), len == 0);
        if let Some(slice) = slice {
            prop_assert!(slice.pos == pos && slice.len > 0 && slice.len <= len);
            prop_assert_eq!(slice.source, map.byte(pos));
        }
    }
}

/// Answers every question with the same extent, right or not.
struct Fixed(Slice<u8>);

impl Map for Fixed {
    type Blob = u8;
    type Error = ();

    fn extent(&self, _pos: u64) -> Result<Slice<u8>, ()> {
        Ok(self.0)
    }
}

fn any_offset() -> impl Strategy<Value = u64> {
    prop_oneof![
        0u64..20_000,
        (0u64..6).prop_map(|n| n * 4096),
        (0u64..20_000).prop_map(|n| u64::MAX - n),
        any::<u64>(),
    ]
}

proptest! {
    #[test]
    fn a_hostile_map_gets_an_error_or_nothing_wrong(
        extent in (any_offset(), any_offset(), 0u8..3, any_offset()),
        size in any_offset(), block_size in prop_oneof![Just(4096u32), any::<u32>()],
        pos in any_offset(), len in any_offset(),
    ) {
        let (start, extent_len, kind, physical) = extent;
        let source = match kind {
            0 => Source::Zero,
            1 => Source::Inline { start: physical },
            _ => Source::Blob { blob: 1, start: physical },
        };
        let extent = Slice { pos: start, len: extent_len, source };
        let file = File { size, block_size };
        let mut covered = 0;
        for slice in Slices::new(file, &Fixed(extent), pos, len).take(100) {
            let Ok(slice) = slice else { break };
            prop_assert!(slice.pos == pos + covered && slice.len > 0);
            covered += slice.len;
            prop_assert!(covered <= len);
            if slice.source != Source::Zero {
                prop_assert!(slice.end() <= size);
                prop_assert!(slice.pos >= start && slice.end() <= start + extent_len);
            }
        }
    }
}

#[test]
fn each_broken_rule_has_its_error() {
    let blob = |start| Source::Blob { blob: 1, start };
    let ask = |pos, len, source, block_size| {
        let file = File {
            size: 10_000,
            block_size,
        };
        next_slice(file, &Fixed(Slice { pos, len, source }), 5000, 100)
    };
    assert_eq!(ask(4096, 0, blob(0), 4096), Err(SplitError::EmptyExtent));
    assert_eq!(ask(0, 4096, blob(0), 4096), Err(SplitError::WrongExtent));
    assert_eq!(ask(8192, 4096, blob(0), 4096), Err(SplitError::WrongExtent));
    assert_eq!(
        ask(4096, u64::MAX - 4095, blob(0), 4096),
        Err(SplitError::ExtentOverflow)
    );
    assert_eq!(
        ask(4096, 4096, blob(u64::MAX - 4095), 4096),
        Err(SplitError::ExtentOverflow)
    );
    assert_eq!(
        ask(4096, 4000, blob(0), 4096),
        Err(SplitError::UnalignedExtent)
    );
    assert_eq!(
        ask(4097, 4095, blob(0), 4096),
        Err(SplitError::UnalignedExtent)
    );
    assert_eq!(
        ask(4096, 4096, blob(1), 4096),
        Err(SplitError::UnalignedExtent)
    );
    assert_eq!(ask(4096, 4096, blob(0), 0), Err(SplitError::BlockSize));
    assert_eq!(ask(4096, 4096, blob(0), 4095), Err(SplitError::BlockSize));
    assert_eq!(
        ask(4096, 4096, blob(8192), 4096),
        Ok(Some(Slice {
            pos: 5000,
            len: 100,
            source: blob(8192 + 904)
        }))
    );
    let file = File {
        size: 10_000,
        block_size: 4096,
    };
    let map = Fixed(Slice {
        pos: 0,
        len: 1,
        source: Source::Zero,
    });
    assert_eq!(
        next_slice(file, &map, 1, u64::MAX),
        Err(SplitError::RangeOverflow)
    );
}

/// Fails from a byte on.
struct FailsAt(u64);

impl Map for FailsAt {
    type Blob = u8;
    type Error = &'static str;

    fn extent(&self, pos: u64) -> Result<Slice<u8>, &'static str> {
        if pos >= self.0 {
            return Err("no map");
        }
        Ok(Slice {
            pos: pos & !15,
            len: 16,
            source: Source::Blob {
                blob: 0,
                start: pos & !15,
            },
        })
    }
}

/// A file of one-block holes that goes on and on, and counts how often it is asked.
struct Endless(std::cell::Cell<u32>);

impl Map for Endless {
    type Blob = u8;
    type Error = ();

    fn extent(&self, pos: u64) -> Result<Slice<u8>, ()> {
        self.0.set(self.0.get() + 1);
        assert!(self.0.get() < 100_000, "one step asks for ever");
        Ok(Slice {
            pos: pos / 512 * 512,
            len: 512,
            source: Source::Zero,
        })
    }
}

/// However large a file is, and however small its extents, one step is soon done.
#[test]
fn a_slice_takes_a_limited_number_of_questions() {
    let (size, block_size) = (1 << 60, 512);
    let map = Endless(0.into());
    let slices = Slices::new(File { size, block_size }, &map, 0, size);
    let mut end = 0;
    for slice in slices.take(10) {
        let asked = map.0.replace(0);
        assert!((1..=1025).contains(&asked), "{asked}");
        let slice = slice.expect("right");
        assert_eq!(slice.pos, end);
        assert!(slice.len >= 1024 * 512, "{slice:?}");
        end = slice.end();
    }
}

#[test]
fn slices_before_an_error_are_given_out() {
    let file = File {
        size: 100,
        block_size: 16,
    };
    let map = FailsAt(32);
    let mut slices = Slices::new(file, &map, 3, 60);
    let first = slices.next().unwrap().unwrap();
    assert_eq!((first.pos, first.len), (3, 29));
    assert_eq!(slices.next(), Some(Err(SplitError::Map("no map"))));
    assert_eq!(slices.next(), None);
}

/// A sparse file, byte by byte.
struct Sparse(Vec<bool>);

impl Sparse {
    fn find(&self, pos: u64, data: bool) -> Option<u64> {
        (pos..self.0.len() as u64).find(|&at| self.0[at as usize] == data)
    }
}

impl Presence for Sparse {
    type Error = ();

    fn next_data(&self, pos: u64) -> Result<Option<u64>, ()> {
        Ok(self.find(pos, true))
    }

    fn next_hole(&self, pos: u64) -> Result<u64, ()> {
        Ok(self.find(pos, false).unwrap_or(self.0.len() as u64))
    }
}

/// Gives the answers of a list, whatever is asked.
struct Liar(std::cell::RefCell<Vec<u64>>);

impl Presence for Liar {
    type Error = ();

    fn next_data(&self, _pos: u64) -> Result<Option<u64>, ()> {
        Ok(self.0.borrow_mut().pop())
    }

    fn next_hole(&self, _pos: u64) -> Result<u64, ()> {
        self.0.borrow_mut().pop().ok_or(())
    }
}

proptest! {
    #[test]
    fn runs_alternate_and_match_the_file(
        bytes in proptest::collection::vec(any::<bool>(), 0..60),
        start in 0u64..70, len in 0u64..70,
    ) {
        let file = Sparse(bytes);
        let runs: Vec<_> = Runs::new(&file, start, len)
            .collect::<Result<_, _>>()
            .expect("no errors");
        let mut at = start;
        for run in &runs {
            prop_assert_eq!(run.start, at);
            prop_assert!(run.len > 0);
            for byte in at..at + run.len {
                let present = file.0.get(byte as usize).copied().unwrap_or(false);
                prop_assert_eq!(run.present, present, "byte {}", byte);
            }
            at += run.len;
        }
        prop_assert_eq!(at, start + len);
        prop_assert!(runs.windows(2).all(|pair| pair[0].present != pair[1].present));
    }

    #[test]
    fn a_lying_presence_is_survived(
        answers in proptest::collection::vec(any_offset(), 0..50),
        start in any_offset(), len in any_offset(),
    ) {
        let liar = Liar(answers.into());
        let mut at = start;
        let mut failed = false;
        for run in Runs::new(&liar, start, len) {
            let Ok(run) = run else { failed = true; break };
            prop_assert!(run.start == at && run.len > 0);
            at += run.len;
        }
        prop_assert!(failed || at == start.saturating_add(len));
    }

    /// T62 and T66: nothing past the object's end is asked for.
    #[test]
    fn t62_t66_a_fetch_never_passes_the_blob_end(
        start in any_offset(), len in any_offset(), bits in 0u32..64, size in any_offset(),
    ) {
        let granule = 1u64 << bits;
        match widen(start, len, granule, size) {
            None => prop_assert!(len == 0 || start >= size),
            Some((from, fetch)) => {
                let (from, fetch) = (u128::from(from), u128::from(fetch));
                let (granule, size) = (u128::from(granule), u128::from(size));
                let asked = (u128::from(start) + u128::from(len)).min(size);
                prop_assert!(from <= u128::from(start) && from + fetch >= asked);
                prop_assert!(from + fetch <= size);
                prop_assert!(from % granule == 0);
                prop_assert!((from + fetch) % granule == 0 || from + fetch == size);
                prop_assert!(u128::from(start) - from < granule && from + fetch - asked < granule);
            }
        }
    }
}

#[test]
fn contradicting_answers_count_as_missing() {
    // Data at 10, but its hole is there as well; then data before the place that was asked about.
    for answers in [vec![10, 10], vec![9], vec![]] {
        let liar = Liar(answers.into());
        let runs: Vec<_> = Runs::new(&liar, 10, 5).collect();
        assert_eq!(
            runs,
            [Ok(Run {
                start: 10,
                len: 5,
                present: false
            })]
        );
    }
}

#[test]
fn granules_must_be_powers_of_two() {
    assert_eq!(widen(0, 1, 0, 10), None);
    assert_eq!(widen(0, 1, 3, 10), None);
    assert_eq!(widen(5, 1, 4, 10), Some((4, 4)));
    assert_eq!(widen(9, 1, 4, 10), Some((8, 2)));
}

/// A block set against a vector of booleans.
fn runs_of(set: &BlockSet) -> Vec<bool> {
    let mut blocks = Vec::new();
    while blocks.len() < BlockSet::BLOCKS {
        let (contained, end) = set.run(blocks.len());
        assert!(end > blocks.len() && end <= BlockSet::BLOCKS);
        blocks.resize(end, contained);
    }
    blocks
}

proptest! {
    #[test]
    fn a_block_set_holds_what_was_put_in_and_not_taken_out(
        ranges in prop::collection::vec(
            (any::<bool>(), 0..=BlockSet::BLOCKS + 10, 0..=BlockSet::BLOCKS + 10), 0..20)
    ) {
        let mut set = BlockSet::new();
        let mut model = vec![false; BlockSet::BLOCKS];
        for (insert, from, to) in ranges {
            let mut changed = 0;
            for block in model.iter_mut().take(to).skip(from) {
                changed += usize::from(*block != insert);
                *block = insert;
            }
            let done = if insert { set.insert(from, to) } else { set.remove(from, to) };
            prop_assert_eq!(done, changed);
        }
        prop_assert_eq!(runs_of(&set), model);
    }

    #[test]
    fn a_run_ends_where_the_kind_changes(from in 0..BlockSet::BLOCKS, len in 1..200usize, at in 0..BlockSet::BLOCKS) {
        let mut set = BlockSet::new();
        let to = (from + len).min(BlockSet::BLOCKS);
        set.insert(from, to);
        let expected = match at {
            at if at < from => (false, from),
            at if at < to => (true, to),
            _ => (false, BlockSet::BLOCKS),
        };
        prop_assert_eq!(set.run(at), expected);
    }
}
