// SPDX-License-Identifier: GPL-2.0
//! What a Rust program sees of the device through the header: for the kernel selftest `test_abi.sh`.
//!
//! `abi-check CACHE-ROOT TAG FILE CACHE-FILE`: FILE is on a mount that uses the cache TAG in CACHE-ROOT, which has no
//! daemon. Its bytes are those of CACHE-FILE, and its last blocks are missing.
#![forbid(unsafe_code)]

use std::env;
use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{bail, ensure, Context, Result};
use demandd::abi::header::{cachefiles_demand_req, CACHEFILES_DEMAND_DEVICE};
use demandd::abi::{Command, Request, BLOCK, RECORD_SIZE};
use demandd::device::{bind, command, unbind, Device, Node, Settings};
use rustix::event::{poll, PollFd, PollFlags, Timespec};
use rustix::fs::{fadvise, Advice};

/// How long a request may take to come, in seconds.
const PATIENCE: i64 = 10;

/// What is written where a request asks for bytes.
const FILLING: u8 = 0xa5;

fn main() -> ExitCode {
    let mut count = 0;
    let mut pass = |what: &str| {
        count += 1;
        println!("ok {count} {what}");
    };
    println!("KTAP version 1\n1..7");
    match run(&mut pass) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("not ok {} {error:#}", count + 1);
            ExitCode::FAILURE
        }
    }
}

fn run(pass: &mut dyn FnMut(&str)) -> Result<()> {
    let args: Vec<OsString> = env::args_os().skip(1).collect();
    let [root, tag, file, cache_file] = args.as_slice() else {
        bail!("usage: abi-check CACHE-ROOT TAG FILE CACHE-FILE");
    };
    let cache_file = PathBuf::from(cache_file);
    let tag = tag.to_str().context("the tag is not UTF-8")?;
    let file = File::open(file).context("cannot open the file")?;
    let device = Node::open(Path::new(CACHEFILES_DEMAND_DEVICE.to_str()?))?;
    bind(&device, Path::new(root), tag, &Settings::default())?;

    // Two blocks from the end, one after the other, so that there are two records.
    let end = file.metadata()?.len();
    let offsets = [1, 32].map(|blocks| end.saturating_sub(blocks * BLOCK));
    fadvise(&file, 0, None, Advice::Random)?;
    for offset in offsets {
        fadvise(&file, offset, BLOCK.try_into().ok(), Advice::WillNeed)?;
    }
    let mut fds = [PollFd::from_borrowed_fd(device.fd(), PollFlags::IN)];
    let timeout = Timespec {
        tv_sec: PATIENCE,
        tv_nsec: 0,
    };
    ensure!(poll(&mut fds, Some(&timeout))? == 1, "no request came");
    pass("a miss makes the device readable");

    let mut records = [0; 3 * RECORD_SIZE];
    let size = device.read(&mut records)?;
    ensure!(
        size == 2 * size_of::<cachefiles_demand_req>(),
        "a read for two requests gave {size} bytes"
    );
    pass("a read takes all records");

    let name = cache_file.file_name().context("no file name")?;
    let mut ids = Vec::new();
    for (record, offset) in records.chunks_exact(RECORD_SIZE).zip(offsets) {
        let record = record.try_into()?;
        let request = Request::parse(record);
        ensure!(
            *record == wanted(request.id, offset, BLOCK, name.as_encoded_bytes()),
            "the bytes of a record are not as the header says: {record:?}"
        );
        ids.push(request.id);
    }
    pass("their bytes are as the header says");

    command(&device, Command::Restore)?;
    let mut again = [0; 3 * RECORD_SIZE];
    ensure!(
        device.read(&mut again)? == size && again == records,
        "after restore the records differ"
    );
    pass("restore delivers them again, as they were");

    let cache_file = OpenOptions::new().write(true).open(&cache_file)?;
    let block = [FILLING; BLOCK as usize];
    for (id, offset) in ids.into_iter().zip(offsets) {
        cache_file.write_all_at(&block, offset)?;
        command(&device, Command::Done(id))?;
    }
    pass("they can be answered");

    for offset in offsets {
        let mut got = [0; BLOCK as usize];
        file.read_exact_at(&mut got, offset)?;
        ensure!(got == block, "the block at {offset} is wrong");
    }
    pass("the reader gets what was written");

    unbind(&device)?;
    bind(&device, Path::new(root), tag, &Settings::default())?;
    pass("after unbind the same descriptor can bind");
    Ok(())
}

/// A record, from the numbers that the header's text gives and not from what became of them here.
fn wanted(id: u64, off: u64, len: u64, path: &[u8]) -> [u8; 280] {
    let mut record = [0; 280];
    record[0..8].copy_from_slice(&id.to_ne_bytes());
    record[8..16].copy_from_slice(&off.to_ne_bytes());
    record[16..24].copy_from_slice(&len.to_ne_bytes());
    record[24..24 + path.len()].copy_from_slice(path);
    record
}
