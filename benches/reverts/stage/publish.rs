//! Publishes a load to the stage's work queue.

use anyhow::{Result, ensure};
use futures_util::future::try_join_all;
use lapin::options::BasicPublishOptions;

use super::Stage;
use crate::deadline::{PATIENCE, within};
use crate::load::Load;

/// Number of messages whose confirms are awaited together.
const WINDOW: u32 = 1000;

impl Stage {
    /// Publishes all requests of a load, and awaits their confirms.
    pub async fn publish(&self, load: Load) -> Result<()> {
        let numbers = load.numbers();
        for first in numbers.clone().step_by(WINDOW as usize) {
            let last = numbers.end.min(first + WINDOW);
            for _ in 0..load.copies() {
                let publishing = self.publish_window(load, first..last);
                within(PATIENCE, "publishing requests", publishing).await?;
            }
        }
        Ok(())
    }

    async fn publish_window(&self, load: Load, numbers: std::ops::Range<u32>) -> Result<()> {
        let exchange = self.request_exchange();
        let options = BasicPublishOptions {
            mandatory: true,
            immediate: false,
        };
        let published = numbers.map(async |number| {
            let (exchange, key) = (exchange.as_str().into(), "revert".into());
            let (body, mut properties) = (load.body(number), load.properties(number));
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
