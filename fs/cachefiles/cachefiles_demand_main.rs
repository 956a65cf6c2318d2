// SPDX-License-Identifier: GPL-2.0

//! cachefiles_demand: an fscache backend whose missing data a user daemon fetches.
//!
//! A cache is a directory of sparse files that the daemon prepared. A read of bytes that are in a
//! file is served from it. A read that meets a hole becomes a request, which the daemon reads from
//! `/dev/cachefiles_demand`, fills and answers; then the file is read again.
//!
//! From the outside in: [`device`] is the wire format, [`cache`] binds a directory to fscache and
//! [`space`] watches how full it is, [`object`] is one file and [`presence`] what is in it, [`io`]
//! decides between hit and miss and [`behind`] cleans up after it, [`request`] is what the daemon
//! owes, in a [`table`]. [`debug`] shows all of it.

#![deny(unsafe_code)]

use kernel::prelude::*;
use kernel::sync::Arc;
use vfs::{chardev, workqueue::StartedQueue};

mod behind;
mod block_maps;
mod cache;
mod debug;
mod device;
mod io;
mod object;
mod presence;
mod request;
mod space;
mod table;

module! {
    type: CachefilesDemand,
    name: "cachefiles_demand",
    authors: ["The erofs-demand authors"],
    description: "Cache on demand: an fscache backend filled by a user daemon",
    license: "GPL",
}

/// The loaded module. Fields are dropped in order: first nobody can open the device or look at the
/// tables any more, then the caches are withdrawn, last the queue that their reads complete on is
/// drained.
#[pin_data]
struct CachefilesDemand {
    #[pin]
    _device: chardev::Registration<device::Session>,
    _tables: debug::Tables,
    _caches: cache::Withdraw,
    _queue: StartedQueue,
}

impl kernel::InPlaceModule for CachefilesDemand {
    fn init(_module: &'static ThisModule) -> impl PinInit<Self, Error> {
        pin_init::pin_init_scope(|| {
            let queue = fscache::backend::start_queue(c"cachefiles_demand")?;
            let state = Arc::pin_init(cache::State::new(), GFP_KERNEL)?;
            Ok(try_pin_init!(Self {
                _device <- chardev::Registration::new(state.clone()),
                _tables: debug::Tables::new(&state)?,
                _caches: cache::Withdraw::new(state),
                _queue: queue,
            }? Error))
        })
    }
}
