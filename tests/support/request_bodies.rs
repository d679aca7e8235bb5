//! Encodes a content in one of the many equal spellings, and makes bodies that break a rule.

use rand::RngExt;
use rand::rngs::StdRng;
use serde_json::Value;
use uuid::Uuid;

use super::model::Content;

/// A body that says `content`, plainly three times in four.
pub fn encode(content: &Content, rng: &mut StdRng) -> Vec<u8> {
    let plain = rng.random_ratio(3, 4);
    let mut pairs = vec![
        (
            key("usage_id", "usageId", plain, rng),
            id(content.usage, plain, rng),
        ),
        ("amount", amount(content.amount, plain, rng)),
    ];
    for (snake, camel, value) in [
        ("billing_id", "billingId", content.billing),
        ("org_id", "orgId", content.org),
        ("project_id", "projectId", content.project),
    ] {
        if let Some(value) = value {
            pairs.push((key(snake, camel, plain, rng), id(value, plain, rng)));
        } else if !plain && rng.random_ratio(1, 4) {
            // Absent, in other words.
            let absent = if rng.random() { "null" } else { "\"\"" };
            pairs.push((key(snake, camel, plain, rng), absent.into()));
        }
    }
    if let Some(reason) = &content.reason {
        pairs.push(("reason", Value::from(reason.as_str()).to_string()));
    }
    if !plain {
        if rng.random() {
            pairs.push(("trace", r#"{"deep": [1, {"usage_id": 2}]}"#.into()));
        }
        let start = rng.random_range(0..pairs.len());
        pairs.rotate_left(start);
    }
    object(&pairs, if plain { "" } else { "\n " })
}

/// A body that breaks a rule of the fields, and the fields that are then named.
pub fn invalid(content: &Content, rng: &mut StdRng) -> (Vec<u8>, Vec<&'static str>) {
    let usage = format!("\"{}\"", content.usage);
    let billing = format!("\"{}\"", content.usage);
    let of = |usage: &str, amount: &str, more: &[(&'static str, &str)]| {
        let mut pairs = vec![
            ("usage_id", usage.to_owned()),
            ("amount", amount.to_owned()),
        ];
        pairs.extend(more.iter().map(|(key, value)| (*key, (*value).to_owned())));
        object(&pairs, "")
    };
    let account = ("billing_id", billing.as_str());
    match rng.random_range(0..9) {
        0 => (of(&usage, "0", &[account]), vec!["amount"]),
        1 => (of(&usage, "-5", &[account]), vec!["amount"]),
        2 => (of(&usage, "1.5", &[account]), vec!["amount"]),
        3 => (of(&usage, "\"05\"", &[account]), vec!["amount"]),
        4 => (
            of("\"usage\"", "9223372036854775808", &[account]),
            vec!["usage_id", "amount"],
        ),
        5 => (of(&usage, "5", &[]), vec!["billing_id"]),
        6 => {
            let both = [("org_id", usage.as_str()), ("project_id", usage.as_str())];
            (of(&usage, "5", &both), vec!["org_id"])
        }
        7 => (
            of(&usage, "5", &[account, ("usageId", &usage)]),
            vec!["usage_id"],
        ),
        _ => (
            of(&usage, "5", &[account, ("reason", r#""\u0007""#)]),
            vec!["reason"],
        ),
    }
}

/// A body that is no JSON object.
pub fn malformed(rng: &mut StdRng) -> Vec<u8> {
    let bodies: [&[u8]; 6] = [
        b"",
        b"[]",
        b"{\"usage_id\":",
        b"rubbish",
        b"{} {}",
        b"{\"a\": \"\xff\"}",
    ];
    bodies[rng.random_range(0..bodies.len())].to_vec()
}

fn key<'a>(snake: &'a str, camel: &'a str, plain: bool, rng: &mut StdRng) -> &'a str {
    if plain || rng.random() { snake } else { camel }
}

fn id(id: Uuid, plain: bool, rng: &mut StdRng) -> String {
    if plain || rng.random() {
        format!("\"{id}\"")
    } else {
        format!("\"{}\"", id.to_string().to_uppercase())
    }
}

fn amount(amount: i64, plain: bool, rng: &mut StdRng) -> String {
    if plain || rng.random() {
        amount.to_string()
    } else {
        format!("\"{amount}\"")
    }
}

fn object(pairs: &[(&str, String)], space: &str) -> Vec<u8> {
    let pairs: Vec<_> = pairs
        .iter()
        .map(|(key, value)| format!("{space}\"{key}\":{space}{value}"))
        .collect();
    format!("{{{}}}", pairs.join(",")).into_bytes()
}
