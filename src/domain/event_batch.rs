//! The messages that carry the events of a group: CloudEvents batches in JSON, or one message for
//! each event; and the events of such a message.
//!
//! It must not know the broker: it gives the values of properties and headers, not their form.

use std::borrow::Cow;
use std::collections::HashMap;

use jiff::Timestamp;
use serde_json::value::RawValue;
use uuid::Uuid;

use crate::domain::event::{CONTENT_TYPE, Event};
use crate::domain::request::{Replies, digest};

/// Media type of a batch.
pub const BATCH_CONTENT_TYPE: &str = "application/cloudevents-batch+json";

/// The largest number of bytes of a batch (contract, section Groups). A larger event is alone in
/// its batch.
pub const BATCH_MAX_BYTES: usize = 256 * 1024;

/// The group whose events a message carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupOrigin<'a> {
    /// Header `x-group`: the `message_id` of the group.
    pub id: &'a str,
    /// Header `x-group-size`: the number of requests of the group.
    pub size: usize,
}

/// An event, and the place of its request in what the caller handles.
pub type PlacedEvent<'a> = (usize, &'a Event);

/// A message that carries events of a group. Header `x-group-count` is the number of its events.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventMessage<'a> {
    /// `message_id`: the id of the only event, or of these events together.
    pub id: Uuid,
    /// The routing key of all its events.
    pub routing_key: &'a str,
    /// [`CONTENT_TYPE`] or [`BATCH_CONTENT_TYPE`].
    pub content_type: &'static str,
    /// The time of its latest event.
    pub time: Timestamp,
    /// The body.
    pub body: Cow<'a, [u8]>,
    /// The events and the places that the caller gave them, in the order of their requests; never
    /// empty.
    pub events: Vec<PlacedEvent<'a>>,
    /// The group.
    pub group: GroupOrigin<'a>,
}

/// The messages that carry the events of a group, which come in the order of its requests. The
/// messages are in the order of their first events.
#[must_use]
pub fn messages<'a>(
    group: GroupOrigin<'a>,
    replies: Replies,
    events: impl IntoIterator<Item = PlacedEvent<'a>>,
) -> Vec<EventMessage<'a>> {
    match replies {
        Replies::Each => events
            .into_iter()
            .map(|event| single(group, event))
            .collect(),
        Replies::Batch => split(events)
            .into_iter()
            .map(|events| batch(group, events))
            .collect(),
    }
}

fn single<'a>(group: GroupOrigin<'a>, (place, event): PlacedEvent<'a>) -> EventMessage<'a> {
    EventMessage {
        id: event.id,
        routing_key: &event.routing_key,
        content_type: CONTENT_TYPE,
        time: event.time,
        body: Cow::Borrowed(&event.body),
        events: vec![(place, event)],
        group,
    }
}

/// The events of each batch.
fn split<'a>(events: impl IntoIterator<Item = PlacedEvent<'a>>) -> Vec<Vec<PlacedEvent<'a>>> {
    let mut batches = Vec::<Vec<PlacedEvent>>::new();
    // The last batch of each routing key: its index and its bytes.
    let mut last = HashMap::<&str, (usize, usize)>::new();
    for (place, event) in events {
        let bytes = event.body.len();
        let fits = |(_, total): &&mut (usize, usize)| *total + bytes < BATCH_MAX_BYTES;
        if let Some((index, total)) = last.get_mut(event.routing_key.as_str()).filter(fits) {
            *total += bytes + 1;
            batches[*index].push((place, event));
        } else {
            // With both brackets.
            last.insert(&event.routing_key, (batches.len(), bytes + 2));
            batches.push(vec![(place, event)]);
        }
    }
    batches
}

fn batch<'a>(group: GroupOrigin<'a>, events: Vec<PlacedEvent<'a>>) -> EventMessage<'a> {
    let bytes: usize = events.iter().map(|(_, event)| event.body.len() + 1).sum();
    let mut body = Vec::with_capacity(bytes + 1);
    for (index, (_, event)) in events.iter().enumerate() {
        body.push(if index == 0 { b'[' } else { b',' });
        body.extend_from_slice(&event.body);
    }
    body.push(b']');
    let ids: Vec<&[u8]> = events
        .iter()
        .map(|(_, event)| event.id.as_bytes().as_slice())
        .collect();
    let time = events.iter().map(|(_, event)| event.time).max();
    EventMessage {
        id: digest(&ids),
        routing_key: &events[0].1.routing_key,
        content_type: BATCH_CONTENT_TYPE,
        time: time.unwrap_or_default(),
        body: Cow::Owned(body),
        events,
        group,
    }
}

/// The events of a message's body, each as JSON: those of a batch, or the only one.
///
/// # Errors
/// If the body is not JSON.
pub fn events(body: &[u8]) -> serde_json::Result<Vec<&RawValue>> {
    if body.first() == Some(&b'[') {
        return serde_json::from_slice(body);
    }
    Ok(vec![serde_json::from_slice(body)?])
}

#[cfg(test)]
mod tests;
