//! Outcomes that the owner of the tables archived with `config/archive-outcomes.sql`.
//!
//! Workers do not read them. Commands that read the history do, if there is an archive.

use crate::ledger::connection::session::Session;
use crate::ledger::error::LedgerError;

/// One line, because statements name the placeholder in their opening comments too.
const COLUMNS: &str = "id, content, usage_id, org_id, account_id, amount, decided_at, \
    usage_amount, reverted_before, reverted_by_others, transaction_id, platform_transaction_id, \
    revert_no, cumulative, refusal, refusal_metadata, refusal_code, refusal_message, client, \
    message_id, reason";

/// Replaces `{outcomes}` by a query of all outcomes, with a column `archived` for each.
pub async fn with_archive(session: &Session, statement: &str) -> Result<String, LedgerError> {
    let archive = "SELECT WHERE to_regclass('revertd.outcomes_archive') IS NOT NULL";
    let of = |archived: bool, table: &str| {
        format!("SELECT {COLUMNS}, {archived} AS archived FROM revertd.{table}")
    };
    let mut outcomes = of(false, "outcomes");
    if session.exists(archive).await? {
        outcomes = format!("{outcomes} UNION ALL {}", of(true, "outcomes_archive"));
    }
    Ok(statement.replace("{outcomes}", &format!("({outcomes})")))
}
