//! Messages that come out of queues, and a consumer that finds them by their correlation id.

use futures_util::StreamExt;
use futures_util::stream::{SelectAll, select_all};
use lapin::options::BasicConsumeOptions;
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel, Consumer};
use serde_json::Value;
use tokio::time::timeout;

use super::{Request, TIMEOUT, TestEnv, documents};

impl TestEnv {
    /// A consumer of both event queues: replies and denials.
    pub async fn events(&self) -> Mailbox {
        let [events, denied] = ["replies", "denied"].map(|last| self.name(last));
        self.mailbox_of(&[&events, &denied]).await
    }

    /// A consumer of the dead letters.
    pub async fn dead_letters(&self) -> Mailbox {
        self.mailbox(&self.name("dead")).await
    }

    /// A consumer of any queue.
    pub async fn mailbox(&self, queue: &str) -> Mailbox {
        self.mailbox_of(&[queue]).await
    }

    async fn mailbox_of(&self, queues: &[&str]) -> Mailbox {
        let channel = self.connection.create_channel().await.expect("a channel");
        let options = BasicConsumeOptions {
            no_ack: true,
            ..Default::default()
        };
        let mut consumers = Vec::new();
        for queue in queues {
            let consumer = channel
                .basic_consume((*queue).into(), "".into(), options, FieldTable::default())
                .await
                .expect("the queue is there");
            consumers.push(consumer);
        }
        Mailbox {
            _channel: channel,
            consumer: select_all(consumers),
            waiting: Vec::new(),
        }
    }
}

/// A message that came out of a queue.
#[derive(Clone, Debug)]
pub struct Message {
    pub routing_key: String,
    pub properties: BasicProperties,
    pub body: Vec<u8>,
}

impl Message {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).expect("events are JSON")
    }

    /// The `ErrorInfo` reason of an event, or its type where it has none.
    pub fn verdict(&self) -> String {
        let event = self.json();
        let reason = &event["data"]["error"]["details"][0]["reason"];
        reason
            .as_str()
            .or(event["type"].as_str())
            .expect("a type")
            .to_owned()
    }

    pub fn header(&self, name: &str) -> Option<AMQPValue> {
        self.properties
            .headers()
            .as_ref()?
            .inner()
            .get(name)
            .cloned()
    }

    pub fn text_header(&self, name: &str) -> Option<String> {
        match self.header(name)? {
            AMQPValue::LongString(text) => String::from_utf8(text.as_bytes().to_vec()).ok(),
            _ => None,
        }
    }

    pub(super) fn correlation(&self) -> Option<&str> {
        self.properties
            .correlation_id()
            .as_ref()
            .map(lapin::types::ShortString::as_str)
    }
}

/// A consumer that finds messages by their correlation id and checks each against asyncapi.yaml.
pub struct Mailbox {
    _channel: Channel,
    consumer: SelectAll<Consumer>,
    waiting: Vec<Message>,
}

impl Mailbox {
    /// The next message of any correlation id.
    pub async fn next(&mut self) -> Message {
        if !self.waiting.is_empty() {
            return self.waiting.remove(0);
        }
        self.receive().await
    }

    /// Whether a message came whose correlation id no caller has asked for.
    pub fn has_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// The next message that answers `request`. A request that succeeded must be valid by
    /// asyncapi.yaml.
    pub async fn answer(&mut self, request: &Request) -> Message {
        let message = self.correlated(&request.correlation()).await;
        let kind = message.properties.kind().as_ref();
        if kind.is_some_and(|kind| kind.as_str() == "usage.reverted") {
            documents::is_request(&request.body).expect("asyncapi.yaml allows what succeeds");
        }
        message
    }

    /// The next message of that correlation id.
    pub async fn correlated(&mut self, correlation: &str) -> Message {
        let fits = |message: &Message| message.correlation() == Some(correlation);
        if let Some(index) = self.waiting.iter().position(fits) {
            return self.waiting.remove(index);
        }
        loop {
            let message = self.receive().await;
            if fits(&message) {
                return message;
            }
            self.waiting.push(message);
        }
    }

    /// The next `count` messages in the order of arrival.
    pub async fn take(&mut self, count: usize) -> Vec<Message> {
        let mut messages = Vec::with_capacity(count);
        for _ in 0..count {
            messages.push(self.next().await);
        }
        messages
    }

    async fn receive(&mut self) -> Message {
        let next = timeout(TIMEOUT, self.consumer.next()).await;
        let delivery = next
            .expect("a message in time")
            .expect("the queue stays")
            .expect("received");
        let message = Message {
            routing_key: delivery.routing_key.to_string(),
            properties: delivery.properties,
            body: delivery.data,
        };
        documents::check(delivery.exchange.as_str(), &message);
        message
    }
}
