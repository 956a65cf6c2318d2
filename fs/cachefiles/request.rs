// SPDX-License-Identifier: GPL-2.0

//! Requests: ranges of blobs that readers wait for and the daemon has to fetch.
//!
//! A request is in the table from when a reader misses until it is answered, and only there.
//! Whoever takes it out of the table, under the lock, is the one who completes it: once, and for
//! all who wait for it. Reads that miss overlapping ranges share requests.
//!
//! Lock order: the table's lock is the innermost one. No user memory is touched and nothing is
//! completed while it is held.

use crate::{cache::State, io::Miss, object::Object};
use kernel::{
    new_mutex,
    prelude::*,
    rbtree::{RBTree, RBTreeNodeReservation},
    sync::{Arc, Mutex},
};

/// The requests of one cache.
#[pin_data]
pub(crate) struct Requests {
    state: Arc<State>,
    #[pin]
    table: Mutex<Table>,
}

struct Table {
    /// Whether a daemon is there to answer. New requests are refused, under the same lock that
    /// fails the old ones, when there is none.
    connected: bool,
    pending: RBTree<u64, Request>,
    /// No request with a smaller id waits for delivery.
    deliver_from: u64,
}

/// What the daemon owes.
struct Request {
    object: Arc<Object>,
    start: u64,
    end: u64,
    delivered: bool,
    waiting: KVec<Arc<Miss>>,
}

/// A request as the daemon sees it.
pub(crate) struct Record {
    pub(crate) id: u64,
    pub(crate) start: u64,
    pub(crate) len: u64,
    pub(crate) object: Arc<Object>,
}

impl Requests {
    pub(crate) fn new(state: Arc<State>) -> impl PinInit<Self> {
        pin_init!(Self {
            state,
            table <- new_mutex!(Table {
                connected: true,
                pending: RBTree::new(),
                deliver_from: 0,
            }),
        })
    }

    /// A daemon is there.
    pub(crate) fn connect(&self) {
        self.table.lock().connected = true;
    }

    /// Whether a daemon is there.
    pub(crate) fn connected(&self) -> bool {
        self.table.lock().connected
    }

    /// The daemon is gone: fails all requests with `e`, and new ones from now on.
    pub(crate) fn disconnect(&self, e: Error) {
        let pending = {
            let mut table = self.table.lock();
            table.connected = false;
            core::mem::replace(&mut table.pending, RBTree::new())
        };
        for request in pending.values() {
            request.complete(Err(e));
        }
    }

    /// Nobody wants the bytes of `object` any more: fails its requests.
    pub(crate) fn abort(&self, object: &Arc<Object>) {
        loop {
            let request = {
                let mut table = self.table.lock();
                let id = table
                    .pending
                    .iter()
                    .find(|(_, request)| Arc::ptr_eq(&request.object, object))
                    .map(|(id, _)| *id);
                id.and_then(|id| table.pending.remove(&id))
            };
            match request {
                Some(request) => request.complete(Err(ECANCELED)),
                None => return,
            }
        }
    }

    /// Makes `miss` wait for the bytes from `start` to `end` of its object: joins the requests that
    /// cover parts of it, and makes new ones for the rest. [`EIO`] when there is no daemon.
    pub(crate) fn add(&self, miss: &Arc<Miss>, start: u64, end: u64) -> Result {
        let mut table = self.table.lock();
        if !table.connected {
            return Err(EIO);
        }
        let object = miss.object();
        let mut at = start;
        let mut added = false;
        let result = loop {
            if at >= end {
                break Ok(());
            }
            // The request that covers `at`, or else where the next one begins.
            let mut next = end;
            let mut covering = None;
            for request in table.pending.values_mut() {
                if !Arc::ptr_eq(&request.object, object) || request.end <= at {
                    continue;
                }
                if request.start <= at {
                    covering = Some(request);
                    break;
                }
                next = next.min(request.start);
            }
            let joined = match covering {
                Some(request) => {
                    at = request.end;
                    request.join(miss)
                }
                None => {
                    let mut request = Request {
                        object: object.clone(),
                        start: at,
                        end: next,
                        delivered: false,
                        waiting: KVec::new(),
                    };
                    at = next;
                    // The node comes first: a request that is waited for must get into the table.
                    RBTreeNodeReservation::new(GFP_KERNEL).and_then(|node| {
                        request.join(miss)?;
                        let id = self.state.new_id();
                        table.pending.insert(node.into_node(id, request));
                        added = true;
                        Ok(())
                    })
                }
            };
            if joined.is_err() {
                break joined;
            }
        };
        drop(table);
        if added {
            self.state.readable.notify_all();
        }
        result
    }

    /// Whether a record waits for delivery.
    pub(crate) fn deliverable(&self) -> bool {
        self.table.lock().next().is_some()
    }

    /// Takes the next record and counts it as delivered.
    pub(crate) fn deliver(&self) -> Option<Record> {
        let mut table = self.table.lock();
        let id = table.next()?;
        table.deliver_from = id.wrapping_add(1);
        let request = table.pending.get_mut(&id)?;
        request.delivered = true;
        Some(Record {
            id,
            start: request.start,
            len: request.end.saturating_sub(request.start),
            object: request.object.clone(),
        })
    }

    /// The record did not reach the daemon: it is delivered again.
    pub(crate) fn take_back(&self, id: u64) {
        let mut table = self.table.lock();
        if let Some(request) = table.pending.get_mut(&id) {
            request.delivered = false;
            table.deliver_from = table.deliver_from.min(id);
        }
        drop(table);
        self.state.readable.notify_all();
    }

    /// The daemon answers a request that was delivered to it. [`EINVAL`] for any other id.
    pub(crate) fn answer(&self, id: u64, result: Result) -> Result {
        let request = {
            let mut table = self.table.lock();
            match table.pending.get(&id) {
                Some(request) if request.delivered => table.pending.remove(&id),
                _ => None,
            }
        };
        request.ok_or(EINVAL)?.complete(result);
        Ok(())
    }
}

impl Table {
    /// The smallest id that waits for delivery.
    fn next(&self) -> Option<u64> {
        let mut from = self.deliver_from;
        loop {
            let cursor = self.pending.cursor_lower_bound(&from)?;
            let (id, request) = cursor.current();
            if !request.delivered {
                return Some(*id);
            }
            from = id.checked_add(1)?;
        }
    }
}

impl Request {
    fn join(&mut self, miss: &Arc<Miss>) -> Result {
        self.waiting.push(miss.clone(), GFP_KERNEL)?;
        miss.expect_answer();
        Ok(())
    }

    fn complete(&self, result: Result) {
        for miss in &self.waiting {
            miss.answered(result);
        }
    }
}
