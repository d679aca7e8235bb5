//! What can be seen afterwards: stored outcomes, entries in the ledger, events.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use tokio_postgres::Client;
use uuid::Uuid;

use super::ledger::PLATFORM;
use super::model::{Answer, Asked, Revert, Verdict};
use super::world::{Kind, World};

/// A stored outcome: the columns that tell whose it is, and its answer.
#[derive(Clone, Debug)]
pub struct Stored {
    pub client: String,
    pub message_id: Option<String>,
    pub usage: Uuid,
    pub amount: i64,
    pub reason: Option<String>,
    pub answer: Answer,
}

/// An entry that names a usage as reverted: one of the two legs of a revert.
#[derive(Clone, Debug, PartialEq)]
pub struct Leg {
    pub id: Uuid,
    pub account: Option<Uuid>,
    pub kind: Option<String>,
    pub source: Option<String>,
    pub amount: i64,
    pub description: Option<String>,
    pub metadata: Value,
    pub user: Option<String>,
    pub at: String,
}

/// An event as it was received.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    pub routing_key: String,
    pub body: Vec<u8>,
}

/// The outcomes of requests for the world's accounts.
pub async fn outcomes(db: &Client, world: &World) -> Vec<Stored> {
    let accounts: Vec<_> = world.accounts.iter().map(|account| account.id).collect();
    let query = "SELECT client, message_id, usage_id, amount, reason, org_id, account_id, \
            to_char(decided_at AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"'), \
            refusal, refusal_metadata, transaction_id, platform_transaction_id, revert_no, usage_amount, \
            reverted_before, coalesce(reverted_by_others, 0) \
        FROM revertd.outcomes WHERE account_id = ANY($1)";
    let rows = db.query(query, &[&accounts]).await.expect("read");
    let read = |row: &tokio_postgres::Row| {
        let refusal: Option<String> = row.get(8);
        let metadata: Option<Value> = row.get(9);
        let verdict = match refusal {
            Some(reason) => Verdict::Refused {
                reason,
                metadata: metadata
                    .map(|metadata| texts(&metadata))
                    .unwrap_or_default(),
            },
            None => Verdict::Applied(Revert {
                entry: row.get(10),
                platform_entry: row.get(11),
                number: row.get(12),
                usage_amount: row.get(13),
                before: row.get(14),
                by_others: row.get(15),
            }),
        };
        Stored {
            client: row.get(0),
            message_id: row.get(1),
            usage: row.get(2),
            amount: row.get(3),
            reason: row.get(4),
            answer: Answer {
                org: row.get(5),
                account: row.get(6),
                at: row.get(7),
                stored: true,
                verdict,
            },
        }
    };
    rows.iter().map(read).collect()
}

/// Legs on the world's accounts, or of its usages, but those that were there before.
pub async fn legs(db: &Client, world: &World) -> Vec<Leg> {
    let query = "SELECT id, account_id, type, source, amount, description, metadata, user_id, \
            to_char(created_at AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"') \
        FROM billing_transactions WHERE metadata ? 'revert_request_using'";
    let rows = db.query(query, &[]).await.expect("read");
    let ours = |leg: &Leg| {
        let of = usage_of(leg).is_some_and(|usage| world.postings.contains_key(&usage));
        let on = world
            .accounts
            .iter()
            .any(|account| Some(account.id) == leg.account);
        (of || on) && !world.postings.contains_key(&leg.id)
    };
    let read = |row: &tokio_postgres::Row| Leg {
        id: row.get(0),
        account: row.get(1),
        kind: row.get(2),
        source: row.get(3),
        amount: row.get(4),
        description: row.get(5),
        metadata: row.get(6),
        user: row.get(7),
        at: row.get(8),
    };
    rows.iter().map(read).filter(ours).collect()
}

/// The usage that a leg names.
pub fn usage_of(leg: &Leg) -> Option<Uuid> {
    leg.metadata["revert_request_using"].as_str()?.parse().ok()
}

/// The two legs of a revert, as Frontier writes them.
pub fn expected_legs(
    world: &World,
    asked: &Asked,
    answer: &Answer,
    revert: &Revert,
) -> Option<[Leg; 2]> {
    let usage = world.postings.get(&asked.content.usage)?;
    let mut metadata = match &usage.metadata {
        Value::Object(map) => map.clone(),
        _ => serde_json::Map::new(),
    };
    metadata.remove("revert_reason");
    metadata.insert("revert_request_using".into(), json!(asked.content.usage));
    if let Some(reason) = &asked.content.reason {
        metadata.insert("revert_reason".into(), json!(reason));
    }
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    let customer = Leg {
        id: revert.entry,
        account: Some(usage.account),
        kind: Some("credit".into()),
        source: Some(format!("system.revert.{}", text(&usage.source))),
        amount: asked.content.amount,
        description: Some(format!("Revert: {}", text(&usage.description))),
        metadata: metadata.into(),
        user: usage.user.clone(),
        at: answer.at.clone(),
    };
    let platform = Leg {
        id: revert.platform_entry,
        account: Some(PLATFORM),
        kind: Some("debit".into()),
        ..customer.clone()
    };
    Some([customer, platform])
}

/// The event of an answer, but for its id and the error's message, and its routing key.
pub fn expected_event(asked: &Asked, answer: &Answer) -> (Value, String) {
    let content = &asked.content;
    let (org, account) = (
        answer.org.or(content.org),
        answer.account.or(content.billing),
    );
    let mut data = json!({"usage_id": content.usage, "amount": content.amount.to_string()});
    for (key, value) in [
        ("request_id", asked.message_id.clone()),
        ("org_id", org.map(|id| id.to_string())),
        ("billing_id", account.map(|id| id.to_string())),
        ("reason", content.reason.clone()),
    ] {
        if let Some(value) = value {
            data[key] = value.into();
        }
    }
    let (kind, prefix) = match &answer.verdict {
        Verdict::Applied(revert) => {
            let total = revert.before + content.amount;
            data["transaction_id"] = json!(revert.entry);
            data["platform_transaction_id"] = json!(revert.platform_entry);
            data["usage_amount"] = revert.usage_amount.to_string().into();
            data["reverted_total"] = total.to_string().into();
            data["remaining"] = (revert.usage_amount - total).to_string().into();
            ("usage.reverted", "result")
        }
        Verdict::Refused { reason, metadata } => {
            let mut details = vec![json!({
                "@type": "type.googleapis.com/google.rpc.ErrorInfo",
                "reason": reason, "domain": "revertd", "metadata": metadata,
            })];
            if reason == "INVALID_FIELD" {
                details.push(json!({"@type": "type.googleapis.com/google.rpc.BadRequest"}));
            }
            data["error"] = json!({"code": code(reason), "details": details});
            ("usage.revert.rejected", "error")
        }
    };
    let event = json!({
        "specversion": "1.0", "source": "revertd", "type": kind, "subject": content.usage,
        "time": answer.at, "datacontenttype": "application/json", "data": data,
    });
    let key = org.map_or("unknown".into(), |org| org.to_string());
    (event, format!("{prefix}.{key}"))
}

/// The contract's table.
fn code(reason: &str) -> i32 {
    match reason {
        "BILLING_ACCOUNT_NOT_FOUND" | "USAGE_NOT_FOUND" => 5,
        "REVERT_OF_REVERT" | "NOT_A_USAGE" | "REVERT_WINDOW_CLOSED" => 9,
        "ALREADY_REVERTED" => 6,
        _ => 3,
    }
}

/// A map of texts, as metadata is.
pub fn texts(value: &Value) -> BTreeMap<String, String> {
    let pairs = value.as_object().into_iter().flatten();
    pairs
        .map(|(key, value)| {
            (
                key.clone(),
                value.as_str().map_or(value.to_string(), str::to_owned),
            )
        })
        .collect()
}

/// Whether a usage was there to be reverted.
pub fn is_usage(world: &World, usage: Uuid) -> bool {
    let posting = world.postings.get(&usage);
    posting.is_some_and(|posting| matches!(posting.kind, Kind::Usage { .. }))
}
