//! The observed results: stored outcomes, entries in the ledger, events.

use std::collections::BTreeMap;

use serde_json::Value;
use tokio_postgres::Client;
use uuid::Uuid;

use super::initial_ledger::InitialLedger;
use super::model::{Answer, Revert, Verdict};

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
pub struct ObservedEvent {
    pub routing_key: String,
    pub body: Vec<u8>,
}

/// The outcomes of requests for the ledger's accounts.
pub async fn outcomes(db: &Client, ledger: &InitialLedger) -> Vec<Stored> {
    let accounts: Vec<_> = ledger.accounts.iter().map(|account| account.id).collect();
    let query = "SELECT client, message_id, usage_id, amount, reason, org_id, account_id, \
            to_char(decided_at AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"'), \
            refusal, refusal_metadata, transaction_id, platform_transaction_id, revert_no, \
            usage_amount, \
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

/// Legs on the ledger's accounts, or of its usages, but those that were there before.
pub async fn legs(db: &Client, ledger: &InitialLedger) -> Vec<Leg> {
    let query = "SELECT id, account_id, type, source, amount, description, metadata, user_id, \
            to_char(created_at AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"') \
        FROM billing_transactions WHERE metadata ? 'revert_request_using'";
    let rows = db.query(query, &[]).await.expect("read");
    let ours = |leg: &Leg| {
        let of = usage_of(leg).is_some_and(|usage| ledger.postings.contains_key(&usage));
        let on = ledger
            .accounts
            .iter()
            .any(|account| Some(account.id) == leg.account);
        (of || on) && !ledger.postings.contains_key(&leg.id)
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
