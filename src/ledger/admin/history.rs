//! The history of a request or a usage: outcomes, entries and interventions. It only reads.

use std::collections::BTreeSet;

use jiff::Timestamp;
use tokio_postgres::Row;
use uuid::Uuid;

use crate::config::Settings;
use crate::domain::outcome::{Entry, Outcome, Refusal, Verdict};
use crate::domain::refusal::RefusalReason;
use crate::domain::rpc_code::RpcCode;
use crate::ledger::apply::metadata::StoredMetadata;
use crate::ledger::apply::stored_outcome::words;
use crate::ledger::connection::connect::in_schema;
use crate::ledger::connection::session::Session;
use crate::ledger::error::LedgerError;
use crate::ledger::schema::archive::with_archive;

/// An outcome with the stored fields of its request.
#[derive(Clone, Debug)]
pub struct DecidedRequest {
    /// The decision.
    pub outcome: Outcome,
    /// Digest of the request's fields.
    pub content: Uuid,
    /// The client; empty if the broker authenticated no client.
    pub client: String,
    /// The request's message id.
    pub message_id: Option<String>,
    /// The usage.
    pub usage_id: Uuid,
    /// The requested amount.
    pub amount: i64,
    /// The reason that the client gave.
    pub reason: Option<String>,
    /// Whether the outcome is archived. A repeated request is then decided anew.
    pub is_archived: bool,
}

/// An entry of the ledger: a usage, or a leg of a revert of it.
#[derive(Clone, Debug)]
pub struct LedgerEntry {
    /// The entry's id.
    pub id: Uuid,
    /// The account.
    pub account_id: Option<Uuid>,
    /// `debit` or `credit`.
    pub kind: Option<String>,
    /// The amount.
    pub amount: i64,
    /// The source, as Frontier defines it.
    pub source: Option<String>,
    /// When it was written.
    pub at: Option<Timestamp>,
    /// Whether it is the usage itself.
    pub is_usage: bool,
    /// Whether an outcome of revertd names it. Otherwise another writer wrote it.
    pub is_ours: bool,
}

/// A replay or discard of a dead letter of the request or usage.
#[derive(Clone, Debug)]
pub struct PastIntervention {
    /// Id of the run.
    pub id: i64,
    /// `replay` or `discard`.
    pub action: String,
    /// The operator's name, as given by the operator.
    pub by: String,
    /// When the run began.
    pub at: Timestamp,
    /// The reason, if one was given.
    pub why: Option<String>,
    /// Whether the part with this dead letter was carried out. If not, it may have been
    /// interrupted.
    pub is_done: bool,
}

/// The subject of a query.
#[derive(Clone, Debug)]
pub enum Subject {
    /// All requests on the usages.
    Usages(BTreeSet<Uuid>),
    /// A request by its message id, or the requests of a group whose ids follow from it
    /// (`<message_id>/<index>`); of one client or of any client.
    Request {
        /// The `message_id`.
        message_id: String,
        /// The client; `None` for any.
        client: Option<String>,
    },
}

/// Most outcomes of a history.
pub const OUTCOMES_MAX: usize = 1000;

const OUTCOMES: &str =
    "SELECT id, content, client, message_id, usage_id, amount, reason, org_id, account_id,
        decided_at, refusal, refusal_metadata, usage_amount, reverted_before + amount,
        transaction_id,
        platform_transaction_id, archived, refusal_code, refusal_message
    FROM {outcomes} o
    WHERE usage_id = ANY($1::uuid[]) OR ((message_id = $2 OR starts_with(message_id, $2 || '/')
            AND substr(message_id, length($2) + 2) ~ '^[0-9]{1,5}$')
        AND ($3::text IS NULL OR client = $3))
    ORDER BY decided_at DESC, id LIMIT 1000";

const INTERVENTIONS: &str =
    "SELECT DISTINCT i.id, i.action, i.done_by, i.began_at, i.why, p.part IS NOT NULL
    FROM revertd.intervention_letters l
    JOIN revertd.interventions i ON i.id = l.intervention
    LEFT JOIN revertd.intervention_parts p ON p.intervention = l.intervention AND p.part = l.part
    WHERE l.usage_id = ANY($1::uuid[])
        OR (l.message_id = $2 AND ($3::text IS NULL OR l.client = $3))
    ORDER BY 1 DESC LIMIT 1000";

/// A session that reads the history.
pub struct History {
    session: Session,
    outcomes: String,
    entries: String,
}

impl History {
    /// Connects.
    ///
    /// # Errors
    ///
    /// If the database cannot be reached.
    pub async fn open(settings: &Settings) -> Result<Self, LedgerError> {
        let session = Session::open(settings).await?;
        let entries = in_schema(include_str!("history.sql"), settings);
        Ok(Self {
            outcomes: with_archive(&session, OUTCOMES).await?,
            entries: with_archive(&session, &entries).await?,
            session,
        })
    }

    /// The outcomes, the latest first.
    ///
    /// # Errors
    ///
    /// If the database fails, or the role may not read a table.
    pub async fn outcomes(&self, of: &Subject) -> Result<Vec<DecidedRequest>, LedgerError> {
        let rows = self.asked(&self.outcomes, of).await?;
        Ok(rows.iter().map(decided).collect())
    }

    /// Replays and discards, the latest first.
    ///
    /// # Errors
    ///
    /// If the database fails, or the role may not read a table.
    pub async fn interventions(&self, of: &Subject) -> Result<Vec<PastIntervention>, LedgerError> {
        let rows = self.asked(INTERVENTIONS, of).await?;
        let read = |row: &Row| PastIntervention {
            id: row.get(0),
            action: row.get(1),
            by: row.get(2),
            at: row.get(3),
            why: row.get(4),
            is_done: row.get(5),
        };
        Ok(rows.iter().map(read).collect())
    }

    /// The usage and the entries that revert it: both legs of revertd's reverts, and the customer's
    /// leg of other writers' reverts.
    ///
    /// # Errors
    ///
    /// If the database fails, or the role may not read a table.
    pub async fn entries(&self, usage: Uuid) -> Result<Vec<LedgerEntry>, LedgerError> {
        let db = &self.session.client;
        let asking = async { db.query(&self.entries, &[&usage]).await };
        let rows = self.session.answered(asking).await?;
        let read = |row: &Row| LedgerEntry {
            id: row.get(0),
            account_id: row.get(1),
            kind: row.get(2),
            amount: row.get(3),
            source: row.get(4),
            at: row.get(5),
            is_usage: row.get(6),
            is_ours: row.get(7),
        };
        Ok(rows.iter().map(read).collect())
    }

    async fn asked(&self, statement: &str, of: &Subject) -> Result<Vec<Row>, LedgerError> {
        let (usages, message, client) = match of {
            Subject::Usages(usages) => (usages.iter().collect(), None, None),
            Subject::Request { message_id, client } => {
                (Vec::new(), Some(message_id), client.as_ref())
            }
        };
        let db = &self.session.client;
        let asking = async { db.query(statement, &[&usages, &message, &client]).await };
        self.session.answered(asking).await
    }
}

/// A code and a message for a refusal without a stored message that this version does not know.
/// Only the history uses it; no event is built from it.
fn unknown_words(reason: &str) -> Option<(i32, String)> {
    let unknown = RefusalReason::of_name(reason).is_none();
    unknown.then(|| {
        let message = "this version does not know the refusal, and its message is not stored";
        (RpcCode::Unknown.number(), message.into())
    })
}

fn decided(row: &Row) -> DecidedRequest {
    let refusal: Option<&str> = row.get(10);
    let verdict = if let Some(reason) = refusal {
        let metadata = StoredMetadata::read(row.get(11));
        let words = words(row.get(17), row.get(18)).or_else(|| unknown_words(reason));
        let refusal = Refusal::of_stored(reason, words, metadata);
        Verdict::Refused(refusal.expect("an unknown reason has a message"))
    } else {
        Verdict::Applied(Entry {
            usage_amount: row.get(12),
            reverted_total: row.get(13),
            transaction_id: row.get(14),
            platform_transaction_id: row.get(15),
        })
    };
    DecidedRequest {
        outcome: Outcome {
            id: row.get(0),
            org_id: row.get(7),
            account_id: row.get(8),
            decided_at: row.get(9),
            verdict,
        },
        content: row.get(1),
        client: row.get(2),
        message_id: row.get(3),
        usage_id: row.get(4),
        amount: row.get(5),
        reason: row.get(6),
        is_archived: row.get(16),
    }
}
