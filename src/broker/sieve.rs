//! Takes messages that the client can't read off the head of a queue.
//!
//! The client parses a message's properties before anybody can look at them, and gives up its whole connection
//! over those it can't: text that is not UTF-8, a table that is cut off, a header larger than a frame. So it
//! would meet the same message at each delivery. Here such a message is recognized on a connection of its own,
//! which reads frames as bytes (`wire`), and rejected: the broker dead-letters it, with the reason `rejected` in
//! its `x-death`.

use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;
use tracing::warn;

use self::wire::{Frame, Kind, Wire};
use super::error::BrokerError;
use super::{CLOSE_TIMEOUT, CONNECT_TIMEOUT, within};
use crate::settings::AmqpUrl;
use amq_protocol::protocol::{AMQPClass, basic};

mod judgement;
mod wire;

pub use judgement::STACK_BYTES;

/// Longest wait for a frame. A message's body comes in many, so this does not bound how large it may be.
const FRAME_TIMEOUT: Duration = Duration::from_secs(10);

const GET_OK: (u16, u16) = (60, 71);
const GET_EMPTY: (u16, u16) = (60, 72);

/// What [`sieve`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sieved {
    /// How many messages it rejected.
    pub rejected: u32,
    /// What it left at the head of the queue.
    pub head: Head,
}

/// The head of the queue, as it was left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Head {
    /// A message that the client can read. It is back in its place, one delivery the older.
    Readable,
    /// Nothing: no message is ready.
    Empty,
    /// Not looked at, since as many messages as allowed were rejected.
    Unknown,
}

/// Rejects the messages at the head of `queue` that the client could not read, up to `limit` of them, and stops at
/// the first that it could.
///
/// # Errors
/// Where the broker can't be reached, refuses, or does not answer. What was rejected until then stays rejected.
pub async fn sieve(url: &AmqpUrl, queue: &str, limit: u32) -> Result<Sieved, BrokerError> {
    let host = url.host();
    let connecting = async {
        let connected = wire::connect(url, "revertd worker (sieve)").await;
        connected.map_err(|error| BrokerError::classify(&error, &host, "connecting"))
    };
    let mut sieve = Sieve {
        wire: within(CONNECT_TIMEOUT, &host, connecting).await?,
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

/// A message that was taken, but for its body, of which nothing is kept.
struct Taken {
    tag: u64,
    /// What the client would have to parse of it: the method that delivers it, and its header.
    frames: [Frame; 2],
    body_bytes: u64,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Sieve<'_, S> {
    async fn sift(&mut self, limit: u32) -> Result<Sieved, BrokerError> {
        let mut rejected = 0;
        let mut next = vec![self.get()];
        while rejected < limit {
            self.send(&next).await?;
            let Some(taken) = self.take().await? else {
                let head = Head::Empty;
                return Ok(Sieved { rejected, head });
            };
            let (tag, body_bytes) = (taken.tag, taken.body_bytes);
            let judged = judgement::readable(taken.frames).await;
            if judged.map_err(|error| BrokerError::passing(format!("no thread: {error}")))? {
                let head = Head::Readable;
                return Ok(Sieved { rejected, head });
            }
            warn!(
                queue = self.queue,
                delivery_tag = tag,
                body_bytes,
                "rejected a message whose properties can't be read; the broker dead-letters it"
            );
            rejected += 1;
            next = vec![reject(tag), self.get()];
        }
        // The last one is still to be rejected, and nothing is to be taken after it.
        next.truncate(next.len() - 1);
        self.send(&next).await?;
        let head = Head::Unknown;
        Ok(Sieved { rejected, head })
    }

    /// The answer to a `basic.get`: a message, read to the end of its body, or none.
    async fn take(&mut self) -> Result<Option<Taken>, BrokerError> {
        let method = self.frame(Kind::Method).await?;
        // Read by hand: its routing key may be what can't be parsed.
        let tag = match method.method() {
            Some(GET_OK) => method.u64_at(4),
            Some(GET_EMPTY) => return Ok(None),
            _ => None,
        };
        let header = self.frame(Kind::Header).await?;
        let (Some(tag), Some(body_bytes)) = (tag, header.u64_at(4)) else {
            return Err(self.wrong(&wire::unexpected()));
        };
        let mut missing = body_bytes;
        while missing > 0 {
            let body = self.frame(Kind::Body).await?;
            missing = missing.saturating_sub(body.payload_bytes);
        }
        Ok(Some(Taken {
            tag,
            frames: [method, header],
            body_bytes,
        }))
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

    async fn send(&mut self, methods: &[AMQPClass]) -> Result<(), BrokerError> {
        let Ok(sent) = timeout(FRAME_TIMEOUT, self.wire.send(methods)).await else {
            return Err(BrokerError::silent(&self.host));
        };
        sent.map_err(|error| self.wrong(&error))
    }

    fn get(&self) -> AMQPClass {
        AMQPClass::Basic(basic::AMQPMethod::Get(basic::Get {
            queue: self.queue.into(),
            no_ack: false,
        }))
    }

    fn wrong(&self, error: &lapin::Error) -> BrokerError {
        BrokerError::classify(error, &self.host, &self.doing)
    }
}

fn reject(delivery_tag: u64) -> AMQPClass {
    AMQPClass::Basic(basic::AMQPMethod::Reject(basic::Reject {
        delivery_tag,
        // Requeued, it would only come again.
        requeue: false,
    }))
}
