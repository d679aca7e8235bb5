//! Reads what waits in a queue, from its head, and takes nothing off it but what the caller
//! settles.
//!
//! On a connection that reads frames as bytes (`broker/wire.rs`), since a dead-letter queue is
//! where the messages end that the client can't read. It must not know what is done about a letter.
//!
//! How many wait is asked first, and no more than that are taken: what arrives meanwhile is for the
//! next time. While a queue is read, its letters are unacknowledged here, and nobody else sees
//! them; the end of the connection returns them to their places.

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
use crate::broker::operation::Operation;
use crate::broker::raw::wire;
use crate::broker::raw::wire::Wire;
use crate::broker::raw::wire::frame::{Frame, FrameKind};
use crate::config::{AmqpUrl, Settings};

mod requeue;

/// Longest wait for a frame. A long queue takes its time for the first.
const FRAME_TIMEOUT: Duration = Duration::from_secs(30);

/// How long nothing comes before it is asked whether anything is left: others may have taken what
/// was counted, and to a consumer the broker does not say so.
const IDLE_TIMEOUT: Duration = Duration::from_millis(500);

/// How often in a row nothing is left, with a silence after each answer, before the rest is given
/// up. One answer proves nothing: what our own consumers hold is no longer in the queue, and large
/// letters come after that answer.
const EMPTY_ANSWERS: u32 = 6;

/// Longest wait for a close. All that is on its way has to be read first.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(10);

/// Letters that one consumer takes; more consumers take the rest. The queue reads as many from its
/// disk before it delivers the first of them, and works on nothing else meanwhile.
const CONSUMER_LETTERS: u16 = 2000;

const DELIVER: (u16, u16) = (60, 60);
const GET_OK: (u16, u16) = (60, 71);
const GET_EMPTY: (u16, u16) = (60, 72);

/// A queue that is being read.
pub struct QueueReader {
    wire: Wire<Socket>,
    queue: String,
    host: String,
    trust: Trust,
    body_bytes: u64,
    waiting: u32,
    others: u32,
    taken: u32,
    missing: u32,
    consumers: u16,
    settled: u32,
    /// Whether the answer to a question for one more is still to come.
    is_asking: bool,
}

impl QueueReader {
    /// Connects, and counts what waits in `queue`. Up to `body_bytes` of each body are kept, and
    /// always enough to tell letters apart.
    ///
    /// # Errors
    /// Where the broker can't be reached or refuses, or there is no such queue.
    pub async fn open(
        settings: &Settings,
        queue: &str,
        body_bytes: u64,
    ) -> Result<Self, BrokerError> {
        let connecting = async |url: AmqpUrl| {
            let host = url.host();
            let connecting = async {
                let connected = wire::connect(&url, "revertd dead-letters (reading)").await;
                connected
                    .map_err(|error| BrokerError::classify(&error, &host, Operation::Connecting))
            };
            let wire = within(CONNECT_TIMEOUT, &host, connecting).await?;
            let uri: Result<AMQPUri, _> = url.secret().parse();
            let user = uri.map(|uri| uri.authority.userinfo.username);
            Ok((wire, host, user.unwrap_or_default()))
        };
        let (wire, host, user) = any_of(&settings.amqp.url, connecting).await?;
        let mut browse = Self {
            wire,
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

    /// How many letters waited when the queue was opened, and are read at most.
    #[must_use]
    pub fn waiting(&self) -> u32 {
        self.waiting
    }

    /// How many others consume the queue. What they hold is not seen.
    #[must_use]
    pub fn others(&self) -> u32 {
        self.others
    }

    /// How many letters were counted, and could not be read: others took them or hold them, or they
    /// expired. Known at the end.
    #[must_use]
    pub fn missing(&self) -> u32 {
        self.missing
    }

    /// Reads no more than so many letters, where fewer waited when somebody else counted.
    pub fn limit(&mut self, letters: u32) {
        self.waiting = self.waiting.min(letters);
    }

    /// The next letter; `None` at the end. It stays in the queue unless it is settled.
    ///
    /// # Errors
    /// Where the broker refuses or the connection fails.
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
            // Read by hand: the routing key behind it may be what can't be parsed.
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

    /// Takes letters off the queue.
    ///
    /// # Errors
    /// Where the connection fails; then they may be in the queue still.
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

    /// Closes the connection, once the queue has taken note of what was settled, and has the rest
    /// back.
    ///
    /// # Errors
    /// Where the connection fails before; then some of what was settled may come back.
    pub async fn close(mut self) -> Result<(), BrokerError> {
        let returned = self.requeue().await;
        let _ = timeout(CLOSE_TIMEOUT, self.wire.close()).await;
        returned
    }

    /// One more consumer. That it is there is told among its deliveries.
    async fn consume(&mut self) -> Result<(), BrokerError> {
        let left = self.waiting - self.taken;
        let prefetch_count = u16::try_from(left).unwrap_or(u16::MAX);
        self.consumers += 1;
        let qos = basic::AMQPMethod::Qos(basic::Qos {
            prefetch_count: prefetch_count.min(CONSUMER_LETTERS),
            // Which RabbitMQ reads as: for each consumer from here on.
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

    /// What follows the method that delivers it.
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
        BrokerError::classify(error, &self.host, Operation::ReadingQueue(&self.queue))
    }
}
