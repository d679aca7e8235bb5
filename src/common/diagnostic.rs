//! What is wrong, and what an operator does about it.
//!
//! Pure. It must not know where the problem arose, nor who reads of it: a log prints both parts in
//! one line, `revertd doctor` prints them apart.

use std::fmt;

/// A problem: a message, and a remedy where one is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// What is wrong, as a sentence without a full stop.
    pub message: String,
    /// What to do, as a command or a statement.
    pub remedy: Option<String>,
}

impl Diagnostic {
    /// A problem whose remedy is not known.
    pub fn new(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            remedy: None,
        }
    }

    /// The same problem with its remedy.
    #[must_use]
    pub fn remedy(self, remedy: impl Into<String>) -> Self {
        Self {
            remedy: Some(remedy.into()),
            ..self
        }
    }

    /// The same problem, its message after a prefix such as the name of a server.
    #[must_use]
    pub fn prefixed(self, prefix: impl fmt::Display) -> Self {
        Self {
            message: format!("{prefix}{}", self.message),
            ..self
        }
    }

    /// Adds a note to the end, which is that of the remedy where there is one.
    #[must_use]
    pub fn suffixed(mut self, suffix: impl fmt::Display) -> Self {
        let last = self.remedy.as_mut().unwrap_or(&mut self.message);
        *last = format!("{last}{suffix}");
        self
    }

    /// Both problems as one. A remedy that both have is given once.
    #[must_use]
    pub fn and(self, other: &Self) -> Self {
        let message = format!("{}, and {}", self.message, other.message);
        let remedy = match (self.remedy, &other.remedy) {
            (Some(one), Some(other)) if !one.contains(other) => Some(format!("{one}; {other}")),
            (Some(one), Some(_) | None) => Some(one),
            (None, other) => other.clone(),
        };
        Self { message, remedy }
    }
}

/// One line: the message, and after a semicolon the remedy.
impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        match &self.remedy {
            Some(remedy) => write!(f, "; {remedy}"),
            None => Ok(()),
        }
    }
}

impl From<String> for Diagnostic {
    fn from(message: String) -> Self {
        Self::new(message)
    }
}

impl From<&String> for Diagnostic {
    fn from(message: &String) -> Self {
        Self::new(message)
    }
}

impl From<&str> for Diagnostic {
    fn from(message: &str) -> Self {
        Self::new(message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_the_message_and_then_the_remedy() {
        let full = Diagnostic::new("the queue is full").remedy("read it; or purge it");
        assert_eq!(full.to_string(), "the queue is full; read it; or purge it");
        assert_eq!(Diagnostic::from("it fails").to_string(), "it fails");
    }

    #[test]
    fn a_suffix_ends_the_line() {
        let bare = Diagnostic::new("it fails").suffixed(" (twice)");
        assert_eq!(bare, Diagnostic::new("it fails (twice)"));
        let full = Diagnostic::new("it fails")
            .remedy("restart it")
            .suffixed(" (twice)");
        assert_eq!(full.to_string(), "it fails; restart it (twice)");
        assert_eq!(full.message, "it fails");
    }

    #[test]
    fn a_remedy_of_two_problems_is_given_once() {
        let of = |host: &str| Diagnostic::new(format!("{host} is down"));
        let (one, other) = (of("a").remedy("start it"), of("b").remedy("start it"));
        let both = one.clone().and(&other);
        assert_eq!(both.to_string(), "a is down, and b is down; start it");
        assert_eq!(
            one.clone().and(&of("c")).remedy.as_deref(),
            Some("start it")
        );
        assert_eq!(of("c").and(&one).remedy.as_deref(), Some("start it"));
        let both = one.and(&of("c").remedy("buy one"));
        assert_eq!(both.remedy.as_deref(), Some("start it; buy one"));
    }
}
