// SPDX-License-Identifier: GPL-2.0

//! The table of requests: what the daemon owes, in the order in which it was asked for.
//!
//! Plain bookkeeping without locks; [`crate::request`] has the rules for who may do what when.

use kernel::{
    prelude::*,
    rbtree::{RBTree, RBTreeNode, RBTreeNodeReservation},
    time::{Instant, Monotonic},
};

/// Longest request in bytes that neighbours are added to.
const MERGE_MAX: u64 = 1 << 20;

/// What the daemon owes: a range of the object `O` that the readers `W` wait for.
pub(crate) struct Request<O, W> {
    pub(crate) id: u64,
    pub(crate) object: O,
    pub(crate) start: u64,
    pub(crate) end: u64,
    pub(crate) since: Instant<Monotonic>,
    pub(crate) waiting: KVec<W>,
    /// Number of the object.
    serial: u64,
    delivered: bool,
    hung: bool,
}

impl<O, W> Request<O, W> {
    /// Length of the range in bytes.
    pub(crate) fn len(&self) -> u64 {
        self.end.saturating_sub(self.start)
    }

    /// Whether the daemon has read it.
    pub(crate) fn delivered(&self) -> bool {
        self.delivered
    }

    /// How long ago it was asked for, in milliseconds.
    pub(crate) fn age_ms(&self, now: Instant<Monotonic>) -> u64 {
        u64::try_from((now - self.since).as_millis()).unwrap_or(0)
    }

    /// The same in microseconds.
    pub(crate) fn age_us(&self, now: Instant<Monotonic>) -> u64 {
        u64::try_from((now - self.since).as_micros_ceil()).unwrap_or(0)
    }
}

/// Somebody who waits for requests.
pub(crate) trait Waiter: Clone {
    /// One more request has it among those who wait, and will tell it that it is answered.
    fn expect_answer(&self);
}

/// Where a request ends: the number of its object, and the first byte behind it.
type End = (u64, u64);

pub(crate) struct Table<O, W> {
    /// By id, which is by age.
    pending: RBTree<u64, Request<O, W>>,
    /// Start and id of the same requests, by where they are. Those of one object do not overlap, so
    /// the one that contains a byte is the first that ends behind it.
    ranges: RBTree<End, (u64, u64)>,
    len: usize,
    delivered: usize,
    /// No request with a smaller id waits for delivery.
    deliver_from: u64,
}

impl<O: Clone, W: Waiter> Table<O, W> {
    pub(crate) fn new() -> Self {
        Self {
            pending: RBTree::new(),
            ranges: RBTree::new(),
            len: 0,
            delivered: 0,
            deliver_from: 0,
        }
    }

    /// How many requests wait for delivery.
    pub(crate) fn queued(&self) -> usize {
        self.len.saturating_sub(self.delivered)
    }

    /// How many requests were delivered and wait for an answer.
    pub(crate) fn delivered(&self) -> usize {
        self.delivered
    }

    /// Whether there is no request.
    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The oldest request.
    pub(crate) fn oldest(&self) -> Option<&Request<O, W>> {
        self.first_from(0)
    }

    /// The oldest request whose id is at least `id`.
    pub(crate) fn first_from(&self, id: u64) -> Option<&Request<O, W>> {
        let cursor = self.pending.cursor_lower_bound(&id)?;
        // The cursor gives references that live no longer than itself.
        self.pending.get(cursor.current().0)
    }

    /// Makes `waiter` wait for the bytes from `start` to `end` of an object. `new_id` gives ids that
    /// grow. Calls `queued` with every request that is new.
    ///
    /// Without memory [`ENOMEM`]: the waiter may then wait for a part of the range.
    pub(crate) fn add(
        &mut self,
        (object, serial): (&O, u64),
        (start, end): (u64, u64),
        waiter: &W,
        new_id: impl Fn() -> u64,
        mut queued: impl FnMut(&Request<O, W>),
    ) -> Result {
        let mut at = start;
        while at < end {
            // The request that covers `at`, or else where the next one begins.
            let (covering, next) = match self.first_after((serial, at)) {
                Some((from, to, id)) if from <= at => (Some(id), to),
                Some((from, ..)) => (None, from.min(end)),
                None => (None, end),
            };
            match covering {
                Some(id) => self.join(id, waiter)?,
                None => match self.mergeable((serial, at), next) {
                    Some(id) => {
                        self.join(id, waiter)?;
                        self.lengthen(id, (serial, at), next);
                    }
                    None => {
                        let id = new_id();
                        let request = self.insert(
                            Request {
                                id,
                                object: object.clone(),
                                start: at,
                                end: next,
                                since: Instant::now(),
                                waiting: KVec::new(),
                                serial,
                                delivered: false,
                                hung: false,
                            },
                            waiter,
                        )?;
                        queued(request);
                    }
                },
            }
            at = next;
        }
        Ok(())
    }

    /// Start, end and id of the first request of the object that ends behind the byte.
    fn first_after(&self, (serial, at): End) -> Option<(u64, u64, u64)> {
        let behind = (serial, at.checked_add(1)?);
        let cursor = self.ranges.cursor_lower_bound(&behind)?;
        let (&(owner, end), &(start, id)) = cursor.current();
        (owner == serial).then_some((start, end, id))
    }

    fn join(&mut self, id: u64, waiter: &W) -> Result {
        let request = self.pending.get_mut(&id).ok_or(EINVAL)?;
        request.waiting.push(waiter.clone(), GFP_KERNEL)?;
        waiter.expect_answer();
        Ok(())
    }

    /// The request that ends at `at` and may be made longer, up to `next`.
    fn mergeable(&self, at: End, next: u64) -> Option<u64> {
        let (start, id) = self.ranges.get(&at)?;
        let request = self.pending.get(id)?;
        let fits = next.saturating_sub(*start) <= MERGE_MAX;
        (fits && !request.delivered).then_some(*id)
    }

    /// The request that ends at `at` ends at `next` from now on.
    fn lengthen(&mut self, id: u64, (serial, at): End, next: u64) {
        let Some(node) = self.ranges.remove_node(&(serial, at)) else {
            return;
        };
        let Some(request) = self.pending.get_mut(&id) else {
            return;
        };
        request.end = next;
        let node = node
            .into_reservation()
            .into_node((serial, next), (request.start, id));
        self.ranges.insert(node);
    }

    /// Puts a request into the table, all or nothing: one that is waited for must be in it.
    fn insert(&mut self, mut request: Request<O, W>, waiter: &W) -> Result<&Request<O, W>> {
        let id = request.id;
        let end = (request.serial, request.end);
        let range = RBTreeNode::new(end, (request.start, id), GFP_KERNEL)?;
        let node = RBTreeNodeReservation::new(GFP_KERNEL)?;
        request.waiting.push(waiter.clone(), GFP_KERNEL)?;
        waiter.expect_answer();
        self.ranges.insert(range);
        self.pending.insert(node.into_node(id, request));
        self.len = self.len.saturating_add(1);
        self.pending.get(&id).ok_or(EINVAL)
    }

    /// The next request that waits for delivery; it counts as delivered from now on.
    pub(crate) fn deliver(&mut self) -> Option<&Request<O, W>> {
        let id = self.next()?;
        self.deliver_from = id.saturating_add(1);
        self.delivered = self.delivered.saturating_add(1);
        let request = self.pending.get_mut(&id)?;
        request.delivered = true;
        Some(request)
    }

    /// The smallest id that waits for delivery.
    fn next(&self) -> Option<u64> {
        if self.queued() == 0 {
            return None;
        }
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

    /// The request waits for delivery again, if it is still there.
    pub(crate) fn take_back(&mut self, id: u64) {
        if let Some(request) = self.pending.get_mut(&id) {
            if core::mem::take(&mut request.delivered) {
                self.delivered = self.delivered.saturating_sub(1);
            }
            self.deliver_from = self.deliver_from.min(id);
        }
    }

    /// All requests wait for delivery again. Returns how many did not before.
    pub(crate) fn take_all_back(&mut self) -> usize {
        for request in self.pending.values_mut() {
            request.delivered = false;
        }
        self.deliver_from = 0;
        core::mem::take(&mut self.delivered)
    }

    /// Takes out a request that was delivered.
    pub(crate) fn remove_delivered(&mut self, id: u64) -> Option<Request<O, W>> {
        match self.pending.get(&id) {
            Some(request) if request.delivered => self.remove(id),
            _ => None,
        }
    }

    /// Takes out all requests.
    pub(crate) fn remove_all(&mut self) -> RBTree<u64, Request<O, W>> {
        core::mem::replace(self, Self::new()).pending
    }

    /// Takes out some request of the object.
    pub(crate) fn remove_of(&mut self, serial: u64) -> Option<Request<O, W>> {
        let (_, _, id) = self.first_after((serial, 0))?;
        self.remove(id)
    }

    /// Takes out the oldest request if it is at least so old, in milliseconds.
    pub(crate) fn remove_older(
        &mut self,
        now: Instant<Monotonic>,
        ms: u64,
    ) -> Option<Request<O, W>> {
        match self.oldest()? {
            request if request.age_ms(now) >= ms => self.remove(request.id),
            _ => None,
        }
    }

    fn remove(&mut self, id: u64) -> Option<Request<O, W>> {
        let request = self.pending.remove(&id)?;
        self.ranges.remove(&(request.serial, request.end));
        self.len = self.len.saturating_sub(1);
        if request.delivered {
            self.delivered = self.delivered.saturating_sub(1);
        }
        Some(request)
    }

    /// Calls `hung` once for each request that has become so old, in milliseconds.
    pub(crate) fn for_each_hung(
        &mut self,
        now: Instant<Monotonic>,
        ms: u64,
        mut hung: impl FnMut(&Request<O, W>),
    ) {
        for request in self.pending.values_mut() {
            if request.age_ms(now) < ms {
                break;
            }
            if !core::mem::replace(&mut request.hung, true) {
                hung(request);
            }
        }
    }
}

#[kunit_tests(cachefiles_demand_table)]
mod tests {
    use super::*;
    use core::cell::Cell;

    /// Counts what is expected of a waiter.
    #[derive(Clone)]
    struct Count<'a>(&'a Cell<u32>);

    impl Waiter for Count<'_> {
        fn expect_answer(&self) {
            self.0.set(self.0.get() + 1);
        }
    }

    /// A table, the next id, and what waiters expect.
    struct Bench<'a> {
        table: Table<(), Count<'a>>,
        id: Cell<u64>,
        expected: &'a Cell<u32>,
        queued: u32,
    }

    impl<'a> Bench<'a> {
        fn new(expected: &'a Cell<u32>) -> Self {
            Self {
                table: Table::new(),
                id: Cell::new(1),
                expected,
                queued: 0,
            }
        }

        fn add(&mut self, serial: u64, start: u64, end: u64) -> Result {
            let id = &self.id;
            self.table.add(
                (&(), serial),
                (start, end),
                &Count(self.expected),
                || id.replace(id.get() + 1),
                |_| self.queued += 1,
            )
        }

        fn next(&mut self) -> Option<(u64, u64, u64)> {
            let request = self.table.deliver()?;
            Some((request.id, request.start, request.end))
        }
    }

    #[test]
    fn overlapping_misses_make_one_request() -> Result {
        let expected = Cell::new(0);
        let mut bench = Bench::new(&expected);
        bench.add(1, 0, 8)?;
        bench.add(1, 2, 6)?;
        bench.add(1, 0, 8)?;
        assert_eq!((bench.queued, expected.get()), (1, 3));
        assert_eq!(bench.next(), Some((1, 0, 8)));
        assert_eq!(bench.next(), None);
        assert_eq!(
            bench.table.remove_delivered(1).map(|r| r.waiting.len()),
            Some(3)
        );
        assert!(bench.table.is_empty());
        Ok(())
    }

    #[test]
    fn only_what_nobody_asked_for_is_asked_for() -> Result {
        let expected = Cell::new(0);
        let mut bench = Bench::new(&expected);
        bench.add(1, 4, 6)?;
        bench.add(1, 10, 12)?;
        assert_eq!(bench.next(), Some((1, 4, 6)));
        assert_eq!(bench.next(), Some((2, 10, 12)));
        bench.add(1, 0, 16)?;
        assert_eq!(bench.next(), Some((3, 0, 4)));
        assert_eq!(bench.next(), Some((4, 6, 10)));
        assert_eq!(bench.next(), Some((5, 12, 16)));
        assert_eq!(bench.next(), None);
        Ok(())
    }

    #[test]
    fn neighbours_are_merged_until_the_daemon_has_read_them() -> Result {
        let expected = Cell::new(0);
        let mut bench = Bench::new(&expected);
        bench.add(1, 0, 4)?;
        bench.add(1, 4, 8)?;
        bench.add(2, 8, 12)?;
        assert_eq!(bench.next(), Some((1, 0, 8)));
        bench.add(1, 8, 12)?;
        assert_eq!(bench.next(), Some((2, 8, 12)));
        assert_eq!(bench.next(), Some((3, 8, 12)));
        Ok(())
    }

    #[test]
    fn merging_has_a_limit() -> Result {
        let expected = Cell::new(0);
        let mut bench = Bench::new(&expected);
        bench.add(1, 0, MERGE_MAX)?;
        bench.add(1, MERGE_MAX, MERGE_MAX + 1)?;
        assert_eq!(bench.next(), Some((1, 0, MERGE_MAX)));
        assert_eq!(bench.next(), Some((2, MERGE_MAX, MERGE_MAX + 1)));
        Ok(())
    }

    #[test]
    fn t4_only_delivered_requests_are_answered_and_once() -> Result {
        let expected = Cell::new(0);
        let mut bench = Bench::new(&expected);
        bench.add(1, 0, 4)?;
        assert!(bench.table.remove_delivered(1).is_none());
        assert!(bench.table.remove_delivered(7).is_none());
        bench.next();
        assert!(bench.table.remove_delivered(1).is_some());
        assert!(bench.table.remove_delivered(1).is_none());
        assert_eq!((bench.table.queued(), bench.table.delivered()), (0, 0));
        Ok(())
    }

    #[test]
    fn t20_the_oldest_is_delivered_first_also_after_a_restore() -> Result {
        let expected = Cell::new(0);
        let mut bench = Bench::new(&expected);
        for object in 1..=3 {
            bench.add(object, 0, 4)?;
        }
        assert_eq!(bench.next(), Some((1, 0, 4)));
        assert_eq!(bench.next(), Some((2, 0, 4)));
        bench.table.remove_delivered(1);
        assert_eq!(bench.table.take_all_back(), 1);
        assert_eq!(bench.next(), Some((2, 0, 4)));
        assert_eq!(bench.next(), Some((3, 0, 4)));
        bench.table.take_back(3);
        assert_eq!((bench.table.queued(), bench.table.delivered()), (1, 1));
        assert_eq!(bench.next(), Some((3, 0, 4)));
        Ok(())
    }

    #[test]
    fn t12_requests_of_one_object_are_found_by_it() -> Result {
        let expected = Cell::new(0);
        let mut bench = Bench::new(&expected);
        bench.add(1, 0, 4)?;
        bench.add(2, 0, 4)?;
        bench.add(1, 8, 12)?;
        assert!(bench.table.remove_of(1).is_some());
        assert!(bench.table.remove_of(1).is_some());
        assert!(bench.table.remove_of(1).is_none());
        assert_eq!(bench.next(), Some((2, 0, 4)));
        Ok(())
    }
}
