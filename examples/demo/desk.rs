//! The publisher: publishes a request, waits for its event, and compares it with the expected one.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use futures_util::StreamExt;
use futures_util::stream::{Select, select};
use lapin::options::{BasicConsumeOptions, BasicPublishOptions};
use lapin::types::{AMQPValue, FieldTable, ShortString};
use lapin::{BasicProperties, Channel, Confirmation, Consumer};
use serde_json::Value;
use tokio::time::timeout;
use uuid::Uuid;

use super::ledger::PLATFORM;
use super::screen::Screen;
use super::stage::{PATIENCE, RETRY_DELAYS, Stage};

/// A request to publish.
#[derive(Clone)]
pub struct Request {
    pub title: &'static str,
    body: String,
    message_id: String,
    max_attempts: Option<i32>,
    is_anonymous: bool,
}

/// The expected event; reasons are written as in `ErrorInfo`.
#[derive(Clone)]
pub enum Expected {
    /// A revert: its amount, and the amount of the usage.
    Reverted(i64, i64),
    /// The given event again, with the same id.
    Same(Value),
    Rejected(&'static str),
    /// A rejection with that reason, after every rung of the retry ladder.
    RejectedAfterRetries(&'static str),
    /// A failure with that reason; the request is in the dead-letter queue.
    Failed(&'static str),
}

/// The requests so far, and their events.
#[derive(Default)]
pub struct Tally {
    pub requests: usize,
    pub reverted: usize,
    pub rejected: usize,
    pub failed: usize,
    /// Account and amount of each revert, by the id of its event.
    pub given: BTreeMap<String, (String, i64)>,
}

pub struct Desk {
    channel: Channel,
    exchange: String,
    login: String,
    events: Select<Consumer, Consumer>,
    screen: Screen,
    tally: Tally,
}

impl Request {
    pub fn new(title: &'static str, body: &Value) -> Self {
        Self::raw(title, &body.to_string())
    }

    pub fn raw(title: &'static str, body: &str) -> Self {
        Self {
            title,
            body: body.to_owned(),
            message_id: Uuid::new_v4().to_string(),
            max_attempts: None,
            is_anonymous: false,
        }
    }

    pub fn titled(self, title: &'static str) -> Self {
        Self { title, ..self }
    }

    pub fn with_id_of(self, other: &Self) -> Self {
        let message_id = other.message_id.clone();
        Self { message_id, ..self }
    }

    /// Disables retries.
    pub fn once(self) -> Self {
        let max_attempts = Some(1);
        Self {
            max_attempts,
            ..self
        }
    }

    /// Removes `user_id`.
    pub fn anonymous(self) -> Self {
        Self {
            is_anonymous: true,
            ..self
        }
    }

    fn properties(&self, correlation_id: &str, login: &str) -> BasicProperties {
        let mut headers = FieldTable::default();
        if let Some(attempts) = self.max_attempts {
            headers.insert("x-max-attempts".into(), AMQPValue::LongInt(attempts));
        }
        let mut properties = BasicProperties::default();
        if !self.is_anonymous {
            properties = properties.with_user_id(login.into());
        }
        properties
            .with_content_type("application/json".into())
            .with_delivery_mode(2)
            .with_message_id(self.message_id.as_str().into())
            .with_correlation_id(correlation_id.into())
            .with_headers(headers)
    }
}

impl Desk {
    /// Opens the publisher; the worker must have declared its queues.
    pub async fn open(stage: &Stage, screen: Screen) -> Result<Self> {
        let channel = stage.channel().await?;
        // No other program consumes these events, so they need no acknowledgement.
        let options = BasicConsumeOptions {
            no_ack: true,
            ..BasicConsumeOptions::default()
        };
        let consume = async |last| {
            let queue = stage.name(last);
            channel
                .basic_consume(queue.into(), "".into(), options, FieldTable::default())
                .await
                .context("cannot consume the events")
        };
        // Events of requests without a client or a grant go to a separate queue.
        let events = select(consume("replies").await?, consume("denied").await?);
        Ok(Self {
            channel,
            exchange: stage.name("requests"),
            login: stage.login(),
            events,
            screen,
            tally: Tally::default(),
        })
    }

    pub fn close(self) -> (Screen, Tally) {
        (self.screen, self.tally)
    }

    /// Publishes a request, prints it with its event, and returns the event if it is the expected
    /// one.
    pub async fn ask(&mut self, request: &Request, expected: Expected) -> Result<Value> {
        self.tally.requests += 1;
        let number = self.tally.requests;
        let (asked, answer) = (Instant::now(), self.answer(request).await);
        let event = answer.with_context(|| format!("request {number} ({})", request.title))?;
        let took = asked.elapsed();
        self.tally.count(&event)?;
        self.screen
            .request(number, request.title, &event, &expected, took)?;
        if let Err(wrong) = expected.compare(&event, took) {
            bail!("request {number} ({}): {wrong}: {event}", request.title);
        }
        Ok(event)
    }

    async fn answer(&mut self, request: &Request) -> Result<Value> {
        let correlation_id = Uuid::new_v4().to_string();
        self.publish(request, &correlation_id).await?;
        let event = timeout(PATIENCE, self.event(&correlation_id)).await;
        event.with_context(|| format!("no event within {} s", PATIENCE.as_secs()))?
    }

    async fn publish(&self, request: &Request, correlation_id: &str) -> Result<()> {
        let options = BasicPublishOptions {
            mandatory: true,
            immediate: false,
        };
        let confirmed = self
            .channel
            .basic_publish(
                self.exchange.as_str().into(),
                "revert".into(),
                options,
                request.body.as_bytes(),
                request.properties(correlation_id, &self.login),
            )
            .await
            .context("cannot publish")?
            .await
            .context("cannot publish")?;
        // An unroutable mandatory message is returned and still confirmed with an ack.
        ensure!(
            matches!(confirmed, Confirmation::Ack(None)),
            "the broker did not take it"
        );
        Ok(())
    }

    async fn event(&mut self, correlation_id: &str) -> Result<Value> {
        loop {
            let delivery = self
                .events
                .next()
                .await
                .context("the reply queue is gone")?;
            let delivery = delivery.context("cannot read the reply queue")?;
            let answers = delivery.properties.correlation_id().as_ref();
            if answers.map(ShortString::as_str) == Some(correlation_id) {
                return serde_json::from_slice(&delivery.data).context("the event is not JSON");
            }
        }
    }
}

impl Expected {
    fn compare(&self, event: &Value, took: Duration) -> Result<()> {
        let data = &event["data"];
        let (kind, reason) = match self {
            Self::Reverted(amount, of) => {
                let number = |value: &Value| value.as_str()?.parse().ok();
                let came = (number(&data["amount"]), number(&data["usage_amount"]));
                let right = came == (Some(*amount), Some(*of));
                ensure!(right, "expected {amount} of {of}");
                ("usage.reverted", None)
            }
            Self::Same(earlier) => {
                ensure!(event == earlier, "expected the very event {earlier}");
                return Ok(());
            }
            Self::Rejected(reason) => ("usage.revert.rejected", Some(*reason)),
            Self::RejectedAfterRetries(reason) => {
                let ladder: Duration = RETRY_DELAYS.into_iter().map(Duration::from_millis).sum();
                ensure!(took >= ladder, "answered before its retries");
                ("usage.revert.rejected", Some(*reason))
            }
            Self::Failed(reason) => ("usage.revert.failed", Some(*reason)),
        };
        let came = data["error"]["details"][0]["reason"].as_str();
        ensure!(
            event["type"] == kind && came == reason,
            "expected {kind} {}",
            reason.unwrap_or_default()
        );
        Ok(())
    }
}

impl Tally {
    fn count(&mut self, event: &Value) -> Result<()> {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        match text(&event["type"]).as_str() {
            "usage.reverted" => {
                let data = &event["data"];
                let amount = text(&data["amount"]).parse();
                let amount = amount.context("the event of a revert has no amount")?;
                let given = (text(&data["billing_id"]), amount);
                self.given.insert(text(&event["id"]), given);
                self.reverted += 1;
            }
            "usage.revert.rejected" => self.rejected += 1,
            "usage.revert.failed" => self.failed += 1,
            other => bail!("an event of the unknown type {other:?}"),
        }
        Ok(())
    }

    /// The change of an account's balance by the events; a repeated event counts once.
    pub fn change_of(&self, account: Uuid) -> i64 {
        if account == PLATFORM {
            return -self.given.values().map(|(_, amount)| amount).sum::<i64>();
        }
        let account = account.to_string();
        (self.given.values())
            .filter(|(to, _)| *to == account)
            .map(|(_, amount)| amount)
            .sum()
    }
}
