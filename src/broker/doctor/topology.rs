//! Whether exchanges and queues are there, and with the arguments that a worker declares them with.
//!
//! What is there is declared once more, which changes nothing; what isn't is only looked for.

use super::super::error::BrokerError;
use super::super::topology::{Alternate, Steps, exchanges, queues};
use crate::broker::connection::{CONNECT_TIMEOUT, within};
use crate::broker::worker_connections::Broker;
use crate::common::check::Checks;
use crate::config::Settings;

const ID: &str = "amqp-topology";

/// Says where requests of other routing keys go, where the request exchange is there.
///
/// On the connection that never publishes: a broker that takes no messages reads nothing on the
/// other.
pub async fn check(broker: &Broker, settings: &Settings, checks: &mut Checks) -> Option<Alternate> {
    let host = broker.host.as_str();
    let steps = Steps {
        connection: &broker.consuming.connection,
        host,
    };
    let declare = settings.topology.declare;
    let mut found = FoundTopology::default();
    let mut alternate = Some(Alternate::Declared);
    for exchange in exchanges(&settings.topology) {
        let step = async |passive| {
            let declaring = steps.exchange(&exchange, passive);
            within(CONNECT_TIMEOUT, host, declaring).await
        };
        let mut state = step(true).await;
        if declare && state.is_ok() {
            state = step(false).await;
        }
        alternate = match &state {
            Ok(Alternate::NotSeen) => Some(Alternate::NotSeen),
            // It is told as missing.
            Err(_) if exchange.alternate.is_some() => None,
            Ok(Alternate::Declared) | Err(_) => alternate,
        };
        found.add(
            format!("exchange {}", exchange.name),
            state.map(|_| ()),
            checks,
        );
    }
    for queue in queues(settings) {
        let step = async |passive| {
            let declaring = async {
                let channel = steps.declare(&queue, passive).await?;
                steps.close(&channel).await;
                Ok(())
            };
            within(CONNECT_TIMEOUT, host, declaring).await
        };
        let mut state = step(true).await;
        if declare && state.is_ok() {
            state = step(false).await;
        }
        found.add(format!("queue {}", queue.name), state, checks);
    }
    found.tell(declare, checks);
    alternate
}

/// What is in order and what is not there, each told at once.
#[derive(Default)]
struct FoundTopology {
    sound: usize,
    missing: Vec<String>,
}

impl FoundTopology {
    fn add(&mut self, what: String, state: Result<(), BrokerError>, checks: &mut Checks) {
        match state {
            Ok(()) => self.sound += 1,
            Err(error) if error.is_missing() => self.missing.push(what),
            Err(error) => checks.failed(ID, error.diagnostic()),
        }
    }

    fn tell(self, declare: bool, checks: &mut Checks) {
        let count = self.sound;
        if count > 0 && declare {
            let seen = format!("{count} exchanges and queues are as revertd declares them");
            checks.ok(ID, seen);
        } else if count > 0 {
            let seen = format!(
                "{count} exchanges and queues are there; with topology.declare = false their \
                 arguments are not compared over AMQP"
            );
            checks.ok(ID, seen);
        }
        if self.missing.is_empty() {
            return;
        }
        let missing = self.missing.join(", ");
        if declare {
            let remedy = "start `revertd worker`, which declares it";
            checks.warning(ID, format!("not there yet: {missing}"), remedy);
        } else {
            checks.error(
                ID,
                format!("missing, and topology.declare is false: {missing}"),
                "start a worker once with topology.declare = true, which declares it",
            );
        }
    }
}
