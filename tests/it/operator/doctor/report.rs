//! Reads the output of `revertd doctor --output json`.

use serde_json::Value;

use crate::support::*;

/// A check as JSON.
type Check = Value;

#[derive(Debug)]
pub struct Report {
    pub status: i32,
    printed: Value,
}

/// Runs it on that environment, with settings of its own.
pub fn doctor(env: &TestEnv, settings: &[(&str, &str)]) -> Report {
    let mut command = env.command(&["doctor", "--output", "json"]);
    for (key, value) in settings {
        command.env(format!("REVERTD_{key}"), value);
    }
    let output = command.output().expect("runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.is_empty(), "{said}");
    Report {
        status: output.status.code().expect("no signal"),
        printed: serde_json::from_slice(&output.stdout).expect("JSON"),
    }
}

impl Report {
    fn checks(&self) -> &[Check] {
        self.printed["checks"].as_array().expect("a list")
    }

    pub fn count(&self, kind: &str) -> u64 {
        self.printed[kind].as_u64().expect("a number")
    }

    /// Every check's id and status.
    pub fn ids(&self) -> Vec<(&Value, &Value)> {
        let checks = self.checks().iter();
        checks
            .map(|check| (&check["id"], &check["status"]))
            .collect()
    }

    pub fn has(&self, id: &str, status: &str) -> bool {
        let is = |check: &Check| check["id"] == id && check["status"] == status;
        self.checks().iter().any(is)
    }

    /// The remedies of the checks with this status, in their order.
    pub fn remedies(&self, status: &str) -> Vec<&str> {
        let of = self
            .checks()
            .iter()
            .filter(|check| check["status"] == status);
        of.filter_map(|check| check["remedy"].as_str()).collect()
    }

    /// That there is such a check, which saw that and advises that.
    pub fn says(&self, id: &str, status: &str, seen: &str, remedy: &str) {
        let contains = |check: &Check, key: &str, text: &str| {
            text.is_empty() || check[key].as_str().is_some_and(|said| said.contains(text))
        };
        let found = self.checks().iter().any(|check| {
            check["id"] == id
                && check["status"] == status
                && contains(check, "seen", seen)
                && contains(check, "remedy", remedy)
        });
        assert!(
            found,
            "no {status} of {id} saying {seen:?} and {remedy:?}: {self:#?}"
        );
    }
}
