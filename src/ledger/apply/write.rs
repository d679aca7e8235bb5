//! Writes outcomes and entries: `write.sql`.

use jiff::Timestamp;
use tokio_postgres::types::ToSql;
use uuid::Uuid;

use super::round::Round;
use crate::domain::decide::{NewRevert, Ruling, Write};
use crate::domain::outcome::{Decision, Entry, Outcome, Refusal, Verdict};
use crate::domain::request::RevertRequest;
use crate::ledger::client::COMMIT_NOTHING;
use crate::ledger::error::StatementError;

/// The arrays of the statement: one element per outcome, ordered by usage.
#[derive(Default)]
struct Rows<'a> {
    ids: Vec<Uuid>,
    contents: Vec<Uuid>,
    usage_ids: Vec<Uuid>,
    org_ids: Vec<Option<Uuid>>,
    account_ids: Vec<Option<Uuid>>,
    amounts: Vec<i64>,
    usage_amounts: Vec<Option<i64>>,
    reverted_before: Vec<Option<i64>>,
    reverted_by_others: Vec<Option<i64>>,
    transaction_ids: Vec<Option<Uuid>>,
    platform_transaction_ids: Vec<Option<Uuid>>,
    revert_nos: Vec<Option<i32>>,
    refusals: Vec<Option<&'a str>>,
    refusal_metadata: Vec<Option<String>>,
    refusal_codes: Vec<Option<i32>>,
    refusal_messages: Vec<Option<&'a str>>,
    clients: Vec<&'a str>,
    message_ids: Vec<Option<&'a str>>,
    reasons: Vec<Option<&'a str>>,
    reverts: i64,
}

impl<'a> Rows<'a> {
    fn push(&mut self, request: &'a RevertRequest, outcome: &'a Outcome, write: Write) {
        self.ids.push(outcome.id);
        self.contents.push(request.content);
        self.usage_ids.push(request.fields.usage_id);
        self.org_ids.push(outcome.org_id);
        self.account_ids.push(outcome.account_id);
        self.amounts.push(request.fields.amount.get());
        self.clients.push(&request.client);
        self.message_ids.push(request.message_id.as_deref());
        self.reasons.push(request.fields.reason.as_deref());
        let (entry, refusal) = match &outcome.verdict {
            Verdict::Applied(entry) => (Some(entry), None),
            Verdict::Refused(refusal) => (None, Some(refusal)),
        };
        self.push_entry(entry, write);
        self.push_refusal(refusal);
    }

    fn push_entry(&mut self, entry: Option<&Entry>, write: Write) {
        let numbers = match write {
            Write::Revert(numbers) => Some(numbers),
            Write::Refusal | Write::Found | Write::Nothing => None,
        };
        self.reverts += i64::from(numbers.is_some());
        self.usage_amounts
            .push(entry.map(|entry| entry.usage_amount));
        self.transaction_ids
            .push(entry.map(|entry| entry.transaction_id));
        self.platform_transaction_ids
            .push(entry.map(|entry| entry.platform_transaction_id));
        self.reverted_before
            .push(numbers.map(|numbers| numbers.reverted_before));
        self.reverted_by_others
            .push(numbers.and_then(|numbers: NewRevert| numbers.reverted_by_others));
        self.revert_nos
            .push(numbers.map(|numbers| numbers.revert_no));
    }

    fn push_refusal(&mut self, refusal: Option<&'a Refusal>) {
        let metadata = refusal
            .map(Refusal::metadata)
            .filter(|pairs| !pairs.is_empty());
        let json = metadata.map(|metadata| serde_json::json!(metadata).to_string());
        self.refusals
            .push(refusal.map(|refusal| refusal.code().reason));
        self.refusal_metadata.push(json);
        self.refusal_codes
            .push(refusal.map(|refusal| refusal.code().number));
        self.refusal_messages.push(refusal.map(Refusal::message));
    }
}

impl Round<'_> {
    /// Writes the rows that the rulings need. If none needs any, and an answer rests on rows that
    /// were found, it commits a record without meaning: these rows may be committed here and not
    /// yet on a standby, and only a commit that writes waits for the standbys.
    pub(super) async fn write(
        &self,
        requests: &[&RevertRequest],
        rulings: &[Ruling],
        decided_at: Timestamp,
    ) -> Result<(), StatementError> {
        let mut written: Vec<_> = requests
            .iter()
            .zip(rulings)
            .filter_map(|(request, ruling)| match (&ruling.decision, ruling.write) {
                (Decision::Decided(outcome), Write::Refusal | Write::Revert(_)) => {
                    Some((*request, outcome, ruling.write))
                }
                _ => None,
            })
            .collect();
        if written.is_empty() {
            if rulings.iter().any(|ruling| ruling.write == Write::Found) {
                self.query(COMMIT_NOTHING, &[]).await?;
            }
            return Ok(());
        }
        // Stable: requests on one usage stay in the order of their delivery.
        written.sort_by_key(|(request, ..)| request.fields.usage_id);
        let mut rows = Rows::default();
        for (request, outcome, write) in written {
            rows.push(request, outcome, write);
        }
        self.insert(&rows, decided_at).await
    }

    /// Runs the statement without rows, which needs the same privileges.
    pub(super) async fn write_nothing(&self) -> Result<(), StatementError> {
        self.insert(&Rows::default(), Timestamp::UNIX_EPOCH).await
    }

    async fn insert(&self, rows: &Rows<'_>, decided_at: Timestamp) -> Result<(), StatementError> {
        let ledger = self.ledger;
        let params: [&(dyn ToSql + Sync); 23] = [
            &rows.ids,
            &rows.contents,
            &rows.usage_ids,
            &rows.org_ids,
            &rows.account_ids,
            &rows.amounts,
            &rows.usage_amounts,
            &rows.reverted_before,
            &rows.reverted_by_others,
            &rows.transaction_ids,
            &rows.platform_transaction_ids,
            &rows.revert_nos,
            &rows.refusals,
            &rows.refusal_metadata,
            &rows.refusal_codes,
            &rows.refusal_messages,
            &rows.clients,
            &rows.message_ids,
            &rows.reasons,
            &decided_at,
            &ledger.policy.is_cumulative,
            &ledger.platform_account,
            &rows.reverts,
        ];
        self.query(&ledger.statements.write, &params)
            .await
            .map(drop)
    }
}
