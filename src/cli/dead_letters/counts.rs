//! Counts dead letters by reason and client.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde_json::{Value, json};

use crate::cli::terminal::{named, padded};

/// Most groups that are counted separately. A queue usually has few.
const GROUPS_MAX: usize = 1000;

/// Counts of dead letters by reason and client.
#[derive(Debug, Default)]
pub struct LetterCounts {
    groups: BTreeMap<(String, String), u64>,
    /// Dead letters of the groups beyond the bound.
    others: u64,
}

impl LetterCounts {
    pub fn add(&mut self, reason: &str, client: &str) {
        let key = (reason.to_owned(), client.to_owned());
        if self.groups.len() < GROUPS_MAX || self.groups.contains_key(&key) {
            *self.groups.entry(key).or_default() += 1;
        } else {
            self.others += 1;
        }
    }

    pub fn total(&self) -> u64 {
        self.groups.values().sum::<u64>() + self.others
    }

    /// Reason and client of each group.
    pub fn groups(&self) -> impl Iterator<Item = (&str, &str)> {
        let keys = self.groups.keys();
        keys.map(|(reason, client)| (reason.as_str(), client.as_str()))
    }

    /// A table of the groups with their counts, the largest first.
    pub fn text(&self) -> String {
        let mut text = String::new();
        let reasons = self
            .groups()
            .map(|(reason, _)| named(reason).chars().count());
        let columns = reasons.max().unwrap_or(0).max(6);
        if !self.groups.is_empty() {
            let _ = writeln!(text, "LETTERS  {}  CLIENT", padded("REASON", columns));
        }
        for ((reason, client), count) in self.largest_first() {
            let reason = padded(&named(reason), columns);
            let _ = writeln!(text, "{count:>7}  {reason}  {}", named(client));
        }
        if self.others > 0 {
            let _ = writeln!(text, "{:>7}  of further reasons and clients", self.others);
        }
        text
    }

    pub fn json(&self) -> Vec<Value> {
        let mut all = Vec::new();
        for ((reason, client), letters) in self.largest_first() {
            all.push(json!({"letters": letters, "reason": reason, "client": client}));
        }
        all
    }

    fn largest_first(&self) -> Vec<(&(String, String), &u64)> {
        let mut groups: Vec<_> = self.groups.iter().collect();
        groups.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
        groups
    }
}

/// A count of dead letters, in words.
pub fn letters(count: u64) -> String {
    match count {
        0 => "no letters".into(),
        1 => "1 letter".into(),
        count => format!("{count} letters"),
    }
}
