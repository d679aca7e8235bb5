//! The record of operators' interventions on dead letters (`migrations/V3__interventions.sql`).
//! Each is recorded before it is carried out.

use serde_json::Value;
use tokio_postgres::types::Json;
use uuid::Uuid;

use crate::config::Settings;
use crate::ledger::connection::session::Session;
use crate::ledger::error::LedgerError;

/// The kinds of interventions on dead letters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InterventionKind {
    /// Dead letters are published as requests again.
    Replay,
    /// Dead letters are removed.
    Discard,
}

impl InterventionKind {
    /// The name that is stored.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Replay => "replay",
            Self::Discard => "discard",
        }
    }

    /// The participle for messages about finished interventions.
    #[must_use]
    pub fn participle(self) -> &'static str {
        match self {
            Self::Replay => "replayed",
            Self::Discard => "discarded",
        }
    }
}

/// The record of a run, written before it changes anything.
#[derive(Clone, Debug)]
pub struct Plan<'a> {
    /// The kind of intervention.
    pub action: InterventionKind,
    /// The operator's name. Default: the database role.
    pub by: Option<&'a str>,
    /// The selection of dead letters.
    pub chosen: Value,
    /// The reason; required for a discard.
    pub why: Option<&'a str>,
    /// The file in which the dead letters are saved first.
    pub saved_to: Option<&'a str>,
}

/// The record of a dead letter.
#[derive(Clone, Debug)]
pub struct Note {
    /// The dead letter's id.
    pub letter: Uuid,
    /// The client of the request.
    pub client: String,
    /// The request's message id.
    pub message_id: Option<String>,
    /// The usage, if the body contains it.
    pub usage_id: Option<Uuid>,
    /// The reason of the dead letter.
    pub reason: String,
}

/// A run with its record in the database.
pub struct Intervention {
    session: Session,
    id: i64,
    part: i32,
}

impl Intervention {
    /// Records the start of a run.
    ///
    /// # Errors
    ///
    /// If the database fails, or the role may not write. Nothing may be done then.
    pub async fn begin(settings: &Settings, plan: &Plan<'_>) -> Result<Self, LedgerError> {
        let session = Session::open(settings).await?;
        let statement = "INSERT INTO revertd.interventions (action, done_by, chosen, why, saved_to)
             VALUES ($1, coalesce($2, session_user), $3, $4, $5) RETURNING id";
        let (action, chosen) = (plan.action.name(), Json(&plan.chosen));
        let db = &session.client;
        let beginning = async {
            db.query_one(
                statement,
                &[&action, &plan.by, &chosen, &plan.why, &plan.saved_to],
            )
            .await
        };
        let id = session.answered(beginning).await?.get(0);
        let part = 0;
        Ok(Self { session, id, part })
    }

    /// The run's id in `revertd.interventions`.
    #[must_use]
    pub fn id(&self) -> i64 {
        self.id
    }

    /// Records the dead letters of the next part, which the caller then carries out.
    ///
    /// # Errors
    ///
    /// If the database fails. The part must not be carried out then.
    pub async fn note(&mut self, letters: &[Note]) -> Result<(), LedgerError> {
        self.part += 1;
        // PostgreSQL cannot store the character U+0000.
        let text = |text: &String| text.replace('\0', "\u{fffd}");
        let ids: Vec<_> = letters.iter().map(|note| note.letter).collect();
        let clients: Vec<_> = letters.iter().map(|note| text(&note.client)).collect();
        let messages: Vec<_> = letters
            .iter()
            .map(|note| note.message_id.as_ref().map(text))
            .collect();
        let usages: Vec<_> = letters.iter().map(|note| note.usage_id).collect();
        let reasons: Vec<_> = letters.iter().map(|note| text(&note.reason)).collect();
        let statement = "INSERT INTO revertd.intervention_letters
                 (intervention, part, letter, client, message_id, usage_id, reason)
             SELECT $1, $2, *
             FROM unnest($3::uuid[], $4::text[], $5::text[], $6::uuid[], $7::text[])";
        let db = &self.session.client;
        let noting = async {
            let params: [&(dyn tokio_postgres::types::ToSql + Sync); 7] = [
                &self.id, &self.part, &ids, &clients, &messages, &usages, &reasons,
            ];
            db.execute(statement, &params).await
        };
        self.session.answered(noting).await.map(|_| ())
    }

    /// Records that the part was carried out.
    ///
    /// # Errors
    ///
    /// If the database fails. The part was carried out nevertheless.
    pub async fn done(&self) -> Result<(), LedgerError> {
        let statement =
            "INSERT INTO revertd.intervention_parts (intervention, part) VALUES ($1, $2)";
        let db = &self.session.client;
        let noting = async { db.execute(statement, &[&self.id, &self.part]).await };
        self.session.answered(noting).await.map(|_| ())
    }
}
