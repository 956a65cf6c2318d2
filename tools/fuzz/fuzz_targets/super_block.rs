// SPDX-License-Identifier: GPL-2.0
//! The super block and the device table: [`fuzz::super_block`].
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzz::super_block::run(bytes));
