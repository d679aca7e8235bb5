//! The constraints, indexes, triggers and functions of revertd's own tables: what the migrations create, and what is
//! there.
//!
//! What they create is read out of the migrations themselves, so that a new one need not be listed anywhere.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use regex::Regex;
use tokio_postgres::Row;

use super::migrate::MIGRATIONS;

/// What is there: kind, table, name, and whether it has effect.
pub const QUERY: &str = include_str!("objects.sql");

/// Something that the migrations create.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Object {
    kind: &'static str,
    /// Empty of a function.
    table: String,
    name: String,
    /// Whether money depends on it: whether it keeps rows out of the outcomes.
    guards: bool,
}

impl Object {
    fn describe(&self) -> String {
        let Self {
            kind, table, name, ..
        } = self;
        match *kind {
            "function" => format!("function revertd.{name}"),
            _ => format!("{kind} {name} of revertd.{table}"),
        }
    }
}

/// What of it is missing or without effect, each with what to do; with `guards_only`, of what money depends on.
pub fn troubles(rows: &[Row], guards_only: bool) -> Vec<(String, String)> {
    let expected = EXPECTED
        .iter()
        .filter(|object| object.guards || !guards_only);
    let trouble = |object: &Object| {
        let row = rows.iter().find(|row| {
            let (kind, table, name): (&str, &str, &str) = (row.get(0), row.get(1), row.get(2));
            (kind, table, name) == (object.kind, &object.table, &object.name)
        });
        let what = object.describe();
        let Object { table, name, .. } = object;
        match row.map(|row| row.get::<_, bool>(3)) {
            Some(true) => None,
            None => Some((
                format!("the {what} is missing"),
                "create it again as it stands in migrations/, once `revertd verify` or you have found the rows \
                 sound"
                    .into(),
            )),
            Some(false) => Some((
                format!("the {what} is there, without effect"),
                match object.kind {
                    "trigger" => format!("ALTER TABLE revertd.{table} ENABLE TRIGGER {name};"),
                    "index" => format!("REINDEX INDEX CONCURRENTLY revertd.{name};"),
                    _ => format!("ALTER TABLE revertd.{table} VALIDATE CONSTRAINT {name};"),
                },
            )),
        }
    };
    expected.filter_map(trouble).collect()
}

/// How many there are to be.
pub fn count() -> usize {
    EXPECTED.len()
}

static EXPECTED: LazyLock<BTreeSet<Object>> = LazyLock::new(|| {
    let mut all = BTreeSet::new();
    for (_, sql) in MIGRATIONS {
        let sql: Vec<_> = sql
            .lines()
            .filter(|line| !line.trim_start().starts_with("--"))
            .collect();
        created_by(&sql.join("\n"), &mut all);
    }
    all
});

fn pattern(text: &str) -> Regex {
    Regex::new(text).expect("a pattern of ours")
}

fn created_by(sql: &str, all: &mut BTreeSet<Object>) {
    let object = |kind, table: &str, name: &str, guards| Object {
        kind,
        table: table.into(),
        name: name.into(),
        guards: guards && ["outcomes", ""].contains(&table),
    };
    let tables = pattern(r"(?s)CREATE TABLE (?:IF NOT EXISTS )?revertd\.(\w+) \((.*?)\n\);");
    for table in tables.captures_iter(sql) {
        for name in constraints_of(&table[1], &table[2]) {
            all.insert(object("constraint", &table[1], &name, true));
        }
    }
    let added = pattern(r"ALTER TABLE revertd\.(\w+)\s+ADD CONSTRAINT (\w+)");
    for found in added.captures_iter(sql) {
        all.insert(object("constraint", &found[1], &found[2], true));
    }
    let indexes = pattern(r"CREATE (UNIQUE )?INDEX (\w+)\s+ON\s+revertd\.(\w+)");
    for found in indexes.captures_iter(sql) {
        all.insert(object(
            "index",
            &found[3],
            &found[2],
            found.get(1).is_some(),
        ));
    }
    let triggers =
        pattern(r"(?s)CREATE (?:CONSTRAINT )?TRIGGER (\w+)\s[^;]*?\sON\s+revertd\.(\w+)");
    for found in triggers.captures_iter(sql) {
        all.insert(object("trigger", &found[2], &found[1], true));
    }
    let functions = pattern(r"CREATE (?:OR REPLACE )?(?:FUNCTION|AGGREGATE) revertd\.(\w+)");
    for found in functions.captures_iter(sql) {
        all.insert(object("function", "", &found[1], true));
    }
    let dropped = pattern(
        r"DROP (?:CONSTRAINT|INDEX|TRIGGER|FUNCTION|AGGREGATE) (?:IF EXISTS )?(?:revertd\.)?(\w+)",
    );
    for found in dropped.captures_iter(sql) {
        all.retain(|object| object.name != found[1]);
    }
}

/// Those of a table's own text: named ones, and those that PostgreSQL names.
fn constraints_of(table: &str, body: &str) -> Vec<String> {
    let named = pattern(r"CONSTRAINT (\w+)\s+(?:PRIMARY KEY|UNIQUE|CHECK|FOREIGN KEY|EXCLUDE)");
    let mut all: Vec<_> = named
        .captures_iter(body)
        .map(|found| found[1].to_owned())
        .collect();
    let column = pattern(r"^\s*([a-z]\w*)\s");
    for line in body.lines().filter(|line| !line.contains("CONSTRAINT ")) {
        let line = line.split("--").next().unwrap_or_default();
        let column = column.captures(line).map(|found| found[1].to_owned());
        if line.contains("PRIMARY KEY") {
            all.push(format!("{table}_pkey"));
        }
        if let Some(column) = column {
            for (words, ending) in [(" REFERENCES ", "fkey"), (" UNIQUE", "key")] {
                if line.contains(words) {
                    all.push(format!("{table}_{column}_{ending}"));
                }
            }
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn created(sql: &str) -> Vec<String> {
        let mut all = BTreeSet::new();
        created_by(sql, &mut all);
        all.iter().map(Object::describe).collect()
    }

    #[test]
    fn what_migrations_create_is_read_however_it_is_written() {
        let sql = "CREATE TABLE revertd.a (\n    id bigint PRIMARY KEY,\n    b uuid NOT NULL REFERENCES revertd.b,\n\
            \x20   c text UNIQUE,\n    CONSTRAINT a_c CHECK (c <> '')\n);\n\
            CREATE TABLE revertd.b (\n    PRIMARY KEY (x, y),\n    CONSTRAINT b_gone CHECK (true)\n);\n\
            ALTER TABLE revertd.b DROP CONSTRAINT b_gone;\n\
            CREATE UNIQUE INDEX a_once ON revertd.a (c);\n\
            CREATE CONSTRAINT TRIGGER a_chain AFTER INSERT ON\n revertd.a FOR EACH ROW EXECUTE FUNCTION revertd.f();\n\
            CREATE FUNCTION revertd.f() RETURNS trigger";
        assert_eq!(
            created(sql),
            [
                "constraint a_b_fkey of revertd.a",
                "constraint a_c of revertd.a",
                "constraint a_c_key of revertd.a",
                "constraint a_pkey of revertd.a",
                "constraint b_pkey of revertd.b",
                "function revertd.f",
                "index a_once of revertd.a",
                "trigger a_chain of revertd.a",
            ]
        );
    }
}
