//! A reply queue of one's own: named by the broker, and gone with the connection.

use lapin::options::{BasicConsumeOptions, QueueDeclareOptions};
use lapin::types::{FieldTable, ShortString};
use lapin::{Channel, Consumer};

use crate::broker::error::BrokerError;
use crate::broker::operation::Operation;

/// Declares one, and consumes it. Who gets no answer asks again, so that nothing depends on what is
/// acknowledged.
pub async fn declare(
    channel: &Channel,
    host: &str,
) -> Result<(Consumer, ShortString), BrokerError> {
    let declaring = Operation::DeclaringReplyQueue;
    let classify = |error| BrokerError::classify(&error, host, declaring);
    // Named by the broker (amq.gen-...), which is what amqp.reply_to_pattern allows.
    let options = QueueDeclareOptions {
        passive: false,
        durable: false,
        exclusive: true,
        auto_delete: true,
        nowait: false,
    };
    let declared = channel.queue_declare("".into(), options, FieldTable::default());
    let name = declared.await.map_err(classify)?.name().clone();
    let options = BasicConsumeOptions {
        no_local: false,
        no_ack: true,
        exclusive: true,
        nowait: false,
    };
    let consuming = channel.basic_consume(name.clone(), "".into(), options, FieldTable::default());
    Ok((consuming.await.map_err(classify)?, name))
}
