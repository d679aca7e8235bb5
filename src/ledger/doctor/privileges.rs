//! Checks the role's privileges. Each missing one is reported with the GRANT statement.

use tokio_postgres::Row;

use super::questions::{LIMITS, PATIENCE, answered};
use super::server::Server;
use crate::common::check::Checks;
use crate::config::Settings;
use crate::ledger::client::Ledger;
use crate::ledger::connection::session::Session;
use crate::ledger::schema::migrate::HISTORY;

/// A grant that a worker needs, as config/grants/worker.sql lists them.
struct Grant {
    /// Whether the table is one of Frontier's.
    frontiers: bool,
    table: &'static str,
    /// The columns that are read; empty for all.
    columns: &'static [&'static str],
    insert: bool,
    /// Whether rows are updated and deleted too.
    change: bool,
}

const fn read(frontiers: bool, table: &'static str, columns: &'static [&'static str]) -> Grant {
    Grant {
        frontiers,
        table,
        columns,
        insert: false,
        change: false,
    }
}

const fn add(frontiers: bool, table: &'static str) -> Grant {
    Grant {
        frontiers,
        table,
        columns: &[],
        insert: true,
        change: false,
    }
}

const fn keep(table: &'static str) -> Grant {
    Grant {
        change: true,
        ..add(false, table)
    }
}

const GRANTS: [Grant; 9] = [
    read(true, "organizations", &["id", "name", "deleted_at"]),
    read(true, "projects", &["id", "name", "org_id", "deleted_at"]),
    read(
        true,
        "billing_customers",
        &["id", "org_id", "state", "created_at", "deleted_at"],
    ),
    add(true, "billing_transactions"),
    add(false, "outcomes"),
    read(false, "grants", &["client", "org_id"]),
    read(false, "control", &[]),
    keep("suspects"),
    read(false, "schema_history", &[]),
];

pub async fn check(session: &Session, server: &Server, settings: &Settings, checks: &mut Checks) {
    let id = "database-permissions";
    let schema = settings.ledger.schema.as_str();
    let (role, mut missing) = (&server.role, 0);
    let usage = "SELECT quote_ident(n.nspname) FROM pg_namespace n \
                 WHERE n.nspname IN ($1, 'revertd') \
                 AND NOT has_schema_privilege(n.oid, 'USAGE') ORDER BY 1";
    let Some(closed) = answered(id, session.rows(usage, &[&schema]).await, checks) else {
        return;
    };
    for row in &closed {
        let schema: &str = row.get(0);
        missing += 1;
        checks.error(
            id,
            format!("{role} lacks USAGE on schema {schema}"),
            format!("GRANT USAGE ON SCHEMA {schema} TO {role};"),
        );
    }
    let asked = session
        .rows(include_str!("privileges.sql"), &[&schema])
        .await;
    let Some(rows) = answered(id, asked, checks) else {
        return;
    };
    for grant in GRANTS {
        let home = if grant.frontiers { schema } else { "revertd" };
        // Another check reports missing tables.
        let Some(row) = rows
            .iter()
            .find(|row| (row.get("schema"), row.get("table_name")) == (home, grant.table))
        else {
            continue;
        };
        let lacking = grant.missing(row);
        if !lacking.is_empty() {
            missing += 1;
            let (privileges, table): (_, &str) = (lacking.join(", "), row.get("quoted"));
            checks.error(
                id,
                format!("{role} lacks {privileges} on {table}"),
                format!("GRANT {privileges} ON {table} TO {role};"),
            );
        }
    }
    let migrated = session
        .rows(&format!("SELECT FROM {HISTORY} LIMIT 1"), &[])
        .await
        .is_ok();
    if missing == 0 && migrated {
        probe(settings, role, checks).await;
    }
}

/// Does everything that a batch does, without a request. An error shows a missing privilege that
/// the list above does not contain.
async fn probe(settings: &Settings, role: &str, checks: &mut Checks) {
    let id = "database-permissions";
    let probed = async {
        let ledger = Ledger::within(settings, LIMITS, PATIENCE)?;
        ledger.probe().await
    };
    match probed.await {
        Ok(()) => checks.ok(
            id,
            format!("{role} has every privilege that a worker needs"),
        ),
        Err(error) => checks.failed(id, error.diagnostic()),
    }
}

impl Grant {
    /// The privileges that the role lacks, as GRANT spells them.
    fn missing(&self, row: &Row) -> Vec<String> {
        let readable: Vec<&str> = row.get("columns");
        let all: bool = row.get("may_select");
        let unread = self.columns.iter().filter(|name| !readable.contains(name));
        let unread: Vec<_> = unread.copied().collect();
        let mut missing = Vec::new();
        if !all && self.columns.is_empty() {
            missing.push("SELECT".to_owned());
        } else if !all && !unread.is_empty() {
            missing.push(format!("SELECT ({})", unread.join(", ")));
        }
        for (needed, held, privilege) in [
            (self.insert, "may_insert", "INSERT"),
            (self.change, "may_update", "UPDATE"),
            (self.change, "may_delete", "DELETE"),
        ] {
            if needed && !row.get::<_, bool>(held) {
                missing.push(privilege.to_owned());
            }
        }
        missing
    }
}
