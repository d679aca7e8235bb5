//! Publishes the events of stored outcomes, a window at a time, and counts them.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Duration;

use anyhow::anyhow;
use jiff::Timestamp;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Instant, sleep, sleep_until};
use tracing::warn;

use crate::broker::{Broker, BrokerError, Message, PublishResult, Publisher};
use crate::cli::progress::Progress;
use crate::common::backoff::Backoff;
use crate::config::Settings;
use crate::domain::event::Event;
use crate::ledger::admin::stored::{Outcomes, Stored};

/// Events that are published in one window.
const AT_A_TIME: u32 = 500;

/// Most routing keys that are counted separately. The others share one count.
const KEYS_MAX: usize = 20;

/// Counts of the published events, and of the events that reached no queue or cannot be built.
#[derive(Debug, Default)]
pub struct Published {
    exchange: String,
    /// Events by routing key.
    pub keys: BTreeMap<String, u64>,
    /// Events of the routing keys beyond `KEYS_MAX`.
    pub others: u64,
    /// Events that the broker returned because no queue is bound for them.
    pub unroutable: u64,
    /// Outcomes whose events this version cannot build.
    pub untold: u64,
}

impl Published {
    fn add(&mut self, key: &str) {
        if self.keys.len() < KEYS_MAX || self.keys.contains_key(key) {
            *self.keys.entry(key.to_owned()).or_default() += 1;
        } else {
            self.others += 1;
        }
    }

    /// One line per routing key.
    pub fn text(&self) -> String {
        let mut text = String::new();
        for (key, events) in &self.keys {
            let exchange = &self.exchange;
            let _ = writeln!(text, "  {events} to {exchange} under {key}");
        }
        if self.others > 0 {
            let _ = writeln!(text, "  {} under further keys", self.others);
        }
        text
    }
}

/// Publishes the selected events, in the order in which their outcomes were decided.
pub async fn publish(
    settings: &Settings,
    outcomes: &Outcomes,
    all: i64,
    rate: Option<u32>,
) -> anyhow::Result<Published> {
    let exchange = settings.topology.reply_exchange.as_str();
    let mut publisher = publisher(settings).await?;
    outcomes.begin().await?;
    let at_a_time = rate.map_or(AT_A_TIME, |rate| rate.min(AT_A_TIME));
    let mut progress = Progress::new("published", u64::try_from(all).unwrap_or(0));
    let (began, mut done) = (Instant::now(), 0u64);
    let mut tally = Published {
        exchange: exchange.to_owned(),
        ..Published::default()
    };
    let mut last: Option<Timestamp> = None;
    let mut interrupt = signal(SignalKind::interrupt())?;
    loop {
        let some = tokio::select! {
            some = outcomes.next(at_a_time) => some.map_err(|error| onward(&error, last))?,
            _ = interrupt.recv() => return Err(onward(&"interrupted", last)),
        };
        if some.is_empty() {
            break;
        }
        let read = some.len() as u64;
        let some: Vec<_> = some.into_iter().flatten().collect();
        tally.untold += read - some.len() as u64;
        done += read;
        let Some(newest) = some.last().map(|stored| stored.outcome.decided_at) else {
            continue;
        };
        let events: Vec<_> = some
            .iter()
            .map(|stored| Event::of_outcome(&stored.request, &stored.outcome))
            .collect();
        let again = |(event, of): (_, &Stored)| {
            Message::event_again(exchange, event, of.request.message_id.as_deref())
        };
        let messages: Vec<_> = events.iter().zip(&some).map(again).collect();
        tally.unroutable += tokio::select! {
            taken = until_taken(settings, &mut publisher, messages) => {
                taken.map_err(|error| onward(&error, last))?
            }
            _ = interrupt.recv() => return Err(onward(&"interrupted", last)),
        };
        for event in &events {
            tally.add(&event.routing_key);
        }
        last = Some(newest);
        progress.reached(done, &format!("decided {newest}"));
        if let Some(rate) = rate {
            let nanos = done.saturating_mul(1_000_000_000) / u64::from(rate);
            tokio::select! {
                () = sleep_until(began + Duration::from_nanos(nanos)) => {}
                _ = interrupt.recv() => return Err(onward(&"interrupted", last)),
            }
        }
    }
    progress.done();
    Ok(tally)
}

async fn publisher(settings: &Settings) -> Result<Publisher, BrokerError> {
    Broker::publisher_of(settings, "revertd events republish").await
}

/// Publishes a window, and repeats refused messages until the broker accepts them. Each repetition
/// has a new channel: after a queue without a leader, a channel has every message refused.
async fn until_taken(
    settings: &Settings,
    publisher: &mut Publisher,
    mut messages: Vec<Message<'_>>,
) -> anyhow::Result<u64> {
    let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(5));
    let mut unroutable = 0;
    loop {
        let results = publisher.publish(&messages).await?;
        let mut refused = Vec::new();
        for (message, result) in messages.into_iter().zip(results) {
            match result {
                PublishResult::Confirmed => {}
                PublishResult::Unroutable => unroutable += 1,
                PublishResult::Refused => refused.push(message),
            }
        }
        if refused.is_empty() {
            return Ok(unroutable);
        }
        let wait = backoff.next_wait();
        warn!(
            event = "queue_refused",
            events = refused.len(),
            retry_in = ?wait,
            "a bound queue refused events, because it is full or has no leader"
        );
        messages = refused;
        sleep(wait).await;
        *publisher = self::publisher(settings).await?;
    }
}

/// The error with the arguments to continue with. Events that are published twice keep their ids.
fn onward(error: &dyn std::fmt::Display, last: Option<Timestamp>) -> anyhow::Error {
    match last {
        Some(last) => anyhow!("{error}; continue with --since {last}, in place of the one given"),
        None => anyhow!("{error}; no event is known to be published: run it again"),
    }
}
