//! Whether what was observed can have come about one request after another.
//!
//! Every outcome says where it stands among those of its usage: a success by its number, a refusal by what
//! it says remained, or by the earlier entry that it names. In that order the model must give exactly what
//! was observed, to the last value. Nothing is accepted because it would also have been plausible.

use std::collections::HashMap;

use serde_json::Value;
use uuid::Uuid;

use super::model::{Asked, Model, Policy, Verdict};
use super::observed::{Leg, Stored, Told, expected_event, expected_legs, texts, usage_of};
use super::report::{Count, Wrong};
use super::world::{Kind, World};

/// What was seen of requests; `events` are those of the request of the same index.
pub struct Observed<'a> {
    pub world: &'a World,
    pub asked: &'a [&'a Asked],
    pub events: &'a [Vec<Told>],
    pub outcomes: &'a [Stored],
    pub legs: &'a [Leg],
}

/// What came of the check.
pub struct Checked {
    pub count: Count,
    /// For each request, its place among those of its usage, where it has one.
    pub places: Vec<Option<usize>>,
}

/// One decision: a stored outcome, or a refusal that was told without being stored.
struct Op<'a> {
    asked: &'a Asked,
    /// All requests that are this one.
    copies: &'a [usize],
    stored: Option<&'a Stored>,
    events: Vec<(&'a Told, Value)>,
    at: String,
    verdict: Verdict,
}

/// Checks outcomes, events and entries against the model.
pub fn check(observed: &Observed<'_>) -> Checked {
    let mut count = Count::default();
    let mut copies: HashMap<&Asked, Vec<usize>> = HashMap::new();
    for (index, asked) in observed.asked.iter().enumerate() {
        copies.entry(asked).or_default().push(index);
    }
    let mut groups: Vec<_> = copies.iter().collect();
    groups.sort_by_key(|(_, indexes)| indexes[0]);
    let mut ops = operations(observed, &groups, &mut count);
    let order = serial_order(observed.world, &ops);
    let mut places = vec![None; observed.asked.len()];
    for (index, place) in &order {
        for copy in ops[*index].copies {
            places[*copy] = *place;
        }
    }
    let mut model = Model::new(observed.world);
    let mut ids: HashMap<String, (&Asked, String)> = HashMap::new();
    for (index, _) in order {
        let op = &mut ops[index];
        let expected = model.decide(op.asked, &op.at);
        if let Some(stored) = op.stored {
            let same = stored.answer == expected;
            let wrong = match stored.answer.verdict {
                Verdict::Applied(_) => Wrong::Twice,
                Verdict::Refused { .. } => Wrong::Differing,
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
            count.found(Wrong::Lost, text);
        }
        let answer = op.stored.map_or(&expected, |stored| &stored.answer);
        let (event, key) = expected_event(op.asked, answer);
        for (told, body) in &mut op.events {
            compare_event(op.asked, told, body, &event, &key, &mut count);
            let id = told_id(body);
            let mine = (op.asked, reason_of(&op.verdict));
            if *ids.entry(id.clone()).or_insert_with(|| mine.clone()) != mine {
                let text = format!("event {id} answers {:?}, and something else", op.asked);
                count.found(Wrong::Differing, text);
            }
        }
    }
    check_legs(observed, &ops, &mut count);
    Checked { count, places }
}

/// Every distinct request with what is stored of it, or what was told.
fn operations<'a>(
    observed: &Observed<'a>,
    groups: &[(&&'a Asked, &'a Vec<usize>)],
    count: &mut Count,
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
        let mut told: Vec<&Told> = copies
            .iter()
            .flat_map(|copy| &observed.events[*copy])
            .collect();
        told.sort_by(|one, other| one.body.cmp(&other.body));
        told.dedup();
        for more in outcomes.iter().skip(1) {
            count.found(
                Wrong::Twice,
                format!("{asked:?} has a second outcome: {more:?}"),
            );
        }
        if let Some(outcome) = outcomes.first() {
            if told.len() > 1 {
                count.found(
                    Wrong::Differing,
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
                count.found(Wrong::Lost, text);
                continue;
            };
            if event["type"] == "usage.revert.failed" {
                count.found(Wrong::Other, format!("{asked:?} was given up: {event}"));
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
            Wrong::Twice,
            format!("an outcome that nobody asked for: {outcome:?}"),
        );
    }
    ops
}

/// Indexes of the operations in an order in which they can have happened, with their places.
fn serial_order(world: &World, ops: &[Op<'_>]) -> Vec<(usize, Option<usize>)> {
    let mut given: HashMap<Uuid, i64> = HashMap::new();
    for posting in world.postings.values() {
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
    applied
        .values_mut()
        .for_each(|reverts| reverts.sort_unstable());
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
                let whole = world.postings.get(&usage)?.amount;
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

fn compare_event(
    asked: &Asked,
    told: &Told,
    body: &mut Value,
    expected: &Value,
    key: &str,
    count: &mut Count,
) {
    let id = told_id(body);
    let mut seen = body.clone();
    let top = seen.as_object_mut().and_then(|event| event.remove("id"));
    if let Some(error) = seen["data"].get_mut("error").and_then(Value::as_object_mut) {
        let said = error.remove("message");
        if said.is_none_or(|said| said.as_str().is_none_or(str::is_empty)) {
            count.found(Wrong::Differing, format!("event {id} says nothing"));
        }
    }
    let mut expected = expected.clone();
    if expected["data"]["error"]["details"][0]["reason"] == "INVALID_FIELD" {
        // The violations are told in words, and the contract does not say whether the event names an
        // account that the request did not.
        for event in [&mut seen, &mut expected] {
            if let Some(data) = event["data"].as_object_mut() {
                data.remove("org_id");
                data.remove("billing_id");
            }
            if let Some(bad) = event["data"]["error"]["details"][1].as_object_mut() {
                bad.remove("fieldViolations");
            }
        }
    } else if told.routing_key != key {
        let text = format!("event {id} came by {}, not {key}", told.routing_key);
        count.found(Wrong::Differing, text);
    }
    if seen != expected || top.is_none() {
        count.found(
            Wrong::Differing,
            format!("{asked:?} was told {seen}, not {expected}"),
        );
    }
}

/// Every applied revert has its two legs as Frontier would write them, and nothing else is there.
fn check_legs(observed: &Observed<'_>, ops: &[Op<'_>], count: &mut Count) {
    let mut there: HashMap<Uuid, &Leg> = observed.legs.iter().map(|leg| (leg.id, leg)).collect();
    let mut given: HashMap<Uuid, (i64, usize)> = HashMap::new();
    for leg in observed
        .legs
        .iter()
        .filter(|leg| leg.kind.as_deref() == Some("credit"))
    {
        if let Some(usage) = usage_of(leg) {
            let (total, times) = given.entry(usage).or_default();
            (*total, *times) = (*total + leg.amount, *times + 1);
        }
    }
    for op in ops {
        let (Some(stored), Verdict::Applied(revert)) = (op.stored, &op.verdict) else {
            continue;
        };
        let expected = expected_legs(observed.world, op.asked, &stored.answer, revert);
        for leg in expected.into_iter().flatten() {
            let found = there.remove(&leg.id);
            if found != Some(&leg) {
                count.found(Wrong::Twice, format!("a leg is {found:?}, not {leg:?}"));
            }
        }
    }
    for leg in there.values() {
        count.found(
            Wrong::Twice,
            format!("an entry without an outcome: {leg:?}"),
        );
    }
    for (usage, (total, times)) in given {
        let whole = observed
            .world
            .postings
            .get(&usage)
            .map_or(0, |posting| posting.amount);
        let once = observed.world.policy == Policy::Once;
        if total > whole || once && times > 1 {
            let text =
                format!("usage {usage} of {whole} was given back {times} times, {total} in all");
            count.found(Wrong::Twice, text);
        }
    }
}

fn json(told: &Told) -> Value {
    serde_json::from_slice(&told.body).unwrap_or_default()
}

fn told_id(event: &Value) -> String {
    event["id"].as_str().unwrap_or_default().to_owned()
}

fn reason_of(verdict: &Verdict) -> String {
    match verdict {
        Verdict::Applied(_) => String::new(),
        Verdict::Refused { reason, .. } => reason.clone(),
    }
}
