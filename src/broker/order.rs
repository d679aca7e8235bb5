//! What may be acknowledged, and when.
//!
//! Pure. Batches are handed out in the order of their delivery tags and may be settled in any. One acknowledgement
//! settles everything before it, so a batch waits for those before it, and is acknowledged with them.

use std::collections::VecDeque;

/// Batches in hand, in the order of being handed out.
#[derive(Debug, Default)]
pub struct Order {
    in_hand: VecDeque<InHand>,
    next: u64,
}

/// A batch that was handed out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket(u64);

#[derive(Debug)]
struct InHand {
    ticket: Ticket,
    /// In their order; without those that were given back.
    tags: Vec<u64>,
    settled: bool,
}

impl Order {
    /// Notes a batch that is handed out, by its delivery tags.
    pub fn hand_out(&mut self, tags: Vec<u64>) -> Ticket {
        let ticket = Ticket(self.next);
        self.next += 1;
        self.in_hand.push_back(InHand {
            ticket,
            tags,
            settled: false,
        });
        ticket
    }

    /// Notes that one of a batch's deliveries went back to the queue: it must not be acknowledged, nor named in
    /// an acknowledgement of others.
    pub fn give_back(&mut self, ticket: Ticket, tag: u64) {
        if let Some(batch) = self.find(ticket) {
            batch.tags.retain(|other| *other != tag);
        }
    }

    /// Notes that a batch is settled. Returns the tag up to which everything now is, where that is news.
    pub fn settle(&mut self, ticket: Ticket) -> Option<u64> {
        if let Some(batch) = self.find(ticket) {
            batch.settled = true;
        }
        let mut up_to = None;
        while self.in_hand.front().is_some_and(|batch| batch.settled) {
            let batch = self.in_hand.pop_front();
            up_to = batch.and_then(|batch| batch.tags.last().copied()).or(up_to);
        }
        up_to
    }

    /// The tags that are settled behind a batch that is not and never will be: to be acknowledged one by one.
    pub fn left_behind(&mut self) -> Vec<u64> {
        let settled = self.in_hand.iter().filter(|batch| batch.settled);
        let tags = settled.flat_map(|batch| batch.tags.clone()).collect();
        self.in_hand.retain(|batch| !batch.settled);
        tags
    }

    /// Whether everything that was handed out is settled.
    pub fn is_empty(&self) -> bool {
        self.in_hand.is_empty()
    }

    fn find(&mut self, ticket: Ticket) -> Option<&mut InHand> {
        self.in_hand.iter_mut().find(|batch| batch.ticket == ticket)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_batch_waits_for_those_before_it() {
        let mut order = Order::default();
        let (one, two, three) = (
            order.hand_out(vec![1, 2, 3]),
            order.hand_out(vec![4]),
            order.hand_out(vec![5, 6]),
        );
        assert_eq!(order.settle(two), None);
        assert_eq!(order.settle(one), Some(4));
        assert_eq!(order.settle(three), Some(6));
        assert!(order.is_empty());
    }

    #[test]
    fn what_went_back_is_never_named() {
        let mut order = Order::default();
        let (one, two) = (order.hand_out(vec![1, 2]), order.hand_out(vec![3]));
        order.give_back(one, 2);
        order.give_back(two, 3);
        assert_eq!(order.settle(two), None);
        assert_eq!(
            order.settle(one),
            Some(1),
            "the last one of the next is gone"
        );
    }

    #[test]
    fn what_is_settled_behind_an_abandoned_batch_is_acknowledged_by_itself() {
        let mut order = Order::default();
        let (one, two) = (order.hand_out(vec![1, 2, 3]), order.hand_out(vec![4, 5]));
        assert_eq!(order.settle(two), None);
        assert_eq!(order.left_behind(), [4, 5]);
        assert_eq!(order.left_behind(), [] as [u64; 0]);
        assert_eq!(order.settle(one), Some(3));
    }

    proptest! {
        #[test]
        fn acknowledged_is_what_is_settled_and_nothing_else(
            sizes in prop::collection::vec(1u64..5, 1..20),
            back in prop::collection::vec(any::<prop::sample::Index>(), 0..10),
            settled in prop::collection::vec(any::<prop::sample::Index>(), 0..40),
        ) {
            let mut order = Order::default();
            let (mut batches, mut next) = (Vec::new(), 1);
            for size in sizes {
                let tags: Vec<_> = (next..next + size).collect();
                batches.push((order.hand_out(tags.clone()), tags));
                next += size;
            }
            let mut gone = BTreeSet::new();
            for index in back {
                let (ticket, tags) = index.get(&batches);
                order.give_back(*ticket, tags[0]);
                gone.insert(tags[0]);
            }
            // As the broker sees it: an acknowledgement of several must name one that it still waits for.
            let mut waiting: BTreeSet<_> = (1..next).filter(|tag| !gone.contains(tag)).collect();
            let mut expected = waiting.clone();
            for index in settled {
                let (ticket, tags) = index.get(&batches);
                expected.retain(|tag| !tags.contains(tag));
                if let Some(up_to) = order.settle(*ticket) {
                    prop_assert!(waiting.contains(&up_to));
                    waiting.retain(|tag| *tag > up_to);
                }
                prop_assert!(waiting.is_superset(&expected));
            }
            for tag in order.left_behind() {
                prop_assert!(waiting.remove(&tag));
            }
            prop_assert_eq!(waiting, expected);
        }
    }
}
