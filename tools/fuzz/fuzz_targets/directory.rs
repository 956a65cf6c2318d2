// SPDX-License-Identifier: GPL-2.0
//! Directories: [`fuzz::directory`].
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzz::directory::run(bytes));
