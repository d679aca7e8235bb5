//! Writes the figures to the screen, to a report, and on request between the markers of the
//! project's page.

use std::fmt::Write;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};

use crate::machine::Machine;
use crate::stage::in_repository;
use crate::table::Table;

/// The page that has markers: `<!-- bench:NAME -->` to `<!-- /bench:NAME -->`.
const PAGE: &str = "docs/operations/benchmarks.md";

/// The folder of the page's plots.
const PLOTS: &str = "docs/operations/plots";

/// Columns of a line of prose in the page.
const COLUMNS: usize = 100;

/// The result of one measurement.
pub struct Section {
    /// The name of its markers, and of its command.
    pub name: &'static str,
    pub title: &'static str,
    pub table: Table,
    /// Sentences below the table.
    pub notes: Vec<String>,
    /// Name and content of an SVG file.
    pub plot: Option<(&'static str, String)>,
    /// Lines of the summary: a label and its figure.
    pub headlines: Vec<(&'static str, String)>,
}

impl Section {
    pub fn new(name: &'static str, title: &'static str, table: Table) -> Self {
        Self {
            name,
            title,
            table,
            notes: Vec::new(),
            plot: None,
            headlines: Vec::new(),
        }
    }

    /// Prints it on standard output.
    pub fn print(&self) {
        println!("\n{}\n\n{}", self.title, self.table.text());
        for note in &self.notes {
            println!("{note}");
        }
    }

    fn markdown(&self, made: &str) -> String {
        let mut text = self.table.markdown();
        for note in &self.notes {
            let _ = writeln!(text, "\n{}", wrapped(note));
        }
        text + &format!("\n{made}\n")
    }
}

/// Writes all sections as one page, with their plots beside it.
pub fn write(folder: &Path, command: &str, machine: &Machine, sections: &[Section]) -> Result<()> {
    fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    let mut page = format!(
        "# revertd: benchmark\n\n{}",
        machine.table(command).markdown()
    );
    for section in sections {
        let made = machine.made_by(section.name);
        let _ = write!(
            page,
            "\n## {}\n\n{}",
            section.title,
            section.markdown(&made)
        );
        if let Some((name, svg)) = &section.plot {
            let _ = writeln!(page, "\n![{}]({name})", section.title);
            fs::write(folder.join(name), svg)?;
        }
    }
    let file = folder.join("report.md");
    fs::write(&file, page)?;
    eprintln!("report: {}", file.display());
    Ok(())
}

/// Writes the sections between their markers, and a summary if every measurement ran.
pub fn record(command: &str, machine: &Machine, sections: &[Section], whole: bool) -> Result<()> {
    let mut blocks = vec![("machine", machine.table(command).markdown())];
    for section in sections {
        let made = machine.made_by(section.name);
        blocks.push((section.name, section.markdown(&made)));
        if let Some((name, svg)) = &section.plot {
            fs::create_dir_all(in_repository(PLOTS))?;
            fs::write(in_repository(PLOTS).join(name), svg)?;
        }
    }
    if whole {
        let mut summary = Table::new(["what", "figure"]);
        for (what, figure) in sections.iter().flat_map(|section| &section.headlines) {
            summary.row([(*what).to_owned(), figure.clone()]);
        }
        let summary = format!("{}\n{}\n", summary.markdown(), machine.in_a_line());
        blocks.push(("summary", summary));
    }
    let page = in_repository(PAGE);
    let mut text = fs::read_to_string(&page)?;
    for (name, block) in &blocks {
        ensure!(
            replace(&mut text, name, block),
            "{PAGE} has no markers of {name}"
        );
    }
    fs::write(&page, text)?;
    Ok(())
}

/// The text in lines of at most [`COLUMNS`].
fn wrapped(text: &str) -> String {
    let (mut lines, mut width) = (String::new(), 0);
    for word in text.split_whitespace() {
        let columns = word.chars().count();
        if width > 0 && width + 1 + columns > COLUMNS {
            lines.push('\n');
            width = 0;
        } else if width > 0 {
            lines.push(' ');
            width += 1;
        }
        lines.push_str(word);
        width += columns;
    }
    lines
}

/// Replaces the text between the markers of that name, if the markers exist.
fn replace(text: &mut String, name: &str, block: &str) -> bool {
    let (start, end) = (
        format!("<!-- bench:{name} -->\n"),
        format!("<!-- /bench:{name} -->"),
    );
    let Some(from) = text.find(&start).map(|at| at + start.len()) else {
        return false;
    };
    let Some(length) = text[from..].find(&end) else {
        return false;
    };
    text.replace_range(from..from + length, &format!("\n{block}\n"));
    true
}
