//! Formats checks as lines of text: the status, the id and the finding, and the remedy below.
//!
//! Pure. On a terminal, lines are folded between words to its width. Otherwise each check is one
//! line, and its remedy another.

use std::fmt::Write;

use crate::common::check::{Check, CheckStatus, Checks};
use crate::common::printable;

/// Columns of the status and of the id. On a terminal narrower than `NARROW`, the id has a line of
/// its own.
const STATUS: usize = 9;
const ID: usize = 28;
const NARROW: usize = 90;

/// Smallest width to which lines are folded.
const NARROWEST: usize = 24;

pub fn text(checks: &Checks, width: Option<usize>, colour: bool) -> String {
    let mut text = String::new();
    for check in checks.iter() {
        add(&mut text, check, width, colour);
    }
    let count = |status, one: &str, several: &str| match checks.count(status) {
        1 => format!("1 {one}"),
        count => format!("{count} {several}"),
    };
    let summary = format!(
        "{}, {}, {} skipped, {} ok\n",
        count(CheckStatus::Error, "error", "errors"),
        count(CheckStatus::Warning, "warning", "warnings"),
        checks.count(CheckStatus::Skipped),
        checks.count(CheckStatus::Ok)
    );
    text.push_str(&summary);
    text
}

fn add(text: &mut String, check: &Check, width: Option<usize>, colour: bool) {
    let (word, code) = match check.status {
        CheckStatus::Ok => ("ok", "32"),
        CheckStatus::Warning => ("warning", "33"),
        CheckStatus::Error => ("ERROR", "1;31"),
        CheckStatus::Skipped => ("skipped", "2"),
    };
    let word = format!("{word:<STATUS$}");
    if colour {
        let _ = write!(text, "\x1b[{code}m{word}\x1b[0m");
    } else {
        text.push_str(&word);
    }
    let id = check.id;
    let indent = if width.is_some_and(|width| width < NARROW) {
        let _ = write!(text, "{id}\n  ");
        2
    } else {
        let _ = write!(text, "{id:<ID$}");
        STATUS + ID
    };
    fold(text, &check.seen, indent, width);
    if let Some(remedy) = &check.remedy {
        let indent = if indent == 2 { 2 } else { STATUS };
        text.push_str(&" ".repeat(indent));
        text.push_str("-> ");
        fold(text, remedy, indent + 3, width);
    }
}

/// Appends words to the current line, and folds further lines to `indent`.
fn fold(text: &mut String, words: &str, indent: usize, width: Option<usize>) {
    let room = width.map(|width| width.max(NARROWEST).saturating_sub(indent));
    let mut used = 0;
    for word in words
        .split([' ', '\n', '\t'])
        .filter(|word| !word.is_empty())
    {
        // A server's text must not contain control sequences for the terminal.
        let word = printable::visible(word);
        let mut word = &*word;
        let mut length = word.chars().count();
        if used > 0 {
            if room.is_some_and(|room| used + 1 + length > room) {
                line(text, indent);
                used = 0;
            } else {
                text.push(' ');
                used += 1;
            }
        }
        // A word that is longer than a line is cut.
        while let Some(room) = room.filter(|room| length > *room) {
            let cut = word
                .char_indices()
                .nth(room)
                .map_or(word.len(), |(at, _)| at);
            text.push_str(&word[..cut]);
            line(text, indent);
            word = &word[cut..];
            length -= room;
        }
        text.push_str(word);
        used += length;
    }
    text.push('\n');
}

fn line(text: &mut String, indent: usize) {
    text.push('\n');
    text.push_str(&" ".repeat(indent));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checks() -> Checks {
        let mut checks = Checks::default();
        checks.ok("a-thing", "as it should be");
        checks.error(
            "another-thing",
            "broken \x1b[2Jin a way that takes some words to tell",
            "mend_it_with_a_word_that_is_longer_than_any_line_can_be and then look again",
        );
        checks.skipped("a-third", "that is not visible");
        checks
    }

    #[test]
    fn without_a_terminal_a_check_is_one_line() {
        let shown = text(&checks(), None, false);
        let lines: Vec<_> = shown.lines().collect();
        assert_eq!(lines.len(), 5, "{shown}");
        assert_eq!(
            lines[0],
            "ok       a-thing                     as it should be"
        );
        assert!(lines[1].starts_with("ERROR    another-thing"), "{shown}");
        assert!(lines[2].starts_with("         -> mend_it"), "{shown}");
        assert_eq!(lines[4], "1 error, 0 warnings, 1 skipped, 1 ok");
        assert!(
            !shown.contains('\x1b'),
            "a server's text contains no control sequence"
        );
    }

    #[test]
    fn no_line_is_wider_than_the_terminal() {
        for width in [40, 41, 79, 80, 90, 120] {
            let shown = text(&checks(), Some(width), false);
            for line in shown.lines() {
                assert!(line.chars().count() <= width, "{width}: {line}");
            }
            let words = |text: &str| text.split_whitespace().collect::<String>();
            assert_eq!(words(&shown), words(&text(&checks(), None, false)));
        }
        assert!(text(&checks(), Some(40), true).contains("\x1b[1;31mERROR"));
    }
}
