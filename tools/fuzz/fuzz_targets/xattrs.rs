// SPDX-License-Identifier: GPL-2.0
//! Extended attributes: [`fuzz::xattrs`].
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzz::xattrs::run(bytes));
