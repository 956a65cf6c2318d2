// SPDX-License-Identifier: GPL-2.0

//! Both sides of the fscache core (fs/netfs/fscache_*.c): [`client`] for a file system that reads
//! from a cache, [`backend`] for a cache.
//!
//! The core knows three things, which both sides share: a *cache* has a tag and is provided by a
//! backend; a *volume* is a client's name space in a cache; a *cookie* names one object of a volume
//! and, once it is looked up, leads to the backend's data for it.

pub mod backend;
pub mod client;
