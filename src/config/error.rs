//! Why the configuration can't be used.

use crate::common::diagnostic::Diagnostic;

/// Why the configuration can't be used; one sentence for the operator, without secrets.
#[derive(Debug, thiserror::Error)]
#[error("configuration: {0}")]
pub struct SettingsError(pub(super) Diagnostic);

impl SettingsError {
    /// The message and the remedy.
    #[must_use]
    pub fn diagnostic(&self) -> &Diagnostic {
        &self.0
    }
}
