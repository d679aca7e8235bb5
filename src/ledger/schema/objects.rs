//! Compares the constraints, indexes, triggers, functions and NOT NULL columns that the migrations
//! create in revertd's schema with those in the database.

use serde_json::Value;
use tokio_postgres::{Client, Error};

use expected::{Definition, EXPECTED, Key};
use found::Found;

mod conditions;
mod expected;
mod found;

/// The objects that are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ObjectScope {
    All,
    /// The objects that correct amounts depend on: guards of the outcomes, and deciding functions.
    Guards,
}

/// The objects that are missing, without effect or different, each with a remedy. With `newer`, the
/// schema is newer than this program, and a later migration may have replaced objects. It must not
/// run in a transaction, because a query that the server refuses would abort it.
pub async fn schema_diff(
    client: &Client,
    extent: ObjectScope,
    newer: bool,
) -> Result<Vec<(String, String)>, Error> {
    let rows = client.query(include_str!("objects.sql"), &[]).await?;
    let found: Vec<_> = rows.iter().map(Found::read).collect();
    // Without a plan, conditions are not compared.
    let plan = client.query_one(&conditions::question(&found), &[]).await;
    let plan: Option<Value> = plan.ok().and_then(|row| row.try_get(0).ok());
    let unlike = conditions::unlike(&found, plan.as_ref());
    let expected = EXPECTED
        .iter()
        .filter(|(_, definition)| definition.guards || extent == ObjectScope::All);
    let schema_diff = expected.filter_map(|(key, definition)| {
        let other = key.table == "outcomes" && unlike.contains(&key.name.as_str());
        trouble(key, definition, &found, other, newer)
    });
    Ok(schema_diff.collect())
}

/// How many objects are expected.
pub fn count() -> usize {
    EXPECTED.len()
}

fn trouble(
    key: &Key,
    expected: &Definition,
    found: &[Found<'_>],
    other: bool,
    newer: bool,
) -> Option<(String, String)> {
    let Key { kind, table, name } = key;
    let mut same = found.iter().filter(|found| {
        (found.kind, found.table, found.name) == (kind, table.as_str(), name.as_str())
    });
    let Some(first) = same.clone().next() else {
        return Some((
            format!("the {key} is missing"),
            "create it again as in migrations/, after `revertd verify` or you have checked the rows"
                .into(),
        ));
    };
    if let Some(fault) = first.fault {
        return Some(match fault {
            "nullable" => (
                format!("the {key} may be NULL"),
                format!("ALTER TABLE revertd.{table} ALTER COLUMN {name} SET NOT NULL;"),
            ),
            "disabled" => without_effect(
                key,
                format!("ALTER TABLE revertd.{table} ENABLE TRIGGER {name};"),
            ),
            "unbuilt" => without_effect(key, format!("REINDEX INDEX CONCURRENTLY revertd.{name};")),
            _ => without_effect(
                key,
                format!("ALTER TABLE revertd.{table} VALIDATE CONSTRAINT {name};"),
            ),
        });
    }
    if newer || !other && same.any(|found| found.is_as(expected)) {
        return None;
    }
    let remedy = match *kind {
        "function" => "replace it by the definition in migrations/ (CREATE OR REPLACE)",
        _ => "drop it and create it again as in migrations/",
    };
    Some((
        format!("the {key} differs from the migrations' definition"),
        format!("{remedy}, after `revertd verify` or you have checked the rows"),
    ))
}

fn without_effect(key: &Key, remedy: String) -> (String, String) {
    (format!("the {key} exists, but without effect"), remedy)
}
