//! CPU time of processes, as the kernel counts it.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

/// The processes of the servers, if this project started them.
#[derive(Clone, Debug, Default)]
pub struct Servers {
    broker: Option<u32>,
    database: Option<u32>,
}

impl Servers {
    /// The processes of the instance that `tests/support/servers with` started.
    pub fn find() -> Self {
        let instance = std::env::var("REVERTD_TEST_INSTANCE").ok();
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support/servers");
        let pid = |kind: &str| {
            let answer = Command::new(&script)
                .args(["pid", instance.as_deref()?, kind])
                .output()
                .ok()?;
            String::from_utf8(answer.stdout).ok()?.trim().parse().ok()
        };
        Self {
            broker: pid("rabbit"),
            database: pid("pg"),
        }
    }
}

/// Measures CPU time and elapsed time from its creation on.
pub struct Meter {
    servers: Servers,
    workers: Vec<u32>,
    began: Instant,
    before: Spent,
}

/// CPU time and elapsed time between two readings.
#[derive(Clone, Copy, Debug, Default)]
pub struct Spent {
    pub elapsed: Duration,
    pub workers: Duration,
    pub broker: Option<Duration>,
    pub database: Option<Duration>,
}

impl Meter {
    pub fn start(servers: &Servers, workers: &[u32]) -> Result<Self> {
        let mut meter = Self {
            servers: servers.clone(),
            workers: workers.to_vec(),
            began: Instant::now(),
            before: Spent::default(),
        };
        meter.before = meter.now()?;
        Ok(meter)
    }

    pub fn spent(&self) -> Result<Spent> {
        let now = self.now()?;
        let less =
            |now: Option<Duration>, before: Option<Duration>| Some(now?.saturating_sub(before?));
        Ok(Spent {
            elapsed: now.elapsed,
            workers: now.workers.saturating_sub(self.before.workers),
            broker: less(now.broker, self.before.broker),
            database: less(now.database, self.before.database),
        })
    }

    fn now(&self) -> Result<Spent> {
        let elapsed = self.began.elapsed();
        let of = |pid: Option<u32>| pid.map(family).transpose();
        let mut workers = Duration::ZERO;
        for pid in &self.workers {
            workers += family(*pid)?;
        }
        Ok(Spent {
            elapsed,
            workers,
            broker: of(self.servers.broker)?,
            database: of(self.servers.database)?,
        })
    }
}

/// User and system time of a process, its running children and its ended children, in the kernel's
/// ticks of 10 ms.
fn family(pid: u32) -> Result<Duration> {
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))?;
    let mut ticks = ticks(pid)?;
    for child in children.split_whitespace() {
        // The parent's time includes a child that has ended meanwhile.
        ticks += self::ticks(child.parse()?).unwrap_or(0);
    }
    Ok(Duration::from_millis(ticks * 10))
}

fn ticks(pid: u32) -> Result<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let fields = stat.rsplit(')').next().context("a process has a name")?;
    let fields: Vec<_> = fields.split_whitespace().collect();
    (11..15)
        .map(|field| Ok(fields[field].parse::<u64>()?))
        .sum()
}
