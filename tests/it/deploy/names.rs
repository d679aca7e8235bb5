//! Every variable, key, command and option that the pages and the manifests name is one that the
//! program has.

use std::collections::BTreeSet;

use clap::{Command, CommandFactory};
use regex::Regex;
use revertd::cli::Cli;
use revertd::config::DEFAULTS;

use crate::support::sessions;

/// The command line.
pub fn definition() -> Command {
    let mut definition = Cli::command();
    definition.build();
    definition
}

/// Every key of config/revertd.toml, those without a default included.
pub fn keys() -> BTreeSet<String> {
    let section = Regex::new(r"^\[([a-z_]+)\]$").expect("an expression");
    let key = Regex::new(r"^(?:# )?([a-z_]+) = ").expect("an expression");
    let (mut found, mut within) = (BTreeSet::new(), String::new());
    for line in DEFAULTS.lines() {
        if let Some(name) = section.captures(line) {
            name[1].clone_into(&mut within);
        } else if let Some(name) = key.captures(line) {
            found.insert(format!("{within}.{}", &name[1]));
        }
    }
    found
}

#[test]
fn every_documented_variable_and_key_exists() {
    let keys = keys();
    assert!(keys.contains("amqp.prefetch") && keys.contains("worker.batch_max"));
    let sections: BTreeSet<&str> = keys
        .iter()
        .filter_map(|key| key.split('.').next())
        .collect();
    let variable = Regex::new(r"REVERTD_([A-Z]+)__([A-Z_]+)").expect("an expression");
    let dotted =
        Regex::new(r"(?:^|[^\w./-])([a-z]+)\.([a-z_]+)\b(?:[^\w(/-]|$)").expect("an expression");
    let others = [
        "config/kubernetes.yaml",
        "docker-compose.yml",
        "config/systemd/revertd-worker.service",
        "config/systemd/revertd-gateway.service",
    ];
    let others = others.map(|path| (path.to_owned(), sessions::read(path)));
    for (file, text) in sessions::all().into_iter().chain(others) {
        for found in variable.captures_iter(&text) {
            let key = format!("{}.{}", &found[1], &found[2]).to_lowercase();
            assert!(keys.contains(&key), "{file}: {}", &found[0]);
        }
        for found in dotted.captures_iter(&text) {
            let key = format!("{}.{}", &found[1], &found[2]);
            // Other names have dots too: a key begins with the name of a section.
            let may_be_key = sections.contains(&found[1]) && !is_other(&key);
            assert!(!may_be_key || keys.contains(&key), "{file}: {key}");
        }
    }
    for (section, table) in super::configuration_of_the_cluster() {
        for key in table.as_table().expect("a section").keys() {
            assert!(
                keys.contains(&format!("{section}.{key}")),
                "{section}.{key}"
            );
        }
    }
}

/// Files that are named as keys are.
fn is_other(name: &str) -> bool {
    [
        ".kubernetes",
        ".rs",
        ".sql",
        ".toml",
        ".crt",
        ".key",
        ".pem",
        ".md",
        ".example",
    ]
    .iter()
    .any(|ending| name.ends_with(ending))
}

/// The code of a page: spans between backticks, and the lines of fenced blocks, with continued
/// lines joined.
fn code(page: &str) -> Vec<String> {
    let mut found = Vec::new();
    let span = Regex::new("`([^`]+)`").expect("an expression");
    let (mut prose, mut block) = (String::new(), None::<String>);
    for line in page.lines() {
        match &mut block {
            Some(text) if line.starts_with("```") => {
                let joined = text.replace("\\\n", " ");
                found.extend(joined.lines().map(str::to_owned));
                block = None;
            }
            Some(text) => {
                text.push_str(line);
                text.push('\n');
            }
            None if line.starts_with("```") => block = Some(String::new()),
            None => {
                prose.push_str(line);
                prose.push('\n');
            }
        }
    }
    found.extend(
        span.captures_iter(&prose)
            .map(|span| span[1].replace('\n', " ")),
    );
    found
}

/// The command lines of `revertd` in a piece of code, each a list of words.
fn command_lines(code: &str) -> Vec<Vec<String>> {
    let parts = Regex::new(r"[|;&#<>()$]|&&|\|\|").expect("an expression");
    let mut found = Vec::new();
    for part in parts.split(code) {
        let words: Vec<_> = part.split_whitespace().map(str::to_owned).collect();
        let program = words.iter().enumerate().position(|(at, word)| {
            let namespace = at > 0 && ["-n", "create", "schema"].contains(&words[at - 1].as_str());
            (word == "revertd" || word.ends_with("/revertd")) && !namespace
        });
        let Some(at) = program else { continue };
        let command = words[at + 1..].to_vec();
        let is_command = command.first().is_some_and(|first| {
            first.starts_with(|letter: char| letter.is_ascii_lowercase())
                && first
                    .chars()
                    .all(|letter| letter.is_ascii_lowercase() || letter == '-')
        });
        if is_command {
            found.push(command);
        }
    }
    found
}

/// The error of a command line, if it has one.
fn complaint(words: &[String]) -> Option<String> {
    let root = definition();
    let (mut command, mut way) = (&root, Vec::new());
    for (at, word) in words.iter().enumerate() {
        if let Some(below) = command.find_subcommand(word).filter(|_| way.len() == at) {
            (command, way) = (below, [way, vec![word.clone()]].concat());
        } else if at == 0 {
            return Some(format!("no command {word}"));
        } else if let Some(option) = word.strip_prefix("--").filter(|name| !name.is_empty()) {
            let option = option.split('=').next().unwrap_or(option);
            let option = option.trim_end_matches(|letter: char| !letter.is_ascii_alphanumeric());
            let mut known = command.get_arguments().chain(root.get_arguments());
            if !known.any(|argument| argument.get_long() == Some(option)) {
                return Some(format!("{} has no --{option}", way.join(" ")));
            }
        }
    }
    None
}

#[test]
fn every_documented_command_and_option_exists() {
    let mut count = 0;
    for (page, text) in sessions::all() {
        for line in code(&text).iter().flat_map(|code| command_lines(code)) {
            count += 1;
            let wrong = complaint(&line);
            assert_eq!(wrong, None, "{page}: revertd {}", line.join(" "));
        }
    }
    assert!(count > 40, "{count}");
}

#[test]
fn an_unknown_command_or_option_is_noticed() {
    let complaints = |code: &str| -> Vec<Option<String>> {
        let lines = command_lines(code);
        lines.iter().map(|line| complaint(line)).collect()
    };
    assert_eq!(complaints("revertd grants list --client render"), [None]);
    assert_eq!(complaints("kubectl -n revertd delete job"), []);
    let wrong = complaints("x && revertd grants list --colour; revertd frobnicate --help");
    assert_eq!(
        wrong,
        [
            Some("grants list has no --colour".into()),
            Some("no command frobnicate".into())
        ]
    );
}
