// SPDX-License-Identifier: GPL-2.0
//! Inodes: [`fuzz::inode`].
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzz::inode::run(bytes));
