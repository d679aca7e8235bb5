//! One run of `replay` or `discard`: its arguments, and how far it is.

use crate::cli::dead_letters::selection::Selection;
use crate::cli::dead_letters::summary::RunSummary;
use crate::cli::progress::Progress;
use crate::config::Settings;
use crate::ledger::admin::interventions::Intervention;

pub struct Run<'a> {
    pub settings: &'a Settings,
    pub choice: Selection,
    pub why: Option<String>,
    pub saved_to: Option<String>,
    pub rate: Option<u32>,
    pub body_bytes: u64,
    pub sum: RunSummary,
    /// Letters that were met, and done or left.
    pub passed: u64,
    pub progress: Option<Progress>,
    pub intervention: Option<Intervention>,
}
