//! An environment for black-box tests: a database and broker names of its own on real servers, the worker as a
//! process, a publisher, and the queues that the worker fills.
//!
//! Servers are those of `REVERTD_DATABASE__URL` and `REVERTD_AMQP__URL`; without them, `tests/support/servers`
//! starts the instance `dev` and leaves it running.

#![allow(dead_code, reason = "each test binary uses its own part")]

use std::collections::HashMap;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::{SelectAll, select_all};
use lapin::options::*;
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel, Confirmation, Connection, ConnectionProperties, Consumer};
use serde_json::{Value, json};
use tokio::time::{sleep, timeout};
use tokio_postgres::{Client, NoTls};
use uuid::Uuid;

pub mod audit;
pub mod otlp_collector;
pub mod compare;
pub mod documents;
pub mod ledger_generator;
pub mod expected;
pub mod unrelated;
pub mod http;
pub mod ledger;
pub mod dead_letters;
pub mod reconnect;
pub mod load;
pub mod logs;
pub mod request_generator;
pub mod model;
pub mod observed;
pub mod program;
pub mod proxy;
pub mod raw;
pub mod collected;
pub mod report;
pub mod scrape;
pub mod serializability;
pub mod request_bodies;
pub mod tls;
pub mod progress;
pub mod worker;
pub mod initial_ledger;

pub use program::Program;
pub use worker::WorkerProcess;

/// Longest wait for something that must come; a test that meets it has failed.
pub const TIMEOUT: Duration = Duration::from_mins(1);

/// Addresses of the servers.
#[derive(Clone, Debug)]
pub struct Servers {
    pub database: String,
    /// One, or several separated by commas.
    pub amqp: String,
    /// A login that is not the worker's, where there is one.
    pub publisher: Option<String>,
}

impl Servers {
    /// The shared ones.
    pub fn shared() -> Self {
        let variable = |name: &str| std::env::var(name).ok();
        match (
            variable("REVERTD_DATABASE__URL"),
            variable("REVERTD_AMQP__URL"),
        ) {
            (Some(database), Some(amqp)) => Self {
                database,
                amqp,
                publisher: variable("REVERTD_TEST_PUBLISHER_URL"),
            },
            _ => Self::instance("dev"),
        }
    }

    /// A private instance of that name, started if it isn't running.
    pub fn instance(name: &str) -> Self {
        manage(&["start", name]);
        let environment = environment(name);
        Self {
            database: environment["REVERTD_DATABASE__URL"].clone(),
            amqp: environment["REVERTD_AMQP__URL"].clone(),
            publisher: environment.get("REVERTD_TEST_PUBLISHER_URL").cloned(),
        }
    }
}

/// The addresses of an instance, by the names of the variables that stand for them.
pub fn environment(instance: &str) -> HashMap<String, String> {
    manage(&["env", instance])
        .lines()
        .filter_map(|line| line.strip_prefix("export ")?.split_once('='))
        .map(|(name, value)| (name.to_owned(), value.trim_matches('\'').to_owned()))
        .collect()
}

/// Runs `tests/support/servers` and returns what it printed.
pub fn manage(arguments: &[&str]) -> String {
    let script = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/support/servers");
    let output = Command::new(script)
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .expect("bash is there");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "servers {arguments:?}: {said}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// A database and broker names of one test.
pub struct TestEnv {
    pub servers: Servers,
    pub prefix: String,
    pub database: String,
    pub db: Client,
    pub channel: Channel,
    connection: Connection,
    environment: Vec<(String, String)>,
}

impl TestEnv {
    /// An environment on the shared servers. The schema is there; no worker runs, and no queue is declared.
    pub async fn new() -> Self {
        Self::on(Servers::shared()).await
    }

    /// The same on other servers.
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
            // Who may ask is what `grants.rs` tests; elsewhere it would stand in the way.
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
        let said = String::from_utf8_lossy(&migrated.stderr);
        assert!(migrated.status.success(), "migrate: {said}");
        env
    }

    /// An environment whose worker already runs.
    pub async fn with_worker() -> (Self, WorkerProcess) {
        Self::with_worker_set(&[]).await
    }

    /// The same with settings of its own.
    pub async fn with_worker_set(settings: &[(&str, &str)]) -> (Self, WorkerProcess) {
        let mut env = Self::new().await;
        for (name, value) in settings {
            env.set(name, value);
        }
        let worker = env.start_worker().await;
        (env, worker)
    }

    /// An environment whose requests are decided in the order in which they were published. Its processes have one
    /// worker each: of several, each could take a part of what waits.
    pub async fn in_order() -> Self {
        let mut env = Self::new().await;
        env.set("WORKER__CONCURRENCY", "1");
        env
    }

    /// Sets a configuration key for what is started from here on: `REVERT__POLICY`, `cumulative`.
    pub fn set(&mut self, key: &str, value: &str) {
        self.environment
            .push((format!("REVERTD_{key}"), value.into()));
    }

    /// What that key was set to, if it was.
    pub fn setting(&self, key: &str) -> Option<&str> {
        let name = format!("REVERTD_{key}");
        let set = self.environment.iter().rev().find(|(set, _)| *set == name);
        set.map(|(_, value)| value.as_str())
    }

    /// The variables that configure what is started in this environment.
    pub fn environment(&self) -> Vec<(String, String)> {
        self.environment.clone()
    }

    /// The name of an exchange or a queue.
    pub fn name(&self, last: &str) -> String {
        format!("{}.{last}", self.prefix)
    }

    /// The program, with this environment's configuration and nothing else.
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

    /// Starts a worker process and waits for nothing.
    pub fn spawn_worker(&self) -> WorkerProcess {
        WorkerProcess::spawn(self.command(&["worker"]))
    }

    /// A consumer of the events, of those too that tell who is denied.
    pub async fn events(&self) -> Mailbox {
        let [events, denied] = ["replies", "denied"].map(|last| self.name(last));
        self.mailbox_of(&[&events, &denied]).await
    }

    /// A consumer of the dead letters.
    pub async fn dead_letters(&self) -> Mailbox {
        self.mailbox(&self.name("dead")).await
    }

    /// A consumer of any queue.
    pub async fn mailbox(&self, queue: &str) -> Mailbox {
        self.mailbox_of(&[queue]).await
    }

    async fn mailbox_of(&self, queues: &[&str]) -> Mailbox {
        let channel = self.connection.create_channel().await.expect("a channel");
        let options = BasicConsumeOptions {
            no_ack: true,
            ..Default::default()
        };
        let mut consumers = Vec::new();
        for queue in queues {
            let consumer = channel
                .basic_consume((*queue).into(), "".into(), options, FieldTable::default())
                .await
                .expect("the queue is there");
            consumers.push(consumer);
        }
        Mailbox {
            _channel: channel,
            consumer: select_all(consumers),
            waiting: Vec::new(),
        }
    }

    /// Publishes a request as the worker's own user would, without a user id: confirmed and routed.
    pub async fn publish(&self, request: &Request) {
        publish_on(&self.channel, &self.name("requests"), request).await;
    }

    /// The worker's own login.
    pub fn login(&self) -> String {
        self.connection.status().username()
    }

    /// Publishes over a login that is not the worker's, with its user id.
    pub async fn publisher(&self) -> Publisher {
        let url = match &self.servers.publisher {
            Some(url) => url.clone(),
            None => panic!("REVERTD_TEST_PUBLISHER_URL must name a second login on this broker"),
        };
        let connection = connect_amqp(&url).await;
        let channel = connection.create_channel().await.expect("a channel");
        let confirm = ConfirmSelectOptions { nowait: false };
        channel.confirm_select(confirm).await.expect("confirms");
        Publisher {
            user: connection.status().username(),
            exchange: self.name("requests"),
            _connection: connection,
            channel,
        }
    }

    /// Takes a message off a queue. It goes back when the channel is closed.
    pub async fn take(&self, queue: &str) -> Channel {
        let channel = self.connection.create_channel().await.expect("a channel");
        eventually("there is one to take", async || {
            let taken = channel
                .basic_get(queue.into(), BasicGetOptions { no_ack: false })
                .await;
            taken.expect("read").is_some()
        })
        .await;
        channel
    }

    /// Takes a message off a queue and goes away without settling it.
    pub async fn take_and_return(&self, queue: &str) {
        let channel = self.take(queue).await;
        channel.close(200, "gone".into()).await.expect("closed");
    }

    /// The first message of a queue, which stays there.
    pub async fn peek(&self, queue: &str) -> Message {
        let channel = self.connection.create_channel().await.expect("a channel");
        let mut letter = None;
        eventually("there is one to look at", async || {
            let options = BasicGetOptions { no_ack: false };
            let taken = channel
                .basic_get(queue.into(), options)
                .await
                .expect("read");
            letter = taken.map(|message| Message {
                routing_key: message.routing_key.to_string(),
                properties: message.properties.clone(),
                body: message.data.clone(),
            });
            letter.is_some()
        })
        .await;
        channel.close(200, "looked".into()).await.expect("closed");
        letter.expect("there was one")
    }

    /// Deletes a queue.
    pub async fn delete_queue(&self, queue: &str) {
        let deleted = self
            .channel
            .queue_delete(queue.into(), QueueDeleteOptions::default());
        deleted.await.expect("deleted");
    }

    /// Deletes an exchange.
    pub async fn delete_exchange(&self, exchange: &str) {
        let options = ExchangeDeleteOptions::default();
        let deleted = self.channel.exchange_delete(exchange.into(), options);
        deleted.await.expect("deleted");
    }

    /// Publishes straight to a queue, as the worker's own user would.
    pub async fn publish_to(&self, queue: &str, message: &Request) {
        let options = BasicPublishOptions {
            mandatory: true,
            ..Default::default()
        };
        let properties = message.properties.clone();
        let confirm = self
            .channel
            .basic_publish("".into(), queue.into(), options, &message.body, properties)
            .await
            .expect("written");
        assert_eq!(confirm.await.expect("confirmed"), Confirmation::Ack(None));
    }

    /// The most redeliveries that the broker counts for any message of a queue, before this look at them.
    pub async fn most_redeliveries(&self, queue: &str) -> i64 {
        let channel = self.connection.create_channel().await.expect("a channel");
        let mut most = 0;
        loop {
            let taken = channel
                .basic_get(queue.into(), BasicGetOptions { no_ack: false })
                .await;
            let Some(message) = taken.expect("read") else {
                break;
            };
            let headers = message.properties.headers().as_ref();
            let count = headers.and_then(|table| table.inner().get("x-delivery-count").cloned());
            most = most.max(match count {
                Some(AMQPValue::LongLongInt(count)) => count,
                Some(AMQPValue::LongInt(count)) => count.into(),
                _ => 0,
            });
        }
        channel.close(200, "looked".into()).await.expect("closed");
        most
    }

    /// Messages ready in a queue.
    pub async fn depth(&self, queue: &str) -> u32 {
        // Its own connection, since tests restart the broker.
        let connection = connect_amqp(&self.servers.amqp).await;
        let channel = connection.create_channel().await.expect("a channel");
        let options = QueueDeclareOptions {
            passive: true,
            ..Default::default()
        };
        let declared = channel
            .queue_declare(queue.into(), options, FieldTable::default())
            .await;
        let depth = declared.expect("the queue is there").message_count();
        let _ = connection.close(200, "done".into()).await;
        depth
    }

    /// The work queue and every rung of the ladder.
    pub fn waiting_queues(&self) -> Vec<String> {
        let delays = self.setting("RETRY__DELAYS").expect("set by every environment");
        let rungs = delays
            .split(',')
            .map(|delay| self.name(&format!("retry.{delay}")));
        std::iter::once(self.name("work")).chain(rungs).collect()
    }

    /// Waits until the work queue and every rung are empty: nothing waits to be worked on. What is in a
    /// worker's hands is not seen, so this follows the last event.
    pub async fn drained(&self) {
        eventually("the queues are drained", async || {
            for queue in self.waiting_queues() {
                if self.depth(&queue).await > 0 {
                    return false;
                }
            }
            true
        })
        .await;
    }

    /// Removes what the environment made on the servers.
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

/// Another login.
pub struct Publisher {
    pub user: String,
    pub channel: Channel,
    exchange: String,
    _connection: Connection,
}

impl Publisher {
    /// Publishes with this login's user id.
    pub async fn publish(&self, request: Request) {
        let properties = request
            .properties
            .clone()
            .with_user_id(self.user.as_str().into());
        let request = Request {
            properties,
            ..request
        };
        publish_on(&self.channel, &self.exchange, &request).await;
    }
}

/// A request to be published.
#[derive(Clone, Debug)]
pub struct Request {
    pub body: Vec<u8>,
    pub properties: BasicProperties,
}

impl Request {
    /// A request with that body, and a correlation id of its own.
    pub fn raw(body: impl Into<Vec<u8>>) -> Self {
        let correlation = Uuid::new_v4().to_string();
        Self {
            body: body.into(),
            properties: BasicProperties::default()
                .with_delivery_mode(2)
                .with_correlation_id(correlation.as_str().into()),
        }
    }

    pub fn json(body: &Value) -> Self {
        Self::raw(body.to_string())
    }

    /// The plainest request there is, with a message id of its own.
    pub fn revert(account: Uuid, usage: Uuid, amount: i64) -> Self {
        let body = json!({"billing_id": account, "usage_id": usage, "amount": amount});
        Self::json(&body).id(&Uuid::new_v4().to_string())
    }

    pub fn id(self, message_id: &str) -> Self {
        let properties = self.properties.with_message_id(message_id.into());
        Self { properties, ..self }
    }

    pub fn correlated(self, correlation_id: &str) -> Self {
        let properties = self.properties.with_correlation_id(correlation_id.into());
        Self { properties, ..self }
    }

    pub fn reply_to(self, queue: &str) -> Self {
        let properties = self.properties.with_reply_to(queue.into());
        Self { properties, ..self }
    }

    pub fn header(self, name: &str, value: AMQPValue) -> Self {
        let mut headers = self.properties.headers().clone().unwrap_or_default();
        headers.insert(name.into(), value);
        let properties = self.properties.with_headers(headers);
        Self { properties, ..self }
    }

    /// Answered at once where the usage is unknown.
    pub fn single_attempt(self) -> Self {
        self.header("x-max-attempts", AMQPValue::LongInt(1))
    }

    /// The correlation id, by which its events are known.
    pub fn correlation(&self) -> String {
        self.properties
            .correlation_id()
            .as_ref()
            .expect("each has one")
            .to_string()
    }
}

async fn publish_on(channel: &Channel, exchange: &str, request: &Request) {
    let options = BasicPublishOptions {
        mandatory: true,
        ..Default::default()
    };
    let confirm = channel
        .basic_publish(
            exchange.into(),
            "revert".into(),
            options,
            &request.body,
            request.properties.clone(),
        )
        .await
        .expect("written");
    assert_eq!(confirm.await.expect("confirmed"), Confirmation::Ack(None));
}

/// What came out of a queue.
#[derive(Clone, Debug)]
pub struct Message {
    pub routing_key: String,
    pub properties: BasicProperties,
    pub body: Vec<u8>,
}

impl Message {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).expect("events are JSON")
    }

    /// The `ErrorInfo` reason of an event, or its type where it has none.
    pub fn verdict(&self) -> String {
        let event = self.json();
        let reason = &event["data"]["error"]["details"][0]["reason"];
        reason
            .as_str()
            .or(event["type"].as_str())
            .expect("a type")
            .to_owned()
    }

    pub fn header(&self, name: &str) -> Option<AMQPValue> {
        self.properties
            .headers()
            .as_ref()?
            .inner()
            .get(name)
            .cloned()
    }

    pub fn text_header(&self, name: &str) -> Option<String> {
        match self.header(name)? {
            AMQPValue::LongString(text) => String::from_utf8(text.as_bytes().to_vec()).ok(),
            _ => None,
        }
    }

    fn correlation(&self) -> Option<&str> {
        self.properties
            .correlation_id()
            .as_ref()
            .map(lapin::types::ShortString::as_str)
    }
}

/// A consumer that hands out letters by what they answer, each checked against asyncapi.yaml.
pub struct Mailbox {
    _channel: Channel,
    consumer: SelectAll<Consumer>,
    waiting: Vec<Message>,
}

impl Mailbox {
    /// The next letter, whichever.
    pub async fn next(&mut self) -> Message {
        if !self.waiting.is_empty() {
            return self.waiting.remove(0);
        }
        self.receive().await
    }

    /// Whether a letter came that nobody asked for.
    pub fn has_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// The next letter that answers `request`, which must be one by asyncapi.yaml where it succeeded.
    pub async fn answer(&mut self, request: &Request) -> Message {
        let letter = self.correlated(&request.correlation()).await;
        let kind = letter.properties.kind().as_ref();
        if kind.is_some_and(|kind| kind.as_str() == "usage.reverted") {
            documents::is_request(&request.body).expect("asyncapi.yaml allows what succeeds");
        }
        letter
    }

    /// The next letter of that correlation id.
    pub async fn correlated(&mut self, correlation: &str) -> Message {
        let fits = |letter: &Message| letter.correlation() == Some(correlation);
        if let Some(index) = self.waiting.iter().position(fits) {
            return self.waiting.remove(index);
        }
        loop {
            let letter = self.receive().await;
            if fits(&letter) {
                return letter;
            }
            self.waiting.push(letter);
        }
    }

    /// The next `count` letters, in the order of their coming.
    pub async fn take(&mut self, count: usize) -> Vec<Message> {
        let mut letters = Vec::with_capacity(count);
        for _ in 0..count {
            letters.push(self.next().await);
        }
        letters
    }

    async fn receive(&mut self) -> Message {
        let next = timeout(TIMEOUT, self.consumer.next()).await;
        let delivery = next
            .expect("a letter in time")
            .expect("the queue stays")
            .expect("received");
        let letter = Message {
            routing_key: delivery.routing_key.to_string(),
            properties: delivery.properties,
            body: delivery.data,
        };
        documents::check(delivery.exchange.as_str(), &letter);
        letter
    }
}

/// Asks until it is so; nothing else tells.
pub async fn eventually(what: &str, mut so: impl AsyncFnMut() -> bool) {
    let asked = async {
        while !so().await {
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(TIMEOUT, asked)
        .await
        .unwrap_or_else(|_| panic!("never: {what}"));
}

pub async fn connect_db(url: &str) -> Client {
    let (client, connection) = tokio_postgres::connect(url, NoTls)
        .await
        .expect("PostgreSQL");
    tokio::spawn(connection);
    client
}

pub async fn connect_amqp(urls: &str) -> Connection {
    try_connect_amqp(urls).await.expect("RabbitMQ")
}

/// Connects to the first of several addresses, separated by commas, that answers.
pub async fn try_connect_amqp(urls: &str) -> lapin::Result<Connection> {
    let mut failed = None;
    for url in urls.split(',') {
        let properties =
            ConnectionProperties::default().with_connection_name("revertd test".into());
        match Connection::connect(url, properties).await {
            Ok(connection) => return Ok(connection),
            Err(error) => failed = Some(error),
        }
    }
    Err(failed.expect("at least one address"))
}

/// The URL with another database.
pub fn with_database(url: &str, database: &str) -> String {
    let mut url = url::Url::parse(url).expect("the tests need database.url as a URL");
    url.set_path(database);
    url.to_string()
}
