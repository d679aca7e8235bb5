//! Whether exchanges and queues are there, and with the arguments that a worker declares them with.
//!
//! What is there is declared once more, which changes nothing; what isn't is only looked for.

use crate::broker::error::BrokerError;
use crate::broker::topology::{Steps, exchanges, queues};
use crate::broker::{Broker, CONNECT_TIMEOUT, within};
use crate::check::Checks;
use crate::settings::Settings;

const ID: &str = "amqp-topology";

/// On the connection that never publishes: a broker that takes no messages reads nothing on the other.
pub async fn check(broker: &Broker, settings: &Settings, checks: &mut Checks) {
    let host = broker.host.as_str();
    let steps = Steps {
        connection: &broker.consuming.connection,
        host,
    };
    let declare = settings.topology.declare;
    for (name, kind) in exchanges(&settings.topology) {
        let step = async |passive| {
            let declaring = steps.exchange(name, kind.clone(), passive);
            within(CONNECT_TIMEOUT, host, declaring).await
        };
        let mut found = step(true).await;
        if declare && found.is_ok() {
            found = step(false).await;
        }
        tell(&format!("exchange {name}"), found, declare, checks);
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
        let mut found = step(true).await;
        if declare && found.is_ok() {
            found = step(false).await;
        }
        tell(&format!("queue {}", queue.name), found, declare, checks);
    }
}

fn tell(what: &str, found: Result<(), BrokerError>, declare: bool, checks: &mut Checks) {
    match found {
        Ok(()) if declare => checks.ok(ID, format!("{what} is as revertd declares it")),
        Ok(()) => checks.ok(
            ID,
            format!("{what} is there; with topology.declare = false its arguments are not compared over AMQP"),
        ),
        Err(wrong) if wrong.is_missing() && declare => checks.warning(
            ID,
            format!("{what} is not there yet"),
            "start `revertd worker`, which declares it",
        ),
        Err(wrong) if wrong.is_missing() => checks.error(
            ID,
            format!("{what} is missing, and topology.declare is false"),
            "create it as the README lists it, or start a worker once with topology.declare = true",
        ),
        Err(wrong) => checks.failed(ID, &wrong),
    }
}
