//! The constraints, indexes, triggers and functions of revertd's own tables, and the columns that must not be NULL: what
//! the migrations create, and what is there.

use serde_json::Value;
use tokio_postgres::{Client, Error};

use expected::{Definition, EXPECTED, Key};
use found::Found;

mod conditions;
mod expected;
mod found;

/// What of it is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ObjectScope {
    All,
    /// What money depends on: what keeps rows out of the outcomes, and what decides.
    Guards,
}

/// What of it is missing, without effect or another thing under the same name, each with what to do. Where the schema is
/// newer than this program, `newer`, a later migration may have put others in their place. Not within a transaction: a
/// question that the server refuses would end it.
pub async fn schema_diff(
    client: &Client,
    extent: ObjectScope,
    newer: bool,
) -> Result<Vec<(String, String)>, Error> {
    let rows = client.query(include_str!("objects.sql"), &[]).await?;
    let found: Vec<_> = rows.iter().map(Found::read).collect();
    // Without a plan, some things are not compared.
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

/// How many there are to be.
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
            "create it again as it stands in migrations/, once `revertd verify` or you have found the rows sound"
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
        "function" => "replace it by what stands in migrations/ (CREATE OR REPLACE)",
        _ => "drop it and create it again as it stands in migrations/",
    };
    Some((
        format!("the {key} is another than the migrations create"),
        format!("{remedy}, once `revertd verify` or you have found the rows sound"),
    ))
}

fn without_effect(key: &Key, remedy: String) -> (String, String) {
    (format!("the {key} is there, without effect"), remedy)
}
