// SPDX-License-Identifier: GPL-2.0
//! Records of the kernel's device.
//!
//! An input is the size of a cache file, and a record, in the byte order of this machine.

use std::ffi::CStr;
use std::os::unix::ffi::OsStrExt;

use demandd::abi::{BadRequest, Request, BLOCK, RECORD_SIZE};

use crate::input::Input;

/// See the module.
pub fn run(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let size = input.u64();
    let record: [u8; RECORD_SIZE] = input.bytes();
    let request = Request::parse(&record);
    let mut fields = record.chunks_exact(8);
    let mut field = || u64::from_ne_bytes(fields.next().expect("280 bytes").try_into().expect("8"));
    let (id, off, len) = (field(), field(), field());
    assert_eq!((request.id, request.off, request.len), (id, off, len));

    let name = CStr::from_bytes_until_nul(&record[24..])
        .map(CStr::to_bytes)
        .ok();
    let right = name.is_some_and(|name| {
        !matches!(name, b"" | b"." | b"..") && name.iter().all(|&byte| byte != b'/')
    });
    match request.file_name() {
        Ok(found) => assert!(right && Some(found.as_bytes()) == name),
        Err(error) => assert!(!right && error == BadRequest::Name),
    }

    let block = u128::from(BLOCK);
    let [off, len, size_] = [off, len, size].map(u128::from);
    let inside = len > 0 && off + len <= size_;
    let whole = off % block == 0 && (len % block == 0 || off + len == size_);
    assert_eq!(request.check_range(size).is_ok(), inside && whole);
}
