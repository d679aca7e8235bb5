//! What became of each poisonous message, and whether that is right.

use std::collections::{BTreeSet, HashMap};

use serde_json::Value;
use uuid::Uuid;

use super::Poisoning;
use super::bodies::asks_for;
use super::messages::Fate;
use crate::support::TestEnv;
use crate::support::raw::RawMessage;
use crate::support::report::{AuditResult, Finding};

/// What was seen of all messages, by their numbers.
pub struct Verdicts {
    fates: Vec<Fate>,
    seen: Vec<Seen>,
}

/// What was seen of one.
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

    fn is_settled(&self, fate: Fate) -> bool {
        let answered = !self.told.is_empty() && (!self.failed() || self.given_up > 0);
        match fate {
            Fate::Answered => answered,
            Fate::AnsweredOrExpired => answered || self.removed > 0,
            Fate::Unreadable => self.removed > 0,
        }
    }
}

impl Verdicts {
    pub fn new(poison: &Poisoning) -> Self {
        let mut brewery = poison.brewery();
        let fates: Vec<_> = (0..poison.count)
            .map(|number| brewery.brew(number).fate)
            .collect();
        Self {
            seen: vec![Seen::default(); fates.len()],
            fates,
        }
    }

    /// An event.
    pub fn told(&mut self, number: usize, message: &RawMessage) {
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
    pub fn dead(&mut self, number: usize, message: &RawMessage) {
        let seen = &mut self.seen[number];
        if self.fates[number] != Fate::Unreadable && message.headers_contain(b"x-first-attempt-at")
        {
            seen.given_up += 1;
        } else {
            seen.removed += 1;
        }
    }

    /// How much was seen, to tell whether more comes.
    pub fn came(&self) -> usize {
        let all = self.seen.iter();
        all.map(|seen| seen.told.len() + seen.given_up + seen.removed)
            .sum()
    }

    pub fn settled(&self) -> bool {
        self.unsettled().is_empty()
    }

    pub fn unsettled(&self) -> Vec<usize> {
        let of = |number: &usize| !self.seen[*number].is_settled(self.fates[*number]);
        (0..self.fates.len()).filter(of).collect()
    }

    /// Compares what was seen with what may be, and with the ledger.
    pub async fn judge(&self, env: &TestEnv, poison: &Poisoning) -> AuditResult {
        let mut count = AuditResult {
            requests: poison.count,
            ..AuditResult::default()
        };
        let mut brewery = poison.brewery();
        for (number, seen) in self.seen.iter().enumerate() {
            let drawn = brewery.brew(number);
            let mut found = |wrong, what: &str| {
                let body: String = String::from_utf8_lossy(&drawn.body)
                    .chars()
                    .take(300)
                    .collect();
                let text = format!("poison {number} {what}: {:?}, {seen:?}: {body}", drawn.fate);
                count.found(wrong, text);
            };
            if !seen.is_settled(drawn.fate) {
                let gone = seen.told.is_empty() && seen.given_up + seen.removed == 0;
                let wrong = if gone { Finding::Lost } else { Finding::Unanswered };
                found(wrong, "did not end where it belongs");
            }
            // Once redelivered, it may be taken at the word of a count that it forged: it harms itself alone.
            let forged = drawn.forges_a_count();
            if seen.told.len() > 1 && drawn.is_named && !forged {
                found(Finding::Differing, "was told in several ways");
            }
            if drawn.fate == Fate::Answered && seen.removed > 0 {
                found(Finding::Other, "was removed by the broker, and can be read");
            }
            if seen.given_up > 0 && !seen.failed() {
                found(
                    Finding::Other,
                    "is a dead letter, and its event does not say so",
                );
            }
            if drawn.fate == Fate::Unreadable && !seen.told.is_empty() {
                found(Finding::Other, "was answered, and can't be read");
            }
            let mut reasons = seen.told.iter().map(|(_, reason)| reason);
            let given_up = reasons.any(|reason| reason == "RETRIES_EXHAUSTED");
            if given_up && !forged {
                found(Finding::Other, "was given up for the sake of others");
            }
            if seen.reverted.is_some() && seen.reverted != asks_for(&drawn.body) {
                found(Finding::Twice, "was granted what it did not ask for");
            }
        }
        self.compare_ledger(env, poison, &mut count).await;
        count
    }

    /// Each usage of the poison's account is given back as its events say, and once.
    async fn compare_ledger(&self, env: &TestEnv, poison: &Poisoning, count: &mut AuditResult) {
        let granted = self.seen.iter().filter_map(|seen| seen.reverted);
        // The same request may be told several times, as that of another message with its id.
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
                 JOIN billing_transactions p ON p.id = o.platform_transaction_id AND p.amount = o.amount \
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
