// SPDX-License-Identifier: GPL-2.0
//! The wire format: what C and Rust make of the header, and what a hostile record can do.

mod stand_in;

use std::ffi::OsStr;
use std::mem::{offset_of, size_of};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::Command as Process;

use demandd::abi::header::cachefiles_demand_req as Raw;
use demandd::abi::{BadCommand, BadRequest, Command, Request, COMMAND_MAX, RECORD_SIZE};
use proptest::collection::vec;
use proptest::prelude::*;
use stand_in::record;

#[test]
fn rust_sees_the_published_layout() {
    assert_eq!(offset_of!(Raw, id), 0);
    assert_eq!(offset_of!(Raw, off), 8);
    assert_eq!(offset_of!(Raw, len), 16);
    assert_eq!(offset_of!(Raw, path), 24);
    assert_eq!(size_of::<Raw>(), 280);
    assert_eq!(RECORD_SIZE, 280);
}

#[test]
fn c_sees_the_published_layout() {
    let status = Process::new("cc")
        .args([
            "-std=c11",
            "-Wall",
            "-Wextra",
            "-Werror",
            "-pedantic",
            "-fsyntax-only",
        ])
        .args(["-I../../include/uapi", "tests/layout.c"])
        .status()
        .expect("a C compiler is installed");
    assert!(status.success());
}

#[test]
fn a_record_gives_what_was_put_in() {
    let request = Request::parse(&record(7, 4096, 8192, b"Dtest.img"));
    assert_eq!((request.id, request.off, request.len), (7, 4096, 8192));
    assert_eq!(request.file_name(), Ok(OsStr::new("Dtest.img")));
    assert_eq!(request.check_range(12288), Ok(()));
}

#[test]
fn the_longest_name_is_a_name() {
    let name = [b'D'; 255];
    let request = Request::parse(&record(0, 0, 1, &name));
    assert_eq!(request.file_name().unwrap().len(), 255);
}

#[test]
fn a_path_is_no_name() {
    let unterminated = [b'D'; 256];
    let hostile: [&[u8]; 8] = [
        b"",
        b".",
        b"..",
        b"/etc/shadow",
        b"../Dx",
        b"D/../../x",
        b"Dx/",
        &unterminated,
    ];
    for path in hostile {
        let request = Request::parse(&record(1, 0, 4096, path));
        assert_eq!(request.file_name(), Err(BadRequest::Name), "{path:?}");
    }
}

#[test]
fn what_follows_the_end_of_the_name_is_ignored() {
    let request = Request::parse(&record(1, 0, 4096, b"Dx\0/../y"));
    assert_eq!(request.file_name(), Ok(OsStr::new("Dx")));
}

#[test]
fn a_range_is_whole_blocks_inside_the_file() {
    let size = 10_000;
    let check = |off, len| Request::parse(&record(1, off, len, b"Dx")).check_range(size);
    assert_eq!(check(0, 4096), Ok(()));
    assert_eq!(check(0, 10_000), Ok(()));
    assert_eq!(check(8192, 1808), Ok(()));
    let outside = [
        (0, 0),
        (8192, 4096),
        (12288, 4096),
        (1, 4096),
        (0, 4095),
        (4096, 1),
        (u64::MAX, 1),
        (u64::MAX - 4095, 4096),
        (4096, u64::MAX),
        (0, u64::MAX),
    ];
    for (off, len) in outside {
        assert_eq!(
            check(off, len),
            Err(BadRequest::Range { off, len, size }),
            "{off}+{len}"
        );
    }
}

#[test]
fn commands_are_one_line() {
    let bytes = |command: Command<'_>| {
        command
            .to_bytes()
            .map(|text| String::from_utf8(text).unwrap())
    };
    assert_eq!(
        bytes(Command::Dir(Path::new("/a b"))).unwrap(),
        "dir /a b\n"
    );
    assert_eq!(bytes(Command::Tag("x")).unwrap(), "tag x\n");
    assert_eq!(bytes(Command::Bind).unwrap(), "bind\n");
    assert_eq!(
        bytes(Command::Done(u64::MAX)).unwrap(),
        "done 18446744073709551615\n"
    );
    assert_eq!(bytes(Command::Fail(3, 5)).unwrap(), "fail 3 5\n");
    assert_eq!(bytes(Command::Restore).unwrap(), "restore\n");
    assert_eq!(
        bytes(Command::Cull(OsStr::new("Da.img"))).unwrap(),
        "cull Da.img\n"
    );
}

#[test]
fn a_command_cannot_smuggle_another() {
    assert_eq!(Command::Tag("x\nbind").to_bytes(), Err(BadCommand));
    assert_eq!(Command::Tag("x\0").to_bytes(), Err(BadCommand));
    let longest = "x".repeat(COMMAND_MAX - "tag \n".len());
    assert_eq!(
        Command::Tag(&longest).to_bytes().unwrap().len(),
        COMMAND_MAX
    );
    assert_eq!(Command::Tag(&(longest + "x")).to_bytes(), Err(BadCommand));
}

proptest! {
    /// Whatever is in a record, no more of it may be acted upon than names a file and a range within it.
    #[test]
    fn records_are_what_they_are_and_no_more(
        (id, off, len, size) in (any::<u64>(), number(), number(), number()),
        name in vec(name_byte(), 0..=256),
    ) {
        let request = Request::parse(&record(id, off, len, &name));
        prop_assert_eq!((request.id, request.off, request.len), (id, off, len));
        let end = name.iter().position(|&byte| byte == 0);
        let end = end.or((name.len() < 256).then_some(name.len()));
        let right = end.map(|end| &name[..end]).filter(|name| {
            !matches!(*name, b"" | b"." | b"..") && !name.contains(&b'/')
        });
        prop_assert_eq!(request.file_name().ok(), right.map(OsStr::from_bytes));
        let [off, len, all] = [off, len, size].map(u128::from);
        let inside = len > 0 && off + len <= all;
        let whole = off % 4096 == 0 && (len % 4096 == 0 || off + len == all);
        prop_assert_eq!(request.check_range(size).is_ok(), inside && whole);
    }
}

/// Numbers about which there is something to say: few blocks, perhaps some bytes more, and those near the largest.
fn number() -> impl Strategy<Value = u64> {
    let near = (0..4_u64, 0..3_u64).prop_map(|(blocks, bytes)| blocks * 4096 + bytes);
    prop_oneof![
        4 => (0..4_u64).prop_map(|blocks| blocks * 4096),
        2 => near.clone(),
        1 => near.prop_map(|less| u64::MAX - less),
        1 => any::<u64>(),
    ]
}

fn name_byte() -> impl Strategy<Value = u8> {
    prop_oneof![8 => any::<u8>(), 1 => Just(b'.'), 1 => Just(b'/'), 1 => Just(0)]
}
