//! Compares observed with expected values.

use std::collections::HashMap;

use serde_json::Value;
use uuid::Uuid;

use super::initial_ledger::InitialLedger;
use super::model::{Policy, ValidRequest};
use super::observed::{Leg, ObservedEvent, usage_of};
use super::report::{AuditResult, Finding};

/// Compares an event, except its id and the words of an error.
pub fn compare_event(
    asked: &ValidRequest,
    told: &ObservedEvent,
    body: &mut Value,
    expected: &Value,
    key: &str,
    count: &mut AuditResult,
) {
    let id = told_id(body);
    let mut seen = body.clone();
    let top = seen.as_object_mut().and_then(|event| event.remove("id"));
    if let Some(error) = seen["data"].get_mut("error").and_then(Value::as_object_mut) {
        let said = error.remove("message");
        if said.is_none_or(|said| said.as_str().is_none_or(str::is_empty)) {
            count.found(Finding::Differing, format!("event {id} says nothing"));
        }
    }
    let mut expected = expected.clone();
    if expected["data"]["error"]["details"][0]["reason"] == "INVALID_FIELD" {
        // The violations are free text, and the contract does not say whether the event names an
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
        count.found(Finding::Differing, text);
    }
    if seen != expected || top.is_none() {
        count.found(
            Finding::Differing,
            format!("{asked:?} was told {seen}, not {expected}"),
        );
    }
}

/// Every applied revert has its two legs as Frontier would write them, and nothing else is there.
pub fn compare_legs(
    ledger: &InitialLedger,
    legs: &[Leg],
    expected: impl Iterator<Item = Leg>,
    count: &mut AuditResult,
) {
    let mut there: HashMap<Uuid, &Leg> = legs.iter().map(|leg| (leg.id, leg)).collect();
    for leg in expected {
        let found = there.remove(&leg.id);
        if found != Some(&leg) {
            count.found(Finding::Twice, format!("a leg is {found:?}, not {leg:?}"));
        }
    }
    for leg in there.values() {
        count.found(
            Finding::Twice,
            format!("an entry without an outcome: {leg:?}"),
        );
    }
    let mut given: HashMap<Uuid, (i64, usize)> = HashMap::new();
    let credits = legs
        .iter()
        .filter(|leg| leg.kind.as_deref() == Some("credit"));
    for leg in credits {
        if let Some(usage) = usage_of(leg) {
            let (total, times) = given.entry(usage).or_default();
            (*total, *times) = (*total + leg.amount, *times + 1);
        }
    }
    for (usage, (total, times)) in given {
        let whole = ledger
            .postings
            .get(&usage)
            .map_or(0, |posting| posting.amount);
        let once = ledger.policy == Policy::Once;
        if total > whole || once && times > 1 {
            let text =
                format!("usage {usage} of {whole} was given back {times} times, {total} in all");
            count.found(Finding::Twice, text);
        }
    }
}

/// Row 3: the fields are named, each once or more.
pub fn compare_invalid(told: &ObservedEvent, fields: &[&str], count: &mut AuditResult) {
    let event = compare_reason(told, "usage.revert.rejected", "INVALID_FIELD", count);
    let violations = event["data"]["error"]["details"][1]["fieldViolations"].as_array();
    let mut named: Vec<_> = violations
        .into_iter()
        .flatten()
        .filter_map(|violation| violation["field"].as_str())
        .collect();
    named.dedup();
    if named != fields {
        count.found(
            Finding::Differing,
            format!("{event} names {named:?}, not {fields:?}"),
        );
    }
}

pub fn compare_reason(
    told: &ObservedEvent,
    kind: &str,
    reason: &str,
    count: &mut AuditResult,
) -> Value {
    let event: Value = serde_json::from_slice(&told.body).unwrap_or_default();
    let error = &event["data"]["error"];
    let seen = (
        &event["type"],
        &error["code"],
        &error["details"][0]["reason"],
    );
    let code = if reason == "RETRIES_EXHAUSTED" { 13 } else { 3 };
    if seen != (&kind.into(), &code.into(), &reason.into()) {
        count.found(Finding::Differing, format!("{event} is not {reason}"));
    }
    event
}

/// The id of an event.
pub fn told_id(event: &Value) -> String {
    event["id"].as_str().unwrap_or_default().to_owned()
}
