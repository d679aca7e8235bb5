//! A private instance of both servers, which a test may stop and kill.

use std::collections::HashMap;
use std::process::Command;

use uuid::Uuid;

use crate::support::{Servers, environment, manage};

/// An instance that goes with its test.
pub struct Instance(String);

impl Instance {
    pub fn start() -> (Self, Servers) {
        Self::start_with("start")
    }

    fn start_with(how: &str) -> (Self, Servers) {
        let name = format!("faults-{}", &Uuid::new_v4().simple().to_string()[..8]);
        let instance = Self(name.clone());
        manage(&[how, &name]);
        (instance, Servers::instance(&name))
    }

    /// One whose broker is a cluster of three; worker and load know the addresses of all nodes.
    pub fn cluster() -> (Self, Servers) {
        let (instance, mut servers) = Self::start_with("start-cluster");
        servers
            .amqp
            .clone_from(&instance.environment()["REVERTD_TEST_AMQP_NODES"]);
        (instance, servers)
    }

    /// One whose database has a standby that every commit waits for.
    pub fn with_standby() -> (Self, Servers) {
        Self::start_with("start-standby")
    }

    /// Its addresses, by the names of the variables that stand for them.
    pub fn environment(&self) -> HashMap<String, String> {
        environment(&self.0)
    }

    /// Stops the processes of a server where they are, until it is killed.
    pub fn freeze(&self, server: &str) {
        let pid = manage(&["pid", &self.0, server]).trim().to_owned();
        let children = Command::new("pgrep").args(["-P", &pid]).output();
        let children = children.expect("pgrep is there").stdout;
        let children = String::from_utf8(children).expect("numbers");
        let frozen = Command::new("kill")
            .args(["-STOP", &pid])
            .args(children.split_whitespace())
            .status();
        assert!(frozen.expect("kill is there").success());
    }

    /// Makes the standby a primary.
    pub async fn promote(&self) {
        self.run_in_background(["promote", &self.0]).await;
    }

    /// Stops the primary in order, and has the two change places.
    pub async fn switchover(&self) {
        self.run_in_background(["switchover", &self.0]).await;
    }

    /// Does something to one of its servers: `restart`, `kill`, `stop-one`, `start-one`.
    pub fn run_action_blocking(&self, action: &str, server: &str) {
        manage(&[action, &self.0, server]);
    }

    /// The same while the test goes on with other work.
    pub async fn run_action(&self, action: &str, server: &str) {
        self.run_in_background([action, &self.0, server]).await;
    }

    /// Runs `rabbitmqctl` on its broker while the test goes on with other work.
    pub async fn control(&self, arguments: &[&str]) -> String {
        self.run_in_background([&["ctl", self.0.as_str()], arguments].concat())
            .await
    }

    async fn run_in_background<'a>(&self, arguments: impl IntoIterator<Item = &'a str>) -> String {
        let arguments: Vec<_> = arguments.into_iter().map(str::to_owned).collect();
        let managing = tokio::task::spawn_blocking(move || {
            let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
            manage(&arguments)
        });
        managing.await.expect("the script succeeds")
    }

    /// Runs `rabbitmqctl` on its broker.
    pub fn ctl(&self, arguments: &[&str]) -> String {
        manage(&[&["ctl", &self.0], arguments].concat())
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        manage(&["destroy", &self.0]);
    }
}
