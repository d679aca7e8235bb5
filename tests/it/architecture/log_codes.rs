//! Every warning and every error in the log has an `event` code, and the runbook explains each
//! code.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use regex::Regex;

/// The page with a row for each code, between two marks.
const RUNBOOK: &str = "docs/operations/runbook.md";

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// The files of a folder and of the folders below it, with their texts.
fn files(folder: &Path, is_wanted: impl Fn(&str) -> bool) -> Vec<(PathBuf, String)> {
    let mut folders = vec![folder.to_owned()];
    let mut files = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("readable") {
            let path = entry.expect("readable").path();
            let ending = path.extension().and_then(|ending| ending.to_str());
            if path.is_dir() {
                folders.push(path);
            } else if ending.is_some_and(&is_wanted) {
                let text = fs::read_to_string(&path).expect("UTF-8");
                files.push((path, text));
            }
        }
    }
    files
}

/// From an opening bracket to its closing one. Brackets in strings do not count.
fn bracketed(text: &str) -> &str {
    let (mut depth, mut in_string, mut is_escaped) = (0, false, false);
    for (at, c) in text.char_indices() {
        match c {
            _ if is_escaped => is_escaped = false,
            '\\' if in_string => is_escaped = true,
            '"' => in_string = !in_string,
            '(' | '{' if !in_string => depth += 1,
            ')' | '}' if !in_string => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return &text[..=at];
        }
    }
    panic!("no closing bracket: {text:.200}");
}

/// The matches of a pattern's group in a text.
fn found(pattern: &str, text: &str) -> BTreeSet<String> {
    let pattern = Regex::new(pattern).expect("a pattern");
    let found = pattern.captures_iter(text);
    found.map(|found| found[1].to_owned()).collect()
}

/// The codes of a source file: those of its log lines, and those that an `event_code` chooses from.
fn codes(text: &str) -> BTreeSet<String> {
    let mut codes = found(r#"\bevent = "([^"]*)""#, text);
    for (at, _) in text.match_indices("fn event_code(") {
        let body = &text[at..];
        let opening = body.find('{').expect("it has a body");
        codes.extend(found(r#""([^"]*)""#, bracketed(&body[opening..])));
    }
    codes
}

fn all_codes() -> BTreeSet<String> {
    let sources = files(&root().join("src"), |ending| ending == "rs");
    let codes = sources.iter().flat_map(|(_, text)| codes(text));
    codes.collect()
}

/// Whether the arguments of a log macro have an event: a literal, or the result of `event_code`.
fn has_event(arguments: &str) -> bool {
    let event = r#"\bevent = ("|[\w.]+\.event_code\(\))|^\(\s*event,"#;
    Regex::new(event).expect("a pattern").is_match(arguments)
}

#[test]
fn every_warning_and_error_has_an_event_code() {
    let begin = Regex::new(r"\b(?:warn|error)!\(").expect("a pattern");
    let (mut lines, mut missing) = (0, Vec::new());
    for (path, text) in files(&root().join("src"), |ending| ending == "rs") {
        for found in begin.find_iter(&text) {
            lines += 1;
            let arguments = bracketed(&text[found.end() - 1..]);
            if !has_event(arguments) {
                missing.push(format!("{}: {arguments}", path.display()));
            }
        }
    }
    assert!(lines > 20, "only {lines} log lines were found");
    assert!(missing.is_empty(), "no event code:\n{}", missing.join("\n"));
}

#[test]
fn an_event_code_is_snake_case() {
    let codes = all_codes();
    assert!(codes.len() > 20, "{codes:?}");
    let snake_case = Regex::new("^[a-z]+(_[a-z]+)*$").expect("a pattern");
    let others: Vec<_> = codes
        .iter()
        .filter(|code| !snake_case.is_match(code))
        .collect();
    assert!(others.is_empty(), "{others:?}");
}

#[test]
fn the_runbook_has_a_row_for_each_event_code() {
    let page = fs::read_to_string(root().join(RUNBOOK)).expect("the page is there");
    let (_, rows) = page
        .split_once("<!-- events -->")
        .expect("the table begins");
    let (rows, _) = rows.split_once("<!-- /events -->").expect("the table ends");
    let rows = found(r"(?m)^\| `([^`]*)` \|", rows);
    assert_eq!(
        rows,
        all_codes(),
        "rows of the runbook, and codes of the log"
    );
}

#[test]
fn documents_name_only_event_codes_of_the_log() {
    let codes = all_codes();
    let mut documents = Vec::new();
    for entry in fs::read_dir(root()).expect("readable") {
        let path = entry.expect("readable").path();
        if path.extension().is_some_and(|ending| ending == "md") {
            let text = fs::read_to_string(&path).expect("UTF-8");
            documents.push((path, text));
        }
    }
    let is_text = |ending: &str| ["md", "yml", "yaml", "json", "toml"].contains(&ending);
    for folder in ["docs", "config"] {
        documents.extend(files(&root().join(folder), is_text));
    }
    let mut named = 0;
    for (path, text) in documents {
        for code in found(r#"\bevent\\?=\\?"?([a-z_]+)"#, &text) {
            named += 1;
            let path = path.display();
            assert!(
                codes.contains(&code),
                "{path} names {code}, and no log line has it"
            );
        }
    }
    assert!(named > 3, "only {named} codes were found");
}
