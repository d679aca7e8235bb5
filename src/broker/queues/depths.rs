//! The number of ready messages in queues.
//!
//! It uses a connection of its own. A missing queue closes the channel with an error that lapin
//! reports for the connection, and the worker reads the cause of a connection's end there. It also
//! works while the pool is paused or the broker blocks publishers.

use lapin::options::QueueDeclareOptions;
use lapin::types::FieldTable;
use lapin::{Connection, ErrorKind};

use crate::broker::connection::{CONNECT_TIMEOUT, any_of, close, connect, greeting, within};
use crate::broker::error::BrokerError;
use crate::config::{AmqpUrl, AmqpUrls};

/// Polls the depths of queues.
pub struct Depths {
    urls: AmqpUrls,
    connection: Option<(Connection, String)>,
}

impl Depths {
    /// Connects to nothing yet.
    #[must_use]
    pub fn new(urls: &AmqpUrls) -> Self {
        Self {
            urls: urls.clone(),
            connection: None,
        }
    }

    /// The ready messages of each of `queues`, in their order. `None` if a queue is missing or not
    /// accessible.
    ///
    /// # Errors
    /// If the broker can't be asked. The next poll connects again.
    pub async fn look(&mut self, queues: &[String]) -> Result<Vec<Option<u32>>, BrokerError> {
        let (connection, host) = match self.connection.take() {
            Some(kept) if kept.0.status().connected() => kept,
            Some(_) | None => any_of(&self.urls, open).await?,
        };
        let mut depths = Vec::with_capacity(queues.len());
        for queue in queues {
            match within(CONNECT_TIMEOUT, &host, depth(&connection, queue, &host)).await {
                Ok(depth) => depths.push(depth),
                Err(error) => {
                    close(&connection).await;
                    return Err(error);
                }
            }
        }
        self.connection = Some((connection, host));
        Ok(depths)
    }
}

/// The server must answer a greeting first, as after any failure.
async fn open(url: AmqpUrl) -> Result<(Connection, String), BrokerError> {
    let host = url.host();
    within(CONNECT_TIMEOUT, &host, greeting(&url)).await?;
    let connection = connect(&url, "revertd worker (looking at queues)").await?;
    Ok((connection, host))
}

/// It uses a channel of its own, since a refusal closes it.
async fn depth(
    connection: &Connection,
    queue: &str,
    host: &str,
) -> Result<Option<u32>, BrokerError> {
    let classify = |error| BrokerError::classify(&error, host, "looking at a queue");
    let channel = connection.create_channel().await.map_err(classify)?;
    let options = QueueDeclareOptions {
        // A passive declaration creates nothing.
        passive: true,
        durable: true,
        exclusive: false,
        auto_delete: false,
        nowait: false,
    };
    let declared = channel
        .queue_declare(queue.into(), options, FieldTable::default())
        .await;
    match declared {
        Ok(queue) => {
            let depth = queue.message_count();
            let _ = channel.close(200, "looked".into()).await;
            Ok(Some(depth))
        }
        Err(error) if matches!(error.kind(), ErrorKind::ProtocolError(_)) => Ok(None),
        Err(error) => Err(classify(error)),
    }
}
