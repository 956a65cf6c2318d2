// SPDX-License-Identifier: GPL-2.0
//! Answers of web servers: [`fuzz::http`].
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzz::http::run(bytes));
