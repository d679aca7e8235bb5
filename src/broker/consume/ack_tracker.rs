//! Tracks which delivery tags may be acknowledged.
//!
//! Batches are registered in the order of their delivery tags and may be settled in any order. One
//! acknowledgement covers all tags up to its own, so a settled batch waits for the batches before
//! it.

use std::collections::VecDeque;

/// The batches in flight, in the order of their tags.
#[derive(Debug, Default)]
pub struct AckTracker {
    in_flight: VecDeque<InFlight>,
    next: u64,
}

/// The id of a registered batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchId(u64);

#[derive(Debug)]
struct InFlight {
    id: BatchId,
    /// The delivery tags, in order.
    tags: Vec<u64>,
    settled: bool,
}

impl AckTracker {
    /// Registers a batch by its delivery tags.
    pub fn register(&mut self, tags: Vec<u64>) -> BatchId {
        let id = self.new_id();
        self.in_flight.push_back(InFlight {
            id,
            tags,
            settled: false,
        });
        id
    }

    /// Splits off the deliveries after the first `count` as a batch of their own.
    pub fn split_off(&mut self, id: BatchId, count: usize) -> BatchId {
        let rest = self.new_id();
        if let Some(index) = self.in_flight.iter().position(|batch| batch.id == id) {
            let batch = &mut self.in_flight[index];
            let tags = batch.tags.split_off(count.min(batch.tags.len()));
            let settled = batch.settled;
            let id = rest;
            self.in_flight
                .insert(index + 1, InFlight { id, tags, settled });
        }
        rest
    }

    /// Settles a batch. Returns the tag up to which every batch is settled, if it advanced.
    pub fn settle(&mut self, id: BatchId) -> Option<u64> {
        let batch = self.in_flight.iter_mut().find(|batch| batch.id == id);
        if let Some(batch) = batch {
            batch.settled = true;
        }
        let mut up_to = None;
        while self.in_flight.front().is_some_and(|batch| batch.settled) {
            let batch = self.in_flight.pop_front();
            up_to = batch.and_then(|batch| batch.tags.last().copied()).or(up_to);
        }
        up_to
    }

    /// The settled tags behind a batch that will never be settled. They must be acknowledged one by
    /// one.
    pub fn settled_out_of_order(&mut self) -> Vec<u64> {
        let settled = self.in_flight.iter().filter(|batch| batch.settled);
        let tags = settled.flat_map(|batch| batch.tags.clone()).collect();
        self.in_flight.retain(|batch| !batch.settled);
        tags
    }

    /// Whether every registered batch is settled.
    pub fn is_empty(&self) -> bool {
        self.in_flight.is_empty()
    }

    fn new_id(&mut self) -> BatchId {
        self.next += 1;
        BatchId(self.next)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_batch_is_acknowledged_after_earlier_batches() {
        let mut tracker = AckTracker::default();
        let (one, two, three) = (
            tracker.register(vec![1, 2, 3]),
            tracker.register(vec![4]),
            tracker.register(vec![5, 6]),
        );
        assert_eq!(tracker.settle(two), None);
        assert_eq!(tracker.settle(one), Some(4));
        assert_eq!(tracker.settle(three), Some(6));
        assert!(tracker.is_empty());
    }

    #[test]
    fn parts_of_a_batch_are_settled_independently() {
        let mut tracker = AckTracker::default();
        let (one, two) = (tracker.register(vec![1, 2, 3]), tracker.register(vec![4]));
        let rest = tracker.split_off(one, 1);
        let last = tracker.split_off(rest, 1);
        assert_eq!(tracker.settle(last), None);
        assert_eq!(tracker.settle(one), Some(1));
        assert_eq!(tracker.settle(two), None);
        assert_eq!(tracker.settle(rest), Some(4));
    }

    #[test]
    fn batches_after_an_abandoned_one_are_acknowledged() {
        let mut tracker = AckTracker::default();
        let (one, two) = (
            tracker.register(vec![1, 2, 3]),
            tracker.register(vec![4, 5]),
        );
        assert_eq!(tracker.settle(two), None);
        assert_eq!(tracker.settled_out_of_order(), [4, 5]);
        assert_eq!(tracker.settled_out_of_order(), [] as [u64; 0]);
        assert_eq!(tracker.settle(one), Some(3));
    }

    proptest! {
        #[test]
        fn only_settled_deliveries_are_acknowledged(
            sizes in prop::collection::vec(1u64..5, 1..20),
            splits in prop::collection::vec(any::<prop::sample::Index>(), 0..10),
            settled in prop::collection::vec(any::<prop::sample::Index>(), 0..40),
        ) {
            let mut tracker = AckTracker::default();
            let (mut batches, mut next) = (Vec::new(), 1);
            for size in sizes {
                let tags: Vec<_> = (next..next + size).collect();
                batches.push((tracker.register(tags.clone()), tags));
                next += size;
            }
            for index in splits {
                let index = index.index(batches.len());
                let rest = tracker.split_off(batches[index].0, 1);
                let tags = &mut batches[index].1;
                let tags = tags.split_off(tags.len().min(1));
                batches.push((rest, tags));
            }
            // The broker requires that a multiple acknowledgement names an unacknowledged tag.
            let mut waiting: BTreeSet<_> = (1..next).collect();
            let mut expected = waiting.clone();
            for index in settled {
                let (id, tags) = index.get(&batches);
                expected.retain(|tag| !tags.contains(tag));
                if let Some(up_to) = tracker.settle(*id) {
                    prop_assert!(waiting.contains(&up_to));
                    waiting.retain(|tag| *tag > up_to);
                }
                prop_assert!(waiting.is_superset(&expected));
            }
            for tag in tracker.settled_out_of_order() {
                prop_assert!(waiting.remove(&tag));
            }
            prop_assert_eq!(waiting, expected);
        }
    }
}
