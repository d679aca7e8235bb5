//! Text for a terminal: no control characters of strangers, and no line wider than the screen.

use console::{Term, measure_text_width};
use jiff::Timestamp;

pub use crate::common::printable::visible;

/// Columns of the screen: as `COLUMNS` says, or standard output's terminal; `None` where it is neither.
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

/// Lines folded to the screen's width; what goes on is indented.
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

/// Text in a column of so many.
pub fn padded(text: &str, columns: usize) -> String {
    let missing = columns.saturating_sub(measure_text_width(text));
    format!("{text}{}", " ".repeat(missing))
}

/// How long ago, in its largest unit.
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

/// To the second, as it is told elsewhere.
pub fn time(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// A name, or that there is none.
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
