//! The environment of one test: a database and broker names of its own on real servers, and the
//! configuration of the processes that the test starts.

use lapin::options::{ConfirmSelectOptions, ExchangeDeleteOptions, QueueDeleteOptions};
use lapin::{Channel, Connection};
use tokio_postgres::Client;
use uuid::Uuid;

use super::connect::{connect_amqp, connect_db, with_database};
use super::{Program, Servers, WorkerProcess, logs};

/// A database and broker names of one test.
pub struct TestEnv {
    pub servers: Servers,
    pub prefix: String,
    pub database: String,
    pub db: Client,
    pub channel: Channel,
    pub(super) connection: Connection,
    environment: Vec<(String, String)>,
}

impl TestEnv {
    /// An environment on the shared servers. The schema exists; no worker runs and no queue is
    /// declared.
    pub async fn new() -> Self {
        Self::on(Servers::shared()).await
    }

    /// The same on the given servers.
    pub async fn on(servers: Servers) -> Self {
        let addresses = [&servers.database, &servers.amqp].into_iter();
        addresses
            .chain(&servers.publisher)
            .for_each(|address| logs::password_of(address));
        let id = Uuid::new_v4().simple().to_string();
        let (prefix, database) = (format!("t.{}", &id[..12]), format!("t_{}", &id[..12]));
        let admin = connect_db(&servers.database).await;
        admin
            .batch_execute(&format!("CREATE DATABASE {database}"))
            .await
            .expect("the test's role may create databases");
        let database_url = with_database(&servers.database, &database);
        let mut environment = vec![
            ("REVERTD_DATABASE__URL".into(), database_url.clone()),
            ("REVERTD_AMQP__URL".into(), servers.amqp.clone()),
            ("REVERTD_RETRY__DELAYS".into(), "100ms,200ms,300ms".into()),
            ("REVERTD_TELEMETRY__LOG_FORMAT".into(), "text".into()),
            // Only `grants.rs` tests authorization; other tests would need a grant each.
            ("REVERTD_AUTHORIZATION__MODE".into(), "broker".into()),
        ];
        for (key, name) in [
            ("REQUEST_EXCHANGE", "requests"),
            ("ALTERNATE_EXCHANGE", "any"),
            ("WORK_QUEUE", "work"),
            ("RETRY_QUEUE_PREFIX", "retry"),
            ("REPLY_EXCHANGE", "replies"),
            ("REPLY_QUEUE", "replies"),
            ("DENIED_QUEUE", "denied"),
            ("DEAD_LETTER_EXCHANGE", "dead"),
            ("DEAD_LETTER_QUEUE", "dead"),
        ] {
            environment.push((
                format!("REVERTD_TOPOLOGY__{key}"),
                format!("{prefix}.{name}"),
            ));
        }
        let connection = connect_amqp(&servers.amqp).await;
        let channel = connection.create_channel().await.expect("a channel");
        let confirm = ConfirmSelectOptions { nowait: false };
        channel.confirm_select(confirm).await.expect("confirms");
        let env = Self {
            db: connect_db(&database_url).await,
            servers,
            prefix,
            database,
            channel,
            connection,
            environment,
        };
        let migrated = env.command(&["migrate"]).output().expect("runs");
        let stderr = String::from_utf8_lossy(&migrated.stderr);
        assert!(migrated.status.success(), "migrate: {stderr}");
        env
    }

    /// An environment whose worker already runs.
    pub async fn with_worker() -> (Self, WorkerProcess) {
        Self::with_worker_set(&[]).await
    }

    /// The same with further settings.
    pub async fn with_worker_set(settings: &[(&str, &str)]) -> (Self, WorkerProcess) {
        let mut env = Self::new().await;
        for (name, value) in settings {
            env.set(name, value);
        }
        let worker = env.start_worker().await;
        (env, worker)
    }

    /// An environment whose requests are decided in the order in which they were published. Its
    /// processes have one worker each: several workers would share the queue.
    pub async fn in_order() -> Self {
        let mut env = Self::new().await;
        env.set("WORKER__CONCURRENCY", "1");
        env
    }

    /// Sets a configuration key for processes started later: `REVERT__POLICY`, `cumulative`.
    pub fn set(&mut self, key: &str, value: &str) {
        self.environment
            .push((format!("REVERTD_{key}"), value.into()));
    }

    /// The value of that key, if the test has set it.
    pub fn setting(&self, key: &str) -> Option<&str> {
        let name = format!("REVERTD_{key}");
        let set = self.environment.iter().rev().find(|(set, _)| *set == name);
        set.map(|(_, value)| value.as_str())
    }

    /// The variables that configure the processes of this environment.
    pub fn environment(&self) -> Vec<(String, String)> {
        self.environment.clone()
    }

    /// The name of an exchange or a queue.
    pub fn name(&self, last: &str) -> String {
        format!("{}.{last}", self.prefix)
    }

    /// The program, with the configuration of this environment and no other variables.
    pub fn command(&self, arguments: &[&str]) -> Program {
        let mut program = Program::new(arguments);
        for (name, value) in &self.environment {
            program.env(name, value);
        }
        program
    }

    /// Starts a worker process and waits until it consumes.
    pub async fn start_worker(&self) -> WorkerProcess {
        let mut worker = self.spawn_worker();
        worker.ready().await;
        worker
    }

    /// Starts a worker process without waiting.
    pub fn spawn_worker(&self) -> WorkerProcess {
        WorkerProcess::spawn(self.command(&["worker"]))
    }

    /// Removes the queues, the exchanges and the database.
    pub async fn teardown(self) {
        let told = ["replies", "denied", "dead"].map(|last| self.name(last));
        for queue in self.waiting_queues().into_iter().chain(told) {
            let _ = self
                .channel
                .queue_delete(queue.as_str().into(), QueueDeleteOptions::default())
                .await;
        }
        for exchange in ["requests", "any", "replies", "dead"] {
            let exchange = self.name(exchange);
            let options = ExchangeDeleteOptions::default();
            let _ = self
                .channel
                .exchange_delete(exchange.as_str().into(), options)
                .await;
        }
        drop(self.db);
        let admin = connect_db(&self.servers.database).await;
        let drop = format!("DROP DATABASE {} WITH (FORCE)", self.database);
        let _ = admin.batch_execute(&drop).await;
    }
}
