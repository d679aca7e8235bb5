//! Parses the text of a table: NOT NULL columns and constraints.

use std::collections::BTreeSet;

use super::definition::{All, Definition, add, pattern};

/// How a constraint's text begins, and the server's code of its kind.
const KINDS: [(&str, &str); 5] = [
    ("PRIMARY KEY", "p"),
    ("UNIQUE", "u"),
    ("CHECK", "c"),
    ("FOREIGN KEY", "f"),
    ("EXCLUDE", "x"),
];

/// The beginning of a column's text.
const COLUMN: &str = r"^([a-z]\w*)\s";

/// The names of the columns in the text between the parentheses of `CREATE TABLE`.
pub fn columns(body: &str) -> BTreeSet<String> {
    let column = pattern(COLUMN);
    let named = |part: &String| Some(column.captures(part)?[1].to_owned());
    parts(body).iter().filter_map(named).collect()
}

/// Adds the objects in the text between the parentheses of `CREATE TABLE`.
pub fn read_table(table: &str, body: &str, all: &mut All) {
    let (parts, columns) = (parts(body), columns(body));
    let column = pattern(COLUMN);
    let named = pattern(r"(?s)^CONSTRAINT (\w+)\s+(.*)$");
    for part in &parts {
        if let Some(found) = column.captures(part) {
            read_column(table, &found[1], part, all);
        } else if let Some(found) = named.captures(part) {
            let definition = constraint(&found[2], &columns);
            add(all, "constraint", table, &found[1], true, definition);
        } else if part.starts_with("PRIMARY KEY") {
            add_key(table, constraint(part, &columns), all);
        }
    }
}

/// Adds a primary key, with the name that PostgreSQL gives it.
fn add_key(table: &str, definition: Definition, all: &mut All) {
    let name = format!("{table}_pkey");
    add(all, "constraint", table, &name, true, definition);
}

/// Adds a column and the constraints in its text, with the names that PostgreSQL gives them.
fn read_column(table: &str, name: &str, text: &str, all: &mut All) {
    let key = text.contains(" PRIMARY KEY");
    if key || text.contains(" NOT NULL") || text.contains(" AS IDENTITY") {
        add(all, "column", table, name, true, Definition::default());
    }
    let of = |form: &str| Definition {
        form: Some(form.into()),
        columns: Some([name.to_owned()].into()),
        ..Definition::default()
    };
    if key {
        add_key(table, of("p"), all);
    }
    for (words, ending, form) in [(" REFERENCES ", "fkey", "f"), (" UNIQUE", "key", "u")] {
        if text.contains(words) {
            let name = format!("{table}_{name}_{ending}");
            add(all, "constraint", table, &name, true, of(form));
        }
    }
}

/// The definition of a constraint, and the columns that its text names.
pub fn constraint(text: &str, columns: &BTreeSet<String>) -> Definition {
    let form = KINDS.iter().find(|(words, _)| text.starts_with(words));
    let condition = text
        .strip_prefix("CHECK")
        .map(|text| text.trim().to_owned());
    // The columns after REFERENCES belong to another table.
    let own = text.split(" REFERENCES ").next().unwrap_or_default();
    let own = pattern("'[^']*'").replace_all(own, "");
    let named = pattern(r"\w+")
        .find_iter(&own)
        .map(|word| word.as_str().to_owned())
        .filter(|word| columns.contains(word))
        .collect();
    Definition {
        form: form.map(|(_, form)| (*form).into()),
        columns: Some(named),
        condition,
        ..Definition::default()
    }
}

/// The parts of a list, without comments. A comma within parentheses or quotes separates no parts.
fn parts(body: &str) -> Vec<String> {
    let lines = body
        .lines()
        .map(|line| line.split("--").next().unwrap_or_default());
    let (mut all, mut part, mut depth, mut quoted) = (Vec::new(), String::new(), 0, false);
    for c in lines.collect::<Vec<_>>().join("\n").chars() {
        match c {
            '\'' => quoted = !quoted,
            '(' if !quoted => depth += 1,
            ')' if !quoted => depth -= 1,
            ',' if !quoted && depth == 0 => {
                all.push(std::mem::take(&mut part));
                continue;
            }
            _ => {}
        }
        part.push(c);
    }
    all.push(part);
    all.iter().map(|part| part.trim().to_owned()).collect()
}
