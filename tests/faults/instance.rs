//! A private instance of both servers, to be stopped and killed.

use uuid::Uuid;

use crate::support::{Servers, manage};

/// An instance that goes with its test.
pub struct Instance(String);

impl Instance {
    pub fn start() -> (Self, Servers) {
        let name = format!("faults-{}", &Uuid::new_v4().simple().to_string()[..8]);
        let servers = Servers::instance(&name);
        (Self(name), servers)
    }

    /// Does something to one of its servers: `restart`, `kill`, `stop-one`, `start-one`.
    pub fn do_to(&self, action: &str, server: &str) {
        manage(&[action, &self.0, server]);
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
