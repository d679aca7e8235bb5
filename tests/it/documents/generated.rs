//! The generated parts of the pages: the configuration's keys, the commands' help, the refusals.
//! With `UPDATE_DOCS=1` (`make docs-update`) the tests write them, otherwise they compare.

use std::fmt::Write;
use std::fs;

use clap::{Command, CommandFactory};
use regex::Regex;
use revertd::cli::Cli;
use revertd::config::DEFAULTS;

use super::{pages, refusals};

/// Columns of a line of prose.
const WIDTH: usize = 100;

/// Checks the part between two marks of a page, or writes it.
fn check(page: &str, from: &str, to: &str, expected: &str) {
    let text = pages::text(page);
    let found = pages::between(&text, from, to);
    if found == expected {
        return;
    }
    let update = std::env::var_os("UPDATE_DOCS").is_some();
    assert!(
        update,
        "{page} is out of date after {from}; run make docs-update. Expected:\n{expected}"
    );
    let new = text.replacen(
        &format!("{from}{found}{to}"),
        &format!("{from}{expected}{to}"),
        1,
    );
    fs::write(pages::root().join(page), new).expect("written");
}

/// A key of the defaults.
struct Key {
    name: String,
    default: Option<String>,
    comment: String,
}

/// The sections of the defaults, with their keys.
fn sections() -> Vec<(String, Vec<Key>)> {
    let section = Regex::new(r"^\[([a-z_]+)\]$").expect("an expression");
    let key = Regex::new(r"^(# )?([a-z_]+) = (.+)$").expect("an expression");
    let mut found = Vec::<(String, Vec<Key>)>::new();
    let mut comment = String::new();
    for line in DEFAULTS.lines() {
        if let Some(name) = section.captures(line) {
            found.push((name[1].to_owned(), Vec::new()));
            comment.clear();
        } else if let Some(parts) = key.captures(line) {
            let (_, keys) = found.last_mut().expect("a section");
            keys.push(Key {
                name: parts[2].to_owned(),
                default: parts.get(1).is_none().then(|| parts[3].to_owned()),
                comment: std::mem::take(&mut comment),
            });
        } else if let Some(text) = line.strip_prefix("# ") {
            let _ = write!(comment, "{text} ");
        }
    }
    found
}

/// A comment as Markdown: keys and variables as code, in lines of prose.
fn prose(comment: &str, keys: &[String]) -> String {
    let named = Regex::new(r"`[^`]*`|[A-Z]+_[A-Z_]+|[a-z]+\.[a-z_]+").expect("an expression");
    let escaped = comment.replace('<', "\\<").replace('*', "\\*");
    let marked = named.replace_all(&escaped, |found: &regex::Captures<'_>| {
        let word = &found[0];
        let is_key = word.starts_with("REVERTD_") || keys.iter().any(|key| key == word);
        if is_key {
            format!("`{word}`")
        } else {
            word.to_owned()
        }
    });
    let mut lines = vec![String::new()];
    for word in marked.split_whitespace() {
        let last = lines.last_mut().expect("a line");
        if last.is_empty() {
            last.push_str(word);
        } else if last.chars().count() + 1 + word.chars().count() <= WIDTH {
            let _ = write!(last, " {word}");
        } else {
            lines.push(word.to_owned());
        }
    }
    lines.join("\n")
}

#[test]
fn the_configuration_page_has_every_key() {
    let sections = sections();
    let names = |(section, keys): &(String, Vec<Key>)| -> Vec<String> {
        keys.iter()
            .map(|key| format!("{section}.{}", key.name))
            .collect()
    };
    let all: Vec<String> = sections.iter().flat_map(names).collect();
    assert!(
        all.len() > 50 && all.contains(&"database.pool_size".to_owned()),
        "{all:?}"
    );
    let mut page = String::from("\n");
    for (section, keys) in &sections {
        let _ = writeln!(page, "\n## {section}");
        let mut described = String::new();
        for key in keys {
            let name = format!("{section}.{}", key.name);
            let variable = format!("REVERTD_{}__{}", section, key.name).to_uppercase();
            let default = match &key.default {
                Some(value) => format!("`{value}`"),
                None => "none".to_owned(),
            };
            let _ = write!(
                page,
                "\n### {name}\n\n- Default: {default}\n- Variable: `{variable}`\n\n"
            );
            if key.comment.is_empty() {
                let anchor = described.replace('.', "");
                let _ = writeln!(page, "Described with [{described}](#{anchor}).");
            } else {
                let _ = writeln!(page, "{}", prose(&key.comment, &all));
                described = name;
            }
        }
    }
    page.push('\n');
    check(
        "docs/reference/configuration.md",
        "<!-- keys -->",
        "<!-- /keys -->",
        &page,
    );
}

/// The help of a command and of those below it, as a terminal shows it.
fn help(way: &str, command: &mut Command) -> String {
    let mut text = format!("$ {way} --help\n{}\n", command.render_long_help());
    for below in command.get_subcommands_mut() {
        if below.get_name() != "help" {
            let way = format!("{way} {}", below.get_name());
            text.push_str(&help(&way, below));
        }
    }
    text
}

#[test]
fn every_command_has_a_page_with_its_help() {
    let mut definition = Cli::command().mut_args(|argument| argument.hide_env_values(true));
    definition.build();
    let mut pages: Vec<String> = pages::book()
        .into_iter()
        .filter_map(|page| Some(page.path.strip_prefix("docs/reference/cli/")?.to_owned()))
        .filter(|page| page != "index.md")
        .collect();
    for command in definition.get_subcommands_mut() {
        let name = command.get_name().to_owned();
        if name == "help" {
            continue;
        }
        let help = help(&format!("revertd {name}"), command);
        let lines: Vec<&str> = help.lines().map(str::trim_end).collect();
        let help = lines.join("\n");
        let expected = format!("\n\n```text\n{}\n```\n\n", help.trim_end());
        let page = format!("docs/reference/cli/{name}.md");
        check(
            &page,
            &format!("<!-- help: {name} -->"),
            "<!-- /help -->",
            &expected,
        );
        pages.retain(|other| *other != format!("{name}.md"));
    }
    assert_eq!(pages, Vec::<String>::new(), "pages of no command");
}

#[test]
fn the_page_of_refusals_shows_their_table() {
    check(
        "docs/reference/refusals.md",
        "<!-- refusals -->\n",
        "<!-- /refusals -->",
        &refusals::table(),
    );
}
