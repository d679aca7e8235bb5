//! What may be acknowledged, and when.
//!
//! Pure. Batches are handed out in the order of their delivery tags and may be settled in any. One acknowledgement
//! settles everything before it, so a batch waits for those before it, and is acknowledged with them.

use std::collections::VecDeque;

/// Batches in hand, by the last delivery tag of each, in the order of being handed out.
#[derive(Debug, Default)]
pub struct Order {
    in_hand: VecDeque<InHand>,
}

#[derive(Debug)]
struct InHand {
    first: u64,
    last: u64,
    settled: bool,
}

impl Order {
    /// Notes a batch that is handed out: its first and its last tag.
    pub fn hand_out(&mut self, first: u64, last: u64) {
        self.in_hand.push_back(InHand {
            first,
            last,
            settled: false,
        });
    }

    /// Notes that the batch that ends with `last` is settled. Returns the tag up to which everything now is, where
    /// that is news.
    pub fn settle(&mut self, last: u64) -> Option<u64> {
        if let Some(batch) = self.in_hand.iter_mut().find(|batch| batch.last == last) {
            batch.settled = true;
        }
        let mut up_to = None;
        while self.in_hand.front().is_some_and(|batch| batch.settled) {
            up_to = self.in_hand.pop_front().map(|batch| batch.last);
        }
        up_to
    }

    /// The tags that are settled behind a batch that is not and never will be: to be acknowledged one by one.
    pub fn left_behind(&mut self) -> Vec<u64> {
        let settled = self.in_hand.iter().filter(|batch| batch.settled);
        let tags = settled.flat_map(|batch| batch.first..=batch.last).collect();
        self.in_hand.retain(|batch| !batch.settled);
        tags
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_batch_waits_for_those_before_it() {
        let mut order = Order::default();
        order.hand_out(1, 3);
        order.hand_out(4, 4);
        order.hand_out(5, 9);
        assert_eq!(order.settle(4), None);
        assert_eq!(order.settle(3), Some(4));
        assert_eq!(order.settle(9), Some(9));
    }

    #[test]
    fn what_is_settled_behind_an_abandoned_batch_is_acknowledged_by_itself() {
        let mut order = Order::default();
        order.hand_out(1, 3);
        order.hand_out(4, 6);
        assert_eq!(order.settle(6), None);
        assert_eq!(order.left_behind(), [4, 5, 6]);
        assert_eq!(order.left_behind(), [] as [u64; 0]);
        assert_eq!(order.settle(3), Some(3));
    }

    proptest! {
        #[test]
        fn acknowledged_is_what_is_settled_and_nothing_else(
            sizes in prop::collection::vec(1u64..5, 1..20),
            settled in prop::collection::vec(any::<prop::sample::Index>(), 0..40),
        ) {
            let mut order = Order::default();
            let (mut batches, mut next) = (Vec::new(), 1);
            for size in sizes {
                order.hand_out(next, next + size - 1);
                batches.push(next..=next + size - 1);
                next += size;
            }
            let mut expected = std::collections::BTreeSet::new();
            let mut acknowledged = std::collections::BTreeSet::new();
            for index in settled {
                let batch = index.get(&batches).clone();
                if let Some(up_to) = order.settle(*batch.end()) {
                    acknowledged.extend(1..=up_to);
                }
                expected.extend(batch);
                prop_assert!(acknowledged.is_subset(&expected));
            }
            acknowledged.extend(order.left_behind());
            prop_assert_eq!(acknowledged, expected);
        }
    }
}
