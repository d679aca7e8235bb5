//! What `revertd doctor` says of one thing: what was seen, whether that is in order, and what to do where it isn't.
//!
//! Pure. It must not know who looks, nor how it is shown.

use serde::Serialize;

/// Whether a thing is in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum CheckStatus {
    /// It is.
    Ok,
    /// It works, and may not go on to.
    Warning,
    /// It does not work, or something could be lost.
    Error,
    /// It can't be seen from here.
    Skipped,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    /// Stable: what was looked at. Several may have the same, one for each queue.
    pub id: &'static str,
    /// Whether it is in order.
    pub status: CheckStatus,
    /// What was seen, or why nothing could be.
    pub seen: String,
    /// What to do, where something is to be done.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
}

/// All that was looked at, in the order in which it was.
#[derive(Clone, Debug, Default)]
pub struct Checks(Vec<Check>);

impl Checks {
    /// In order.
    pub fn ok(&mut self, id: &'static str, seen: impl Into<String>) {
        self.add(id, CheckStatus::Ok, seen, None);
    }

    /// It works, and may not go on to.
    pub fn warning(
        &mut self,
        id: &'static str,
        seen: impl Into<String>,
        remedy: impl Into<String>,
    ) {
        self.add(id, CheckStatus::Warning, seen, Some(remedy.into()));
    }

    /// It does not work, or something could be lost.
    pub fn error(&mut self, id: &'static str, seen: impl Into<String>, remedy: impl Into<String>) {
        self.add(id, CheckStatus::Error, seen, Some(remedy.into()));
    }

    /// It can't be seen.
    pub fn skipped(&mut self, id: &'static str, why: impl Into<String>) {
        self.add(id, CheckStatus::Skipped, why, None);
    }

    /// It can't be seen, and could be.
    pub fn skipped_until(
        &mut self,
        id: &'static str,
        why: impl Into<String>,
        remedy: impl Into<String>,
    ) {
        self.add(id, CheckStatus::Skipped, why, Some(remedy.into()));
    }

    /// An error of the program's own, which says what is wrong and, after a semicolon, what to do.
    pub fn failed(&mut self, id: &'static str, error: &dyn std::error::Error) {
        let text = error.to_string();
        match text.split_once("; ") {
            Some((seen, remedy)) => self.error(id, seen, remedy),
            None => self.add(id, CheckStatus::Error, text, None),
        }
    }

    /// What others have found, after what is here.
    pub fn append(&mut self, mut others: Self) {
        self.0.append(&mut others.0);
    }

    /// How many are so.
    #[must_use]
    pub fn count(&self, status: CheckStatus) -> usize {
        self.iter().filter(|check| check.status == status).count()
    }

    /// Each of them.
    pub fn iter(&self) -> impl Iterator<Item = &Check> {
        self.0.iter()
    }

    /// The first error, as one sentence with its remedy.
    #[must_use]
    pub fn first_error(&self) -> Option<String> {
        let error = self
            .iter()
            .find(|check| check.status == CheckStatus::Error)?;
        let remedy = error.remedy.as_deref();
        Some(remedy.map_or_else(
            || error.seen.clone(),
            |remedy| format!("{}; {remedy}", error.seen),
        ))
    }

    fn add(
        &mut self,
        id: &'static str,
        status: CheckStatus,
        seen: impl Into<String>,
        remedy: Option<String>,
    ) {
        let seen = seen.into();
        self.0.push(Check {
            id,
            status,
            seen,
            remedy,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_split_into_problem_and_remedy() {
        let mut checks = Checks::default();
        let error = std::io::Error::other("it is broken; mend it; or buy another");
        checks.failed("a-thing", &error);
        let check = checks.iter().next().expect("one");
        assert_eq!(check.seen, "it is broken");
        assert_eq!(check.remedy.as_deref(), Some("mend it; or buy another"));
        assert_eq!(
            checks.first_error().as_deref(),
            Some("it is broken; mend it; or buy another")
        );
        assert_eq!(checks.count(CheckStatus::Error), 1);
    }
}
