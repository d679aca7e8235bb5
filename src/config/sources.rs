//! The sources of the configuration's values.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Path, PathBuf};

use super::error::SettingsError;
use crate::common::diagnostic::Diagnostic;

/// The compiled-in file: every key and its default.
pub const DEFAULTS: &str = include_str!("../../config/revertd.toml");

const PREFIX: &str = "REVERTD_";

/// The source of each value that is not a default. Keys are written as `worker.batch_max`.
#[derive(Clone, Debug, Default)]
pub struct SettingSources {
    file: Option<PathBuf>,
    in_file: BTreeSet<String>,
    /// The variable that sets a key.
    variables: BTreeMap<String, String>,
}

impl SettingSources {
    /// Records the keys of the file.
    pub(super) fn read(&mut self, path: &Path, table: &toml::Table) {
        self.file = Some(path.to_owned());
        for (section, value) in table {
            let keys = value.as_table().into_iter().flat_map(toml::Table::keys);
            self.in_file
                .extend(keys.map(|key| format!("{section}.{key}")));
        }
    }

    /// The variables of the environment that set keys.
    ///
    /// # Errors
    /// If the name of a variable has one underscore between section and key: it sets nothing.
    pub(super) fn choose(
        &mut self,
        environment: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Vec<(String, String)>, SettingsError> {
        let mut chosen = Vec::new();
        for (name, value) in environment {
            let Some(rest) = name.strip_prefix(PREFIX) else {
                continue;
            };
            if let Some((section, key)) = rest.split_once("__") {
                let key = format!("{section}.{key}").to_lowercase();
                self.variables.insert(key, name.clone());
                chosen.push((name, value));
            } else if let Some((section, key)) = nearly(rest) {
                let right = format!("{PREFIX}{section}__{key}").to_uppercase();
                let problem = Diagnostic::new(format!("{name} sets nothing"));
                return Err(SettingsError(problem.remedy(format!(
                    "{section}.{key} is set by {right}, with two underscores"
                ))));
            }
        }
        Ok(chosen)
    }

    /// Checks that every given key exists.
    ///
    /// # Errors
    /// If a key does not exist: its name.
    pub(super) fn check(&self) -> Result<(), SettingsError> {
        let unknown =
            |key: &&String| !keys().any(|(section, name)| **key == format!("{section}.{name}"));
        match self.variables.keys().chain(&self.in_file).find(unknown) {
            None => Ok(()),
            Some(key) => {
                let problem = Diagnostic::new(format!("the key {key} does not exist"));
                let remedy = "remove it; `revertd config` then lists all keys";
                Err(SettingsError(problem.remedy(remedy)))
            }
        }
    }

    /// The problem, with the file or the variable that set each key that it names.
    pub(super) fn with_origins(&self, problem: Diagnostic) -> Diagnostic {
        let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '.';
        let line = problem.to_string();
        let words = line
            .split(|c| !is_part(c))
            .map(|word| word.trim_matches('.'));
        let words: BTreeSet<_> = words.collect();
        let origins: Vec<_> = words
            .into_iter()
            .filter_map(|key| Some(format!("{key} is set {}", self.origin(key)?)))
            .collect();
        if origins.is_empty() {
            return problem;
        }
        problem.suffixed(format!(" ({})", origins.join(", ")))
    }

    fn origin(&self, key: &str) -> Option<String> {
        if let Some(variable) = self.variables.get(key) {
            return Some(format!("by {variable}"));
        }
        let path = self.file.as_ref().filter(|_| self.in_file.contains(key))?;
        Some(format!("in {}", path.display()))
    }
}

/// The sources in one line.
impl fmt::Display for SettingSources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.file {
            Some(path) => write!(f, "the file {}", path.display())?,
            None => f.write_str("no file")?,
        }
        let variables: Vec<_> = self.variables.values().map(String::as_str).collect();
        if variables.is_empty() {
            f.write_str(", and no variable")
        } else {
            write!(f, ", and {}", variables.join(", "))
        }
    }
}

/// Every key with its section, as the built-in file lists them.
fn keys() -> impl Iterator<Item = (&'static str, &'static str)> {
    let mut section = "";
    DEFAULTS.lines().filter_map(move |line| {
        if let Some(name) = line.strip_prefix('[') {
            section = name.trim_end_matches(']');
        }
        let (key, _) = line.strip_prefix("# ").unwrap_or(line).split_once(" = ")?;
        let is_key = key.chars().all(|c| c.is_ascii_lowercase() || c == '_');
        is_key.then_some((section, key))
    })
}

/// The key that the variable would set if it had two underscores. Other variables with the prefix
/// are allowed: an orchestrator sets some for its services, such as `REVERTD_GATEWAY_PORT`.
fn nearly(name: &str) -> Option<(&'static str, &'static str)> {
    keys().find(|(section, key)| name.eq_ignore_ascii_case(&format!("{section}_{key}")))
}
