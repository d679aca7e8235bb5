//! Outcomes that the owner of the tables moved out of the way, by `config/archive-outcomes.sql`.
//!
//! No worker looks at them; what looks back does, wherever there is an archive.

use crate::ledger::connection::session::Session;
use crate::ledger::error::LedgerError;

/// In one line, since statements name the place in their opening comments, too.
const COLUMNS: &str = "id, content, usage_id, org_id, account_id, amount, decided_at, usage_amount, reverted_before, \
    reverted_by_others, transaction_id, platform_transaction_id, revert_no, cumulative, refusal, refusal_metadata, \
    refusal_code, refusal_message, client, message_id, reason";

/// Where a statement has `{outcomes}`: puts a query of all outcomes there, each with whether it is `archived`.
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
