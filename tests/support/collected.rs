//! What was received of a load, compared with what was asked, what is stored and what the contract says.

use std::collections::{HashMap, HashSet};

use tokio_postgres::Client;

use super::Letter;
use super::compare::{compare_invalid, compare_reason};
use super::load::{Load, Nature};
use super::observed::{Told, legs, outcomes};
use super::report::{Count, Wrong};
use super::serializability::{Observed, check};

/// Everything that came out of the queues.
#[derive(Default)]
pub struct Collected {
    /// Events by correlation id, each once.
    pub events: HashMap<String, Vec<Told>>,
    pub dead: HashMap<String, Vec<Letter>>,
    /// What was found on the way.
    pub count: Count,
}

impl Collected {
    /// Compares with the model, and with what the database holds.
    pub async fn compare_with_model(&self, load: &Load, db: &Client) -> Count {
        let mut count = self.count.clone();
        count.requests = load.requests.len();
        let none = Vec::new();
        let (mut asked, mut events) = (Vec::new(), Vec::new());
        for sent in &load.requests {
            let correlation = sent.request.correlation();
            let told = self.events.get(&correlation).unwrap_or(&none);
            let dead = self.dead.contains_key(&correlation);
            match &sent.nature {
                Nature::Asked(request) => {
                    asked.push(request);
                    events.push(told.clone());
                }
                Nature::Invalid(fields) => {
                    for told in told {
                        compare_invalid(told, fields, &mut count);
                    }
                }
                Nature::Malformed | Nature::Unread => {
                    let reason = if sent.nature == Nature::Unread {
                        "RETRIES_EXHAUSTED"
                    } else {
                        "MALFORMED_REQUEST"
                    };
                    for told in told {
                        compare_reason(told, "usage.revert.failed", reason, &mut count);
                    }
                    let kept = self.dead.get(&correlation).is_some_and(|letters| {
                        letters.iter().all(|letter| {
                            letter.body == sent.request.body
                                && letter.text_header("x-error-reason").as_deref() == Some(reason)
                        })
                    });
                    if !kept {
                        let text = format!("{correlation} is {reason}, and no such dead letter");
                        count.found(Wrong::Lost, text);
                    }
                }
            }
            if dead && !sent.nature.is_dead_lettered() {
                let text = format!("{:?} is in the dead-letter queue", sent.nature);
                count.found(Wrong::Other, text);
            }
            if told.is_empty() {
                let text = format!("{correlation}: {:?}", sent.nature);
                if matches!(sent.nature, Nature::Invalid(_)) && !dead {
                    count.found(Wrong::Lost, text.clone());
                }
                count.found(Wrong::Unanswered, text);
            }
        }
        let (outcomes, legs) = (outcomes(db, &load.ledger).await, legs(db, &load.ledger).await);
        let stored: HashSet<_> = outcomes
            .iter()
            .map(|outcome| (&outcome.message_id, outcome.usage, outcome.amount))
            .collect();
        for (request, told) in asked.iter().zip(&events) {
            let content = &request.content;
            let is_stored = stored.contains(&(&request.message_id, content.usage, content.amount));
            if told.is_empty() && !is_stored {
                count.found(Wrong::Lost, format!("{request:?}"));
            }
        }
        let observed = Observed {
            ledger: &load.ledger,
            asked: &asked,
            events: &events,
            outcomes: &outcomes,
            legs: &legs,
        };
        count += check(&observed).count;
        let ours: HashSet<_> = load
            .requests
            .iter()
            .map(|sent| sent.request.correlation())
            .collect();
        let received = self.events.keys().chain(self.dead.keys());
        for stranger in received.filter(|id| !ours.contains(*id)) {
            let text = format!("an event or dead letter that nobody asked for: {stranger}");
            count.found(Wrong::Other, text);
        }
        count
    }
}
