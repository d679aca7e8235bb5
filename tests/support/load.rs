//! A load of requests of every kind, published until the broker has confirmed each.

use lapin::options::BasicPublishOptions;
use lapin::{Channel, Confirmation};
use serde_json::Value;
use uuid::Uuid;

use super::initial_ledger::InitialLedger;
use super::model::{Policy, ValidRequest};
use super::reconnect::ReconnectingChannel;
use super::request_generator::RequestGenerator;
use super::{Request, TestEnv};

/// Messages in flight before their confirms are awaited.
const WINDOW: usize = 300;

/// How the correlation ids of groups begin. An event of a group is found by its request id.
const GROUP: &str = "group-";

/// Messages, and the ledger that their requests meet.
pub struct Load {
    pub ledger: InitialLedger,
    pub requests: Vec<Sent>,
}

/// A message and its expected facts.
pub struct Sent {
    pub request: Request,
    pub kind: RequestKind,
}

impl Sent {
    /// A group, whose id begins as all ids of groups do.
    pub fn group(body: Vec<u8>, id: Uuid, group: SentGroup) -> Self {
        let id = format!("{GROUP}{id}");
        Self {
            request: Request::raw(body).id(&id).correlated(&id),
            kind: RequestKind::Group(group),
        }
    }

    /// Each request, by the key under which its events are collected.
    pub fn parts(&self) -> Vec<(String, &RequestKind)> {
        let correlation = self.request.correlation();
        match &self.kind {
            RequestKind::Group(group) => {
                let members = group.members.iter();
                members
                    .map(|(id, kind)| (member_key(&correlation, id), kind))
                    .collect()
            }
            RequestKind::Valid(_)
            | RequestKind::Invalid(_)
            | RequestKind::Malformed
            | RequestKind::CrashesWorker => vec![(correlation, &self.kind)],
        }
    }
}

/// The key of an event: the correlation id, and of an event of a group also the request id.
pub fn event_key(correlation: &str, event: &[u8]) -> String {
    if !correlation.starts_with(GROUP) {
        return correlation.to_owned();
    }
    let event: Value = serde_json::from_slice(event).unwrap_or_default();
    match event["data"]["request_id"].as_str() {
        Some(id) => member_key(correlation, id),
        None => correlation.to_owned(),
    }
}

fn member_key(correlation: &str, request_id: &str) -> String {
    format!("{correlation}/{request_id}")
}

#[derive(Clone, Debug, PartialEq)]
pub enum RequestKind {
    /// Its fields break no rule.
    Valid(ValidRequest),
    /// `INVALID_FIELD`, with these fields named.
    Invalid(Vec<&'static str>),
    /// `MALFORMED_REQUEST`: goes to the dead-letter queue as well.
    Malformed,
    /// Crashes each worker that reads it: ends in the dead-letter queue unread.
    CrashesWorker,
    /// Many requests in one message.
    Group(SentGroup),
}

/// The requests of a group, each by its id: valid ones and invalid ones.
#[derive(Clone, Debug, PartialEq)]
pub struct SentGroup {
    pub atomic: bool,
    pub members: Vec<(String, RequestKind)>,
}

impl RequestKind {
    /// Whether it ends in the dead-letter queue.
    pub fn is_dead_lettered(&self) -> bool {
        match self {
            Self::Malformed | Self::CrashesWorker => true,
            Self::Valid(_) | Self::Invalid(_) | Self::Group(_) => false,
        }
    }
}

impl Load {
    /// A load of `count` messages of every kind, under the environment's policy; the same for the
    /// same seed. The ledger that they meet is put into the environment's database.
    pub async fn mixed(env: &TestEnv, seed: u64, count: usize) -> Self {
        let load = RequestGenerator::new(policy(env), seed).load(count);
        load.ledger.insert(&env.db).await;
        load
    }

    /// The same with existing usages only. Each request is decided at its first attempt: none
    /// climbs the ladder, none is dead-lettered.
    pub async fn plain(env: &TestEnv, seed: u64, count: usize) -> Self {
        let load = RequestGenerator::new(policy(env), seed).plain_load(count);
        load.ledger.insert(&env.db).await;
        load
    }

    /// Groups of requests of every kind, and some malformed messages.
    pub async fn groups(env: &TestEnv, seed: u64, count: usize) -> Self {
        let load = RequestGenerator::new(policy(env), seed).group_load(count);
        load.ledger.insert(&env.db).await;
        load
    }

    /// Publishes every request until it is confirmed, also while the broker restarts. About every
    /// third request is published twice.
    pub async fn publish(&self, env: &TestEnv) {
        self.publish_part(env, &self.requests).await;
    }

    /// The requests in parts of so many.
    pub fn parts(&self, size: usize) -> std::slice::Chunks<'_, Sent> {
        self.requests.chunks(size)
    }

    /// Publishes some of the requests, as [`Load::publish`] does.
    pub async fn publish_part(&self, env: &TestEnv, part: &[Sent]) {
        let exchange = env.name("requests");
        let mut broker = ReconnectingChannel::new(&env.servers.amqp);
        for (index, window) in part.chunks(WINDOW).enumerate() {
            let copies = window.iter().skip(index % 3).step_by(3);
            let messages: Vec<_> = window.iter().chain(copies).collect();
            broker
                .retry("the broker takes requests", async |channel| {
                    publish_window(channel, &exchange, &messages).await
                })
                .await;
        }
    }
}

fn policy(env: &TestEnv) -> Policy {
    match env.setting("REVERT__POLICY") {
        Some("cumulative") => Policy::Cumulative,
        _ => Policy::Once,
    }
}

/// Publishes all, then awaits every confirm. A message that came back as unroutable may be reported
/// with another's confirm, so that one such confirm fails the whole window.
async fn publish_window(
    channel: &Channel,
    exchange: &str,
    messages: &[&Sent],
) -> lapin::Result<()> {
    let options = BasicPublishOptions {
        mandatory: true,
        ..Default::default()
    };
    let mut confirms = Vec::with_capacity(messages.len());
    for sent in messages {
        let (body, properties) = (&sent.request.body, sent.request.properties.clone());
        let confirm = channel
            .basic_publish(exchange.into(), "revert".into(), options, body, properties)
            .await?;
        confirms.push(confirm);
    }
    for confirm in confirms {
        if confirm.await? != Confirmation::Ack(None) {
            return Err(std::io::Error::other("refused, or returned as unroutable").into());
        }
    }
    Ok(())
}
