use proptest::prelude::*;

use super::*;
use crate::domain::event::EventType;

const GROUP: GroupOrigin<'_> = GroupOrigin {
    id: "m",
    size: 1000,
};

/// An event with a body of `bytes`, which is JSON.
fn event(number: u128, routing_key: &str, bytes: usize) -> Event {
    Event {
        id: Uuid::from_u128(number),
        kind: EventType::Reverted,
        reason: "",
        routing_key: routing_key.into(),
        time: Timestamp::from_second(i64::try_from(number).expect("small")).expect("a time"),
        body: format!("\"{}\"", "x".repeat(bytes - 2)).into_bytes(),
    }
}

fn placed(events: &[Event]) -> impl Iterator<Item = PlacedEvent<'_>> {
    events.iter().enumerate()
}

fn numbers(message: &EventMessage<'_>) -> Vec<u128> {
    let events = message.events.iter();
    events.map(|(_, event)| event.id.as_u128()).collect()
}

#[test]
fn events_are_batched_by_routing_key() {
    let keys = ["result.a", "error.a", "result.a", "result.b", "error.a"];
    let events: Vec<_> = (0..).zip(keys).map(|(n, key)| event(n, key, 10)).collect();
    let messages = messages(GROUP, Replies::Batch, placed(&events));
    let found: Vec<_> = messages
        .iter()
        .map(|message| (message.routing_key, numbers(message)))
        .collect();
    assert_eq!(
        found,
        [
            ("result.a", vec![0, 2]),
            ("error.a", vec![1, 4]),
            ("result.b", vec![3])
        ]
    );
    let first = &messages[0];
    assert_eq!(first.body.as_ref(), br#"["xxxxxxxx","xxxxxxxx"]"#);
    assert_eq!(first.content_type, "application/cloudevents-batch+json");
    assert_eq!((first.group, first.time), (GROUP, events[2].time));
    // Ids of messages tell batches apart, and are not those of events.
    assert_ne!(first.id, messages[1].id);
    assert_ne!(messages[2].id, events[3].id);
    assert_eq!(
        first.id,
        super::messages(GROUP, Replies::Batch, placed(&events))[0].id
    );
}

#[test]
fn each_event_has_a_message_if_the_group_asks_for_it() {
    let events = [event(1, "result.a", 10), event(2, "result.a", 10)];
    let messages = messages(GROUP, Replies::Each, placed(&events));
    for (message, event) in messages.iter().zip(&events) {
        assert_eq!((message.id, message.time), (event.id, event.time));
        assert_eq!(message.content_type, "application/cloudevents+json");
        assert_eq!(message.body.as_ref(), event.body);
        assert_eq!(message.events[0].1, event);
    }
    assert_eq!(messages.len(), 2);
}

#[test]
fn a_batch_has_at_most_256_kib() {
    // Two brackets and a comma.
    let half = BATCH_MAX_BYTES / 2;
    for (bytes, batches) in [(half - 1, 1), (half, 2), (BATCH_MAX_BYTES, 2)] {
        let events = [event(1, "k", half - 2), event(2, "k", bytes)];
        let found = messages(GROUP, Replies::Batch, placed(&events));
        assert_eq!(found.len(), batches, "{bytes}");
    }
    // A larger event is alone, and those behind it are together again.
    let sizes = [10, BATCH_MAX_BYTES, 10, 10];
    let events: Vec<_> = (0..)
        .zip(sizes)
        .map(|(n, bytes)| event(n, "k", bytes))
        .collect();
    let found: Vec<_> = messages(GROUP, Replies::Batch, placed(&events))
        .iter()
        .map(numbers)
        .collect();
    assert_eq!(found, [vec![0], vec![1], vec![2, 3]]);
}

#[test]
fn no_events_are_no_messages() {
    for replies in [Replies::Batch, Replies::Each] {
        assert_eq!(messages(GROUP, replies, []), []);
    }
}

proptest! {
    #[test]
    fn messages_are_a_partition_of_the_events(
        drawn in proptest::collection::vec((0..4_u8, 2..120_000_usize), 0..16),
        each in any::<bool>(),
    ) {
        let events: Vec<_> = (0..)
            .zip(&drawn)
            .map(|(number, (key, bytes))| event(number, &format!("result.{key}"), *bytes))
            .collect();
        let replies = if each { Replies::Each } else { Replies::Batch };
        let messages = messages(GROUP, replies, placed(&events));
        let mut seen = Vec::new();
        for message in &messages {
            let numbers = numbers(message);
            prop_assert!(numbers.is_sorted() && !numbers.is_empty());
            seen.extend(numbers);
            let keys: Vec<_> = message.events.iter().map(|(_, event)| &event.routing_key).collect();
            prop_assert!(keys.iter().all(|key| *key == message.routing_key));
            prop_assert!(message.events.len() == 1 || message.body.len() <= BATCH_MAX_BYTES);
            let bodies = message.events.iter().map(|(_, event)| &event.body[..]);
            let bodies: Vec<&[u8]> = bodies.collect();
            let joined = bodies.join(&b","[..]);
            let expected = if each { joined } else { [b"[", &joined[..], b"]"].concat() };
            prop_assert_eq!(message.body.as_ref(), &expected[..]);
        }
        let firsts: Vec<_> = messages.iter().map(|message| numbers(message)[0]).collect();
        prop_assert!(firsts.is_sorted());
        seen.sort_unstable();
        prop_assert_eq!(seen, (0..events.len() as u128).collect::<Vec<_>>());
    }
}
