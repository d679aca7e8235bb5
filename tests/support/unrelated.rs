//! Unrelated requests, sent at a steady rate beside a fault, and how long each waits for its event.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval, timeout_at};
use uuid::Uuid;

use super::report::{AuditResult, Finding, Latencies, full};
use super::{Mailbox, Request, TestEnv};

/// One request every so often: 50 a second.
const EVERY: Duration = Duration::from_millis(20);

/// Longest wait for the last answers.
const LAST: Duration = Duration::from_secs(20);

/// Longest delay that a fault may add for 99 of 100 unrelated requests.
const BOUND: Duration = Duration::from_secs(1);

/// Reverts of usages that are there, each of its own.
pub struct UnrelatedRequests {
    account: Uuid,
    events: Mailbox,
    /// The longest wait of the fastest 99 of 100 without the fault.
    before: Duration,
}

impl UnrelatedRequests {
    /// Sends 100 requests before the fault, on an account of their own, as a baseline: a worker
    /// starts slowly, and a machine may be busy.
    pub async fn new(env: &TestEnv) -> Self {
        let mut unrelated = Self {
            account: env.customer().await.account,
            events: env.subscribe().await,
            before: Duration::ZERO,
        };
        let (unanswered, waits) = unrelated.send(env, 100).await;
        assert!(unanswered.is_empty(), "without a fault, all are answered");
        println!("unrelated requests before: {waits}");
        unrelated.before = waits.p99();
        unrelated
    }

    /// Sends requests during the fault. A request without an event is a finding, and so is a wait
    /// that exceeds the baseline by more than the bound.
    pub async fn send_during_fault(mut self, env: &TestEnv) -> (AuditResult, Latencies) {
        let requests = if full() { 3000 } else { 250 };
        let (unanswered, waits) = self.send(env, requests).await;
        println!("unrelated requests beside: {requests} asked, {waits}");
        let mut count = AuditResult {
            requests,
            ..AuditResult::default()
        };
        for id in unanswered {
            count.found(Finding::Unanswered, format!("no event for {id}"));
        }
        if waits.p99() > self.before + BOUND {
            let text = format!("unrelated requests wait too long: {waits}");
            count.found(Finding::Other, text);
        }
        (count, waits)
    }

    /// The correlation ids of those that are not answered, and how long the others waited.
    async fn send(&mut self, env: &TestEnv, count: usize) -> (Vec<String>, Latencies) {
        let mut requests = Vec::new();
        for _ in 0..count {
            let usage = env.usage(self.account, 20).await;
            requests.push(Request::revert(self.account, usage, 5));
        }
        let mut next = requests.into_iter();
        let (mut sent, mut waits) = (HashMap::new(), Vec::new());
        let mut ticks = interval(EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
        let mut deadline = Instant::now() + LAST;
        while waits.len() < count {
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
                    env.publish(&request).await;
                    deadline = Instant::now() + LAST;
                }
            }
        }
        (sent.into_keys().collect(), Latencies::new(waits))
    }
}
