//! What the broker lets the worker's user do, asked without doing it: each question has a fault
//! that the broker looks at only once it has found the user permitted, or asks for what changes
//! nothing.

use lapin::BasicProperties;
use lapin::options::{BasicConsumeOptions, BasicPublishOptions, ConfirmSelectOptions};
use lapin::types::{AMQPValue, FieldTable};

use super::super::error::BrokerError;
use super::super::operation::Operation;
use super::super::topology::{Steps, queues};
use crate::broker::connection::{CONNECT_TIMEOUT, within};
use crate::broker::worker_connections::Broker;
use crate::common::check::Checks;
use crate::config::Settings;

const ID: &str = "amqp-permissions";

pub async fn check(broker: &Broker, settings: &Settings, checks: &mut Checks) {
    let topology = &settings.topology;
    let host = broker.host.as_str();
    let (dead, reply) = (&topology.dead_letter_exchange, &topology.reply_exchange);
    let outgoing = [
        ("the default exchange", "", topology.work_queue.as_str()),
        ("the reply exchange", reply.as_str(), "error.unknown"),
        (
            "the dead-letter exchange",
            dead.as_str(),
            topology.dead_letter_queue.as_str(),
        ),
    ];
    let steps = Steps {
        connection: &broker.publishing.connection,
        host,
    };
    for (what, exchange, key) in outgoing {
        let what = match exchange {
            "" => format!("{what} (amq.default)"),
            _ => format!("{what} {exchange}"),
        };
        let asked = within(CONNECT_TIMEOUT, host, may_write(&steps, exchange, key)).await;
        tell("write to", &what, asked, checks);
    }
    let steps = Steps {
        connection: &broker.consuming.connection,
        host,
    };
    let queue = topology.work_queue.as_str();
    let asked = within(CONNECT_TIMEOUT, host, may_read(&steps, queue)).await;
    tell("read", &format!("the work queue {queue}"), asked, checks);
    if topology.declare {
        for queue in queues(settings) {
            for (exchange, keys) in &queue.bindings {
                // What it takes to bind does not depend on the key.
                let Some(key) = keys.first() else {
                    continue;
                };
                let name = queue.name.as_str();
                let asking = may_bind(&steps, name, exchange, key);
                let asked = within(CONNECT_TIMEOUT, host, asking).await;
                let what = format!("the queue {name} to the exchange {exchange}");
                tell("bind", &what, asked, checks);
            }
        }
    }
}

fn tell(verb: &str, what: &str, asked: Result<(), BrokerError>, checks: &mut Checks) {
    match asked {
        Ok(()) => checks.ok(ID, format!("the user may {verb} {what}")),
        Err(error) if error.is_missing() => {
            checks.skipped(
                ID,
                format!("{what} does not exist, so the permission to {verb} it is unknown"),
            );
        }
        Err(error) if error.is_forbidden() => checks.error(
            ID,
            format!("the user may not {verb} {what}"),
            "rabbitmqctl set_permissions -p VHOST USER CONFIGURE WRITE READ",
        ),
        Err(error) => checks.failed(ID, error.diagnostic()),
    }
}

/// Publishes a message whose expiration is none: no broker takes it.
async fn may_write(steps: &Steps<'_>, exchange: &str, key: &str) -> Result<(), BrokerError> {
    let channel = steps.channel().await?;
    let confirm = ConfirmSelectOptions { nowait: false };
    steps.done(
        channel.confirm_select(confirm).await,
        Operation::CheckingPermission,
    )?;
    let options = BasicPublishOptions {
        mandatory: true,
        immediate: false,
    };
    let properties = BasicProperties::default().with_expiration("never".into());
    let asking = async {
        let publishing =
            channel.basic_publish(exchange.into(), key.into(), options, b"", properties);
        publishing.await?.await
    };
    refused(steps.done(asking.await, Operation::CheckingPermission))
}

/// Consumes with a priority that is none: no broker delivers to such a consumer.
async fn may_read(steps: &Steps<'_>, queue: &str) -> Result<(), BrokerError> {
    let channel = steps.channel().await?;
    let mut arguments = FieldTable::default();
    arguments.insert("x-priority".into(), AMQPValue::LongString("none".into()));
    let options = BasicConsumeOptions {
        no_local: false,
        no_ack: false,
        exclusive: false,
        nowait: false,
    };
    let asking = channel.basic_consume(queue.into(), "".into(), options, arguments);
    let asked = steps.done(asking.await, Operation::CheckingPermission);
    // Had it been taken after all, what it was given goes back.
    steps.close(&channel).await;
    refused(asked)
}

/// Unbinds a binding that does not exist, since a binding with other arguments is another one: to
/// unbind takes the permissions that to bind takes, and what isn't there can be unbound.
async fn may_bind(
    steps: &Steps<'_>,
    queue: &str,
    exchange: &str,
    key: &str,
) -> Result<(), BrokerError> {
    let channel = steps.channel().await?;
    let mut nobodys = FieldTable::default();
    let mark = uuid::Uuid::new_v4().to_string();
    nobodys.insert("revertd-doctor".into(), AMQPValue::LongString(mark.into()));
    let asking = channel.queue_unbind(queue.into(), exchange.into(), key.into(), nobodys);
    steps.done(asking.await, Operation::CheckingPermission)?;
    steps.close(&channel).await;
    Ok(())
}

/// A refusal for the fault is a yes; to be taken all the same, as well.
fn refused<T>(asked: Result<T, BrokerError>) -> Result<(), BrokerError> {
    match asked {
        Err(error) if !error.is_unequal() => Err(error),
        Ok(_) | Err(_) => Ok(()),
    }
}
