//! The objects that the migrations create, parsed from the migrations, so that a new migration
//! needs no list.
//!
//! A definition that cannot be parsed here is not compared, but its existence is still checked.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use regex::Regex;

use crate::ledger::schema::migrate::MIGRATIONS;
use definition::{All, add, pattern, plain, uncommented};
use table::{columns, constraint, read_table};

mod definition;
mod table;

pub use definition::{Definition, Key};

pub static EXPECTED: LazyLock<All> = LazyLock::new(|| {
    let mut all = All::new();
    let mut so_far = String::new();
    for (_, sql) in MIGRATIONS {
        let sql = uncommented(sql);
        so_far.push_str(&sql);
        created_by(&sql, &so_far, &mut all);
    }
    all
});

/// A condition that every version of the server shows in the words in which it was written.
fn condition(kind: &str, text: &str) -> Option<String> {
    let simple = pattern(r"(?i)^\s*[\w.]+\s+(?:IS (?:NOT )?NULL|[<>=]+ \d+)\s*$");
    (text.is_empty() || simple.is_match(text)).then(|| plain(kind, text))
}

/// Adds the objects that a migration creates. `so_far` is the text of the earlier migrations and of
/// this one.
fn created_by(sql: &str, so_far: &str, all: &mut All) {
    for table in tables().captures_iter(sql) {
        read_table(&table[1], &table[2], all);
    }
    let added = pattern(r"ALTER TABLE revertd\.(\w+)\s+ADD CONSTRAINT (\w+)\s+([^;]*);");
    for found in added.captures_iter(sql) {
        let definition = constraint(found[3].trim(), &columns_of(&found[1], so_far));
        add(all, "constraint", &found[1], &found[2], true, definition);
    }
    indexes(sql, all);
    triggers(sql, all);
    functions(sql, all);
    let dropped = pattern(
        r"DROP (?:CONSTRAINT|INDEX|TRIGGER|FUNCTION|AGGREGATE) (?:IF EXISTS )?(?:revertd\.)?(\w+)",
    );
    for found in dropped.captures_iter(sql) {
        let after = found.get(0).map_or("", |found| &sql[found.end()..]);
        if !is_created(&found[1], after) {
            all.retain(|key, _| key.kind == "column" || key.name != found[1]);
        }
    }
}

/// Whether an object of that name is created, as a replacement of the dropped one.
fn is_created(name: &str, sql: &str) -> bool {
    let kinds = r"CONSTRAINT |(?:UNIQUE )?INDEX |(?:CONSTRAINT )?TRIGGER |FUNCTION revertd\.|AGGREGATE revertd\.";
    pattern(&format!(
        r"(?:ADD|CREATE|CREATE OR REPLACE) (?:{kinds}){name}\b"
    ))
    .is_match(sql)
}

fn tables() -> Regex {
    pattern(r"(?s)CREATE TABLE (?:IF NOT EXISTS )?revertd\.(\w+) \((.*?)\n\);")
}

/// The columns of a table, including columns that were added later.
fn columns_of(table: &str, sql: &str) -> BTreeSet<String> {
    let tables = tables();
    let created = tables.captures_iter(sql).filter(|found| &found[1] == table);
    let mut columns: BTreeSet<String> = created.flat_map(|found| columns(&found[2])).collect();
    let altered = pattern(&format!(
        r"(?s)ALTER TABLE (?:IF EXISTS )?revertd\.{table}\s([^;]*);"
    ));
    let added = pattern(r"ADD COLUMN (?:IF NOT EXISTS )?(\w+)");
    for found in altered.captures_iter(sql) {
        columns.extend(
            added
                .captures_iter(&found[1])
                .map(|found| found[1].to_owned()),
        );
    }
    columns
}

fn indexes(sql: &str, all: &mut All) {
    let indexes = pattern(r"CREATE (UNIQUE )?INDEX (\w+)\s+ON\s+revertd\.(\w+)([^;]*);");
    let columns = pattern(r"^\s*\(([\w\s,]*)\)\s*(?:WHERE\s+([^;]*))?$");
    for found in indexes.captures_iter(sql) {
        let unique = found.get(1).is_some();
        let rest = columns.captures(&found[4]);
        let of = |names: &str| -> BTreeSet<String> {
            names
                .split(',')
                .map(|name| name.trim().to_owned())
                .collect()
        };
        let definition = Definition {
            guards: unique,
            form: Some(if unique { "unique" } else { "" }.into()),
            columns: rest.as_ref().map(|rest| of(&rest[1])),
            text: rest
                .and_then(|rest| condition("index", rest.get(2).map_or("", |text| text.as_str()))),
            ..Definition::default()
        };
        add(all, "index", &found[3], &found[2], unique, definition);
    }
}

fn triggers(sql: &str, all: &mut All) {
    let triggers = pattern(
        r"(?s)CREATE (?:CONSTRAINT )?TRIGGER (\w+)\s([^;]*?)\sON\s+revertd\.(\w+)([^;]*?)EXECUTE FUNCTION revertd\.(\w+)",
    );
    let when = pattern(r"(?s)WHEN \((.*)\)\s*$");
    for found in triggers.captures_iter(sql) {
        let said = |word: &str, bit| if found[2].contains(word) { bit } else { 0 };
        // The bits of pg_trigger.tgtype.
        let row = i16::from(found[4].contains("FOR EACH ROW"));
        let bits = row
            + said("BEFORE", 2)
            + said("INSERT", 4)
            + said("DELETE", 8)
            + said("UPDATE", 16)
            + said("TRUNCATE", 32);
        let when = when.captures(&found[4]);
        let when = when
            .as_ref()
            .map_or("", |when| when.get(1).map_or("", |text| text.as_str()));
        let definition = Definition {
            form: Some(bits.to_string()),
            columns: Some([found[5].to_owned()].into()),
            text: condition("trigger", when),
            ..Definition::default()
        };
        add(all, "trigger", &found[3], &found[1], true, definition);
    }
}

fn functions(sql: &str, all: &mut All) {
    let functions = pattern(r"CREATE (?:OR REPLACE )?(?:FUNCTION|AGGREGATE) revertd\.(\w+)");
    // The last alternative matches a function that is created by format(), with a name that only
    // the database knows.
    let body =
        pattern(r"(?s)\sAS\s+(?:\$\w*\$(.*?)\$\w*\$|'((?:[^']|'')*)'|%L',\s*format\('([^']*)')");
    for found in functions.captures_iter(sql) {
        let after = found.get(0).map_or("", |found| &sql[found.end()..]);
        // The body ends before the next CREATE.
        let own = after.split("CREATE ").next().unwrap_or_default();
        let body = body.captures(own).map(|body| {
            let quoted = body.get(2).or(body.get(3));
            let quoted = quoted.map(|text| text.as_str().replace("''", "'"));
            quoted.unwrap_or_else(|| body[1].to_owned())
        });
        let definition = Definition {
            text: body.map(|body| plain("function", &body)),
            ..Definition::default()
        };
        add(all, "function", "", &found[1], true, definition);
    }
}

#[cfg(test)]
mod tests;
