// SPDX-License-Identifier: GPL-2.0
//! Damages EROFS images: finds where the structures of an image are, and changes a field or a
//! structure to something that a reader may stumble over. The same seed gives the same damage.

#![forbid(unsafe_code)]

mod crc32c;
pub mod edit;
pub mod field;
pub mod map;
pub mod mutate;
pub mod rng;
mod value;
