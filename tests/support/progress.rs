//! Reads how far the work has come, also while the servers restart.

use lapin::options::*;
use lapin::types::FieldTable;
use lapin::{Channel, Queue};

use super::reconnect::ReconnectingChannel;
use super::{Mailbox, TestEnv, eventually};

impl TestEnv {
    /// Messages ready in the work queue and on the rungs.
    pub async fn waiting(&self) -> u32 {
        let mut broker = ReconnectingChannel::new(&self.servers.amqp);
        let mut waiting = 0;
        for queue in self.waiting_queues() {
            waiting += depth(&mut broker, &queue).await;
        }
        waiting
    }

    /// How many consume the work queue.
    pub async fn consumers(&self) -> u32 {
        let queue = self.name("work");
        let mut broker = ReconnectingChannel::new(&self.servers.amqp);
        declared(&mut broker, &queue).await.consumer_count()
    }

    /// Waits until this many events were published.
    pub async fn await_events(&self, at_least: usize) {
        let queue = self.name("replies");
        let mut broker = ReconnectingChannel::new(&self.servers.amqp);
        eventually("events are told", async || {
            depth(&mut broker, &queue).await as usize >= at_least
        })
        .await;
    }

    /// A consumer of later events, with a queue of its own.
    pub async fn subscribe(&self) -> Mailbox {
        let options = QueueDeclareOptions {
            exclusive: true,
            ..Default::default()
        };
        let declared = self
            .channel
            .queue_declare("".into(), options, FieldTable::default());
        let queue = declared.await.expect("declared").name().to_string();
        let (exchange, none) = (self.name("replies"), QueueBindOptions { nowait: false });
        self.channel
            .queue_bind(
                queue.as_str().into(),
                exchange.as_str().into(),
                "#".into(),
                none,
                FieldTable::default(),
            )
            .await
            .expect("the reply exchange is there");
        self.mailbox(&queue).await
    }
}

async fn depth(broker: &mut ReconnectingChannel, queue: &str) -> u32 {
    declared(broker, queue).await.message_count()
}

async fn declared(broker: &mut ReconnectingChannel, queue: &str) -> Queue {
    let passive = QueueDeclareOptions {
        passive: true,
        ..Default::default()
    };
    let declare = async |channel: &Channel| {
        channel
            .queue_declare(queue.into(), passive, FieldTable::default())
            .await
    };
    broker.retry(queue, declare).await
}
