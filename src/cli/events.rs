//! `revertd events`

use std::collections::BTreeMap;
use std::fmt::Write;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{anyhow, bail};
use clap::{Args, Subcommand};
use jiff::Timestamp;
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Instant, sleep, sleep_until};
use tracing::warn;
use uuid::Uuid;

use super::output::{Output, print, print_json};
use super::progress::Progress;
use super::prompt;
use super::time_span::timestamp;
use crate::broker::{Broker, BrokerError, Message, PublishResult, Publisher};
use crate::common::backoff::Backoff;
use crate::config::Settings;
use crate::domain::event::Event;
use crate::ledger::admin::stored::{OutcomeCount, OutcomeFilter, Outcomes};

/// Events that are published in one window.
const AT_A_TIME: u32 = 500;

#[derive(Debug, Args)]
pub struct EventsArgs {
    #[command(subcommand)]
    action: EventsCommand,
}

#[derive(Debug, Subcommand)]
enum EventsCommand {
    /// Publish the events of stored outcomes again, unchanged, for consumers that lost them.
    Republish(RepublishArgs),
}

#[derive(Debug, Args)]
struct RepublishArgs {
    /// Of outcomes decided then or later: a time such as 2026-11-25T08:00:00Z, or how long ago,
    /// such as 2h.
    #[arg(long, value_name = "TIME", value_parser = timestamp)]
    since: Option<Timestamp>,
    /// Only outcomes decided before this time: a time such as 2026-11-25T08:00:00Z, or an age such
    /// as 2h.
    #[arg(long, value_name = "TIME", value_parser = timestamp)]
    until: Option<Timestamp>,
    /// Only outcomes of this client's requests.
    #[arg(long)]
    client: Option<String>,
    /// Only outcomes of this org's accounts.
    #[arg(long, value_name = "UUID")]
    org: Option<Uuid>,
    /// Only the outcome of the request with this `message_id`.
    #[arg(long, value_name = "ID")]
    request: Option<String>,
    /// Print how many events there are, and publish nothing.
    #[arg(long)]
    dry_run: bool,
    /// Do not ask for confirmation.
    #[arg(long)]
    yes: bool,
    /// Maximum rate, in events per second.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    rate: Option<u32>,
    /// Format of the result.
    #[arg(long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

pub async fn run(settings: &Settings, args: EventsArgs) -> anyhow::Result<ExitCode> {
    match args.action {
        EventsCommand::Republish(args) => republish(settings, args).await,
    }
}

async fn republish(settings: &Settings, args: RepublishArgs) -> anyhow::Result<ExitCode> {
    if args
        .since
        .zip(args.until)
        .is_some_and(|(since, until)| since >= until)
    {
        say!("revertd: --since must be before --until");
        return Ok(ExitCode::from(2));
    }
    let filter = OutcomeFilter {
        since: args.since,
        until: args.until,
        client: args.client.clone(),
        org: args.org,
        message_id: args.request.clone(),
    };
    let outcomes = Outcomes::open(settings, filter).await?;
    let count = outcomes.count().await?;
    let all = count.applied + count.refused;
    if args.dry_run {
        return conclude(count, &Published::default(), args.output, "would publish");
    }
    if all == 0 {
        return conclude(count, &Published::default(), args.output, "published");
    }
    if !args.yes {
        match prompt::sure(&format!("publish {all} events again?"))? {
            Some(true) => {}
            Some(false) => bail!("nothing was published"),
            None => {
                say!("revertd: nothing was published: there is no terminal to ask on; add --yes");
                return Ok(ExitCode::from(2));
            }
        }
    }
    let published = publish(settings, &outcomes, all, args.rate).await?;
    conclude(count, &published, args.output, "published")
}

/// Most routing keys that are counted separately. The others share one count.
const KEYS_MAX: usize = 20;

/// Counts of the published events, and of the events that reached no queue or cannot be built.
#[derive(Debug, Default)]
struct Published {
    exchange: String,
    /// Events by routing key.
    keys: BTreeMap<String, u64>,
    /// Events of the routing keys beyond `KEYS_MAX`.
    others: u64,
    /// Events that the broker returned because no queue is bound for them.
    unroutable: u64,
    /// Outcomes whose events this version cannot build.
    untold: u64,
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
    fn text(&self) -> String {
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
async fn publish(
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
        let again = |(event, of): (_, &crate::ledger::admin::stored::Stored)| {
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

/// Publishes a window, and what a full queue refused of it again until it is taken; each time on a
/// new channel, since one that met a queue without a leader has everything refused from then on.
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

fn conclude(
    count: OutcomeCount,
    published: &Published,
    output: Output,
    what: &str,
) -> anyhow::Result<ExitCode> {
    let OutcomeCount { applied, refused } = count;
    let (unroutable, untold) = (published.unroutable, published.untold);
    let refused = refused - i64::try_from(untold).unwrap_or(i64::MAX);
    let all = applied + refused;
    match output {
        Output::Text => print(&format!(
            "{what} {all} events: {applied} usage.reverted, {refused} usage.revert.rejected\n{}",
            published.text()
        ))?,
        Output::Json => print_json(
            &json!({"published": what == "published", "usage.reverted": applied,
                "usage.revert.rejected": refused, "unroutable": unroutable, "untold": untold,
                "routing_keys": published.keys, "of_further_keys": published.others}),
        )?,
    }
    if untold > 0 {
        bail!(
            "{untold} outcomes are refusals that this version does not know, and whose words are \
             not stored; run this with the version that stored them, or a later one"
        );
    }
    if unroutable > 0 {
        bail!(
            "no queue is bound for {unroutable} of them, so no consumer received these; bind one \
             to the reply exchange and publish them again"
        );
    }
    Ok(ExitCode::SUCCESS)
}
