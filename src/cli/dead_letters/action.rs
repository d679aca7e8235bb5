//! Replays, saves or discards a window of dead letters before they leave the queue.

use anyhow::bail;

use super::save::Save;
use crate::broker::{Broker, Message, PublishResult, Publisher, QueuedMessage};
use crate::common::failpoint;
use crate::config::Settings;

/// The action of a run on its dead letters.
pub enum LetterAction {
    Replay {
        publisher: Box<Publisher>,
        exchange: String,
        key: String,
    },
    Discard(Option<Save>),
}

impl LetterAction {
    pub async fn replay(settings: &Settings) -> anyhow::Result<Self> {
        let topology = &settings.topology;
        Ok(Self::Replay {
            publisher: Box::new(
                Broker::publisher_of(settings, "revertd dead-letters (publishing)").await?,
            ),
            exchange: topology.request_exchange.to_string(),
            key: topology.request_key.to_string(),
        })
    }

    /// Once this returns without an error, the dead letters may leave the queue.
    ///
    /// # Errors
    ///
    /// If a message could not be published, routed or confirmed, or the file could not be written.
    pub async fn carry_out(&mut self, letters: &[QueuedMessage]) -> anyhow::Result<()> {
        match self {
            Self::Replay {
                publisher,
                exchange,
                key,
            } => {
                let again = |letter| Message::replay(exchange, key, letter, publisher.login());
                let messages: Option<Vec<_>> = letters.iter().map(again).collect();
                let messages = messages.expect("unreadable dead letters are not selected");
                for result in publisher.publish(&messages).await? {
                    match result {
                        PublishResult::Confirmed => {}
                        PublishResult::Unroutable => bail!(
                            "no queue is bound to the exchange {exchange} for requests; start \
                             `revertd worker` once, which declares it"
                        ),
                        PublishResult::Refused => bail!(
                            "the work queue behind {exchange} is full; run this again once the \
                             workers have emptied it, with --rate if it fills up again"
                        ),
                    }
                }
            }
            Self::Discard(Some(save)) => save.write(letters)?,
            Self::Discard(None) => {}
        }
        failpoint::hit(failpoint::LETTERS_PUBLISHED);
        Ok(())
    }
}
