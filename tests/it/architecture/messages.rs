//! The catalogue of messages: every sentence of the sources that a person may read, in one
//! snapshot. A change of words shows in its diff. To accept it, run the test with
//! `INSTA_UPDATE=always`.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

use proc_macro2::{Delimiter, TokenStream, TokenTree};
use regex::Regex;

/// The fewest words of a string that is taken for a sentence.
const WORDS: usize = 3;

#[test]
fn every_message_is_in_the_catalogue() {
    let mut catalogue = String::new();
    for (name, messages) in messages() {
        let _ = writeln!(catalogue, "{name}");
        for message in messages {
            let _ = writeln!(catalogue, "  {message}");
        }
    }
    insta::assert_snapshot!(catalogue);
}

/// The findings that the page of `revertd doctor` shows are recorded by hand.
#[test]
fn recorded_findings_are_messages_of_the_program() {
    let placeholder = Regex::new(r"\\\{[^}]*\\\}").expect("a pattern");
    let patterns: Vec<Regex> = messages()
        .into_values()
        .flatten()
        // A message of placeholders alone fits every finding.
        .filter(|message| {
            let words = message.split_whitespace();
            words.filter(|word| !word.contains('{')).count() >= WORDS
        })
        .map(|message| {
            let text = regex::escape(message.trim_matches('"'));
            let pattern = placeholder.replace_all(&text, ".+");
            Regex::new(&format!("^{pattern}$")).expect("a pattern")
        })
        .collect();
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = fs::read_to_string(root.join("docs/reference/cli/doctor.md")).expect("UTF-8");
    let finding = Regex::new(r"(?m)^(?:ERROR|warning|skipped) +[a-z-]+ +(.+)$").expect("a pattern");
    let recorded: Vec<&str> = finding
        .captures_iter(&page)
        .filter_map(|line| Some(line.get(1)?.as_str()))
        .collect();
    assert!(recorded.len() > 3, "{recorded:?}");
    for text in recorded {
        let is_known = patterns.iter().any(|pattern| pattern.is_match(text));
        assert!(is_known, "the program has no such message: {text}");
    }
}

/// The messages of each source file, by its name below `src`.
fn messages() -> BTreeMap<String, Vec<String>> {
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut all = BTreeMap::new();
    for (path, text) in files(&sources) {
        let tokens: TokenStream = text.parse().expect("Rust");
        let mut messages = Vec::new();
        collect(tokens, &mut messages);
        if !messages.is_empty() {
            let name = path.strip_prefix(&sources).expect("below src").display();
            all.insert(name.to_string(), messages);
        }
    }
    all
}

fn files(folder: &Path) -> BTreeMap<PathBuf, String> {
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(folder).expect("readable") {
        let path = entry.expect("readable").path();
        if path.is_dir() {
            files.extend(self::files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs")
            && !path.ends_with("tests.rs")
        {
            let text = fs::read_to_string(&path).expect("UTF-8");
            files.insert(path, text);
        }
    }
    files
}

/// The sentences of string literals, outside of attributes and of `mod tests`. Help texts are doc
/// comments, which the pages of the commands show.
fn collect(tokens: TokenStream, messages: &mut Vec<String>) {
    let mut before = [String::new(), String::new()];
    for token in tokens {
        let text = token.to_string();
        match token {
            TokenTree::Group(group) => {
                let in_attribute = before[1] == "#" && group.delimiter() == Delimiter::Bracket;
                let of_error = group.stream().to_string().starts_with("error");
                let in_tests = before == ["mod", "tests"];
                if (!in_attribute || of_error) && !in_tests {
                    collect(group.stream(), messages);
                }
            }
            TokenTree::Literal(_) => {
                let quoted = text.starts_with('"');
                let sentence = joined(&text);
                let is_sql = [
                    "SELECT", "INSERT", "UPDATE", "DELETE", "BEGIN", "SET ", "ALTER",
                ];
                let is_sql = is_sql
                    .iter()
                    .any(|word| sentence.starts_with(&format!("\"{word}")));
                if quoted && !is_sql && sentence.split_whitespace().count() >= WORDS {
                    messages.push(sentence);
                }
            }
            TokenTree::Ident(_) | TokenTree::Punct(_) => {}
        }
        let [_, last] = before;
        before = [last, text];
    }
}

/// A literal on one line: a backslash at a line's end joins it with the next.
fn joined(literal: &str) -> String {
    let mut lines = literal.lines().map(str::trim_start);
    let first = lines.next().unwrap_or_default().to_owned();
    lines.fold(first, |text, line| match text.strip_suffix('\\') {
        Some(start) => start.to_owned() + line,
        None => text + " " + line,
    })
}
