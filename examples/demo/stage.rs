//! The stage: a database and broker names of this run, and the worker that uses them.

use std::env;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use lapin::options::{
    BasicGetOptions, ConfirmSelectOptions, ExchangeDeleteOptions, QueueDeleteOptions,
};
use lapin::{Channel, Connection, ConnectionProperties};
use tokio::time::timeout;
use tokio_postgres::{Client, NoTls};
use uuid::Uuid;

use super::ledger::Ledger;
use super::process::{Process, program};

/// Longest wait for a single step.
pub const PATIENCE: Duration = Duration::from_secs(15);

/// The retry ladder in milliseconds: as many retries of an unknown usage as by default, but with
/// short delays.
pub const RETRY_DELAYS: [u64; 3] = [200, 400, 800];

/// Configuration keys of the names on the broker, and the last part of each name.
const TOPOLOGY: [(&str, &str); 9] = [
    ("REQUEST_EXCHANGE", "requests"),
    ("ALTERNATE_EXCHANGE", "any"),
    ("WORK_QUEUE", "work"),
    ("RETRY_QUEUE_PREFIX", "retry"),
    ("REPLY_EXCHANGE", "replies"),
    ("REPLY_QUEUE", "replies"),
    ("DENIED_QUEUE", "denied"),
    ("DEAD_LETTER_EXCHANGE", "dead"),
    ("DEAD_LETTER_QUEUE", "dead"),
];

pub struct Stage {
    pub database: String,
    prefix: String,
    program: PathBuf,
    environment: Vec<(String, String)>,
    database_url: String,
    admin: Client,
    broker: Connection,
    process: Option<Process>,
}

impl Stage {
    /// Connects to both servers, and creates nothing yet.
    pub async fn connect() -> Result<Self> {
        let program = program()?;
        let (database_server, amqp) = (
            variable("REVERTD_DATABASE__URL")?,
            variable("REVERTD_AMQP__URL")?,
        );
        let run = &Uuid::new_v4().simple().to_string()[..8];
        let (database, prefix) = (format!("revertd_demo_{run}"), format!("demo.{run}"));
        let database_url = with_database(&database_server, &database);
        let admin = connect_database(&database_server).await?;
        Ok(Self {
            environment: environment(&prefix, &database_url, &amqp),
            database,
            prefix,
            program,
            database_url,
            admin,
            broker: connect_broker(&amqp).await?,
            process: None,
        })
    }

    /// The name of an exchange or a queue.
    pub fn name(&self, last: &str) -> String {
        format!("{}.{last}", self.prefix)
    }

    pub async fn create_database(&self) -> Result<Ledger> {
        let create = format!("CREATE DATABASE {}", self.database);
        let created = self.admin.batch_execute(&create).await;
        created.context("cannot create a database for the demo (does the role have CREATEDB?)")?;
        Ok(Ledger(connect_database(&self.database_url).await?))
    }

    pub async fn migrate(&mut self) -> Result<()> {
        let status = self.spawn(&["migrate"])?.ended().await?;
        ensure!(status.success(), "revertd migrate failed ({status})");
        Ok(())
    }

    /// The publisher's login, which the broker authenticated.
    pub fn login(&self) -> String {
        self.broker.status().username()
    }

    /// Grants the publisher reverts of an org's usages.
    pub async fn grant(&mut self, org: Uuid) -> Result<()> {
        let (login, org) = (self.login(), org.to_string());
        let status = self
            .spawn(&["grants", "add", &login, &org])?
            .ended()
            .await?;
        ensure!(status.success(), "revertd grants failed ({status})");
        Ok(())
    }

    /// Starts the worker, and waits until it consumes.
    pub async fn start_worker(&mut self) -> Result<()> {
        let worker = self.spawn(&["worker"])?;
        let ready = timeout(PATIENCE, worker.ready()).await;
        ready.context("the worker does not become ready")?
    }

    /// Waits for an unexpected end of the worker.
    pub async fn worker_ended(&mut self) -> Result<ExitStatus> {
        self.process()?.ended().await
    }

    /// Stops the worker, which must end with success.
    pub async fn stop_worker(&mut self) -> Result<()> {
        let status = self.process()?.stop().await?;
        ensure!(
            status.success(),
            "the worker did not stop in order ({status})"
        );
        Ok(())
    }

    /// A channel with publisher confirms.
    pub async fn channel(&self) -> Result<Channel> {
        let opened = async {
            let channel = self.broker.create_channel().await?;
            channel
                .confirm_select(ConfirmSelectOptions { nowait: false })
                .await?;
            Ok::<_, lapin::Error>(channel)
        };
        opened.await.context("cannot open a channel")
    }

    /// Takes all messages off a queue, and counts them.
    pub async fn take_all(&self, queue: &str) -> Result<usize> {
        let (channel, queue) = (self.channel().await?, self.name(queue));
        let mut taken = 0;
        let options = BasicGetOptions { no_ack: true };
        while (channel.basic_get(queue.as_str().into(), options).await)
            .with_context(|| format!("cannot read the queue {queue}"))?
            .is_some()
        {
            taken += 1;
        }
        Ok(taken)
    }

    /// The log of revertd so far.
    pub fn log(&self) -> String {
        self.process.as_ref().map(Process::log).unwrap_or_default()
    }

    /// Stops revertd and removes the stage as far as possible.
    pub async fn strike(mut self) -> Result<()> {
        // Stop revertd first: it would declare the deleted objects again.
        if let Some(mut process) = self.process.take() {
            let _ = process.stop().await;
        }
        let topology = timeout(PATIENCE, self.delete_topology()).await;
        let topology = topology.map_err(anyhow::Error::from).flatten();
        let topology = topology.with_context(|| format!("left on the broker: {}", self.name("*")));
        // On the connection that created the database: this statement waits for that one, even if
        // that one timed out here.
        let drop = format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", self.database);
        let database = timeout(PATIENCE, self.admin.batch_execute(&drop)).await;
        let database = (database.map_err(anyhow::Error::from))
            .and_then(|dropped| dropped.map_err(anyhow::Error::from))
            .with_context(|| format!("left on the server: the database {}", self.database));
        match (topology, database) {
            (Err(one), Err(other)) => Err(anyhow!("{one:#}; {other:#}")),
            (one, other) => one.and(other),
        }
    }

    async fn delete_topology(&self) -> Result<()> {
        let channel = self.channel().await?;
        let rungs = RETRY_DELAYS.map(|delay| format!("retry.{delay}ms"));
        for queue in (rungs.iter().map(String::as_str)).chain(["work", "replies", "denied", "dead"])
        {
            let queue = self.name(queue);
            channel
                .queue_delete(queue.into(), QueueDeleteOptions::default())
                .await?;
        }
        for exchange in ["requests", "any", "replies", "dead"] {
            let exchange = self.name(exchange);
            channel
                .exchange_delete(exchange.into(), ExchangeDeleteOptions::default())
                .await?;
        }
        // Without a close, the broker logs a lost client.
        let _ = self.broker.close(200, "done".into()).await;
        Ok(())
    }

    fn spawn(&mut self, arguments: &[&str]) -> Result<&mut Process> {
        let process = Process::spawn(&self.program, arguments, &self.environment)?;
        Ok(self.process.insert(process))
    }

    fn process(&mut self) -> Result<&mut Process> {
        self.process.as_mut().context("no worker was started")
    }
}

/// The complete configuration of revertd. The environment of the demo does not change it.
fn environment(prefix: &str, database_url: &str, amqp: &str) -> Vec<(String, String)> {
    let delays = RETRY_DELAYS.map(|delay| format!("{delay}ms")).join(",");
    let mut variables = vec![
        ("REVERTD_DATABASE__URL".into(), database_url.to_owned()),
        ("REVERTD_AMQP__URL".into(), amqp.to_owned()),
        ("REVERTD_RETRY__DELAYS".into(), delays),
        ("REVERTD_TELEMETRY__LOG_FORMAT".into(), "text".into()),
    ];
    variables.extend(TOPOLOGY.map(|(key, last)| {
        let key = format!("REVERTD_TOPOLOGY__{key}");
        (key, format!("{prefix}.{last}"))
    }));
    variables
}

fn variable(name: &str) -> Result<String> {
    env::var(name)
        .ok()
        .with_context(|| format!("{name} is not set; `make demo` sets it"))
}

/// The address of the same server with another database: a URL, or key=value pairs, of which the
/// last one counts.
fn with_database(address: &str, database: &str) -> String {
    match url::Url::parse(address) {
        Ok(mut url) => {
            url.set_path(database);
            url.into()
        }
        Err(_) => format!("{address} dbname={database}"),
    }
}

async fn connect_database(address: &str) -> Result<Client> {
    let connecting = "cannot connect to PostgreSQL (REVERTD_DATABASE__URL)";
    let connected = timeout(PATIENCE, tokio_postgres::connect(address, NoTls)).await;
    let (client, connection) = connected.context(connecting)?.context(connecting)?;
    // The statements of the client return the errors of the connection.
    tokio::spawn(connection);
    Ok(client)
}

async fn connect_broker(address: &str) -> Result<Connection> {
    let connecting = "cannot connect to RabbitMQ (REVERTD_AMQP__URL)";
    let properties = ConnectionProperties::default().with_connection_name("revertd demo".into());
    let connected = timeout(PATIENCE, Connection::connect(address, properties)).await;
    connected.context(connecting)?.context(connecting)
}
