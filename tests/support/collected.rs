//! Compares the messages received for a load with the requests, the stored outcomes and the model.

use std::collections::{HashMap, HashSet};

use tokio_postgres::Client;

use super::Message;
use super::compare::{compare_invalid, compare_reason};
use super::load::{Load, RequestKind, Sent};
use super::observed::{ObservedEvent, legs, outcomes};
use super::report::{AuditResult, Finding};
use super::serializability::{Observed, check};

/// Everything that came out of the queues.
#[derive(Default)]
pub struct Collected {
    /// Events by their keys ([`event_key`](super::load::event_key)), each once.
    pub events: HashMap<String, Vec<ObservedEvent>>,
    pub dead: HashMap<String, Vec<Message>>,
    /// The findings so far.
    pub count: AuditResult,
}

impl Collected {
    /// Adds an event once, however often it came. To revertd's own queue alone, an event comes
    /// under the name of the queue.
    pub fn add_event(&mut self, key: String, told: ObservedEvent, own_queue: &String) {
        let known = self.events.entry(key).or_default();
        let same = known.iter_mut().find(|known| known.body == told.body);
        match same {
            Some(known) if known.routing_key == *own_queue => *known = told,
            Some(known) if [&known.routing_key, own_queue].contains(&&told.routing_key) => {}
            Some(_) | None => known.push(told),
        }
    }

    /// Compares with the model, and with the database.
    pub async fn compare_with_model(&self, load: &Load, db: &Client) -> AuditResult {
        let mut count = self.count.clone();
        let none = Vec::new();
        let (mut asked, mut events, mut groups) = (Vec::new(), Vec::new(), Vec::new());
        for sent in &load.requests {
            if let RequestKind::Group(group) = &sent.kind {
                groups.extend(group.atomic.then_some(group));
            }
            let is_dead = self.dead.contains_key(&sent.request.correlation());
            for (key, kind) in sent.parts() {
                count.requests += 1;
                let told = self.events.get(&key).unwrap_or(&none);
                if let RequestKind::Valid(request) = kind {
                    asked.push(request);
                    events.push(told.clone());
                } else {
                    self.compare_unread(sent, kind, told, &mut count);
                }
                if is_dead && !kind.is_dead_lettered() {
                    let text = format!("{kind:?} is in the dead-letter queue");
                    count.found(Finding::Other, text);
                }
                if told.is_empty() {
                    let text = format!("{key}: {kind:?}");
                    if matches!(kind, RequestKind::Invalid(_)) && !is_dead {
                        count.found(Finding::Lost, text.clone());
                    }
                    count.found(Finding::Unanswered, text);
                }
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
            groups: &groups,
            events: &events,
            outcomes: &outcomes,
            legs: &legs,
        };
        count += check(&observed).count;
        let messages = load.requests.iter();
        let (sent, parts): (HashSet<_>, Vec<_>) = messages
            .map(|sent| (sent.request.correlation(), sent.parts()))
            .unzip();
        let keys: HashSet<_> = parts.into_iter().flatten().map(|(key, _)| key).collect();
        let told = self.events.keys().filter(|key| !keys.contains(*key));
        let dead = self.dead.keys().filter(|id| !sent.contains(*id));
        for stranger in told.chain(dead) {
            let text = format!("an event or dead letter that nobody asked for: {stranger}");
            count.found(Finding::Other, text);
        }
        count
    }

    /// Compares the events, and the dead letter, of a request that is not decided by the ledger.
    fn compare_unread(
        &self,
        sent: &Sent,
        kind: &RequestKind,
        told: &[ObservedEvent],
        count: &mut AuditResult,
    ) {
        let reason = match kind {
            RequestKind::Valid(_) | RequestKind::Group(_) => return,
            RequestKind::Invalid(fields) => {
                for told in told {
                    compare_invalid(told, fields, count);
                }
                return;
            }
            RequestKind::Malformed => "MALFORMED_REQUEST",
            RequestKind::CrashesWorker => "RETRIES_EXHAUSTED",
        };
        for told in told {
            compare_reason(told, "usage.revert.failed", reason, count);
        }
        let correlation = sent.request.correlation();
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
