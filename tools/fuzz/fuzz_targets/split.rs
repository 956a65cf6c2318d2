// SPDX-License-Identifier: GPL-2.0
//! Splitting: [`fuzz::split`].
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzz::split::run(bytes));
