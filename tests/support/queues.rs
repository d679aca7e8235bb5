//! Reads, counts and deletes queues and exchanges of a test environment.

use lapin::Channel;
use lapin::options::{
    BasicGetOptions, ExchangeDeleteOptions, QueueDeclareOptions, QueueDeleteOptions,
};
use lapin::types::{AMQPValue, FieldTable};

use super::connect::connect_amqp;
use super::{Message, TestEnv, eventually};

impl TestEnv {
    /// Takes a message off a queue without settling it. Closing the channel requeues it.
    pub async fn take(&self, queue: &str) -> Channel {
        let channel = self.connection.create_channel().await.expect("a channel");
        eventually("the queue has a message", async || {
            let taken = channel
                .basic_get(queue.into(), BasicGetOptions { no_ack: false })
                .await;
            taken.expect("read").is_some()
        })
        .await;
        channel
    }

    /// Takes a message off a queue and closes the channel, which requeues the message.
    pub async fn take_and_return(&self, queue: &str) {
        let channel = self.take(queue).await;
        channel.close(200, "gone".into()).await.expect("closed");
    }

    /// The first message of a queue, which stays there.
    pub async fn peek(&self, queue: &str) -> Message {
        let channel = self.connection.create_channel().await.expect("a channel");
        let mut found = None;
        eventually("the queue has a message", async || {
            let options = BasicGetOptions { no_ack: false };
            let taken = channel
                .basic_get(queue.into(), options)
                .await
                .expect("read");
            found = taken.map(|message| Message {
                routing_key: message.routing_key.to_string(),
                properties: message.properties.clone(),
                body: message.data.clone(),
            });
            found.is_some()
        })
        .await;
        channel.close(200, "looked".into()).await.expect("closed");
        found.expect("there was one")
    }

    /// Deletes a queue.
    pub async fn delete_queue(&self, queue: &str) {
        let deleted = self
            .channel
            .queue_delete(queue.into(), QueueDeleteOptions::default());
        deleted.await.expect("deleted");
    }

    /// Deletes an exchange.
    pub async fn delete_exchange(&self, exchange: &str) {
        let options = ExchangeDeleteOptions::default();
        let deleted = self.channel.exchange_delete(exchange.into(), options);
        deleted.await.expect("deleted");
    }

    /// The largest delivery count of the messages in a queue, before this method reads them.
    pub async fn most_redeliveries(&self, queue: &str) -> i64 {
        let channel = self.connection.create_channel().await.expect("a channel");
        let mut most = 0;
        loop {
            let taken = channel
                .basic_get(queue.into(), BasicGetOptions { no_ack: false })
                .await;
            let Some(message) = taken.expect("read") else {
                break;
            };
            let headers = message.properties.headers().as_ref();
            let count = headers.and_then(|table| table.inner().get("x-delivery-count").cloned());
            most = most.max(match count {
                Some(AMQPValue::LongLongInt(count)) => count,
                Some(AMQPValue::LongInt(count)) => count.into(),
                _ => 0,
            });
        }
        channel.close(200, "looked".into()).await.expect("closed");
        most
    }

    /// Messages ready in a queue.
    pub async fn depth(&self, queue: &str) -> u32 {
        // Its own connection, since tests restart the broker.
        let connection = connect_amqp(&self.servers.amqp).await;
        let channel = connection.create_channel().await.expect("a channel");
        let options = QueueDeclareOptions {
            passive: true,
            ..Default::default()
        };
        let declared = channel
            .queue_declare(queue.into(), options, FieldTable::default())
            .await;
        let depth = declared.expect("the queue is there").message_count();
        let _ = connection.close(200, "done".into()).await;
        depth
    }

    /// The work queue and every rung of the ladder.
    pub fn waiting_queues(&self) -> Vec<String> {
        let delays = self
            .setting("RETRY__DELAYS")
            .expect("set by every environment");
        let rungs = delays
            .split(',')
            .map(|delay| self.name(&format!("retry.{delay}")));
        std::iter::once(self.name("work")).chain(rungs).collect()
    }

    /// Waits until the work queue and every rung are empty. Messages in flight are not counted, so
    /// a test calls this after the last event.
    pub async fn drained(&self) {
        eventually("the queues are drained", async || {
            for queue in self.waiting_queues() {
                if self.depth(&queue).await > 0 {
                    return false;
                }
            }
            true
        })
        .await;
    }
}
