//! Reads the messages of a queue from its head. Only settled messages leave the queue.
//!
//! It uses a connection that reads frames as bytes (`broker/raw/wire.rs`), since a dead-letter
//! queue has messages that lapin can't parse.
//!
//! The messages are counted first, and no more than that are read. While a queue is read, its
//! messages are unacknowledged, and no other consumer sees them. When the connection ends, they
//! return to their places.

use std::time::Duration;

use amq_protocol::protocol::{AMQPClass, basic};
use amq_protocol::types::FieldTable;
use amq_protocol::uri::AMQPUri;
use tokio::time::timeout;

use super::queued_message::{ID_BYTES, QueuedMessage};
use crate::broker::connection::socket::Socket;
use crate::broker::connection::{CONNECT_TIMEOUT, any_of, within};
use crate::broker::consume::trust::Trust;
use crate::broker::error::BrokerError;
use crate::broker::raw::wire;
use crate::broker::raw::wire::Wire;
use crate::broker::raw::wire::frame::{Frame, FrameKind};
use crate::config::{AmqpUrl, Settings};

mod requeue;

/// The longest wait for a frame. A long queue needs time for the first one.
const FRAME_TIMEOUT: Duration = Duration::from_secs(30);

/// The time without a delivery after which `basic.get` asks whether messages are left. Other
/// consumers may have taken them, and the broker does not tell a consumer that the queue is empty.
const IDLE_TIMEOUT: Duration = Duration::from_millis(500);

/// The number of consecutive empty answers, each followed by silence, after which the rest counts
/// as gone. One answer is no proof: messages that were sent to this consumer are not ready any
/// more, and large ones arrive after the answer.
const EMPTY_ANSWERS: u32 = 6;

/// The longest wait for a close. All frames on their way are read first.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(10);

/// The prefetch of one consumer; further consumers take the rest. The queue reads that many
/// messages from its disk before it delivers the first, and does nothing else meanwhile.
const CONSUMER_LETTERS: u16 = 2000;

const DELIVER: (u16, u16) = (60, 60);
const GET_OK: (u16, u16) = (60, 71);
const GET_EMPTY: (u16, u16) = (60, 72);

/// A reader of a queue.
pub struct QueueReader {
    wire: Wire<Socket>,
    queue: String,
    doing: String,
    host: String,
    trust: Trust,
    body_bytes: u64,
    waiting: u32,
    others: u32,
    taken: u32,
    missing: u32,
    consumers: u16,
    settled: u32,
    /// Whether the answer to a `basic.get` is outstanding.
    is_asking: bool,
}

impl QueueReader {
    /// Connects, and counts the messages of `queue`. Up to `body_bytes` of each body are kept, and
    /// always enough for the message's id.
    ///
    /// # Errors
    /// If the broker can't be reached or refuses, or the queue does not exist.
    pub async fn open(
        settings: &Settings,
        queue: &str,
        body_bytes: u64,
    ) -> Result<Self, BrokerError> {
        let connecting = async |url: AmqpUrl| {
            let host = url.host();
            let connecting = async {
                let connected = wire::connect(&url, "revertd dead-letters (reading)").await;
                connected.map_err(|error| BrokerError::classify(&error, &host, "connecting"))
            };
            let wire = within(CONNECT_TIMEOUT, &host, connecting).await?;
            let uri: Result<AMQPUri, _> = url.secret().parse();
            let user = uri.map(|uri| uri.authority.userinfo.username);
            Ok((wire, host, user.unwrap_or_default()))
        };
        let (wire, host, user) = any_of(&settings.amqp.url, connecting).await?;
        let mut browse = Self {
            wire,
            doing: format!("reading {queue}"),
            queue: queue.into(),
            host,
            trust: Trust::new(&user, settings),
            body_bytes: body_bytes.max(ID_BYTES),
            waiting: 0,
            others: 0,
            taken: 0,
            missing: 0,
            consumers: 0,
            settled: 0,
            is_asking: false,
        };
        (browse.waiting, browse.others) = browse.count().await?;
        Ok(browse)
    }

    /// The number of messages when the queue was opened, which is the largest number that is read.
    #[must_use]
    pub fn waiting(&self) -> u32 {
        self.waiting
    }

    /// The number of other consumers. Their unacknowledged messages are not read.
    #[must_use]
    pub fn others(&self) -> u32 {
        self.others
    }

    /// The number of messages that were counted and not read: other consumers have or took them, or
    /// they expired. Valid at the end.
    #[must_use]
    pub fn missing(&self) -> u32 {
        self.missing
    }

    /// Lowers the number of messages that are read, to an earlier count.
    pub fn limit(&mut self, letters: u32) {
        self.waiting = self.waiting.min(letters);
    }

    /// The next message; `None` at the end. It stays in the queue unless it is settled.
    ///
    /// # Errors
    /// If the broker refuses or the connection fails.
    pub async fn next(&mut self) -> Result<Option<QueuedMessage>, BrokerError> {
        if self.taken + self.missing >= self.waiting {
            return Ok(None);
        }
        if self.taken >= u32::from(self.consumers) * u32::from(CONSUMER_LETTERS) {
            self.consume().await?;
        }
        let mut empty_answers = 0;
        loop {
            let wait = if self.is_asking {
                FRAME_TIMEOUT
            } else {
                IDLE_TIMEOUT
            };
            let Ok(ready) = timeout(wait, self.wire.ready()).await else {
                if self.is_asking {
                    return Err(BrokerError::silent(&self.host));
                }
                self.is_asking = true;
                self.get().await?;
                continue;
            };
            ready.map_err(|error| self.classify(&error))?;
            let method = self.frame().await?;
            // Parsed here: the routing key after it may be invalid.
            let tag = match method.method() {
                Some(DELIVER) => {
                    let name = method.u8_at(4).unwrap_or_default();
                    method.u64_at(5 + usize::from(name))
                }
                Some(GET_OK) => method.u64_at(4),
                Some(GET_EMPTY) => {
                    self.is_asking = false;
                    empty_answers += 1;
                    if empty_answers < EMPTY_ANSWERS {
                        continue;
                    }
                    self.missing = self.waiting - self.taken;
                    return Ok(None);
                }
                _ => continue,
            };
            self.is_asking &= method.method() != Some(GET_OK);
            let tag = tag.ok_or_else(|| self.classify(&wire::unexpected()))?;
            self.taken += 1;
            return self.letter(tag).await.map(Some);
        }
    }

    /// Removes messages from the queue.
    ///
    /// # Errors
    /// If the connection fails. The messages may still be in the queue.
    pub async fn settle(&mut self, letters: &[QueuedMessage]) -> Result<(), BrokerError> {
        let acks = letters.iter().map(|letter| {
            AMQPClass::Basic(basic::AMQPMethod::Ack(basic::Ack {
                delivery_tag: letter.tag,
                multiple: false,
            }))
        });
        self.send(acks).await?;
        self.settled += u32::try_from(letters.len()).unwrap_or(u32::MAX);
        Ok(())
    }

    /// Closes the connection once the settled messages are removed and the others are requeued.
    ///
    /// # Errors
    /// If the connection fails before. Some settled messages may be redelivered.
    pub async fn close(mut self) -> Result<(), BrokerError> {
        let returned = self.requeue().await;
        let _ = timeout(CLOSE_TIMEOUT, self.wire.close()).await;
        returned
    }

    /// Adds a consumer. The broker confirms it between deliveries.
    async fn consume(&mut self) -> Result<(), BrokerError> {
        let left = self.waiting - self.taken;
        let prefetch_count = u16::try_from(left).unwrap_or(u16::MAX);
        self.consumers += 1;
        let qos = basic::AMQPMethod::Qos(basic::Qos {
            prefetch_count: prefetch_count.min(CONSUMER_LETTERS),
            // RabbitMQ applies it to each consumer that is added later.
            global: false,
        });
        let consume = basic::AMQPMethod::Consume(basic::Consume {
            queue: self.queue.as_str().into(),
            consumer_tag: self.consumers.to_string().into(),
            no_local: false,
            no_ack: false,
            exclusive: false,
            nowait: false,
            arguments: FieldTable::default(),
        });
        self.send([qos, consume].map(AMQPClass::Basic)).await
    }

    /// Reads the content header and the body of a delivery.
    async fn letter(&mut self, tag: u64) -> Result<QueuedMessage, BrokerError> {
        let header = self.frame().await?;
        let (Some(body_bytes), FrameKind::Header) = (header.u64_at(4), header.kind) else {
            return Err(self.classify(&wire::unexpected()));
        };
        let (mut body, mut missing) = (Vec::new(), body_bytes);
        while missing > 0 {
            let wanted = self.body_bytes.saturating_sub(body.len() as u64);
            let part = self.read(wanted).await?;
            if part.kind != FrameKind::Body {
                return Err(self.classify(&wire::unexpected()));
            }
            body.extend_from_slice(part.payload());
            missing = missing.saturating_sub(part.payload_bytes);
        }
        Ok(QueuedMessage::read(
            tag,
            &header,
            body,
            body_bytes,
            &self.trust,
        ))
    }

    async fn skip_to(&mut self, methods: &[(u16, u16)]) -> Result<Frame, BrokerError> {
        loop {
            let frame = self.frame().await?;
            if frame
                .method()
                .is_some_and(|method| methods.contains(&method))
            {
                return Ok(frame);
            }
        }
    }

    async fn frame(&mut self) -> Result<Frame, BrokerError> {
        self.read(0).await
    }

    async fn read(&mut self, body_bytes: u64) -> Result<Frame, BrokerError> {
        let Ok(frame) = timeout(FRAME_TIMEOUT, self.wire.frame_keeping(body_bytes)).await else {
            return Err(BrokerError::silent(&self.host));
        };
        frame.map_err(|error| self.classify(&error))
    }

    async fn send(
        &mut self,
        methods: impl IntoIterator<Item = AMQPClass>,
    ) -> Result<(), BrokerError> {
        let Ok(sent) = timeout(FRAME_TIMEOUT, self.wire.send_all(methods)).await else {
            return Err(BrokerError::silent(&self.host));
        };
        sent.map_err(|error| self.classify(&error))
    }

    fn classify(&self, error: &lapin::Error) -> BrokerError {
        BrokerError::classify(error, &self.host, &self.doing)
    }
}
