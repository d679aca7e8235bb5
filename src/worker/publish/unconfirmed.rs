//! Messages that are not confirmed.

use super::super::messages::{MessageRole, Outgoing};
use super::super::shared::Shared;
use crate::broker::{BrokerError, Message, PublishResult};

/// Messages that are not confirmed.
#[derive(Default)]
pub struct Unconfirmed<'a> {
    pub refused: Vec<Outgoing<'a>>,
    /// A queue did not answer. It may have them.
    pub unanswered: Vec<Outgoing<'a>>,
    /// Not published, since earlier ones were not answered.
    pub unsent: Vec<Outgoing<'a>>,
}

impl<'a> Unconfirmed<'a> {
    pub fn all(&self) -> impl Iterator<Item = &Outgoing<'a>> {
        let all = self.refused.iter().chain(&self.unanswered);
        all.chain(&self.unsent)
    }

    pub fn first(&self) -> Option<&Outgoing<'a>> {
        self.all().next()
    }

    pub fn count(&self) -> usize {
        self.all().count()
    }

    pub fn into_all(self) -> Vec<Outgoing<'a>> {
        let all = self.refused.into_iter().chain(self.unanswered);
        all.chain(self.unsent).collect()
    }

    pub fn add_to(mut self, all: &mut Self) {
        all.refused.append(&mut self.refused);
        all.unanswered.append(&mut self.unanswered);
        all.unsent.append(&mut self.unsent);
    }

    /// Sorts messages by their results. Events without a queue are counted and logged.
    pub fn sort(
        messages: impl Iterator<Item = ((Vec<usize>, MessageRole), Message<'a>)>,
        results: Vec<Option<PublishResult>>,
        shared: &Shared,
    ) -> Result<Self, BrokerError> {
        use PublishResult::{Confirmed, Refused, Unroutable};
        let mut sent = Self::default();
        let mut unroutable = Vec::new();
        let mut results = results.into_iter();
        for ((indexes, role), message) in messages {
            let outgoing = |message| Outgoing {
                indexes,
                role,
                message,
            };
            match (results.next(), role) {
                (Some(Some(Confirmed)), _) => {}
                (Some(Some(Refused)), _) | (Some(Some(Unroutable)), MessageRole::OwnEvent) => {
                    sent.refused.push(outgoing(message));
                }
                (Some(Some(Unroutable)), MessageRole::Event) => unroutable.push(message),
                // It would be lost. The next generation declares what is missing.
                (Some(Some(Unroutable)), MessageRole::Letter | MessageRole::Waiting) => {
                    return Err(message.undeliverable());
                }
                (Some(None), _) => sent.unanswered.push(outgoing(message)),
                (None, _) => sent.unsent.push(outgoing(message)),
            }
        }
        let exchange = shared.settings.topology.reply_exchange.as_str();
        shared.logs.unroutable(&unroutable, exchange);
        Ok(sent)
    }
}
