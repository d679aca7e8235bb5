//! Measures `revertd worker` on real servers: reverts a second, CPU a revert, peak memory; in full batches and
//! with one message a transaction, in turn, so that a noisy machine is fair to both.
//!
//! `make bench`, or `make bench BENCH_ARGS="--requests 50000 --rounds 1"`.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use clap::Parser;
use futures_util::future::join_all;
use lapin::options::{
    BasicPublishOptions, ConfirmSelectOptions, ExchangeDeleteOptions, QueueDeclareOptions,
    QueueDeleteOptions,
};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties};
use tokio_postgres::{Client, NoTls};

/// Measures `revertd worker` on the servers of `REVERTD_DATABASE__URL` and `REVERTD_AMQP__URL`.
#[derive(Parser)]
struct Args {
    /// Requests waiting when the worker in full batches starts.
    #[arg(long, default_value_t = 200_000)]
    requests: u32,
    /// Requests waiting when the worker with one message a transaction starts.
    #[arg(long, default_value_t = 10_000)]
    single_requests: u32,
    /// Runs of each.
    #[arg(long, default_value_t = 3)]
    rounds: u32,
}

/// One run's figures.
struct Figures {
    reverts_per_second: f64,
    cpu_micros_per_revert: f64,
    peak_mib: f64,
}

#[tokio::main]
async fn main() -> Result<()> {
    let args = Args::parse();
    println!(
        "{:<22}{:>12}{:>12}{:>18}{:>14}",
        "run", "requests", "reverts/s", "worker us/revert", "peak MiB"
    );
    let (mut full, mut single) = (Vec::new(), Vec::new());
    for round in 1..=args.rounds {
        full.push(measure(&format!("batches, {round}"), args.requests, &[]).await?);
        let one = ("REVERTD_WORKER__BATCH_MAX", "1");
        single.push(
            measure(
                &format!("batch_max = 1, {round}"),
                args.single_requests,
                &[one],
            )
            .await?,
        );
    }
    let rate = |runs: &[Figures]| median(runs.iter().map(|run| run.reverts_per_second));
    println!();
    println!(
        "batches to batch_max = 1, medians: {:.1} times",
        rate(&full) / rate(&single)
    );
    println!(
        "medians in batches: {:.0} reverts/s, {:.1} us of worker CPU a revert, {:.1} MiB at most",
        rate(&full),
        median(full.iter().map(|run| run.cpu_micros_per_revert)),
        full.iter().map(|run| run.peak_mib).fold(0.0, f64::max),
    );
    Ok(())
}

async fn measure(name: &str, requests: u32, settings: &[(&str, &str)]) -> Result<Figures> {
    let bench = Bench::new(settings).await?;
    let figures = bench.run(requests).await;
    bench.clean().await?;
    let figures = figures?;
    println!(
        "{name:<22}{requests:>12}{:>12.0}{:>18.1}{:>14.1}",
        figures.reverts_per_second, figures.cpu_micros_per_revert, figures.peak_mib
    );
    Ok(figures)
}

/// A database and broker names of one run.
struct Bench {
    admin: Client,
    database: String,
    db: Client,
    channel: Channel,
    _connection: Connection,
    prefix: String,
    environment: Vec<(String, String)>,
}

impl Bench {
    async fn new(settings: &[(&str, &str)]) -> Result<Self> {
        let variable =
            |name: &str| std::env::var(name).with_context(|| format!("{name} is not set"));
        let (database_url, amqp) = (
            variable("REVERTD_DATABASE__URL")?,
            variable("REVERTD_AMQP__URL")?,
        );
        let id = uuid::Uuid::new_v4().simple().to_string();
        let (database, prefix) = (
            format!("revertd_bench_{}", &id[..8]),
            format!("bench.{}", &id[..8]),
        );
        let admin = connect(&database_url).await?;
        admin
            .batch_execute(&format!("CREATE DATABASE {database}"))
            .await?;
        let mut url = url::Url::parse(&database_url).context("REVERTD_DATABASE__URL is no URL")?;
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
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        environment.extend(settings.iter().map(owned));
        let connection = Connection::connect(&amqp, ConnectionProperties::default()).await?;
        let channel = connection.create_channel().await?;
        channel
            .confirm_select(ConfirmSelectOptions { nowait: false })
            .await?;
        Ok(Self {
            db: {
                let mut migrate = command(&environment, "migrate");
                ensure!(
                    migrate.stdout(Stdio::null()).status()?.success(),
                    "revertd migrate failed"
                );
                connect(url.as_str()).await?
            },
            admin,
            database,
            channel,
            _connection: connection,
            prefix,
            environment,
        })
    }

    async fn run(&self, requests: u32) -> Result<Figures> {
        // Once for the queues.
        self.start().await?.stop()?;
        self.seed(requests).await?;
        self.publish(requests).await?;
        let mut worker = self.start().await?;
        let (began, cpu_before) = (Instant::now(), worker.cpu()?);
        let replies = format!("{}.reply_queue", self.prefix);
        while self.depth(&replies).await? < requests {
            ensure!(worker.is_running()?, "the worker ended");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let elapsed = began.elapsed();
        let (cpu, peak_mib) = (worker.cpu()?.saturating_sub(cpu_before), worker.peak_mib()?);
        // Only what was acknowledged is gone after the worker.
        worker.stop()?;
        ensure!(
            self.depth(&format!("{}.work_queue", self.prefix)).await? == 0,
            "requests are left"
        );
        let query = "SELECT count(*) FROM revertd.outcomes WHERE refusal IS NULL";
        let applied: i64 = self.db.query_one(query, &[]).await?.get(0);
        ensure!(
            applied == i64::from(requests),
            "{applied} of {requests} applied"
        );
        Ok(Figures {
            reverts_per_second: f64::from(requests) / elapsed.as_secs_f64(),
            cpu_micros_per_revert: cpu.as_secs_f64() * 1e6 / f64::from(requests),
            peak_mib,
        })
    }

    /// A thousand accounts, and a usage with both its legs for each request.
    async fn seed(&self, requests: u32) -> Result<()> {
        self.db
            .batch_execute(&format!(
                "INSERT INTO organizations (id, name) SELECT uuid_generate_v5(uuid_nil(), 'org' || i), i
                 FROM generate_series(0, 999) i;
                 INSERT INTO billing_customers (id, org_id, name, email)
                 SELECT uuid_generate_v5(uuid_nil(), 'account' || i), uuid_generate_v5(uuid_nil(), 'org' || i),
                     i, i FROM generate_series(0, 999) i;
                 INSERT INTO billing_transactions (id, account_id, type, source, amount, description, metadata)
                 SELECT uuid_generate_v5(uuid_nil(), i::text), uuid_generate_v5(uuid_nil(), 'account' || i % 1000),
                     'debit', 'api.usage', 20, 'a job', '{{\"job\": \"render\"}}' FROM generate_series(1, {requests}) i;
                 INSERT INTO billing_transactions (account_id, type, source, amount, description, metadata)
                 SELECT uuid_nil(), 'credit', 'api.usage', 20, 'a job', '{{\"job\": \"render\"}}'
                 FROM generate_series(1, {requests}) i"
            ))
            .await?;
        for statement in ["VACUUM ANALYZE", "CHECKPOINT"] {
            self.db.batch_execute(statement).await?;
        }
        Ok(())
    }

    async fn publish(&self, requests: u32) -> Result<()> {
        let nil = uuid::Uuid::nil();
        let id = |name: String| uuid::Uuid::new_v5(&nil, name.as_bytes());
        let exchange = format!("{}.request_exchange", self.prefix);
        let numbers: Vec<_> = (1..=requests).collect();
        for window in numbers.chunks(1000) {
            let bodies: Vec<_> = window
                .iter()
                .map(|i| {
                    let (usage, account) = (id(i.to_string()), id(format!("account{}", i % 1000)));
                    format!(r#"{{"billing_id":"{account}","usage_id":"{usage}","amount":"20"}}"#)
                })
                .collect();
            let published = join_all(window.iter().zip(&bodies).map(|(i, body)| {
                let properties = BasicProperties::default()
                    .with_delivery_mode(2)
                    .with_message_id(format!("request-{i}").into());
                let options = BasicPublishOptions {
                    mandatory: true,
                    immediate: false,
                };
                self.channel.basic_publish(
                    exchange.as_str().into(),
                    "revert".into(),
                    options,
                    body.as_bytes(),
                    properties,
                )
            }))
            .await;
            for confirm in published {
                ensure!(confirm?.await?.is_ack(), "the broker refused a request");
            }
        }
        Ok(())
    }

    async fn depth(&self, queue: &str) -> Result<u32> {
        let options = QueueDeclareOptions {
            passive: true,
            ..Default::default()
        };
        let queue = self
            .channel
            .queue_declare(queue.into(), options, FieldTable::default())
            .await?;
        Ok(queue.message_count())
    }

    async fn start(&self) -> Result<Worker> {
        let log = tempfile::NamedTempFile::new()?;
        let mut command = command(&self.environment, "worker");
        let child = command
            .stderr(log.reopen()?)
            .spawn()
            .context("the worker does not start")?;
        let mut worker = Worker { child, log };
        while !fs::read_to_string(worker.log.path())?.contains("\"message\":\"ready") {
            if !worker.is_running()? {
                bail!(
                    "the worker ended: {}",
                    fs::read_to_string(worker.log.path())?
                );
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        Ok(worker)
    }

    async fn clean(self) -> Result<()> {
        let mut queues = vec![
            "work_queue".to_owned(),
            "reply_queue".into(),
            "dead_letter_queue".into(),
        ];
        queues.extend(
            ["1s", "5s", "30s", "2m", "10m"].map(|delay| format!("retry_queue_prefix.{delay}")),
        );
        for queue in queues {
            let queue = format!("{}.{queue}", self.prefix);
            self.channel
                .queue_delete(queue.into(), QueueDeleteOptions::default())
                .await?;
        }
        for exchange in ["request_exchange", "reply_exchange", "dead_letter_exchange"] {
            let exchange = format!("{}.{exchange}", self.prefix);
            self.channel
                .exchange_delete(exchange.into(), ExchangeDeleteOptions::default())
                .await?;
        }
        drop(self.db);
        let drop = format!("DROP DATABASE {} WITH (FORCE)", self.database);
        self.admin.batch_execute(&drop).await?;
        Ok(())
    }
}

/// A running worker.
struct Worker {
    child: Child,
    log: tempfile::NamedTempFile,
}

impl Worker {
    fn is_running(&mut self) -> Result<bool> {
        Ok(self.child.try_wait()?.is_none())
    }

    /// User and system time so far, in the kernel's ticks of 10 ms.
    fn cpu(&self) -> Result<Duration> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.id()))?;
        let fields = stat.rsplit(')').next().context("a process has a name")?;
        let fields: Vec<_> = fields.split_whitespace().collect();
        let ticks = fields[11].parse::<u64>()? + fields[12].parse::<u64>()?;
        Ok(Duration::from_millis(ticks * 10))
    }

    fn peak_mib(&self) -> Result<f64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib = line
            .and_then(|line| line.split_whitespace().next())
            .context("VmHWM is there")?;
        Ok(kib.parse::<f64>()? / 1024.0)
    }

    fn stop(&mut self) -> Result<()> {
        let pid = self.child.id().to_string();
        Command::new("kill").args(["-TERM", &pid]).status()?;
        ensure!(
            self.child.wait()?.success(),
            "{}",
            fs::read_to_string(self.log.path())?
        );
        Ok(())
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The program that was built beside this one.
fn command(environment: &[(String, String)], subcommand: &str) -> Command {
    let here = std::env::current_exe().unwrap_or_default();
    let program: PathBuf = here
        .parent()
        .and_then(|examples| examples.parent())
        .map_or_else(|| "revertd".into(), |folder| folder.join("revertd"));
    let mut command = Command::new(program);
    command
        .env_clear()
        .envs(environment.iter().cloned())
        .arg(subcommand)
        .stdin(Stdio::null());
    command
}

async fn connect(url: &str) -> Result<Client> {
    let (client, connection) = tokio_postgres::connect(url, NoTls)
        .await
        .context("PostgreSQL")?;
    tokio::spawn(connection);
    Ok(client)
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<_> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(0.0)
}
