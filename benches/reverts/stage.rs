//! The stage of a run: a database and broker names of its own, which are removed after the run.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lapin::options::{
    ConfirmSelectOptions, ExchangeDeleteOptions, QueueDeclareOptions, QueueDeleteOptions,
    QueuePurgeOptions,
};
use lapin::types::FieldTable;
use lapin::{Channel, Connection, ConnectionProperties};
use tokio_postgres::{Client, NoTls};
use uuid::Uuid;

use crate::deadline::{PATIENCE, within};
use crate::load::{Expected, Load};
use crate::process::{self, Worker};

mod batches;
mod publish;
mod seed;

/// The keys of the settings that name something on the broker.
const NAMES: [&str; 9] = [
    "REQUEST_EXCHANGE",
    "ALTERNATE_EXCHANGE",
    "WORK_QUEUE",
    "RETRY_QUEUE_PREFIX",
    "REPLY_EXCHANGE",
    "REPLY_QUEUE",
    "DENIED_QUEUE",
    "DEAD_LETTER_EXCHANGE",
    "DEAD_LETTER_QUEUE",
];

/// Environment variables, or settings by the variables that set them.
pub type Variables = Vec<(String, String)>;

pub struct Stage {
    pub db: Client,
    pub database_url: String,
    pub environment: Variables,
    channel: Channel,
    /// Keeps the channel open: a channel ends with its connection.
    _connection: Connection,
    login: String,
    admin: Client,
    database: String,
    prefix: String,
}

impl Stage {
    /// Creates a database with the schema. A worker that stops at once declares the topology.
    pub async fn new(settings: &[(String, String)]) -> Result<Self> {
        let (server, amqp) = urls()?;
        let id = Uuid::new_v4().simple().to_string();
        let (database, prefix) = (
            format!("revertd_bench_{}", &id[..8]),
            format!("bench.{}", &id[..8]),
        );
        let admin = connect(&server).await?;
        let create = format!("CREATE DATABASE {database}");
        within(PATIENCE, "CREATE DATABASE", admin.batch_execute(&create)).await?;
        let mut url = url::Url::parse(&server).context("REVERTD_DATABASE__URL is no URL")?;
        url.set_path(&database);
        let mut environment = vec![
            ("REVERTD_DATABASE__URL".to_owned(), url.to_string()),
            ("REVERTD_AMQP__URL".to_owned(), amqp.clone()),
            // The measurement `grants` measures the cost of grants separately.
            (
                "REVERTD_AUTHORIZATION__MODE".to_owned(),
                "broker".to_owned(),
            ),
        ];
        for key in NAMES {
            let name = format!("{prefix}.{}", key.to_lowercase());
            environment.push((format!("REVERTD_TOPOLOGY__{key}"), name));
        }
        environment.extend(settings.iter().cloned());
        process::to_its_end(process::revertd(&environment, "migrate"), PATIENCE).await?;
        let connecting = Connection::connect(&amqp, ConnectionProperties::default());
        let connection = within(PATIENCE, "RabbitMQ", connecting).await?;
        let channel = connection.create_channel().await?;
        channel
            .confirm_select(ConfirmSelectOptions { nowait: false })
            .await?;
        let stage = Self {
            db: connect(url.as_str()).await?,
            database_url: url.to_string(),
            environment,
            channel,
            login: connection.status().username(),
            _connection: connection,
            admin,
            database,
            prefix,
        };
        Worker::revertd(&stage.environment).await?.stop().await?;
        Ok(stage)
    }

    /// The login of the publisher.
    pub fn login(&self) -> &str {
        &self.login
    }

    pub fn work_queue(&self) -> String {
        format!("{}.work_queue", self.prefix)
    }

    pub fn request_exchange(&self) -> String {
        format!("{}.request_exchange", self.prefix)
    }

    pub fn reply_queue(&self) -> String {
        format!("{}.reply_queue", self.prefix)
    }

    pub fn reply_exchange(&self) -> String {
        format!("{}.reply_exchange", self.prefix)
    }

    /// Messages that are ready in a queue.
    pub async fn depth(&self, queue: &str) -> Result<u32> {
        let options = QueueDeclareOptions {
            passive: true,
            ..Default::default()
        };
        let declaring = self
            .channel
            .queue_declare(queue.into(), options, FieldTable::default());
        let declared = within(PATIENCE, "the depth of a queue", declaring).await?;
        Ok(declared.message_count())
    }

    /// Checks the result of a load: no request is left, the outcomes are the expected ones, and the
    /// events of groups are complete.
    pub async fn check(&self, load: Load) -> Result<()> {
        let left = self.depth(&self.work_queue()).await?;
        ensure!(left == 0, "{left} requests are left");
        let query =
            "SELECT count(*) FILTER (WHERE refusal IS NULL), count(refusal) FROM revertd.outcomes";
        let row = within(PATIENCE, "counting", self.db.query_one(query, &[])).await?;
        let dead_letters = format!("{}.dead_letter_queue", self.prefix);
        let found = Expected {
            applied: u32::try_from(row.get::<_, i64>(0))?,
            refused: u32::try_from(row.get::<_, i64>(1))?,
            dead_letters: self.depth(&dead_letters).await?,
        };
        let expected = load.expected();
        ensure!(found == expected, "{found:?}, expected {expected:?}");
        self.check_batches(load).await
    }

    pub async fn empty(&self, queue: &str) -> Result<()> {
        let options = QueuePurgeOptions::default();
        let purging = self.channel.queue_purge(queue.into(), options);
        within(PATIENCE, "emptying a queue", purging).await?;
        Ok(())
    }

    /// Removes the database and everything on the broker.
    pub async fn clean(self) -> Result<()> {
        let queues = [
            "work_queue",
            "reply_queue",
            "denied_queue",
            "dead_letter_queue",
        ];
        let queues = queues.map(ToOwned::to_owned);
        let rungs =
            ["1s", "5s", "30s", "2m", "10m"].map(|delay| format!("retry_queue_prefix.{delay}"));
        for queue in queues.into_iter().chain(rungs) {
            let queue = format!("{}.{queue}", self.prefix);
            remove(&queue).await?;
        }
        let connection = Connection::connect(&urls()?.1, ConnectionProperties::default()).await?;
        let channel = connection.create_channel().await?;
        for exchange in [
            "request_exchange",
            "alternate_exchange",
            "reply_exchange",
            "dead_letter_exchange",
        ] {
            let exchange = format!("{}.{exchange}", self.prefix);
            let deleting =
                channel.exchange_delete(exchange.into(), ExchangeDeleteOptions::default());
            within(PATIENCE, "deleting an exchange", deleting).await?;
        }
        drop(self.db);
        let drop = format!("DROP DATABASE {} WITH (FORCE)", self.database);
        within(PATIENCE, "DROP DATABASE", self.admin.batch_execute(&drop)).await
    }
}

/// Deletes a queue. RabbitMQ's own time limit is too short for a queue of a million messages: it
/// closes the connection and continues to delete.
async fn remove(queue: &str) -> Result<()> {
    let amqp = urls()?.1;
    let mut tries = 0;
    loop {
        let deleting = async {
            let connection = Connection::connect(&amqp, ConnectionProperties::default()).await?;
            let channel = connection.create_channel().await?;
            channel
                .queue_delete(queue.into(), QueueDeleteOptions::default())
                .await
        };
        match within(PATIENCE, "deleting a queue", deleting).await {
            Ok(_) => return Ok(()),
            Err(_) if tries < 10 => tries += 1,
            Err(wrong) => return Err(wrong),
        }
        tokio::time::sleep(Duration::from_secs(2)).await;
    }
}

/// The URLs of the servers.
pub fn urls() -> Result<(String, String)> {
    let variable = |name: &str| {
        std::env::var(name).with_context(|| format!("{name} is not set; run this by make bench"))
    };
    Ok((
        variable("REVERTD_DATABASE__URL")?,
        variable("REVERTD_AMQP__URL")?,
    ))
}

pub async fn connect(url: &str) -> Result<Client> {
    let connecting = tokio_postgres::connect(url, NoTls);
    let (client, connection) = within(PATIENCE, "PostgreSQL", connecting).await?;
    tokio::spawn(connection);
    Ok(client)
}

/// The path of a file of this repository.
pub fn in_repository(path: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(path)
}
