//! What operators did to dead letters (`migrations/V3__interventions.sql`): noted before it is done.

use serde_json::Value;
use tokio_postgres::types::Json;
use uuid::Uuid;

use crate::config::Settings;
use crate::ledger::connection::session::Session;
use crate::ledger::error::LedgerError;

/// What is done to letters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InterventionKind {
    /// They become requests again.
    Replay,
    /// They are thrown away.
    Discard,
}

impl InterventionKind {
    /// As it is stored.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Replay => "replay",
            Self::Discard => "discard",
        }
    }

    /// What is said of a letter afterwards.
    #[must_use]
    pub fn participle(self) -> &'static str {
        match self {
            Self::Replay => "replayed",
            Self::Discard => "discarded",
        }
    }
}

/// What is noted of a run before it touches anything.
#[derive(Clone, Debug)]
pub struct Plan<'a> {
    /// What is done.
    pub action: InterventionKind,
    /// Who says that he does it; without, the database's role.
    pub by: Option<&'a str>,
    /// Which letters are meant.
    pub chosen: Value,
    /// Why; a discard must say so.
    pub why: Option<&'a str>,
    /// Where letters are saved first.
    pub saved_to: Option<&'a str>,
}

/// What is noted of a letter.
#[derive(Clone, Debug)]
pub struct Note {
    /// The letter's id.
    pub letter: Uuid,
    /// Whose request it is.
    pub client: String,
    /// The request's id.
    pub message_id: Option<String>,
    /// The usage, where the body tells it.
    pub usage_id: Option<Uuid>,
    /// Why it was a dead letter.
    pub reason: String,
}

/// A run that is being noted.
pub struct Intervention {
    session: Session,
    id: i64,
    part: i32,
}

impl Intervention {
    /// Notes that a run begins.
    ///
    /// # Errors
    /// Where the database fails, or the role may not: then nothing may be done.
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

    /// Its number in `revertd.interventions`.
    #[must_use]
    pub fn id(&self) -> i64 {
        self.id
    }

    /// Notes the letters of the next part, which is then to be carried out.
    ///
    /// # Errors
    /// Where the database fails: then it must not be.
    pub async fn note(&mut self, letters: &[Note]) -> Result<(), LedgerError> {
        self.part += 1;
        // PostgreSQL stores every character but one.
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
             SELECT $1, $2, * FROM unnest($3::uuid[], $4::text[], $5::text[], $6::uuid[], $7::text[])";
        let db = &self.session.client;
        let noting = async {
            let params: [&(dyn tokio_postgres::types::ToSql + Sync); 7] = [
                &self.id, &self.part, &ids, &clients, &messages, &usages, &reasons,
            ];
            db.execute(statement, &params).await
        };
        self.session.answered(noting).await.map(|_| ())
    }

    /// Notes that the part was carried out.
    ///
    /// # Errors
    /// Where the database fails. The part was carried out all the same.
    pub async fn done(&self) -> Result<(), LedgerError> {
        let statement =
            "INSERT INTO revertd.intervention_parts (intervention, part) VALUES ($1, $2)";
        let db = &self.session.client;
        let noting = async { db.execute(statement, &[&self.id, &self.part]).await };
        self.session.answered(noting).await.map(|_| ())
    }
}
