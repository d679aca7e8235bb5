//! The result of a run. It is printed even if the run fails or is interrupted.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde_json::{Map, Value, json};

use super::counts::letters;
use super::selection::Obstacle;
use crate::cli::output::{Output, print, print_json};
use crate::cli::terminal::{folded, width};
use crate::ledger::admin::interventions::InterventionKind;

/// Counts of dead letters.
#[derive(Debug, Default)]
pub struct RunSummary {
    pub done: u64,
    pub left: BTreeMap<Obstacle, u64>,
    /// Id of the run in `revertd.interventions`, if it changed anything.
    pub intervention: Option<i64>,
    /// Dead letters that were counted and could not be read.
    pub unread: u64,
    pub is_interrupted: bool,
    pub is_dry: bool,
}

impl RunSummary {
    pub fn leave(&mut self, obstacle: Obstacle) {
        *self.left.entry(obstacle).or_default() += 1;
    }

    pub fn print(&self, action: InterventionKind, output: Output) -> std::io::Result<()> {
        match output {
            Output::Json => print_json(&self.json(action)),
            Output::Text => print(&folded(&self.text(action), width())),
        }
    }

    fn text(&self, action: InterventionKind) -> String {
        let counted = match (self.done, self.unread) {
            // "no letters" would claim that the queue is empty.
            (0, 1..) => "0 letters".into(),
            (done, _) => letters(done),
        };
        let mut text = if self.is_dry {
            format!("would {} {counted}", action.name())
        } else {
            format!("{} {counted}", action.participle())
        };
        if let Some(id) = self.intervention {
            let _ = write!(text, " (noted as intervention {id})");
        }
        if self.is_interrupted {
            text.push_str("; interrupted, the rest is in the queue");
        }
        text.push('\n');
        for (obstacle, count) in &self.left {
            let _ = writeln!(text, "left {}: {}", letters(*count), obstacle.text());
        }
        text
    }

    fn json(&self, action: InterventionKind) -> Value {
        let left = self.left.iter();
        let left: Map<_, _> = left
            .map(|(why, count)| (why.name().to_owned(), json!(count)))
            .collect();
        json!({
            action.participle(): self.done,
            "left": left,
            "unread": self.unread,
            "dry_run": self.is_dry,
            "interrupted": self.is_interrupted,
            "intervention": self.intervention,
        })
    }
}
