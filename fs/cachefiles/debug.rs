// SPDX-License-Identifier: GPL-2.0

//! `/sys/kernel/debug/cachefiles_demand`: what the caches hold at this moment, as tables.
//!
//! Each file begins with a line of column names. Columns may be added; the name that a row is about
//! comes last, because it may hold blanks.

use crate::{
    cache::{Bound, State},
    request::Daemon,
};
use kernel::{
    prelude::*,
    seq_file::SeqFile,
    seq_print,
    str::BStr,
    sync::{atomic::ordering, Arc},
};
use vfs::debugfs::{Dir, File, Table};

/// The files and their directory.
pub(crate) struct Tables {
    _caches: File<Caches>,
    _objects: File<Objects>,
    _requests: File<Requests>,
    _dir: Dir,
}

impl Tables {
    pub(crate) fn new(state: &Arc<State>) -> Result<Self> {
        let dir = Dir::new(c"cachefiles_demand");
        Ok(Self {
            _caches: File::new(&dir, Caches(state.clone()))?,
            _objects: File::new(&dir, Objects(state.clone()))?,
            _requests: File::new(&dir, Requests(state.clone()))?,
            _dir: dir,
        })
    }
}

/// A name in a table, in which what is not printable is escaped.
fn shown(name: &CStr) -> &BStr {
    BStr::from_bytes(name.to_bytes())
}

struct Caches(Arc<State>);

#[vtable]
impl Table for Caches {
    const NAME: &'static CStr = c"caches";

    fn show(&self, m: &SeqFile) -> Result {
        seq_print!(
            m,
            "daemon linger timeout granule volumes objects queued delivered oldest_ms done failed \
             hung done_bytes culling stopped tag\n"
        );
        for bound in &self.0.caches()? {
            show_cache(bound, m);
        }
        Ok(())
    }
}

fn show_cache(bound: &Bound, m: &SeqFile) {
    let cache = bound.cache();
    let load = cache.requests.load();
    let counts = &cache.requests.counts;
    let daemon = match load.daemon {
        Daemon::Connected(_) => "connected",
        Daemon::Lingering(..) => "lingering",
        Daemon::Gone => "gone",
    };
    seq_print!(
        m,
        "{daemon} {} {} {} {} {} {} {} {} ",
        cache.linger(),
        cache.requests.timeout(),
        cache.granule(),
        bound.volumes(),
        cache.count_objects(),
        load.queued,
        load.delivered,
        load.oldest_ms
    );
    seq_print!(
        m,
        "{} {} {} {} {} {} {}\n",
        counts.done.load(ordering::Relaxed),
        counts.failed.load(ordering::Relaxed),
        counts.hung.load(ordering::Relaxed),
        counts.done_bytes.load(ordering::Relaxed),
        u8::from(cache.space.culling()),
        u8::from(cache.space.stopped()),
        shown(cache.tag())
    );
}

struct Objects(Arc<State>);

#[vtable]
impl Table for Objects {
    const NAME: &'static CStr = c"objects";

    fn show(&self, m: &SeqFile) -> Result {
        seq_print!(
            m,
            "size present_blocks unsettled_blocks complete hits misses seeks tag/name\n"
        );
        for bound in &self.0.caches()? {
            let cache = bound.cache();
            let mut from = 0;
            // One at a time: no lock is held while a row is written.
            while let Some(object) = cache.object_from(from) {
                from = object.serial().saturating_add(1);
                let known = object.known();
                let (hits, misses) = object.counts();
                seq_print!(
                    m,
                    "{} {} {} {} {hits} {misses} {} {}/{}\n",
                    object.size(),
                    known.blocks(),
                    known.unsettled_blocks(),
                    u8::from(known.complete()),
                    known.seeks(),
                    shown(cache.tag()),
                    shown(object.name())
                );
            }
        }
        Ok(())
    }
}

struct Requests(Arc<State>);

#[vtable]
impl Table for Requests {
    const NAME: &'static CStr = c"requests";

    fn show(&self, m: &SeqFile) -> Result {
        seq_print!(m, "id state age_ms start len waiting tag/name\n");
        for bound in &self.0.caches()? {
            let cache = bound.cache();
            let mut from = 0;
            while let Some(row) = cache.requests.row(from) {
                let record = &row.record;
                from = record.id.saturating_add(1);
                let state = if row.delivered { "delivered" } else { "queued" };
                seq_print!(
                    m,
                    "{} {state} {} {} {} {} {}/{}\n",
                    record.id,
                    row.age_ms,
                    record.start,
                    record.len,
                    row.waiting,
                    shown(cache.tag()),
                    shown(record.object.name())
                );
            }
        }
        Ok(())
    }
}
