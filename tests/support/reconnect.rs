//! Connections that are opened again after a server has restarted.

use std::sync::Mutex;
use std::time::Duration;

use futures_util::StreamExt;
use lapin::options::*;
use lapin::types::FieldTable;
use lapin::{Channel, Connection};
use tokio::time::{Instant, sleep, timeout};
use tokio_postgres::{Client, NoTls};

use super::{Message, try_connect_amqp};

/// Longest time without progress under a fault. A test that exceeds it has failed. RabbitMQ
/// itself waits three minutes before it tries a dead-lettering again that failed.
pub const RECOVERY: Duration = Duration::from_secs(200);

/// Longest wait for one answer of a server that may be gone.
const ANSWER: Duration = Duration::from_secs(20);

/// Messages that are received before they are acknowledged together.
const PREFETCH: u16 = 500;

/// Most messages that are taken from a queue at once, within the time for one answer.
const MOST_AT_ONCE: u32 = 20_000;

/// Between two tries to connect.
const PAUSE: Duration = Duration::from_millis(100);

/// A channel in confirm mode, opened again when it broke.
pub struct ReconnectingChannel {
    urls: String,
    open: Option<(Connection, Channel)>,
}

impl ReconnectingChannel {
    /// To one of several addresses, separated by commas.
    pub fn new(urls: &str) -> Self {
        Self {
            urls: urls.to_owned(),
            open: None,
        }
    }

    /// Does `work` on the channel, anew on another one each time that it fails or does not answer.
    /// The first attempt may have taken effect all the same.
    pub async fn retry<T>(
        &mut self,
        what: &str,
        work: impl AsyncFn(&Channel) -> lapin::Result<T>,
    ) -> T {
        let deadline = Instant::now() + RECOVERY;
        loop {
            let done = timeout(ANSWER, async {
                let channel = self.channel().await?;
                work(&channel).await
            });
            let error = match done.await {
                Ok(Ok(done)) => return done,
                Ok(Err(error)) => error.to_string(),
                Err(_) => "no answer".into(),
            };
            self.open = None;
            assert!(Instant::now() < deadline, "never: {what}: {error}");
            sleep(PAUSE).await;
        }
    }

    async fn channel(&mut self) -> lapin::Result<Channel> {
        if let Some((_, channel)) = &self.open {
            return Ok(channel.clone());
        }
        let connection = try_connect_amqp(&self.urls).await?;
        let channel = connection.create_channel().await?;
        let confirm = ConfirmSelectOptions { nowait: false };
        channel.confirm_select(confirm).await?;
        self.open = Some((connection, channel.clone()));
        Ok(channel)
    }
}

/// A session with PostgreSQL, waited for while it is away.
pub async fn reconnect_db(url: &str) -> Client {
    let deadline = Instant::now() + RECOVERY;
    loop {
        match timeout(ANSWER, tokio_postgres::connect(url, NoTls)).await {
            Ok(Ok((client, connection))) => {
                tokio::spawn(connection);
                return client;
            }
            failed => assert!(
                Instant::now() < deadline,
                "PostgreSQL stays away: {:?}",
                failed.err()
            ),
        }
        sleep(PAUSE).await;
    }
}

/// Takes the messages that are in a queue at present, up to a bound. A message is kept before it is
/// acknowledged, so a broker that fails meanwhile can only deliver it again.
pub async fn drain_queue(
    channel: &Channel,
    queue: &str,
    kept: &Mutex<Vec<Message>>,
) -> lapin::Result<()> {
    let passive = QueueDeclareOptions {
        passive: true,
        ..Default::default()
    };
    let declared = channel
        .queue_declare(queue.into(), passive, FieldTable::default())
        .await?;
    let there = declared.message_count().min(MOST_AT_ONCE);
    if there == 0 {
        return Ok(());
    }
    let qos = BasicQosOptions { global: false };
    channel.basic_qos(PREFETCH, qos).await?;
    let options = BasicConsumeOptions::default();
    let mut consumer = channel
        .basic_consume(queue.into(), "".into(), options, FieldTable::default())
        .await?;
    let multiple = BasicAckOptions { multiple: true };
    let (mut taken, mut last) = (0, 0);
    // Once cancelled, the stream ends after the messages in flight.
    while let Some(delivery) = timeout(ANSWER, consumer.next())
        .await
        .map_err(|_| std::io::Error::other("the queue stopped delivering"))?
    {
        let delivery = delivery?;
        last = delivery.delivery_tag;
        kept.lock().expect("nobody panics with it").push(Message {
            routing_key: delivery.routing_key.to_string(),
            properties: delivery.properties,
            body: delivery.data,
        });
        taken += 1;
        if taken % u32::from(PREFETCH / 2) == 0 {
            channel.basic_ack(last, multiple).await?;
        }
        if taken == there {
            let tag = consumer.tag();
            channel
                .basic_cancel(tag, BasicCancelOptions::default())
                .await?;
        }
    }
    channel.basic_ack(last, multiple).await
}
