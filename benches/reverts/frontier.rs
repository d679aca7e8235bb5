//! Contender (e): the statements that Frontier sends for a revert. pgbench replays them on accounts
//! of a given size.

use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::deadline::LONG;
use crate::load::Load;
use crate::meter::{Meter, Spent};
use crate::process::Worker;
use crate::run::{Bench, Figures};
use crate::stage::{Stage, in_repository};

/// Connections of pgbench; more connections were no faster.
const CLIENTS: u32 = 8;

/// Most tries of a transaction, as in Frontier.
const TRIES: u32 = 5;

/// Accounts with a given number of entries each. They are made once: a run adds few entries to an
/// account in comparison.
pub struct Frontier {
    stage: Stage,
    accounts: u32,
    entries: u32,
    /// Number of the first usage that no run has reverted.
    next: AtomicU32,
}

impl Frontier {
    pub async fn new(bench: &Bench, accounts: u32, entries: u32) -> Result<Self> {
        let stage = bench.stage(&[]).await?;
        // This index is revertd's; Frontier does not have it, and its writes would pay for it.
        stage
            .long("DROP INDEX billing_transactions_revertd_idx")
            .await?;
        let load = Load {
            accounts,
            ..Load::good(accounts * entries)
        };
        stage.seed(load).await?;
        Ok(Self {
            stage,
            accounts,
            entries,
            next: AtomicU32::new(1),
        })
    }

    /// Reverts `reverts` usages.
    pub async fn run(&self, bench: &Bench, reverts: u32) -> Result<Figures> {
        let turns = (reverts / CLIENTS).max(1);
        let first = self.next.fetch_add(turns * CLIENTS, Ordering::Relaxed);
        ensure!(
            first + turns * CLIENTS <= self.accounts * self.entries,
            "every usage is reverted: fewer rounds or requests"
        );
        self.stage.long("CHECKPOINT").await?;
        let mut command = Command::new(in_repository("tests/support/servers"));
        command.arg("pgbench").args([
            "--no-vacuum".to_owned(),
            "--protocol=prepared".to_owned(),
            format!("--client={CLIENTS}"),
            format!("--transactions={turns}"),
            format!("--max-tries={TRIES}"),
            format!("--define=clients={CLIENTS}"),
            format!("--define=accounts={}", self.accounts),
            format!("--define=first={first}"),
            "--define=turn=-1".to_owned(),
            format!(
                "--file={}",
                in_repository("benches/reverts/frontier.sql").display()
            ),
            self.stage.database_url.clone(),
        ]);
        let mut pgbench = Worker::spawn(command)?;
        let meter = Meter::start(&bench.servers, &[])?;
        let status = pgbench.ended(LONG).await?;
        let spent = meter.spent()?;
        ensure!(status.success(), "{status}\n{}", pgbench.tail());
        let output = pgbench.output()?;
        let rate: f64 = after(&output, "tps = ")?.parse()?;
        let done: u32 = after(&output, "actually processed: ")?.parse()?;
        ensure!(done == turns * CLIENTS, "{}", pgbench.tail());
        Ok(Figures {
            messages: done,
            spent: Spent {
                // pgbench's rate excludes the time to connect.
                elapsed: Duration::from_secs_f64(f64::from(done) / rate),
                ..spent
            },
            peak_mib: f64::NAN,
        })
    }

    pub async fn clean(self) -> Result<()> {
        self.stage.clean().await
    }
}

/// The number that follows a text.
fn after<'a>(output: &'a str, text: &str) -> Result<&'a str> {
    let (_, rest) = output
        .split_once(text)
        .with_context(|| format!("pgbench does not say {text}: {output}"))?;
    let end = rest.find(|next: char| !next.is_ascii_digit() && next != '.');
    Ok(&rest[..end.unwrap_or(rest.len())])
}
