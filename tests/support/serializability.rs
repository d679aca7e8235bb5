//! Checks whether the observed outcomes can result from one request after another.
//!
//! Every outcome says where it stands among those of its usage: a success by its number, a refusal
//! by the remaining amount or the earlier entry that it names. In that order the model must give
//! exactly the observed values. [`AtomicGroups`] checks atomic groups across their usages.

use std::collections::HashMap;

use serde_json::Value;
use uuid::Uuid;

use super::atomic_groups::AtomicGroups;
use super::compare::{compare_event, compare_legs, told_id};
use super::expected::{expected_event, expected_legs};
use super::initial_ledger::{InitialLedger, Kind};
use super::load::SentGroup;
use super::model::{Model, ValidRequest, Verdict};
use super::observed::{Leg, ObservedEvent, Stored, texts};
use super::report::{AuditResult, Finding};

/// The observed results of requests; `events` are those of the request of the same index. A request
/// of an atomic group is among `asked`, too.
pub struct Observed<'a> {
    pub ledger: &'a InitialLedger,
    pub asked: &'a [&'a ValidRequest],
    pub groups: &'a [&'a SentGroup],
    pub events: &'a [Vec<ObservedEvent>],
    pub outcomes: &'a [Stored],
    pub legs: &'a [Leg],
}

/// The result of the check.
pub struct Checked {
    pub count: AuditResult,
    /// For each request, its place among those of its usage, where it has one.
    pub places: Vec<Option<usize>>,
}

/// One decision: a stored outcome, or a refusal that was published and not stored.
struct Op<'a> {
    asked: &'a ValidRequest,
    /// All requests that are this one.
    copies: &'a [usize],
    stored: Option<&'a Stored>,
    events: Vec<(&'a ObservedEvent, Value)>,
    at: String,
    verdict: Verdict,
}

/// Checks outcomes, events and entries against the model.
pub fn check(observed: &Observed<'_>) -> Checked {
    let mut count = AuditResult::default();
    let mut copies: HashMap<&ValidRequest, Vec<usize>> = HashMap::new();
    for (index, asked) in observed.asked.iter().enumerate() {
        copies.entry(asked).or_default().push(index);
    }
    let mut groups: Vec<_> = copies.iter().collect();
    groups.sort_by_key(|(_, indexes)| indexes[0]);
    let mut ops = operations(observed, &groups, &mut count);
    let order = serial_order(observed.ledger, &ops);
    let mut places = vec![None; observed.asked.len()];
    for (index, place) in &order {
        for copy in ops[*index].copies {
            places[*copy] = *place;
        }
    }
    let mut model = Model::new(observed.ledger);
    let sent = |asked: &ValidRequest| copies[asked].len();
    let mut atomic = AtomicGroups::new(observed.groups, &model);
    for op in &ops {
        atomic.add(op.asked, &op.verdict);
    }
    atomic.compare(sent, &mut count);
    let mut ids: HashMap<String, (&ValidRequest, String)> = HashMap::new();
    for (index, _) in order {
        let op = &mut ops[index];
        let group_refusal = atomic.refusal(op.asked, &op.verdict);
        let expected = model.decide(op.asked, &op.at, group_refusal.as_ref());
        if let Some(stored) = op.stored {
            let same = stored.answer == expected;
            let wrong = match stored.answer.verdict {
                Verdict::Applied(_) => Finding::Twice,
                Verdict::Refused { .. } => Finding::Differing,
            };
            if !same {
                let text = format!(
                    "{:?} is stored as {:?}, not {expected:?}",
                    op.asked, stored.answer
                );
                count.found(wrong, text);
            }
        } else if expected.stored {
            let text = format!(
                "{:?} was told {:?}, and nothing is stored",
                op.asked, op.verdict
            );
            count.found(Finding::Lost, text);
        }
        let answer = op.stored.map_or(&expected, |stored| &stored.answer);
        let (event, key) = expected_event(op.asked, answer);
        for (told, body) in &mut op.events {
            compare_event(op.asked, told, body, &event, &key, &mut count);
            let id = told_id(body);
            let mine = (op.asked, reason_of(&op.verdict));
            if *ids.entry(id.clone()).or_insert_with(|| mine.clone()) != mine {
                let text = format!("event {id} answers {:?}, and something else", op.asked);
                count.found(Finding::Differing, text);
            }
        }
    }
    let applied = ops.iter().filter_map(|op| match (&op.verdict, op.stored) {
        (Verdict::Applied(revert), Some(stored)) => {
            expected_legs(observed.ledger, op.asked, &stored.answer, revert)
        }
        _ => None,
    });
    compare_legs(
        observed.ledger,
        observed.legs,
        applied.flatten(),
        &mut count,
    );
    Checked { count, places }
}

/// Every distinct request with its stored outcome or its event.
fn operations<'a>(
    observed: &Observed<'a>,
    groups: &[(&&'a ValidRequest, &'a Vec<usize>)],
    count: &mut AuditResult,
) -> Vec<Op<'a>> {
    let mut stored: HashMap<_, Vec<&Stored>> = HashMap::new();
    for outcome in observed.outcomes {
        let key = (
            &outcome.client,
            &outcome.message_id,
            outcome.usage,
            outcome.amount,
            &outcome.reason,
        );
        stored.entry(key).or_default().push(outcome);
    }
    let mut ops = Vec::with_capacity(groups.len());
    for (asked, copies) in groups {
        let content = &asked.content;
        let key = (
            &asked.client,
            &asked.message_id,
            content.usage,
            content.amount,
            &content.reason,
        );
        let outcomes = stored.remove(&key).unwrap_or_default();
        let mut told: Vec<&ObservedEvent> = copies
            .iter()
            .flat_map(|copy| &observed.events[*copy])
            .collect();
        told.sort_by(|one, other| one.body.cmp(&other.body));
        told.dedup();
        for more in outcomes.iter().skip(1) {
            count.found(
                Finding::Twice,
                format!("{asked:?} has a second outcome: {more:?}"),
            );
        }
        if let Some(outcome) = outcomes.first() {
            if told.len() > 1 {
                count.found(
                    Finding::Differing,
                    format!("{asked:?} has {} events", told.len()),
                );
            }
            ops.push(Op {
                asked,
                copies,
                stored: Some(outcome),
                events: told.iter().map(|told| (*told, json(told))).collect(),
                at: outcome.answer.at.clone(),
                verdict: outcome.answer.verdict.clone(),
            });
            continue;
        }
        for told in told {
            let event = json(told);
            let error = &event["data"]["error"]["details"][0];
            let (at, reason) = (event["time"].as_str(), error["reason"].as_str());
            let (Some(at), Some(reason)) = (at, reason) else {
                let text = format!("{asked:?} was told {event}, and nothing is stored");
                count.found(Finding::Lost, text);
                continue;
            };
            if event["type"] == "usage.revert.failed" {
                count.found(Finding::Other, format!("{asked:?} was given up: {event}"));
                continue;
            }
            ops.push(Op {
                asked,
                copies,
                stored: None,
                at: at.to_owned(),
                verdict: Verdict::Refused {
                    reason: reason.to_owned(),
                    metadata: texts(&error["metadata"]),
                },
                events: vec![(told, event)],
            });
        }
    }
    for outcome in stored.values().flatten() {
        count.found(
            Finding::Twice,
            format!("an outcome that nobody asked for: {outcome:?}"),
        );
    }
    ops
}

/// Indexes of the operations in an order in which they can have happened, with their places.
fn serial_order(ledger: &InitialLedger, ops: &[Op<'_>]) -> Vec<(usize, Option<usize>)> {
    let mut given: HashMap<Uuid, i64> = HashMap::new();
    for posting in ledger.postings.values() {
        if let Kind::Revert { of, .. } = posting.kind {
            *given.entry(of).or_default() += posting.amount;
        }
    }
    let mut applied: HashMap<Uuid, Vec<(i32, i64)>> = HashMap::new();
    for op in ops {
        if let Verdict::Applied(revert) = &op.verdict {
            let content = &op.asked.content;
            let reverts = applied.entry(content.usage).or_default();
            reverts.push((revert.number, content.amount));
        }
    }
    for reverts in applied.values_mut() {
        reverts.sort_unstable();
    }
    let place = |op: &Op<'_>| -> Option<usize> {
        let usage = op.asked.content.usage;
        let reverts = applied.get(&usage).map_or(&[][..], Vec::as_slice);
        let (reason, metadata) = match &op.verdict {
            Verdict::Applied(revert) => {
                return Some(2 * usize::try_from(revert.number).unwrap_or(0) + 1);
            }
            Verdict::Refused { reason, metadata } => (reason.as_str(), metadata),
        };
        match reason {
            "ALREADY_REVERTED" => Some(2 * reverts.len()),
            "AMOUNT_EXCEEDS_USAGE" => {
                let whole = ledger.postings.get(&usage)?.amount;
                let mut left = whole - given.get(&usage).copied().unwrap_or(0);
                let remaining: i64 = metadata.get("remaining")?.parse().ok()?;
                let mut lefts = vec![left.max(0)];
                for (_, amount) in reverts {
                    left -= amount;
                    lefts.push(left.max(0));
                }
                Some(2 * lefts.iter().position(|left| *left == remaining)?)
            }
            _ => None,
        }
    };
    let mut order: Vec<_> = ops
        .iter()
        .enumerate()
        .map(|(index, op)| (index, place(op)))
        .collect();
    // Who owns an id comes before those who use it again; between usages nothing else is shared.
    let reuses = |index: usize| reason_of(&ops[index].verdict) == "REQUEST_ID_REUSED";
    order.sort_by_key(|(index, place)| {
        (
            reuses(*index),
            ops[*index].asked.content.usage,
            *place,
            *index,
        )
    });
    order
}

fn json(told: &ObservedEvent) -> Value {
    serde_json::from_slice(&told.body).unwrap_or_default()
}

fn reason_of(verdict: &Verdict) -> String {
    verdict.reason().unwrap_or_default().to_owned()
}
