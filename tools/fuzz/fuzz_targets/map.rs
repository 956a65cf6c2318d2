// SPDX-License-Identifier: GPL-2.0
//! Where the bytes of a file are: [`fuzz::map`].
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzz::map::run(bytes));
