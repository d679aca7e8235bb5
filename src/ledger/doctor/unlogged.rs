//! Finds unlogged tables, which a crash of the server empties.

use tokio_postgres::Row;

use crate::common::check::Checks;

/// Unlogged tables of revertd, and Frontier's table of entries.
///   $1  text  schema of Frontier's tables
pub const QUERY: &str = "SELECT format('%I.%I', n.nspname, t.relname) FROM pg_class t \
     JOIN pg_namespace n ON n.oid = t.relnamespace \
     WHERE t.relkind IN ('r', 'p') AND t.relpersistence <> 'p' \
     AND (n.nspname = 'revertd' OR n.nspname = $1 AND t.relname = 'billing_transactions') \
     ORDER BY 1";

pub fn check(rows: &[Row], checks: &mut Checks) {
    let id = "database-unlogged";
    for row in rows {
        let table: &str = row.get(0);
        checks.error(
            id,
            format!("the table {table} is unlogged: a crash of PostgreSQL empties it"),
            format!("ALTER TABLE {table} SET LOGGED;"),
        );
    }
    if rows.is_empty() {
        checks.ok(id, "no table is unlogged");
    }
}
