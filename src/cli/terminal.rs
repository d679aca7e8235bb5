//! Text for a terminal: without control characters from outside, and folded to the screen's width.

use console::{Term, measure_text_width};
use jiff::Timestamp;

pub use crate::common::printable::visible;

/// Columns of the screen: from `COLUMNS`, or from standard output's terminal; `None` without both.
pub fn width() -> Option<usize> {
    let told = std::env::var("COLUMNS").ok();
    let told = told.and_then(|columns| columns.parse().ok());
    let terminal = || {
        Term::stdout()
            .size_checked()
            .map(|(_, columns)| columns.into())
    };
    told.or_else(terminal).filter(|columns| *columns > 0)
}

/// Folds lines to the screen's width. Continuation lines are indented.
pub fn folded(text: &str, width: Option<usize>) -> String {
    let Some(width) = width.map(|width| width.max(20)) else {
        return text.to_owned();
    };
    let mut folded = String::with_capacity(text.len());
    for line in text.split_inclusive('\n') {
        let (mut columns, mut is_wide) = (0, measure_text_width(line.trim_end()) > width);
        for c in line.chars() {
            let next = measure_text_width(c.encode_utf8(&mut [0; 4]));
            if is_wide && columns + next > width {
                folded.push_str("\n    ");
                columns = 4;
            }
            if c == '\n' {
                is_wide = false;
            }
            columns += next;
            folded.push(c);
        }
    }
    folded
}

/// Pads text to a number of columns.
pub fn padded(text: &str, columns: usize) -> String {
    let missing = columns.saturating_sub(measure_text_width(text));
    format!("{text}{}", " ".repeat(missing))
}

/// The age of a time, in its largest unit.
pub fn ago(at: Option<Timestamp>, now: Timestamp) -> String {
    let Some(at) = at else { return "-".into() };
    let seconds = now.as_second().saturating_sub(at.as_second()).max(0);
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m", seconds / 60),
        3600..86_400 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}

/// A time in UTC, to the second.
pub fn time(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// A printable name, or `-` if it is empty.
pub fn named(text: &str) -> String {
    if text.is_empty() {
        return "-".into();
    }
    visible(text).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_wrap_at_the_screen_width_without_loss() {
        let text = format!("short\n{}\nend\n", "x".repeat(100));
        let narrow = folded(&text, Some(40));
        assert!(narrow.lines().all(|line| line.len() <= 40), "{narrow}");
        assert_eq!(narrow.matches('x').count(), 100);
        assert_eq!(folded(&text, Some(100)), text);
        assert_eq!(folded(&text, None), text);
    }
}
