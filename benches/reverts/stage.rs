//! What one run works on: a database of its own and names of its own on the broker, filled with usages and
//! with requests, and taken away again.

use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use futures_util::future::try_join_all;
use lapin::options::{
    BasicPublishOptions, ConfirmSelectOptions, ExchangeDeleteOptions, QueueDeclareOptions,
    QueueDeleteOptions,
};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties};
use tokio_postgres::{Client, NoTls};
use uuid::Uuid;

use crate::process::{self, Worker};

/// Messages whose confirms are awaited together.
const WINDOW: u32 = 1000;

/// What the requests of a run are about.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// Requests, each on a usage of its own where `kind` does not say otherwise.
    pub requests: u32,
    /// Accounts that the usages are spread over.
    pub accounts: u32,
    /// Rows of other usages that the ledger holds before.
    pub history: u32,
    pub kind: Kind,
}

/// What becomes of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// All succeed.
    Good,
    /// Every request comes twice.
    Twice,
    /// Every second is good; the other asks for more than its usage.
    Excessive,
    /// All ask for a usage that isn't there, and don't wait for it.
    Rejected,
    /// None is JSON.
    Malformed,
}

impl Load {
    pub const fn good(requests: u32) -> Self {
        Self {
            requests,
            accounts: 1000,
            history: 0,
            kind: Kind::Good,
        }
    }

    /// How many messages the requests are.
    pub const fn messages(self) -> u32 {
        match self.kind {
            Kind::Twice => self.requests * 2,
            _ => self.requests,
        }
    }

    fn applied(self) -> u32 {
        match self.kind {
            Kind::Good | Kind::Twice => self.requests,
            Kind::Excessive | Kind::Rejected | Kind::Malformed => 0,
        }
    }
}

pub struct Stage {
    admin: Client,
    pub database: String,
    pub database_url: String,
    pub db: Client,
    pub channel: Channel,
    _connection: Connection,
    prefix: String,
    pub environment: Vec<(String, String)>,
}

impl Stage {
    /// A database with the schema, and the topology, which a worker declares that ends at once.
    pub async fn new(settings: &[(&str, &str)]) -> Result<Self> {
        let (server, amqp) = urls()?;
        let id = Uuid::new_v4().simple().to_string();
        let (database, prefix) = (
            format!("revertd_bench_{}", &id[..8]),
            format!("bench.{}", &id[..8]),
        );
        let admin = connect(&server).await?;
        admin
            .batch_execute(&format!("CREATE DATABASE {database}"))
            .await?;
        let mut url = url::Url::parse(&server).context("REVERTD_DATABASE__URL is no URL")?;
        url.set_path(&database);
        let mut environment = vec![
            ("REVERTD_DATABASE__URL".to_owned(), url.to_string()),
            ("REVERTD_AMQP__URL".to_owned(), amqp.clone()),
        ];
        for key in [
            "REQUEST_EXCHANGE",
            "WORK_QUEUE",
            "RETRY_QUEUE_PREFIX",
            "REPLY_EXCHANGE",
            "REPLY_QUEUE",
            "DEAD_LETTER_EXCHANGE",
            "DEAD_LETTER_QUEUE",
        ] {
            let name = format!("{prefix}.{}", key.to_lowercase());
            environment.push((format!("REVERTD_TOPOLOGY__{key}"), name));
        }
        for name in [
            "TOKIO_WORKER_THREADS",
            "REVERTD_WORKER__CONCURRENCY",
            "REVERTD_AMQP__PREFETCH",
            "MALLOC_ARENA_MAX",
            "REVERTD_WORKER__BATCH_MAX",
        ] {
            if let Ok(value) = std::env::var(name) {
                environment.push((name.to_owned(), value));
            }
        }
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        environment.extend(settings.iter().map(owned));
        let migrated = process::revertd(&environment, "migrate")
            .stdout(Stdio::null())
            .status()?;
        ensure!(migrated.success(), "revertd migrate failed");
        let connection = Connection::connect(&amqp, ConnectionProperties::default()).await?;
        let channel = connection.create_channel().await?;
        channel
            .confirm_select(ConfirmSelectOptions { nowait: false })
            .await?;
        let stage = Self {
            db: connect(url.as_str()).await?,
            database_url: url.to_string(),
            admin,
            database,
            channel,
            _connection: connection,
            prefix,
            environment,
        };
        Worker::revertd(&stage.environment).await?.stop()?;
        Ok(stage)
    }

    pub fn work_queue(&self) -> String {
        format!("{}.work_queue", self.prefix)
    }

    pub fn reply_queue(&self) -> String {
        format!("{}.reply_queue", self.prefix)
    }

    pub fn reply_exchange(&self) -> String {
        format!("{}.reply_exchange", self.prefix)
    }

    /// A usage with both its legs for each request, and as much history as the load asks for.
    pub async fn seed(&self, load: Load) -> Result<()> {
        let Load {
            requests,
            accounts,
            history,
            ..
        } = load;
        let usages = history / 2;
        let legs = |ids: &str, first: u32, last: u32| {
            format!(
                "INSERT INTO billing_transactions (id, account_id, type, source, amount, description, metadata)
                 SELECT {ids}, uuid_generate_v5(uuid_nil(), 'account' || i % {accounts}), 'debit', 'api.usage', 20,
                     'a job', '{{\"job\": \"render\"}}' FROM generate_series({first}, {last}) i;
                 INSERT INTO billing_transactions (id, account_id, type, source, amount, description, metadata)
                 SELECT gen_random_uuid(), uuid_nil(), 'credit', 'api.usage', 20, 'a job', '{{\"job\": \"render\"}}'
                 FROM generate_series({first}, {last}) i;"
            )
        };
        let mut statements = format!(
            "INSERT INTO organizations (id, name) SELECT uuid_generate_v5(uuid_nil(), 'org' || i), i
             FROM generate_series(0, {accounts} - 1) i;
             INSERT INTO billing_customers (id, org_id, name, email)
             SELECT uuid_generate_v5(uuid_nil(), 'account' || i), uuid_generate_v5(uuid_nil(), 'org' || i), i, i
             FROM generate_series(0, {accounts} - 1) i;"
        );
        if usages > 0 {
            statements += &legs("gen_random_uuid()", 1, usages);
        }
        statements += &legs("uuid_generate_v5(uuid_nil(), i::text)", 1, requests);
        self.db.batch_execute(&statements).await?;
        for statement in ["VACUUM ANALYZE", "CHECKPOINT"] {
            self.db.batch_execute(statement).await?;
        }
        Ok(())
    }

    /// Publishes all requests of a load, confirmed.
    pub async fn publish(&self, load: Load) -> Result<()> {
        let exchange = format!("{}.request_exchange", self.prefix);
        let options = BasicPublishOptions {
            mandatory: true,
            immediate: false,
        };
        let times = load.messages() / load.requests;
        for first in (1..=load.requests).step_by(WINDOW as usize) {
            let last = load.requests.min(first + WINDOW - 1);
            for _ in 0..times {
                let published = (first..=last).map(async |number| {
                    let (body, properties) = request(number, load);
                    let (exchange, key) = (exchange.as_str().into(), "revert".into());
                    let publishing = self.channel.basic_publish(
                        exchange,
                        key,
                        options,
                        body.as_bytes(),
                        properties,
                    );
                    publishing.await
                });
                for confirm in try_join_all(published).await? {
                    ensure!(confirm.await?.is_ack(), "the broker refused a request");
                }
            }
        }
        Ok(())
    }

    pub async fn depth(&self, queue: &str) -> Result<u32> {
        let options = QueueDeclareOptions {
            passive: true,
            ..Default::default()
        };
        let declared = self
            .channel
            .queue_declare(queue.into(), options, FieldTable::default());
        Ok(declared.await?.message_count())
    }

    /// That everything went as it should: nothing waits, and as much was applied as should be.
    pub async fn check(&self, load: Load) -> Result<()> {
        let left = self.depth(&self.work_queue()).await?;
        ensure!(left == 0, "{left} requests are left");
        let query = "SELECT count(*) FROM revertd.outcomes WHERE refusal IS NULL";
        let applied: i64 = self.db.query_one(query, &[]).await?.get(0);
        let expected = load.applied();
        ensure!(
            applied == i64::from(expected),
            "{applied} applied of {expected}"
        );
        Ok(())
    }

    /// Takes away the database and everything on the broker.
    pub async fn clean(self) -> Result<()> {
        let queues = ["work_queue", "reply_queue", "dead_letter_queue"].map(ToOwned::to_owned);
        let rungs =
            ["1s", "5s", "30s", "2m", "10m"].map(|delay| format!("retry_queue_prefix.{delay}"));
        for queue in queues.into_iter().chain(rungs) {
            let queue = format!("{}.{queue}", self.prefix);
            let deleted = self
                .channel
                .queue_delete(queue.into(), QueueDeleteOptions::default());
            deleted.await?;
        }
        for exchange in ["request_exchange", "reply_exchange", "dead_letter_exchange"] {
            let exchange = format!("{}.{exchange}", self.prefix);
            let deleted = self
                .channel
                .exchange_delete(exchange.into(), ExchangeDeleteOptions::default());
            deleted.await?;
        }
        drop(self.db);
        let drop = format!("DROP DATABASE {} WITH (FORCE)", self.database);
        self.admin.batch_execute(&drop).await?;
        Ok(())
    }
}

/// The servers' addresses.
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
    let (client, connection) = tokio_postgres::connect(url, NoTls)
        .await
        .context("PostgreSQL")?;
    tokio::spawn(connection);
    Ok(client)
}

pub fn usage_id(number: u32) -> Uuid {
    Uuid::new_v5(&Uuid::nil(), number.to_string().as_bytes())
}

pub fn account_id(number: u32, accounts: u32) -> Uuid {
    let name = format!("account{}", number % accounts);
    Uuid::new_v5(&Uuid::nil(), name.as_bytes())
}

/// Body and properties of a load's request of that number.
pub fn request(number: u32, load: Load) -> (String, BasicProperties) {
    let account = account_id(number, load.accounts);
    let (usage, amount) = match load.kind {
        Kind::Rejected => (Uuid::new_v5(&account, &number.to_be_bytes()), 20),
        Kind::Excessive => (usage_id(number), 21),
        Kind::Good | Kind::Twice | Kind::Malformed => (usage_id(number), 20),
    };
    let end = if load.kind == Kind::Malformed {
        ""
    } else {
        "}"
    };
    let body =
        format!(r#"{{"billing_id":"{account}","usage_id":"{usage}","amount":"{amount}"{end}"#);
    let mut properties = BasicProperties::default()
        .with_delivery_mode(2)
        .with_message_id(format!("request-{number}").into());
    if load.kind == Kind::Rejected {
        let mut headers = FieldTable::default();
        headers.insert("x-max-attempts".into(), lapin::types::AMQPValue::LongInt(1));
        properties = properties.with_headers(headers);
    }
    (body, properties)
}
