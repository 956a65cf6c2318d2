// SPDX-License-Identifier: GPL-2.0
//! Records of the device: [`fuzz::record`].
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzz::record::run(bytes));
