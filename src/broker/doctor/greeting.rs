//! What a broker says of itself before anybody logs in: the first frame of a connection.

use amq_protocol::frame::{AMQPFrame, parse_frame};
use amq_protocol::protocol::{AMQPClass, connection};
use amq_protocol::types::{AMQPValue, FieldTable};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::broker::connection::socket::Socket;
use crate::common::check::Checks;
use crate::config::Settings;

/// Larger than any greeting.
const MAX_BYTES: u32 = 131_072;

/// Kind, channel and size stand before a frame, a mark after it.
const HEAD_BYTES: usize = 7;

/// Versions of RabbitMQ that this program is made for: from, and below.
const OLDEST: (u32, u32) = (3, 10);
const TOO_NEW: (u32, u32) = (5, 0);

/// Bytes of a message beyond which a broker's bound is large: many such messages fill its memory.
const LARGE_MESSAGE: u64 = 16 * 1024 * 1024;

/// Largest message that a broker takes unless told otherwise, before 4.0 and since.
const MESSAGE_MAX: [u64; 2] = [128 << 20, 16 << 20];

/// What it said.
pub struct Greeting {
    product: String,
    version: String,
    cluster: String,
    /// The ways to log in that it offers.
    mechanisms: String,
}

/// Reads it. The connection ends there.
pub async fn read(mut socket: Socket) -> Result<Greeting, lapin::Error> {
    socket.write_all(b"AMQP\0\0\x09\x01").await?;
    socket.flush().await?;
    let mut frame = vec![0; HEAD_BYTES];
    socket.read_exact(&mut frame).await?;
    let size = u32::from_be_bytes([frame[3], frame[4], frame[5], frame[6]]);
    if size > MAX_BYTES {
        return Err(no_broker());
    }
    let size = u64::from(size) + 1;
    (&mut socket).take(size).read_to_end(&mut frame).await?;
    let Ok((_, AMQPFrame::Method(_, AMQPClass::Connection(method)))) =
        parse_frame(frame.as_slice())
    else {
        return Err(no_broker());
    };
    let connection::AMQPMethod::Start(start) = method else {
        return Err(no_broker());
    };
    let of = |name| text(&start.server_properties, name);
    Ok(Greeting {
        product: of("product"),
        version: of("version"),
        cluster: of("cluster_name"),
        mechanisms: String::from_utf8_lossy(start.mechanisms.as_bytes()).into_owned(),
    })
}

fn no_broker() -> lapin::Error {
    std::io::Error::other("it answers with something else than AMQP").into()
}

fn text(table: &FieldTable, name: &str) -> String {
    match table.inner().get(name) {
        Some(AMQPValue::LongString(text)) => String::from_utf8_lossy(text.as_bytes()).into_owned(),
        _ => String::new(),
    }
}

impl Greeting {
    pub fn is_of_rabbitmq(&self) -> bool {
        self.product == "RabbitMQ"
    }

    pub fn check(&self, settings: &Settings, checks: &mut Checks) {
        let Self {
            product,
            version,
            cluster,
            ..
        } = self;
        let seen = format!("{product} {version}, cluster {cluster}");
        let number = numbers(version);
        if !self.is_of_rabbitmq() {
            checks.warning(
                "amqp-version",
                seen,
                "revertd was made for RabbitMQ 3.10 to 4.x; with another broker nothing is known \
                of what it guarantees",
            );
            return;
        }
        if number < OLDEST {
            checks.error(
                "amqp-version",
                seen,
                "upgrade the broker to RabbitMQ 3.10 or later",
            );
        } else if number >= TOO_NEW {
            let remedy = "revertd was tested with 3.10 to 4.x; look for a newer revertd";
            checks.warning("amqp-version", seen, remedy);
        } else {
            checks.ok("amqp-version", seen);
        }
        let usual = MESSAGE_MAX[usize::from(number.0 >= 4)];
        let (ours, key) = settings.amqp.request_limits().largest();
        if ours > usual {
            checks.warning(
                "amqp-message-size",
                format!("{key} is more than the {usual} bytes that this broker takes by default"),
                format!("raise max_message_size in rabbitmq.conf, or lower {key}"),
            );
        } else if usual > LARGE_MESSAGE {
            checks.skipped_until(
                "amqp-message-size",
                format!(
                    "this broker takes messages of {usual} bytes by default, and does not tell \
                    its max_message_size; each costs it as much memory, and the worker the time \
                    to read it"
                ),
                "unless rabbitmq.conf bounds them already, set max_message_size there, such as to \
                1048576",
            );
        } else {
            checks.ok(
                "amqp-message-size",
                format!("{ours} bytes are within the {usual} that this broker takes by default"),
            );
        }
        if settings.amqp.url.is_external()
            && !self.mechanisms.split(' ').any(|name| name == "EXTERNAL")
        {
            checks.error(
                "amqp-mechanism",
                format!(
                    "the broker offers {} to log in, and amqp.url asks for \
                    EXTERNAL",
                    self.mechanisms
                ),
                "rabbitmq-plugins enable rabbitmq_auth_mechanism_ssl, and auth_mechanisms.1 = \
                EXTERNAL in rabbitmq.conf",
            );
        }
    }
}

/// Major and minor.
fn numbers(version: &str) -> (u32, u32) {
    let mut parts = version
        .split('.')
        .map(|part| part.parse().unwrap_or_default());
    let mut next = || parts.next().unwrap_or_default();
    (next(), next())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_as_numbers() {
        assert!(numbers("3.9.29") < OLDEST);
        assert!(numbers("3.10.8") >= OLDEST && numbers("3.13.7") >= OLDEST);
        assert!(numbers("4.3.0-beta.1") < TOO_NEW && numbers("5.0.0") >= TOO_NEW);
    }
}
