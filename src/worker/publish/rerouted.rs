//! A batch that is being published, with the dispositions that changed meanwhile.

use std::collections::BTreeMap;

use super::super::messages::{MessageRole, Outgoing};
use super::super::shared::Shared;
use crate::broker::{Delivery, Message};
use crate::domain::disposition::Disposition;

/// A batch, and the deliveries whose disposition changed because a message was not confirmed.
pub struct Rerouted<'a> {
    pub(super) shared: &'a Shared,
    pub batch: &'a [Delivery],
    pub dispositions: &'a [Disposition],
    pub(super) elsewhere: BTreeMap<usize, Disposition>,
}

impl<'a> Rerouted<'a> {
    pub fn new(shared: &'a Shared, batch: &'a [Delivery], dispositions: &'a [Disposition]) -> Self {
        Self {
            shared,
            batch,
            dispositions,
            elsewhere: BTreeMap::new(),
        }
    }

    /// The changed dispositions, by index.
    pub fn into_elsewhere(self) -> BTreeMap<usize, Disposition> {
        self.elsewhere
    }

    /// The message that waits for a request: its own, or its whole group if its answer is stored
    /// nowhere. Alone, such a request could be decided otherwise, although its group was refused
    /// for it.
    pub fn carrier(&self, index: usize) -> &'a Delivery {
        let delivery = &self.batch[index];
        match (&self.dispositions[index], &delivery.group) {
            (Disposition::Answer(event), Some(group)) if !event.is_of_stored_outcome() => {
                &group.message
            }
            _ => delivery,
        }
    }

    /// Adds a message that makes a request wait. Requests that wait with their group share one.
    pub fn add_waiting(
        &self,
        outgoing: &mut Vec<Outgoing<'a>>,
        index: usize,
        message: Message<'a>,
    ) {
        let carrier = self.carrier(index);
        let is_same = |other: &&mut Outgoing<'a>| {
            std::ptr::eq(self.carrier(other.indexes[0]), carrier)
                && other.message.route() == message.route()
        };
        let is_alone = std::ptr::eq(carrier, &raw const self.batch[index]);
        let same = outgoing.iter_mut().filter(|_| !is_alone).find(is_same);
        if let Some(same) = same {
            same.indexes.push(index);
        } else {
            outgoing.push(Outgoing {
                indexes: vec![index],
                role: MessageRole::Waiting,
                message,
            });
        }
    }

    /// Whether the requests of a message wait elsewhere.
    pub fn is_elsewhere(&self, indexes: &[usize]) -> bool {
        indexes
            .iter()
            .all(|index| self.elsewhere.contains_key(index))
    }
}
