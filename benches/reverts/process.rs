//! Processes that are measured: the program, and this benchmark's own contenders.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

/// A process that works on a stage. It is killed where it was not stopped.
pub struct Worker {
    child: Child,
    log: tempfile::NamedTempFile,
    /// From the start of the process to its `ready`.
    pub ready_after: Duration,
}

impl Worker {
    /// `revertd worker`, once it is ready.
    pub async fn revertd(environment: &[(String, String)]) -> Result<Self> {
        Self::start(revertd(environment, "worker"), "\"message\":\"ready").await
    }

    /// This program as another contender, once it prints `ready`.
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
            .args(arguments)
            .stdin(Stdio::null());
        Self::start(command, "ready").await
    }

    /// Runs `command` until its output has `ready` in it.
    pub async fn start(mut command: Command, ready: &str) -> Result<Self> {
        let log = tempfile::NamedTempFile::new()?;
        let began = Instant::now();
        let child = command
            .stdout(log.reopen()?)
            .stderr(log.reopen()?)
            .spawn()
            .with_context(|| format!("{} does not start", command.get_program().display()))?;
        let mut worker = Self {
            child,
            log,
            ready_after: Duration::ZERO,
        };
        while !worker.output()?.contains(ready) {
            if !worker.is_running()? {
                bail!("it ended: {}", worker.output()?);
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        worker.ready_after = began.elapsed();
        Ok(worker)
    }

    pub fn output(&self) -> Result<String> {
        Ok(fs::read_to_string(self.log.path())?)
    }

    pub fn is_running(&mut self) -> Result<bool> {
        Ok(self.child.try_wait()?.is_none())
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Largest resident memory so far, in MiB.
    pub fn peak_mib(&self) -> Result<f64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib = line
            .and_then(|line| line.split_whitespace().next())
            .context("VmHWM is there")?;
        Ok(kib.parse::<f64>()? / 1024.0)
    }

    /// Stops it, and waits until it has finished what it had in hand.
    pub fn stop(&mut self) -> Result<()> {
        let pid = self.child.id().to_string();
        Command::new("kill").args(["-TERM", &pid]).status()?;
        ensure!(self.child.wait()?.success(), "{}", self.output()?);
        Ok(())
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The program, in an environment of its own.
pub fn revertd(environment: &[(String, String)], subcommand: &str) -> Command {
    let mut command = Command::new(PathBuf::from(env!("CARGO_BIN_EXE_revertd")));
    command
        .env_clear()
        .envs(environment.iter().cloned())
        .arg(subcommand)
        .stdin(Stdio::null());
    command
}
