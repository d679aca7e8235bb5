//! Processes that are measured: revertd and its contenders.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::deadline::PATIENCE;

/// Lines of a process's output that an error shows.
const TAIL: usize = 15;

/// The log message of revertd once it consumes.
pub const READY: &str = "\"message\":\"ready";

/// A process that works on a stage. A drop without `stop` kills it.
pub struct Worker {
    child: Child,
    log: tempfile::NamedTempFile,
    pub began: Instant,
}

impl Worker {
    /// Starts `revertd worker`, and waits until it is ready.
    pub async fn revertd(environment: &[(String, String)]) -> Result<Self> {
        let mut worker = Self::spawn(revertd(environment, "worker"))?;
        worker.says(READY).await?;
        Ok(worker)
    }

    /// Starts this program as another contender, and waits until it prints `ready`.
    pub async fn contender(
        name: &str,
        environment: &[(String, String)],
        arguments: &[String],
    ) -> Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command
            .env_clear()
            .envs(environment.iter().cloned())
            .arg(name)
            .args(arguments);
        let mut worker = Self::spawn(command)?;
        worker.says("ready").await?;
        Ok(worker)
    }

    /// Starts the command without waiting for its output.
    pub fn spawn(mut command: Command) -> Result<Self> {
        let log = tempfile::NamedTempFile::new()?;
        let began = Instant::now();
        let child = command
            .stdin(Stdio::null())
            .stdout(log.reopen()?)
            .stderr(log.reopen()?)
            .spawn()
            .with_context(|| format!("{} does not start", command.get_program().display()))?;
        Ok(Self { child, log, began })
    }

    /// Waits until its output contains `text`.
    pub async fn says(&mut self, text: &str) -> Result<()> {
        let began = Instant::now();
        while !self.output()?.contains(text) {
            self.must_run()?;
            ensure!(
                began.elapsed() < PATIENCE,
                "it did not say {text} in {} s\n{}",
                PATIENCE.as_secs(),
                self.tail()
            );
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        Ok(())
    }

    pub fn output(&self) -> Result<String> {
        Ok(fs::read_to_string(self.log.path())?)
    }

    /// Its last lines, for an error.
    pub fn tail(&self) -> String {
        let output = self.output().unwrap_or_default();
        let lines: Vec<_> = output.lines().collect();
        lines[lines.len().saturating_sub(TAIL)..].join("\n")
    }

    pub fn must_run(&mut self) -> Result<()> {
        let ended = self.child.try_wait()?;
        ensure!(ended.is_none(), "it ended: {ended:?}\n{}", self.tail());
        Ok(())
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Peak resident memory so far, in MiB.
    pub fn peak_mib(&self) -> Result<f64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib = line
            .and_then(|line| line.split_whitespace().next())
            .context("VmHWM is there")?;
        Ok(kib.parse::<f64>()? / 1024.0)
    }

    /// Stops it; it first settles its messages in flight.
    pub async fn stop(mut self) -> Result<()> {
        let pid = self.child.id().to_string();
        Command::new("kill").args(["-TERM", &pid]).status()?;
        let status = self.ended(PATIENCE).await?;
        ensure!(status.success(), "{status}\n{}", self.tail());
        Ok(())
    }

    /// Waits until it ends.
    pub async fn ended(&mut self, limit: Duration) -> Result<ExitStatus> {
        let began = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            ensure!(
                began.elapsed() < limit,
                "it did not end in {} s\n{}",
                limit.as_secs(),
                self.tail()
            );
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs a command that ends by itself and must succeed.
pub async fn to_its_end(command: Command, limit: Duration) -> Result<String> {
    let mut process = Worker::spawn(command)?;
    let status = process.ended(limit).await?;
    ensure!(status.success(), "{status}\n{}", process.tail());
    process.output()
}

/// The command of revertd, with the given environment.
pub fn revertd(environment: &[(String, String)], subcommand: &str) -> Command {
    let mut command = Command::new(PathBuf::from(env!("CARGO_BIN_EXE_revertd")));
    command
        .env_clear()
        .envs(environment.iter().cloned())
        .arg(subcommand);
    command
}
