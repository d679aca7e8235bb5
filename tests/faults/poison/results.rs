//! Collects how each poison message ended, and compares that with how it must end.

use std::collections::{BTreeSet, HashMap};

use serde_json::Value;
use uuid::Uuid;

use super::PoisonLoad;
use super::bodies::asks_for;
use super::messages::ExpectedEnd;
use crate::support::TestEnv;
use crate::support::raw::RawMessage;
use crate::support::report::{AuditResult, Finding};

/// The results of all messages, indexed by their numbers.
pub struct PoisonResults {
    expected: Vec<ExpectedEnd>,
    seen: Vec<Seen>,
}

/// The results of one message.
#[derive(Clone, Debug, Default)]
struct Seen {
    /// Events: id, and type or reason; each once.
    told: BTreeSet<(String, String)>,
    /// The usage and the amount of a revert, as its event says.
    reverted: Option<(Uuid, i64)>,
    /// Dead letters by the worker, which bear a reason.
    given_up: usize,
    /// Dead letters by the broker.
    removed: usize,
}

impl Seen {
    fn failed(&self) -> bool {
        let failures = ["MALFORMED_REQUEST", "RETRIES_EXHAUSTED"];
        let mut reasons = self.told.iter().map(|(_, reason)| reason.as_str());
        reasons.any(|reason| failures.contains(&reason))
    }

    fn is_settled(&self, expected: ExpectedEnd) -> bool {
        let answered = !self.told.is_empty() && (!self.failed() || self.given_up > 0);
        match expected {
            ExpectedEnd::Answered => answered,
            ExpectedEnd::AnsweredOrExpired => answered || self.removed > 0,
            ExpectedEnd::Unreadable => self.removed > 0,
        }
    }
}

impl PoisonResults {
    pub fn new(poison: &PoisonLoad) -> Self {
        let mut generator = poison.generator();
        let expected: Vec<_> = (0..poison.count)
            .map(|number| generator.generate(number).expected)
            .collect();
        Self {
            seen: vec![Seen::default(); expected.len()],
            expected,
        }
    }

    /// An event.
    pub fn add_event(&mut self, number: usize, message: &RawMessage) {
        let event: Value = serde_json::from_slice(&message.body).expect("events are JSON");
        let reason = &event["data"]["error"]["details"][0]["reason"];
        let kind = reason.as_str().or(event["type"].as_str()).expect("a type");
        let id = event["id"].as_str().expect("an id");
        let seen = &mut self.seen[number];
        seen.told.insert((id.to_owned(), kind.to_owned()));
        if kind == "usage.reverted" {
            let text = |field: &str| event["data"][field].as_str().expect("a text");
            let usage = text("usage_id").parse().expect("a UUID");
            seen.reverted = Some((usage, text("amount").parse().expect("a number")));
        }
    }

    /// A dead letter.
    pub fn add_dead_letter(&mut self, number: usize, message: &RawMessage) {
        let seen = &mut self.seen[number];
        if self.expected[number] != ExpectedEnd::Unreadable
            && message.headers_contain(b"x-first-attempt-at")
        {
            seen.given_up += 1;
        } else {
            seen.removed += 1;
        }
    }

    /// The number of messages seen so far.
    pub fn received(&self) -> usize {
        let all = self.seen.iter();
        all.map(|seen| seen.told.len() + seen.given_up + seen.removed)
            .sum()
    }

    pub fn settled(&self) -> bool {
        self.unsettled().is_empty()
    }

    pub fn unsettled(&self) -> Vec<usize> {
        let of = |number: &usize| !self.seen[*number].is_settled(self.expected[*number]);
        (0..self.expected.len()).filter(of).collect()
    }

    /// Compares the results with the allowed ones, and with the ledger.
    pub async fn compare(&self, env: &TestEnv, poison: &PoisonLoad) -> AuditResult {
        let mut count = AuditResult {
            requests: poison.count,
            ..AuditResult::default()
        };
        let mut generator = poison.generator();
        for (number, seen) in self.seen.iter().enumerate() {
            let message = generator.generate(number);
            let mut found = |wrong, what: &str| {
                let body: String = String::from_utf8_lossy(&message.body)
                    .chars()
                    .take(300)
                    .collect();
                let text = format!(
                    "poison {number} {what}: {:?}, {seen:?}: {body}",
                    message.expected
                );
                count.found(wrong, text);
            };
            if !seen.is_settled(message.expected) {
                let gone = seen.told.is_empty() && seen.given_up + seen.removed == 0;
                let wrong = if gone {
                    Finding::Lost
                } else {
                    Finding::Unanswered
                };
                found(wrong, "did not end where it belongs");
            }
            // A redelivered message with a forged delivery count harms only itself.
            let forged = message.forges_a_count();
            if seen.told.len() > 1 && message.is_named && !forged {
                found(Finding::Differing, "was told in several ways");
            }
            if message.expected == ExpectedEnd::Answered && seen.removed > 0 {
                found(Finding::Other, "was removed by the broker, and can be read");
            }
            if seen.given_up > 0 && !seen.failed() {
                found(
                    Finding::Other,
                    "is a dead letter, and its event does not say so",
                );
            }
            if message.expected == ExpectedEnd::Unreadable && !seen.told.is_empty() {
                found(Finding::Other, "was answered, and can't be read");
            }
            let mut reasons = seen.told.iter().map(|(_, reason)| reason);
            let given_up = reasons.any(|reason| reason == "RETRIES_EXHAUSTED");
            if given_up && !forged {
                found(Finding::Other, "was given up for the sake of others");
            }
            if seen.reverted.is_some() && seen.reverted != asks_for(&message.body) {
                found(Finding::Twice, "was granted what it did not ask for");
            }
        }
        self.compare_ledger(env, poison, &mut count).await;
        count
    }

    /// Each usage of the poison's account is given back as its events say, and once.
    async fn compare_ledger(&self, env: &TestEnv, poison: &PoisonLoad, count: &mut AuditResult) {
        let granted = self.seen.iter().filter_map(|seen| seen.reverted);
        // Several events may be about one request, which another message with its id repeats.
        let granted: HashMap<_, _> = granted.collect();
        let condition = format!(
            "account_id = '{}' AND metadata ? 'revert_request_using'",
            poison.account
        );
        let mut written = HashMap::new();
        for row in env.rows(&condition).await {
            let usage = row.metadata["revert_request_using"].as_str();
            let usage: Uuid = usage.expect("a text").parse().expect("a UUID");
            if written.insert(usage, row.amount).is_some() {
                count.found(Finding::Twice, format!("usage {usage} of the poison"));
            }
        }
        if written != granted {
            let text = format!("the ledger has {written:?}, the events tell {granted:?}");
            count.found(Finding::Differing, text);
        }
        let legs = env
            .count(&format!(
                "SELECT count(*) FROM revertd.outcomes o \
                 JOIN billing_transactions c ON c.id = o.transaction_id AND c.amount = o.amount \
                 JOIN billing_transactions p ON p.id = o.platform_transaction_id AND p.amount = \
                 o.amount \
                 WHERE o.account_id = '{}'",
                poison.account
            ))
            .await;
        if usize::try_from(legs).expect("a count") != written.len() {
            let text = format!("{legs} reverts with both legs, of {}", written.len());
            count.found(Finding::Differing, text);
        }
    }
}
