//! Frontier's tables: creates missing ones, and checks that they fit.

use crate::common::diagnostic::Diagnostic;
use crate::config::Settings;
use crate::ledger::connection::session::Session;
use crate::ledger::error::LedgerError;

/// Frontier's columns that a revert reads or writes, with their types.
const COLUMNS: [(&str, &str, &str); 21] = [
    ("organizations", "id", "uuid"),
    ("organizations", "name", "text"),
    ("organizations", "deleted_at", "timestamptz"),
    ("projects", "id", "uuid"),
    ("projects", "name", "text"),
    ("projects", "org_id", "uuid"),
    ("projects", "deleted_at", "timestamptz"),
    ("billing_customers", "id", "uuid"),
    ("billing_customers", "org_id", "uuid"),
    ("billing_customers", "state", "text"),
    ("billing_customers", "created_at", "timestamptz"),
    ("billing_customers", "deleted_at", "timestamptz"),
    ("billing_transactions", "id", "uuid"),
    ("billing_transactions", "account_id", "uuid"),
    ("billing_transactions", "type", "text"),
    ("billing_transactions", "source", "text"),
    ("billing_transactions", "amount", "int8"),
    ("billing_transactions", "description", "text"),
    ("billing_transactions", "metadata", "jsonb"),
    ("billing_transactions", "user_id", "text"),
    ("billing_transactions", "created_at", "timestamptz"),
];

impl Session {
    pub async fn create_frontier_tables(&self, settings: &Settings) -> Result<(), LedgerError> {
        let schema = &settings.ledger.schema;
        let missing = format!(
            "SELECT FROM unnest(ARRAY['organizations', 'projects', 'billing_customers', \
             'billing_transactions']) t WHERE to_regclass('\"{schema}\".' || t) IS NULL"
        );
        if !self.exists(&missing).await? {
            return Ok(());
        }
        self.execute(&format!("CREATE SCHEMA IF NOT EXISTS \"{schema}\""))
            .await?;
        if !self
            .exists("SELECT FROM pg_extension WHERE extname = 'uuid-ossp'")
            .await?
        {
            let create =
                format!("CREATE EXTENSION IF NOT EXISTS \"uuid-ossp\" SCHEMA \"{schema}\"");
            self.execute(&create).await?;
        }
        let home = self.client.query_one(
            "SELECT quote_ident(n.nspname) FROM pg_extension e \
             JOIN pg_namespace n ON n.oid = e.extnamespace WHERE e.extname = 'uuid-ossp'",
            &[],
        );
        let home = self.answered(home).await?;
        let home: String = home.get(0);
        // The search path ends with this transaction.
        self.execute(&format!(
            "BEGIN; SET LOCAL search_path = \"{schema}\", {home}; {} COMMIT",
            include_str!("frontier.sql")
        ))
        .await
    }

    pub async fn check_frontier_tables(&self, settings: &Settings) -> Result<(), LedgerError> {
        let schema = settings.ledger.schema.as_str();
        let query = "SELECT c.relname::text, a.attname::text, t.typname::text, \
             a.attnotnull AND NOT a.atthasdef AND a.attidentity = '' AS must_be_given \
             FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid \
             JOIN pg_namespace n ON n.oid = c.relnamespace JOIN pg_type t ON t.oid = a.atttypid \
             WHERE n.nspname = $1 AND a.attnum > 0 AND NOT a.attisdropped";
        let rows = self.answered(self.client.query(query, &[&schema])).await?;
        let mut problems = Vec::new();
        for (table, column, kind) in COLUMNS {
            let found = rows
                .iter()
                .find(|row| row.get::<_, &str>(0) == table && row.get::<_, &str>(1) == column);
            let found: Option<&str> = found.map(|row| row.get(2));
            match found {
                None => problems.push(format!("{table}.{column} is missing")),
                Some("varchar") if kind == "text" => {}
                Some(found) if found == kind => {}
                Some(found) => problems.push(format!("{table}.{column} is {found}, not {kind}")),
            }
        }
        for row in &rows {
            let (table, column): (&str, &str) = (row.get(0), row.get(1));
            let ours = column == "updated_at" || COLUMNS.iter().any(|(_, name, _)| *name == column);
            if table == "billing_transactions" && row.get::<_, bool>(3) && !ours {
                problems.push(format!(
                    "{table}.{column} is required, and revertd does not know it"
                ));
            }
        }
        let unique = format!(
            "SELECT FROM pg_index i JOIN pg_attribute a ON a.attrelid = i.indrelid \
             AND a.attnum = i.indkey[0] \
             WHERE i.indrelid = to_regclass('\"{schema}\".billing_transactions') \
             AND i.indisunique AND i.indisvalid AND i.indpred IS NULL AND i.indnkeyatts = 1 \
             AND a.attname = 'id'"
        );
        if problems.is_empty() && !self.exists(&unique).await? {
            problems.push("billing_transactions.id has no unique index".into());
        }
        if problems.is_empty() {
            return Ok(());
        }
        let remedy = if rows.is_empty() && !settings.ledger.manage {
            "correct ledger.schema, or set ledger.manage = true and run `revertd migrate`, which \
             creates the tables"
        } else {
            "correct ledger.schema, or give Frontier's tables the columns and the index that the \
             message names"
        };
        let problems = problems.join(", ");
        let text = format!("Frontier's tables in schema {schema} do not fit: {problems}");
        Err(LedgerError::permanent(Diagnostic::new(text).remedy(remedy)))
    }
}
