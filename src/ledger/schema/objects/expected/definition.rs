//! What an object is, and how its text is compared.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use regex::Regex;

/// What something is known by.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    pub kind: &'static str,
    /// Empty of a function.
    pub table: String,
    pub name: String,
}

/// What it is. `None`: not compared.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Definition {
    /// Whether money depends on it.
    pub guards: bool,
    pub form: Option<String>,
    /// Columns that it is about; of a trigger the function.
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

/// Adds something, in place of what had its name before.
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

/// The classes of ASCII stand for those of Unicode, which take many times as long to compile.
pub fn pattern(text: &str) -> Regex {
    const CLASSES: [(&str, &str); 4] = [
        (r"\w", "[[:word:]]"),
        (r"\s", "[[:space:]]"),
        (r"\d", "[[:digit:]]"),
        (r"\b", r"(?-u:\b)"),
    ];
    let ascii = CLASSES
        .iter()
        .fold(text.to_owned(), |text, (class, ascii)| {
            text.replace(class, ascii)
        });
    Regex::new(&ascii).expect("a valid pattern")
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
    /// Whether a text is that which is expected; `%I` stands for any name.
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
