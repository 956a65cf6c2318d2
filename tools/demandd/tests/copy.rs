// SPDX-License-Identifier: GPL-2.0
//! Copying when the disk is full or a write is cut short: no block may be left that is present and wrong.

mod stand_in;

use std::cell::{Cell, RefCell};
use std::fs::File;
use std::io;
use std::process::Command;

use demandd::copy::{copy, Buffer, CacheFile, PIECE};
use demandd::device::errno_of;
use rustix::io::Errno;
use stand_in::Site;

/// A cache file on a disk with blocks of `disk_block` bytes, of which so many are free.
struct Disk {
    disk_block: usize,
    bytes: RefCell<Vec<u8>>,
    present: RefCell<Vec<bool>>,
    free: Cell<usize>,
    /// The most that one write takes, in bytes.
    most: usize,
    /// From this byte on every write fails.
    limit: usize,
    punched: RefCell<Vec<(u64, u64)>>,
}

impl Disk {
    fn new(size: usize, disk_block: usize) -> Self {
        Self {
            disk_block,
            bytes: vec![0; size].into(),
            present: vec![false; size.div_ceil(disk_block)].into(),
            free: usize::MAX.into(),
            most: usize::MAX,
            limit: usize::MAX,
            punched: RefCell::default(),
        }
    }

    /// Every block of 4096 bytes without a hole has the right bytes. Returns how many these are.
    fn check(&self, right: &[u8]) -> usize {
        let bytes = self.bytes.borrow();
        let blocks = bytes.chunks(4096).zip(right.chunks(4096)).enumerate();
        let mut whole = 0;
        for (at, (have, right)) in blocks {
            if !self.is_missing(at as u64 * 4096).unwrap() {
                assert!(have == right, "block {at} is present and wrong");
                whole += 1;
            }
        }
        whole
    }
}

impl CacheFile for Disk {
    fn write_at(&self, bytes: &[u8], pos: u64) -> io::Result<usize> {
        let pos = pos as usize;
        let mut written = 0;
        for (at, byte) in (pos..).zip(bytes).take(self.most) {
            let present = &mut self.present.borrow_mut()[at / self.disk_block];
            if at >= self.limit || (!*present && self.free.get() == 0) {
                break;
            }
            if !*present {
                *present = true;
                self.free.set(self.free.get() - 1);
            }
            self.bytes.borrow_mut()[at] = *byte;
            written += 1;
        }
        match written {
            0 if pos >= self.limit => Err(Errno::FBIG.into()),
            0 => Err(Errno::NOSPC.into()),
            n => Ok(n),
        }
    }

    fn read_exact_at(&self, bytes: &mut [u8], pos: u64) -> io::Result<()> {
        let pos = pos as usize;
        bytes.copy_from_slice(&self.bytes.borrow()[pos..pos + bytes.len()]);
        Ok(())
    }

    fn is_missing(&self, pos: u64) -> io::Result<bool> {
        let from = pos as usize / self.disk_block;
        let to = (pos as usize + 4096).div_ceil(self.disk_block);
        let present = self.present.borrow();
        Ok(present[from..to.min(present.len())].contains(&false))
    }

    fn punch(&self, pos: u64, len: u64) -> io::Result<()> {
        self.punched.borrow_mut().push((pos, len));
        for at in pos as usize..(pos + len) as usize {
            self.bytes.borrow_mut()[at] = 0;
            self.present.borrow_mut()[at / self.disk_block] = false;
        }
        Ok(())
    }
}

const SIZE: usize = 5 * 4096 + 1000;

/// A source of that size.
fn source(site: &Site) -> (File, Vec<u8>) {
    let bytes = site.blob("a.img", SIZE as u64);
    let source = File::open(site.source_dir().join("a.img")).unwrap();
    (source, bytes)
}

#[test]
fn a_full_disk_is_told_and_leaves_whole_blocks_only() {
    let site = Site::new();
    let (source, bytes) = source(&site);
    for disk_block in [512, 1024, 2048, 4096] {
        for free in 0..SIZE.div_ceil(disk_block) {
            let disk = Disk::new(SIZE, disk_block);
            disk.free.set(free);
            let error = copy(&source, &disk, 0, SIZE as u64, &mut Buffer::default()).unwrap_err();
            // ENOSPC is what the reader gets.
            assert_eq!(errno_of(&error), Some(Errno::NOSPC));
            assert_eq!(disk.check(&bytes), free * disk_block / 4096);
            assert!(
                disk.punched.borrow().is_empty(),
                "the rest is a hole already"
            );
            // Once there is room again, it comes whole.
            disk.free.set(usize::MAX);
            copy(&source, &disk, 0, SIZE as u64, &mut Buffer::default()).unwrap();
            assert_eq!(disk.check(&bytes), 6);
        }
    }
}

#[test]
fn writes_that_are_cut_short_are_continued() {
    let site = Site::new();
    let (source, bytes) = source(&site);
    for most in [1, 1000, 4095, 4097] {
        let disk = Disk {
            most,
            ..Disk::new(SIZE, 4096)
        };
        copy(&source, &disk, 0, SIZE as u64, &mut Buffer::default()).unwrap();
        assert_eq!(disk.check(&bytes), 6);
    }
}

#[test]
fn half_a_block_without_a_hole_is_punched_out() {
    let site = Site::new();
    let (source, bytes) = source(&site);
    for limit in [1, 4095, 4097, 3 * 4096 + 10, 5 * 4096 + 999] {
        let disk = Disk {
            limit,
            ..Disk::new(SIZE, 4096)
        };
        let error = copy(&source, &disk, 0, SIZE as u64, &mut Buffer::default()).unwrap_err();
        assert_eq!(errno_of(&error), Some(Errno::FBIG));
        assert_eq!(disk.check(&bytes), limit / 4096);
        let block = limit / 4096 * 4096;
        let len = (SIZE - block).min(4096);
        assert_eq!(*disk.punched.borrow(), [(block as u64, len as u64)]);
    }
}

#[test]
fn a_block_that_was_there_before_is_never_punched_out() {
    let site = Site::new();
    let (source, bytes) = source(&site);
    let mut disk = Disk::new(SIZE, 4096);
    copy(&source, &disk, 0, SIZE as u64, &mut Buffer::default()).unwrap();
    disk.limit = 4097;
    copy(&source, &disk, 0, SIZE as u64, &mut Buffer::default()).unwrap_err();
    assert!(disk.punched.borrow().is_empty());
    assert_eq!(disk.check(&bytes), 6);
}

#[test]
fn a_real_file_loses_half_a_block_and_nothing_else() {
    let site = Site::new();
    let bytes = site.blob("a.img", 3 * 4096);
    let file = site.cache_file("a.img");
    let missing = |pos| CacheFile::is_missing(&file, pos).unwrap();
    assert!(missing(4096));
    for block in [0, 4096, 8192] {
        std::os::unix::fs::FileExt::write_all_at(&file, &bytes[..4096], block).unwrap();
    }
    assert!(!missing(4096));
    CacheFile::punch(&file, 4096, 4096).unwrap();
    assert!(missing(4096) && !missing(0) && !missing(8192));
    assert_eq!(file.metadata().unwrap().len(), 3 * 4096);
}

#[test]
fn pieces_are_whole_blocks() {
    assert_eq!(PIECE % 4096, 0);
}

/// A limit on the size of files would cut a write short in the middle of a block.
#[test]
fn a_limit_on_the_size_of_files_is_told_before_anything_is_written() {
    let site = Site::new();
    site.blob("a.img", 100_000);
    let output = Command::new("sh")
        .args(["-c", "ulimit -f 8 && exec \"$@\"", "sh"])
        .args([env!("CARGO_BIN_EXE_demandd"), "prefetch", "--root"])
        .arg(site.root())
        .arg("--source")
        .arg(site.source_dir())
        .arg("a.img")
        .output()
        .unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(
        !output.status.success() && stderr.contains("ulimit -f"),
        "{stderr}"
    );
    assert_eq!(site.missing("a.img"), 100_000);
}

#[test]
fn the_last_block_becomes_a_hole_too_if_it_is_a_short_one() {
    let file = tempfile::tempfile_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    file.set_len(4096 + 500).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, &[7; 500], 4096).unwrap();
    assert!(!CacheFile::is_missing(&file, 4096).unwrap());
    CacheFile::punch(&file, 4096, 500).unwrap();
    assert!(CacheFile::is_missing(&file, 4096).unwrap());
    assert_eq!(file.metadata().unwrap().len(), 4096 + 500);
}
