//! Tables in plain text and in Markdown, and the format of their figures.

use std::fmt::Write;
use std::time::Duration;

use crate::rounds::Runs;

#[derive(Clone, Debug)]
pub struct Table {
    /// Empty for a table of words.
    header: Vec<String>,
    rows: Vec<Vec<String>>,
}

impl Table {
    pub fn new<'a>(header: impl IntoIterator<Item = &'a str>) -> Self {
        Self {
            header: header.into_iter().map(ToOwned::to_owned).collect(),
            rows: Vec::new(),
        }
    }

    /// A table of words, without a header.
    pub fn words() -> Self {
        Self {
            header: Vec::new(),
            rows: Vec::new(),
        }
    }

    pub fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().collect());
    }

    /// The table in aligned columns.
    pub fn text(&self) -> String {
        let header = (!self.header.is_empty()).then_some(&self.header);
        let lines = || header.into_iter().chain(&self.rows);
        let width = |column: usize| {
            let cells = lines().filter_map(|line| line.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<_> = (0..self.columns()).map(width).collect();
        let mut text = String::new();
        for line in lines() {
            for (column, cell) in line.iter().enumerate() {
                let pad = " ".repeat(widths[column] - cell.chars().count());
                // Align names to the left and figures to the right.
                let _ = match column {
                    0 => write!(text, "{cell}{pad}"),
                    _ if self.header.is_empty() => write!(text, "  {cell}{pad}"),
                    _ => write!(text, "  {pad}{cell}"),
                };
            }
            text.truncate(text.trim_end_matches(' ').len());
            text.push('\n');
        }
        text
    }

    fn columns(&self) -> usize {
        self.rows
            .first()
            .map_or(self.header.len(), |row| row.len().max(self.header.len()))
    }

    pub fn markdown(&self) -> String {
        let mut text = String::new();
        let mut line = |cells: &[String]| {
            let _ = writeln!(text, "| {} |", cells.join(" | "));
        };
        // A Markdown table needs a header, even an empty one.
        line(&match self.header.as_slice() {
            [] => vec![String::new(); self.columns()],
            header => header.to_vec(),
        });
        let rule = |column| match (column, self.header.is_empty()) {
            (0, _) | (_, true) => "---".to_owned(),
            _ => "---:".to_owned(),
        };
        line(&(0..self.columns()).map(rule).collect::<Vec<_>>());
        for row in &self.rows {
            line(row);
        }
        text
    }
}

/// The last columns of every comparison of throughput; [`costs`] fills them.
pub const COSTS: [&str; 4] = ["worker CPU", "broker CPU", "database CPU", "peak memory"];

/// CPU time per message, and the worker's memory.
pub fn costs(runs: &Runs) -> [String; 4] {
    // A process that took no part has no figure.
    let figure = |value: f64, unit: &str| match value {
        nothing if nothing < 0.05 => "-".to_owned(),
        some => format!("{some:.1} {unit}"),
    };
    let micros = |time: fn(&crate::meter::Spent) -> Option<Duration>| {
        let micros = runs.micros(|run| time(&run.spent));
        figure(micros.unwrap_or(0.0), "µs")
    };

    [
        micros(|spent| Some(spent.workers)),
        micros(|spent| spent.broker),
        micros(|spent| spent.database),
        figure(runs.peak_mib(), "MiB"),
    ]
}

/// The median rate, and the lowest and highest rate.
pub fn rate(runs: &Runs) -> [String; 2] {
    let (low, high) = runs.span();
    [
        number(runs.rate()),
        format!("{} to {}", number(low), number(high)),
    ]
}

/// A number with commas between the thousands.
pub fn number(value: f64) -> String {
    let digits = format!("{value:.0}");
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index) % 3 == 0 && !text.ends_with('-') {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A ratio: two decimals below 9.95, otherwise one.
pub fn ratio(value: f64) -> String {
    match value {
        small if small < 9.95 => format!("{small:.2}"),
        large => format!("{large:.1}"),
    }
}
