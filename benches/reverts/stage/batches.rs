//! Checks the events of groups, which come in batches.

use std::collections::HashSet;

use anyhow::{Context, Result, ensure};
use futures_util::StreamExt;
use lapin::BasicProperties;
use lapin::options::{BasicAckOptions, BasicConsumeOptions, BasicQosOptions};
use lapin::types::{AMQPValue, FieldTable};
use serde_json::Value;

use super::Stage;
use crate::deadline::{PATIENCE, within};
use crate::load::Load;

/// Batches that are delivered before the first of them is acknowledged.
const PREFETCH: u16 = 100;

impl Stage {
    /// Checks that the batches in the reply queue have one event of success for each request of
    /// the groups of this load and of the earlier ones. It removes them from the queue. A load of
    /// single requests has no batches.
    pub async fn check_batches(&self, load: Load) -> Result<()> {
        if load.group == 1 {
            return Ok(());
        }
        let (queue, batches) = (self.reply_queue(), load.all_messages());
        let depth = self.depth(&queue).await?;
        ensure!(depth == batches, "{depth} batches, expected {batches}");
        let for_each = BasicQosOptions { global: false };
        self.channel.basic_qos(PREFETCH, for_each).await?;
        let options = BasicConsumeOptions::default();
        let (queue, tag) = (queue.as_str().into(), "batches".into());
        let consuming = self
            .channel
            .basic_consume(queue, tag, options, FieldTable::default());
        let mut consumer = within(PATIENCE, "consuming events", consuming).await?;
        let (mut counted, mut reverted) = (0, HashSet::new());
        for _ in 0..batches {
            let next = async { anyhow::Ok(consumer.next().await.context("the consumer ended")??) };
            let delivery = within(PATIENCE, "a batch of events", next).await?;
            let ids = reverted_by(&delivery.data)?;
            let count = count_of(&delivery.properties).context("x-group-count is absent")?;
            ensure!(count == ids.len(), "{count} is not {}", ids.len());
            counted += count;
            reverted.extend(ids);
            delivery.ack(BasicAckOptions::default()).await?;
        }
        let all = Load {
            first: 1,
            requests: load.first - 1 + load.requests,
            ..load
        };
        let expected: HashSet<_> = all
            .by_message()
            .flat_map(|numbers| {
                let group = all.id_of_message(numbers.start);
                (0..numbers.len()).map(move |index| format!("{group}/{index}"))
            })
            .collect();
        ensure!(
            counted == expected.len() && reverted == expected,
            "{counted} events of {} requests, expected {}",
            reverted.len(),
            expected.len()
        );
        Ok(())
    }
}

/// The ids of the requests of a batch of events, all of which are successes.
fn reverted_by(body: &[u8]) -> Result<Vec<String>> {
    let events: Vec<Value> = serde_json::from_slice(body)?;
    let id = |event: Value| {
        ensure!(event["type"] == "usage.reverted", "{event}");
        let id = event["data"]["request_id"].as_str();
        Ok(id.context("an event has a request_id")?.to_owned())
    };
    events.into_iter().map(id).collect()
}

/// The header `x-group-count`. Client libraries encode the same number in different types.
fn count_of(properties: &BasicProperties) -> Option<usize> {
    match properties
        .headers()
        .as_ref()?
        .inner()
        .get("x-group-count")?
    {
        AMQPValue::ShortShortInt(count) => usize::try_from(*count).ok(),
        AMQPValue::ShortInt(count) => usize::try_from(*count).ok(),
        AMQPValue::LongInt(count) => usize::try_from(*count).ok(),
        AMQPValue::LongLongInt(count) => usize::try_from(*count).ok(),
        AMQPValue::LongUInt(count) => usize::try_from(*count).ok(),
        _ => None,
    }
}
