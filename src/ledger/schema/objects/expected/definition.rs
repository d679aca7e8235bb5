//! Definitions of the schema's objects, and how their texts are compared.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use regex::Regex;

/// The identity of an object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    pub kind: &'static str,
    /// Empty for a function.
    pub table: String,
    pub name: String,
}

/// The definition of an object. A field that is `None` is not compared.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Definition {
    /// Whether money depends on it.
    pub guards: bool,
    pub form: Option<String>,
    /// The columns concerned; for a trigger, the function.
    pub columns: Option<BTreeSet<String>>,
    /// A function's body, or the condition of an index or a trigger, as [`plain`] makes it.
    pub text: Option<String>,
    /// A constraint's condition, as it was written.
    pub condition: Option<String>,
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, table, name } = self;
        match *kind {
            "function" => write!(f, "function revertd.{name}"),
            _ => write!(f, "{kind} {name} of revertd.{table}"),
        }
    }
}

pub type All = BTreeMap<Key, Definition>;

/// Adds an object. It replaces an earlier object of the same name.
pub fn add(
    all: &mut All,
    kind: &'static str,
    table: &str,
    name: &str,
    guards: bool,
    definition: Definition,
) {
    let key = Key {
        kind,
        table: table.into(),
        name: name.into(),
    };
    let guards = guards && ["outcomes", ""].contains(&table);
    all.insert(
        key,
        Definition {
            guards,
            ..definition
        },
    );
}

pub fn pattern(text: &str) -> Regex {
    Regex::new(text).expect("a valid pattern")
}

pub fn uncommented(sql: &str) -> String {
    let lines = sql.lines();
    let lines: Vec<_> = lines
        .filter(|line| !line.trim_start().starts_with("--"))
        .collect();
    lines.join("\n")
}

/// A function's body without comments and white space; a condition also without parentheses and in
/// lower case.
pub fn plain(kind: &str, text: &str) -> String {
    if kind == "function" {
        let text = uncommented(text);
        return text.split_whitespace().collect::<Vec<_>>().join(" ");
    }
    let kept = |c: &char| !c.is_whitespace() && !['(', ')'].contains(c);
    text.chars().filter(kept).collect::<String>().to_lowercase()
}

impl Definition {
    /// Whether a text equals the expected one, in which `%I` stands for any name.
    pub fn reads(&self, kind: &str, text: &str) -> bool {
        let Some(expected) = self.text.as_deref() else {
            return true;
        };
        let text = plain(kind, text);
        match expected.split_once("%I") {
            Some((before, after)) => text.starts_with(before) && text.ends_with(after),
            None => text == expected,
        }
    }
}
