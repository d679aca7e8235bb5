//! The environment of the figures: machine, versions, command and date.

use std::fs;
use std::process::Command;

use anyhow::Result;

use crate::stage::{connect, urls};
use crate::table::Table;
use crate::wire::Wire;

pub struct Machine {
    rows: Vec<(&'static str, String)>,
    date: String,
    commit: String,
    /// Options of the command, without the name of the measurement.
    options: String,
}

impl Machine {
    pub async fn look(options: String) -> Result<Self> {
        let (database, amqp) = urls()?;
        let broker = tokio::task::spawn_blocking(move || Wire::open(&amqp)).await??;
        let client = connect(&database).await?;
        let version = client.query_one("SHOW server_version", &[]).await?;
        let fsync = client
            .query_one(
                "SELECT current_setting('fsync'), current_setting('synchronous_commit')",
                &[],
            )
            .await?;
        let fsync: (String, String) = (fsync.get(0), fsync.get(1));
        let first = |file: &str, key: &str| {
            let text = fs::read_to_string(file).unwrap_or_default();
            let line = text.lines().find(|line| line.starts_with(key));
            let value = line.and_then(|line| line.split_once(':'));
            value.map_or_else(
                || "unknown".to_owned(),
                |(_, value)| value.trim().to_owned(),
            )
        };
        let cores = std::thread::available_parallelism()?;
        let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        let commit = output("git", &["describe", "--always", "--dirty"]);
        let date = jiff::Timestamp::now().strftime("%Y-%m-%d").to_string();
        let kib: f64 = first("/proc/meminfo", "MemTotal")
            .trim_end_matches(" kB")
            .parse()
            .unwrap_or(0.0);
        let rows = vec![
            ("processor", first("/proc/cpuinfo", "model name")),
            ("cores", cores.to_string()),
            ("memory", format!("{:.1} GiB", kib / 1_048_576.0)),
            ("kernel", format!("Linux {}", kernel.trim())),
            (
                "revertd",
                format!("{}, commit {commit}", env!("CARGO_PKG_VERSION")),
            ),
            ("Rust", output("rustc", &["--version"])),
            (
                "RabbitMQ",
                format!(
                    "{} on {}",
                    broker.property("version"),
                    broker.property("platform")
                ),
            ),
            (
                "PostgreSQL",
                format!(
                    "{}, fsync {}, synchronous_commit {}",
                    version.get::<_, String>(0),
                    fsync.0,
                    fsync.1
                ),
            ),
        ];
        Ok(Self {
            rows,
            date,
            commit,
            options,
        })
    }

    pub fn table(&self, command: &str) -> Table {
        let mut table = Table::words();
        for (what, value) in &self.rows {
            table.row([(*what).to_owned(), value.clone()]);
        }
        table.row(["command".to_owned(), format!("`{command}`")]);
        table.row(["date".to_owned(), self.date.clone()]);
        table
    }

    /// The command that repeats a section, its date, and its commit.
    pub fn made_by(&self, section: &str) -> String {
        let command = match (section, self.options.as_str()) {
            ("peers", "") => "make bench-peers".to_owned(),
            (name, options) => format!("make bench BENCH_ARGS=\"{name}{options}\""),
        };
        format!("`{command}`, {}, commit {}.", self.date, self.commit)
    }

    /// The environment in one sentence.
    pub fn in_a_line(&self) -> String {
        let of = |wanted: &str| {
            let row = self.rows.iter().find(|(what, _)| *what == wanted);
            row.map_or("", |(_, value)| value)
        };
        format!(
            "{}, {} cores for broker, database, load and worker together; RabbitMQ {}, PostgreSQL \
            {}; {}, commit {}.",
            of("processor"),
            of("cores"),
            of("RabbitMQ"),
            of("PostgreSQL"),
            self.date,
            self.commit
        )
    }
}

/// The output of a program; empty if it can't be run.
fn output(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program)
        .args(arguments)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output();
    output.map_or_else(
        |_| "unknown".to_owned(),
        |output| String::from_utf8_lossy(&output.stdout).trim().to_owned(),
    )
}
