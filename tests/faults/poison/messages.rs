//! Poison messages, generated from a seed, and the result that each must have.

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use uuid::Uuid;

use super::bodies::{body, random_bytes};
use super::properties::Properties;
use super::tables::{misnamed, table};
use crate::support::raw::long;

/// Bytes that are not UTF-8.
const NOT_UTF8: &[u8] = b"\xff\xfe";

/// How a message must end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExpectedEnd {
    /// It is answered by an event, and also by a dead letter if the event is a failure.
    Answered,
    /// The same, or the broker dead-letters it first, since its publisher let it expire.
    AnsweredOrExpired,
    /// No client can read it: the broker dead-letters it, and there is no event.
    Unreadable,
}

/// A message to publish. It is recognized by its correlation id, or else by its message id.
pub struct Poison {
    pub routing_key: Vec<u8>,
    pub properties: Vec<u8>,
    pub body: Vec<u8>,
    pub expected: ExpectedEnd,
    /// Whether it has a message id: only then is a refusal remembered.
    pub is_named: bool,
}

impl Poison {
    /// Whether it says by itself how often it was delivered.
    pub fn forges_a_count(&self) -> bool {
        let name = b"x-delivery-count";
        let mut windows = self.properties.windows(name.len());
        windows.any(|window| window == name)
    }
}

/// How the messages are known.
pub const PREFIX: &str = "poison-";

/// The number of the message that an id names.
pub fn number(id: &str) -> Option<usize> {
    let digits = id.strip_prefix(PREFIX)?;
    let end = digits.find(|c: char| !c.is_ascii_digit());
    digits[..end.unwrap_or(digits.len())].parse().ok()
}

/// Generates messages. Of 1,000, `unreadable` cannot be parsed.
pub struct PoisonGenerator<'a> {
    rng: StdRng,
    account: Uuid,
    usages: &'a [Uuid],
    user: &'a str,
    queue: &'a str,
    unreadable: u32,
}

impl<'a> PoisonGenerator<'a> {
    /// Valid bodies ask for `usages` of `account`. `user` is the publisher's login, and `queue` the
    /// name of any queue.
    pub fn new(
        seed: u64,
        account: Uuid,
        usages: &'a [Uuid],
        user: &'a str,
        queue: &'a str,
        unreadable: u32,
    ) -> Self {
        Self {
            rng: StdRng::seed_from_u64(seed),
            account,
            usages,
            user,
            queue,
            unreadable,
        }
    }

    pub fn generate(&mut self, number: usize) -> Poison {
        let usage = self.usages[self.rng.random_range(0..self.usages.len())];
        let body = body(self.account, usage, &mut self.rng);
        let tag = format!("{PREFIX}{number}");
        let mut properties = Properties::default();
        if self.rng.random_ratio(9, 10) {
            properties.correlation_id = Some(tag.clone().into_bytes());
        } else {
            properties.message_id = Some(tag.clone().into_bytes());
        }
        self.add_properties(&mut properties);
        let mut routing_key = b"revert".to_vec();
        let mut expected = match properties.expiration {
            Some(_) => ExpectedEnd::AnsweredOrExpired,
            None => ExpectedEnd::Answered,
        };
        if self.rng.random_ratio(self.unreadable, 1000) {
            expected = ExpectedEnd::Unreadable;
            properties.expiration = None;
            routing_key = self.corrupt(&mut properties, &tag);
        }
        let named = properties.message_id.as_ref();
        Poison {
            is_named: named.is_some_and(|id| !id.is_empty()),
            routing_key,
            properties: properties.bytes(),
            body,
            expected,
        }
    }

    fn add_properties(&mut self, properties: &mut Properties) {
        let rng = &mut self.rng;
        let mut maybe = |once_in: u32| rng.random_ratio(1, once_in);
        let (ids, texts, headers) = (maybe(2), maybe(4), maybe(2));
        let (expires, numbers, replies) = (maybe(25), maybe(3), maybe(10));
        if ids && properties.message_id.is_none() {
            let shared = self.rng.random_range(0..50);
            properties.message_id = Some(match self.rng.random_range(0..6) {
                0 => Vec::new(),
                1 => vec![0; 3],
                2 => vec![b'x'; 255],
                3 => format!("shared {shared}").into_bytes(),
                _ => Uuid::from_u128(self.rng.random()).to_string().into_bytes(),
            });
        }
        if texts {
            let text = self.text();
            properties.content_type = Some(text.clone());
            properties.content_encoding = Some(text.clone());
            properties.kind = Some(text.clone());
            properties.app_id = Some(text.clone());
            properties.cluster_id = Some(text);
        }
        if numbers {
            // The broker takes no others.
            properties.delivery_mode = Some(self.rng.random_range(1..=2));
            properties.priority = Some(self.rng.random());
            properties.timestamp = Some(if self.rng.random() { u64::MAX } else { 0 });
        }
        if headers {
            properties.headers = Some(table(self.queue, &mut self.rng));
        }
        if self.rng.random() {
            properties.user_id = Some(self.user.as_bytes().to_vec());
        }
        if replies {
            let queues = [
                "amq.gen-nobody",
                "replies.nobody",
                "amq.rabbitmq.reply-to.forged",
                "amq.rabbitmq.reply-to.",
                self.queue,
                "",
            ];
            let queue = queues[self.rng.random_range(0..queues.len())];
            properties.reply_to = Some(queue.as_bytes().to_vec());
        }
        if expires {
            // The broker takes numbers only. With forged deaths it would take the expiry for a
            // cycle, and drop the message: a publisher can do that to itself.
            properties.headers = None;
            let times = ["0", "1", "50", "4000000000"];
            let time = times[self.rng.random_range(0..times.len())];
            properties.expiration = Some(time.as_bytes().to_vec());
        }
    }

    /// Puts in something that is not UTF-8 where the client demands it. Returns the routing key.
    fn corrupt(&mut self, properties: &mut Properties, tag: &str) -> Vec<u8> {
        let corrupted = Some(NOT_UTF8.to_vec());
        let tagged = Some([tag.as_bytes(), NOT_UTF8].concat());
        match self.rng.random_range(0..9) {
            0 => properties.correlation_id = tagged,
            1 if properties.correlation_id.is_some() => properties.message_id = tagged,
            2 => properties.content_type = corrupted,
            3 => properties.content_encoding = corrupted,
            4 => properties.reply_to = corrupted,
            5 => properties.kind = corrupted,
            6 => properties.app_id = corrupted,
            7 => {
                // It comes by its carbon copy, under the key that it was published with.
                let mut keys = vec![b'S'];
                long(&mut keys, b"revert");
                let mut table = b"\x02CCA".to_vec();
                long(&mut table, &keys);
                properties.headers = Some(table);
                return NOT_UTF8.to_vec();
            }
            _ => properties.headers = Some(misnamed(self.queue, &mut self.rng)),
        }
        b"revert".to_vec()
    }

    /// Short text, however odd; it is UTF-8.
    fn text(&mut self) -> Vec<u8> {
        let size = self.rng.random_range(0..120);
        let mut text: Vec<u8> = random_bytes(size, &mut self.rng);
        for byte in &mut text {
            *byte &= 0x7f;
        }
        text
    }
}
