//! Requests that have nothing to do with a fault, sent beside it at a steady rate: how long each waits for its event.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval, timeout_at};
use uuid::Uuid;

use super::report::{Count, Waits, Wrong, full};
use super::{Mailbox, Request, Stage};

/// One request every so often: 50 a second.
const EVERY: Duration = Duration::from_millis(20);

/// Longest wait for the last answers.
const LAST: Duration = Duration::from_secs(20);

/// Longest that the 99th of 100 requests may wait beside a fault that is not theirs.
const BOUND: Duration = Duration::from_secs(1);

/// Reverts of usages that are there, each of its own.
pub struct Honest {
    requests: Vec<Request>,
    events: Mailbox,
}

impl Honest {
    /// Prepares them, on an account of their own.
    pub async fn new(stage: &Stage) -> Self {
        let account = stage.customer().await.account;
        let mut requests = Vec::new();
        for _ in 0..if full() { 3000 } else { 250 } {
            let usage: Uuid = stage.usage(account, 20).await;
            requests.push(Request::revert(account, usage, 5));
        }
        let events = stage.listen().await;
        Self { requests, events }
    }

    /// Sends them, and waits for their events. A request without one is found as unanswered, and so are waits that are
    /// too long.
    pub async fn ask(mut self, stage: &Stage) -> (Count, Waits) {
        let mut sent = HashMap::new();
        let mut waits = Vec::new();
        let mut ticks = interval(EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
        let asked = self.requests.len();
        let mut next = self.requests.into_iter();
        let mut deadline = Instant::now() + LAST;
        while waits.len() < asked {
            tokio::select! {
                biased;
                letter = timeout_at(deadline, self.events.next()) => {
                    let Ok(letter) = letter else { break };
                    let id = letter.properties.correlation_id().clone();
                    let id = id.map(|id| id.to_string()).unwrap_or_default();
                    if let Some(at) = sent.remove(&id) {
                        assert_eq!(letter.verdict(), "usage.reverted");
                        waits.push(Instant::now() - at);
                    }
                }
                _ = ticks.tick(), if next.len() > 0 => {
                    let request = next.next().expect("there is one");
                    sent.insert(request.correlation(), Instant::now());
                    stage.publish(&request).await;
                    deadline = Instant::now() + LAST;
                }
            }
        }
        let waits = Waits::new(waits);
        let mut count = Count {
            requests: asked,
            ..Count::default()
        };
        println!("honest requests: {asked} asked, {waits}");
        for id in sent.into_keys() {
            count.found(Wrong::Unanswered, format!("no event for {id}"));
        }
        if waits.p99() > BOUND {
            count.found(
                Wrong::Other,
                format!("honest requests wait too long: {waits}"),
            );
        }
        (count, waits)
    }
}
