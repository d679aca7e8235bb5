//! The database's records of a request or a usage, as text and as JSON.

use std::collections::BTreeSet;
use std::fmt::Write;

use serde_json::{Value, json};

use crate::cli::terminal::{named, time, visible};
use crate::config::Settings;
use crate::domain::event::{Event, text_of};
use crate::domain::outcome::Verdict;
use crate::ledger::LedgerError;
use crate::ledger::admin::history::{
    DecidedRequest, History, LedgerEntry, OUTCOMES_MAX, PastIntervention, Subject,
};

/// Most usages that are looked up: those of a group, or of several clients' requests with the
/// same message id.
const USAGES_MAX: usize = 10;

/// The records that were found.
#[derive(Default)]
pub struct Known {
    outcomes: Vec<DecidedRequest>,
    entries: Vec<LedgerEntry>,
    interventions: Vec<PastIntervention>,
    /// The number of usages. At most [`USAGES_MAX`] of them were looked up.
    usages: usize,
}

impl Known {
    /// Reads the records from the database.
    ///
    /// # Errors
    ///
    /// If the database cannot be reached or a statement fails.
    pub async fn ask(settings: &Settings, subject: &Subject) -> Result<Self, LedgerError> {
        let history = History::open(settings).await?;
        let bounded = match subject {
            Subject::Usages(usages) => {
                Subject::Usages(usages.iter().take(USAGES_MAX).copied().collect())
            }
            Subject::Request { .. } => subject.clone(),
        };
        let outcomes = history.outcomes(&bounded).await?;
        let usages: BTreeSet<_> = match subject {
            Subject::Usages(usages) => usages.clone(),
            Subject::Request { .. } => outcomes.iter().map(|decided| decided.usage_id).collect(),
        };
        let mut entries = Vec::new();
        let count = usages.len();
        for usage in usages.into_iter().take(USAGES_MAX) {
            entries.extend(history.entries(usage).await?);
        }
        Ok(Self {
            interventions: history.interventions(&bounded).await?,
            outcomes,
            entries,
            usages: count,
        })
    }

    pub fn is_something(&self) -> bool {
        !(self.outcomes.is_empty() && self.entries.is_empty() && self.interventions.is_empty())
    }

    /// The records as text, a few lines each.
    pub fn text(&self) -> String {
        let mut text = String::new();
        for decided in &self.outcomes {
            outcome_text(&mut text, decided);
        }
        if self.outcomes.len() == OUTCOMES_MAX {
            let _ = writeln!(
                text,
                "the latest {OUTCOMES_MAX} outcomes; there may be more"
            );
        }
        for entry in &self.entries {
            entry_text(&mut text, entry);
        }
        if self.usages > USAGES_MAX {
            let _ = writeln!(
                text,
                "only {USAGES_MAX} of {} usages were looked up",
                self.usages
            );
        }
        if self.outcomes.is_empty() && self.entries.iter().any(|entry| entry.is_usage) {
            text.push_str("no request for it has an outcome\n");
        }
        for done in &self.interventions {
            let PastIntervention {
                id, action, by, at, ..
            } = done;
            let why = done
                .why
                .as_ref()
                .map_or(String::new(), |why| format!(": {}", visible(why)));
            let end = if done.is_done {
                ""
            } else {
                " (perhaps interrupted)"
            };
            let _ = writeln!(
                text,
                "{action} of its dead letter by {}, {}, intervention {id}{why}{end}",
                named(by),
                time(*at)
            );
        }
        text
    }

    pub fn json(&self) -> Value {
        json!({
            "outcomes": self.outcomes.iter().map(outcome_json).collect::<Vec<_>>(),
            "usages": self.usages,
            "entries": self.entries.iter().map(entry_json).collect::<Vec<_>>(),
            "interventions": self.interventions.iter().map(|done| json!({
                "id": done.id,
                "action": done.action,
                "by": done.by,
                "at": done.at,
                "why": done.why,
                "done": done.is_done,
            })).collect::<Vec<_>>(),
        })
    }
}

fn outcome_text(text: &mut String, decided: &DecidedRequest) {
    let outcome = &decided.outcome;
    let (kind, event) = Event::identity(outcome, decided.content);
    let request = decided
        .message_id
        .as_deref()
        .map_or("without an id".into(), named);
    let (amount, usage) = (decided.amount, decided.usage_id);
    let _ = writeln!(
        text,
        "request {request} of client {}: {amount} of usage {usage}",
        named(&decided.client)
    );
    let what = match &outcome.verdict {
        Verdict::Applied(entry) => format!(
            "{amount} of {} given back, {} remain",
            entry.usage_amount,
            entry.usage_amount - entry.reverted_total
        ),
        Verdict::Refused(refusal) => {
            let mut what = format!("{}: {}", refusal.code().reason, refusal.message());
            for (key, value) in refusal.metadata() {
                let _ = write!(what, ", {key} {value}");
            }
            what
        }
    };
    let _ = writeln!(
        text,
        "  {}  {}: {what}",
        time(outcome.decided_at),
        kind.name()
    );
    if let Some(reason) = &decided.reason {
        let _ = writeln!(text, "  because: {}", visible(reason));
    }
    if let Verdict::Applied(entry) = &outcome.verdict {
        let (ours, platform) = (entry.transaction_id, entry.platform_transaction_id);
        let _ = writeln!(text, "  transaction {ours}\n  platform's  {platform}");
    }
    let _ = writeln!(text, "  event {event}");
    if decided.is_archived {
        text.push_str(
            "  archived: the same request is refused if it is sent again, not answered with this\n",
        );
    }
}

fn entry_text(text: &mut String, entry: &LedgerEntry) {
    let what = match (entry.is_usage, entry.is_ours) {
        (true, _) => "the usage",
        (false, true) => "reverts it",
        (false, false) => "reverts it, by another writer",
    };
    let kind = named(entry.kind.as_deref().unwrap_or_default());
    let at = entry.at.map_or("-".into(), time);
    let account = entry.account_id.map_or("-".into(), |id| id.to_string());
    let _ = writeln!(text, "entry {}: {what}", entry.id);
    let _ = writeln!(
        text,
        "  {at}  {kind} of {} on account {account}",
        entry.amount
    );
}

fn outcome_json(decided: &DecidedRequest) -> Value {
    let outcome = &decided.outcome;
    let (kind, event) = Event::identity(outcome, decided.content);
    let mut shown = json!({
        "request_id": decided.message_id,
        "client": decided.client,
        "usage_id": decided.usage_id,
        "amount": decided.amount.to_string(),
        "reason": decided.reason,
        "org_id": outcome.org_id,
        "billing_id": outcome.account_id,
        "decided_at": text_of(outcome.decided_at),
        "archived": decided.is_archived,
        "event": {"id": event, "type": kind.name()},
    });
    match &outcome.verdict {
        Verdict::Applied(entry) => {
            shown["transaction_id"] = json!(entry.transaction_id);
            shown["platform_transaction_id"] = json!(entry.platform_transaction_id);
            shown["usage_amount"] = json!(entry.usage_amount.to_string());
            shown["reverted_total"] = json!(entry.reverted_total.to_string());
        }
        Verdict::Refused(refusal) => {
            shown["refusal"] = json!({
                "code": refusal.code().number,
                "reason": refusal.code().reason,
                "metadata": refusal.metadata(),
            });
        }
    }
    shown
}

fn entry_json(entry: &LedgerEntry) -> Value {
    json!({
        "id": entry.id,
        "account_id": entry.account_id,
        "type": entry.kind,
        "amount": entry.amount.to_string(),
        "source": entry.source,
        "created_at": entry.at,
        "is_usage": entry.is_usage,
        "by_revertd": !entry.is_usage && entry.is_ours,
    })
}
