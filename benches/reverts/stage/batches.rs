//! Checks the events of groups, which come in batches.

use std::collections::HashMap;

use anyhow::{Context, Result, bail, ensure};
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
    /// the groups of this load and of the earlier ones. It removes them from the queue. Events come
    /// at least once, so that one with the same id does not count again. A load of single requests
    /// has no batches.
    pub async fn check_batches(&self, load: Load) -> Result<()> {
        if load.group == 1 {
            return Ok(());
        }
        let reverted = self.reverted().await?;
        let all = Load {
            first: 1,
            requests: load.first - 1 + load.requests,
            ..load
        };
        for numbers in all.by_message() {
            let group = all.id_of_message(numbers.start);
            for index in 0..numbers.len() {
                let request = format!("{group}/{index}");
                ensure!(reverted.contains_key(&request), "{request} has no event");
            }
        }
        let (events, requests) = (reverted.len(), all.requests);
        ensure!(
            u32::try_from(events)? == requests,
            "events of {events} requests, expected {requests}"
        );
        Ok(())
    }

    /// Takes all batches from the reply queue. Returns the requests that were reverted, each with
    /// the id of its event.
    async fn reverted(&self) -> Result<HashMap<String, String>> {
        let queue = self.reply_queue();
        let depth = self.depth(&queue).await?;
        let for_each = BasicQosOptions { global: false };
        self.channel.basic_qos(PREFETCH, for_each).await?;
        let options = BasicConsumeOptions::default();
        let (queue, tag) = (queue.as_str().into(), "batches".into());
        let consuming = self
            .channel
            .basic_consume(queue, tag, options, FieldTable::default());
        let mut consumer = within(PATIENCE, "consuming events", consuming).await?;
        let (mut reverted, mut repeated) = (HashMap::new(), 0);
        for _ in 0..depth {
            let next = async { anyhow::Ok(consumer.next().await.context("the consumer ended")??) };
            let delivery = within(PATIENCE, "a batch of events", next).await?;
            let count = count_of(&delivery.properties).context("x-group-count is absent")?;
            let events: Vec<Value> = serde_json::from_slice(&delivery.data)?;
            ensure!(
                count == events.len(),
                "x-group-count is {count}, of {} events",
                events.len()
            );
            for event in events {
                let (request, id) = success(&event).with_context(|| event.to_string())?;
                match reverted.insert(request, id.clone()) {
                    None => {}
                    Some(before) if before == id => repeated += 1,
                    Some(before) => bail!("its event had the id {before} before: {event}"),
                }
            }
            delivery.ack(BasicAckOptions::default()).await?;
        }
        if repeated > 0 {
            eprintln!("{repeated} events came again");
        }
        Ok(reverted)
    }
}

/// The request that was reverted, and the id of the event.
fn success(event: &Value) -> Option<(String, String)> {
    let text = |value: &Value| value.as_str().map(ToOwned::to_owned);
    let request = text(&event["data"]["request_id"])?;
    (event["type"] == "usage.reverted").then_some((request, text(&event["id"])?))
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
