//! Takes messages that the client can't read off a queue.
//!
//! The client parses a message's properties before anybody can look at them, and gives up its whole connection
//! over those it can't: text that is not UTF-8, a table that is cut off, a header larger than a frame. So it
//! would meet the same message at each delivery. Here such a message is recognized on a connection of its own,
//! which reads frames as bytes (`broker/wire.rs`), and rejected: the broker dead-letters it, with the reason `rejected` in
//! its `x-death`.

use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, timeout};
use tracing::warn;

use super::error::BrokerError;
use super::wire::frame::{Frame, Kind};
use super::wire::{self, Wire};
use super::{CLOSE_TIMEOUT, CONNECT_TIMEOUT, any_of, within};
use crate::settings::{AmqpUrl, AmqpUrls};
use amq_protocol::protocol::{AMQPClass, basic};
use amq_protocol::types::FieldTable;

mod judgement;

pub use judgement::STACK_BYTES;

/// Longest wait for a frame.
const FRAME_TIMEOUT: Duration = Duration::from_secs(10);

/// Longest that messages are looked at, however large their bodies are. The next time goes on from there, since
/// what was rejected is gone.
const WHOLE_TIMEOUT: Duration = Duration::from_secs(30);

/// How long nothing comes where nothing is left: the broker does not say so to a consumer.
const IDLE_TIMEOUT: Duration = Duration::from_millis(200);

const DELIVER: (u16, u16) = (60, 60);

/// What [`sieve`] did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sieved {
    /// How many messages the client can read. They are back in their places, each one delivery the older.
    pub readable: u16,
    /// How many it can't, which were rejected.
    pub rejected: u16,
}

/// Looks at the messages at the head of `queue`, up to `limit` of them, and rejects those that the client could not
/// read. The others go back untouched, all at once in the end: so each is looked at once.
///
/// # Errors
/// Where the broker can't be reached, refuses, or does not answer. What was rejected until then stays rejected.
pub async fn sieve(urls: &AmqpUrls, queue: &str, limit: u16) -> Result<Sieved, BrokerError> {
    let connecting = async |url: AmqpUrl| {
        let host = url.host();
        let connecting = async {
            let connected = wire::connect(&url, "revertd worker (sieve)").await;
            connected.map_err(|error| BrokerError::classify(&error, &host, "connecting"))
        };
        let wire = within(CONNECT_TIMEOUT, &host, connecting).await?;
        Ok((wire, host))
    };
    let (wire, host) = any_of(urls, connecting).await?;
    let mut sieve = Sieve {
        wire,
        doing: format!("taking unreadable messages off {queue}"),
        queue,
        host,
    };
    let sieved = sieve.sift(limit).await;
    // The broker answers a close after all that came before it, so what was rejected is gone from the queue.
    let _ = timeout(CLOSE_TIMEOUT, sieve.wire.close()).await;
    sieved
}

struct Sieve<'a, S> {
    wire: Wire<S>,
    queue: &'a str,
    host: String,
    doing: String,
}

/// A message that came, but for its body, of which nothing is kept.
struct Taken {
    tag: u64,
    /// What the client would have to parse of it: the method that delivers it, and its header.
    frames: [Frame; 2],
    body_bytes: u64,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Sieve<'_, S> {
    async fn sift(&mut self, limit: u16) -> Result<Sieved, BrokerError> {
        self.consume(limit).await?;
        let mut sieved = Sieved::default();
        let deadline = Instant::now() + WHOLE_TIMEOUT;
        while sieved.readable + sieved.rejected < limit && Instant::now() < deadline {
            let Ok(method) = timeout(IDLE_TIMEOUT, self.wire.ready()).await else {
                break;
            };
            method.map_err(|error| self.wrong(&error))?;
            let taken = self.take().await?;
            let (tag, body_bytes) = (taken.tag, taken.body_bytes);
            let judged = judgement::readable(taken.frames).await;
            if judged.map_err(|error| BrokerError::passing(format!("no thread: {error}")))? {
                sieved.readable += 1;
                continue;
            }
            self.send(reject(tag)).await?;
            warn!(
                queue = self.queue,
                delivery_tag = tag,
                body_bytes,
                "rejected a message whose properties can't be read; the broker dead-letters it"
            );
            sieved.rejected += 1;
        }
        Ok(sieved)
    }

    /// Has the broker deliver up to `prefetch` messages at once.
    async fn consume(&mut self, prefetch: u16) -> Result<(), BrokerError> {
        self.send(basic::AMQPMethod::Qos(basic::Qos {
            prefetch_count: prefetch,
            // Which RabbitMQ reads as: for each consumer.
            global: false,
        }))
        .await?;
        self.frame(Kind::Method).await?;
        self.send(basic::AMQPMethod::Consume(basic::Consume {
            queue: self.queue.into(),
            consumer_tag: "sieve".into(),
            no_local: false,
            no_ack: false,
            exclusive: false,
            nowait: false,
            arguments: FieldTable::default(),
        }))
        .await?;
        self.frame(Kind::Method).await?;
        Ok(())
    }

    /// The next delivery, read to the end of its body.
    async fn take(&mut self) -> Result<Taken, BrokerError> {
        let method = self.frame(Kind::Method).await?;
        let header = self.frame(Kind::Header).await?;
        // Read by hand: the routing key after it may be what can't be parsed.
        let tag = match method.method() {
            Some(DELIVER) => method
                .u8_at(4)
                .and_then(|name| method.u64_at(5 + usize::from(name))),
            _ => None,
        };
        let (Some(tag), Some(body_bytes)) = (tag, header.u64_at(4)) else {
            return Err(self.wrong(&wire::unexpected()));
        };
        let mut missing = body_bytes;
        while missing > 0 {
            let body = self.frame(Kind::Body).await?;
            missing = missing.saturating_sub(body.payload_bytes);
        }
        Ok(Taken {
            tag,
            frames: [method, header],
            body_bytes,
        })
    }

    async fn frame(&mut self, kind: Kind) -> Result<Frame, BrokerError> {
        let Ok(frame) = timeout(FRAME_TIMEOUT, self.wire.frame()).await else {
            return Err(BrokerError::silent(&self.host));
        };
        match frame {
            Ok(frame) if frame.kind == kind => Ok(frame),
            Ok(_) => Err(self.wrong(&wire::unexpected())),
            Err(error) => Err(self.wrong(&error)),
        }
    }

    async fn send(&mut self, method: basic::AMQPMethod) -> Result<(), BrokerError> {
        let method = AMQPClass::Basic(method);
        let Ok(sent) = timeout(FRAME_TIMEOUT, self.wire.send(method)).await else {
            return Err(BrokerError::silent(&self.host));
        };
        sent.map_err(|error| self.wrong(&error))
    }

    fn wrong(&self, error: &lapin::Error) -> BrokerError {
        BrokerError::classify(error, &self.host, &self.doing)
    }
}

fn reject(delivery_tag: u64) -> basic::AMQPMethod {
    basic::AMQPMethod::Reject(basic::Reject {
        delivery_tag,
        // Requeued, it would only come again.
        requeue: false,
    })
}
