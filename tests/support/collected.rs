//! Compares the messages received for a load with the requests, the stored outcomes and the model.

use std::collections::{HashMap, HashSet};

use tokio_postgres::Client;

use super::Message;
use super::compare::{compare_invalid, compare_reason};
use super::load::{Load, RequestKind};
use super::observed::{ObservedEvent, legs, outcomes};
use super::report::{AuditResult, Finding};
use super::serializability::{Observed, check};

/// Everything that came out of the queues.
#[derive(Default)]
pub struct Collected {
    /// Events by correlation id, each once.
    pub events: HashMap<String, Vec<ObservedEvent>>,
    pub dead: HashMap<String, Vec<Message>>,
    /// The findings so far.
    pub count: AuditResult,
}

impl Collected {
    /// Compares with the model, and with the database.
    pub async fn compare_with_model(&self, load: &Load, db: &Client) -> AuditResult {
        let mut count = self.count.clone();
        count.requests = load.requests.len();
        let none = Vec::new();
        let (mut asked, mut events) = (Vec::new(), Vec::new());
        for sent in &load.requests {
            let correlation = sent.request.correlation();
            let told = self.events.get(&correlation).unwrap_or(&none);
            let dead = self.dead.contains_key(&correlation);
            match &sent.kind {
                RequestKind::Valid(request) => {
                    asked.push(request);
                    events.push(told.clone());
                }
                RequestKind::Invalid(fields) => {
                    for told in told {
                        compare_invalid(told, fields, &mut count);
                    }
                }
                RequestKind::Malformed | RequestKind::CrashesWorker => {
                    let reason = if sent.kind == RequestKind::CrashesWorker {
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
                        count.found(Finding::Lost, text);
                    }
                }
            }
            if dead && !sent.kind.is_dead_lettered() {
                let text = format!("{:?} is in the dead-letter queue", sent.kind);
                count.found(Finding::Other, text);
            }
            if told.is_empty() {
                let text = format!("{correlation}: {:?}", sent.kind);
                if matches!(sent.kind, RequestKind::Invalid(_)) && !dead {
                    count.found(Finding::Lost, text.clone());
                }
                count.found(Finding::Unanswered, text);
            }
        }
        let (outcomes, legs) = (
            outcomes(db, &load.ledger).await,
            legs(db, &load.ledger).await,
        );
        let stored: HashSet<_> = outcomes
            .iter()
            .map(|outcome| (&outcome.message_id, outcome.usage, outcome.amount))
            .collect();
        for (request, told) in asked.iter().zip(&events) {
            let content = &request.content;
            let is_stored = stored.contains(&(&request.message_id, content.usage, content.amount));
            if told.is_empty() && !is_stored {
                count.found(Finding::Lost, format!("{request:?}"));
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
            count.found(Finding::Other, text);
        }
        count
    }
}
