//! The servers of a test: their addresses, and the script that starts and stops private instances.
//!
//! The shared servers are those of `REVERTD_DATABASE__URL` and `REVERTD_AMQP__URL`. Without these
//! variables, `tests/support/servers` starts the instance `dev` and leaves it running.

use std::collections::HashMap;
use std::path::PathBuf;
use std::process::{Command, Stdio};

/// Addresses of the servers.
#[derive(Clone, Debug)]
pub struct Servers {
    pub database: String,
    /// One address, or several separated by commas.
    pub amqp: String,
    /// A second login, if the instance has one.
    pub publisher: Option<String>,
}

impl Servers {
    /// The shared servers.
    pub fn shared() -> Self {
        let variable = |name: &str| std::env::var(name).ok();
        match (
            variable("REVERTD_DATABASE__URL"),
            variable("REVERTD_AMQP__URL"),
        ) {
            (Some(database), Some(amqp)) => Self {
                database,
                amqp,
                publisher: variable("REVERTD_TEST_PUBLISHER_URL"),
            },
            _ => Self::instance("dev"),
        }
    }

    /// A private instance of that name. It is started if it does not run.
    pub fn instance(name: &str) -> Self {
        manage(&["start", name]);
        let environment = environment(name);
        Self {
            database: environment["REVERTD_DATABASE__URL"].clone(),
            amqp: environment["REVERTD_AMQP__URL"].clone(),
            publisher: environment.get("REVERTD_TEST_PUBLISHER_URL").cloned(),
        }
    }
}

/// The addresses of an instance, by the names of their environment variables.
pub fn environment(instance: &str) -> HashMap<String, String> {
    manage(&["env", instance])
        .lines()
        .filter_map(|line| line.strip_prefix("export ")?.split_once('='))
        .map(|(name, value)| (name.to_owned(), value.trim_matches('\'').to_owned()))
        .collect()
}

/// Runs `tests/support/servers` and returns its output.
pub fn manage(arguments: &[&str]) -> String {
    let script = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/support/servers");
    let output = Command::new(script)
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .expect("bash is there");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "servers {arguments:?}: {stderr}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}
