//! Publishes a load to the stage's work queue.

use std::ops::Range;

use anyhow::{Result, ensure};
use futures_util::future::try_join_all;
use lapin::options::BasicPublishOptions;

use super::Stage;
use crate::deadline::{PATIENCE, within};
use crate::load::Load;

/// Number of messages whose confirms are awaited together.
const WINDOW: usize = 1000;

impl Stage {
    /// Publishes all messages of a load, and awaits their confirms.
    pub async fn publish(&self, load: Load) -> Result<()> {
        let messages: Vec<_> = load.by_message().collect();
        for window in messages.chunks(WINDOW) {
            for _ in 0..load.copies() {
                let publishing = self.publish_window(load, window);
                within(PATIENCE, "publishing requests", publishing).await?;
            }
        }
        Ok(())
    }

    /// Publishes messages, each of which is given by the numbers of its requests.
    async fn publish_window(&self, load: Load, messages: &[Range<u32>]) -> Result<()> {
        let exchange = self.request_exchange();
        let options = BasicPublishOptions {
            mandatory: true,
            immediate: false,
        };
        let published = messages.iter().map(async |numbers| {
            let (exchange, key) = (exchange.as_str().into(), "revert".into());
            let body = load.message_body(numbers);
            let mut properties = load.properties(numbers.start);
            if load.named {
                properties = properties.with_user_id(self.login().into());
            }
            let publishing =
                self.channel
                    .basic_publish(exchange, key, options, body.as_bytes(), properties);
            publishing.await
        });
        for confirm in try_join_all(published).await? {
            ensure!(confirm.await?.is_ack(), "the broker refused a request");
        }
        Ok(())
    }
}
