//! revertd as a process.

use std::env;
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use tempfile::NamedTempFile;
use tokio::time::{sleep, timeout};

use super::stage::PATIENCE;

/// Time between two checks of a file or a process.
const POLL: Duration = Duration::from_millis(5);

/// The revertd that was built beside this program.
pub fn program() -> Result<PathBuf> {
    let here = env::current_exe().context("cannot tell where this program is")?;
    let built = here.parent().and_then(|examples| examples.parent());
    let program = built
        .context("this program is in no folder")?
        .join("revertd");
    ensure!(
        program.exists(),
        "{} is missing; build it: cargo build --release --bins",
        program.display()
    );
    Ok(program)
}

/// A process of revertd, running or ended. A drop kills it.
pub struct Process {
    child: Child,
    log: NamedTempFile,
}

impl Process {
    pub fn spawn(
        program: &Path,
        arguments: &[&str],
        environment: &[(String, String)],
    ) -> Result<Self> {
        let log = NamedTempFile::new().context("cannot create a file for the log")?;
        let child = Command::new(program)
            .args(arguments)
            .env_clear()
            .envs(environment.iter().cloned())
            // A process group of its own: Ctrl-C signals only the demo, which then stops revertd.
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log.reopen().context("cannot open the file for the log")?)
            .spawn()
            .with_context(|| format!("cannot start {}", program.display()))?;
        Ok(Self { child, log })
    }

    /// The log of the process so far.
    pub fn log(&self) -> String {
        fs::read(self.log.path()).map_or_else(
            |error| format!("(the log can't be read: {error})"),
            |log| String::from_utf8_lossy(&log).into_owned(),
        )
    }

    /// Waits until the worker consumes.
    pub async fn ready(&mut self) -> Result<()> {
        while !self.log().contains(" ready ") {
            if let Some(status) = self.child.try_wait()? {
                bail!("the worker ended at its start ({status})");
            }
            sleep(POLL).await;
        }
        Ok(())
    }

    pub async fn ended(&mut self) -> Result<ExitStatus> {
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            sleep(POLL).await;
        }
    }

    /// Sends SIGTERM, and waits for the end.
    pub async fn stop(&mut self) -> Result<ExitStatus> {
        if self.child.try_wait()?.is_none() {
            let pid = self.child.id().to_string();
            let kill = Command::new("kill").args(["-TERM", &pid]).status();
            kill.context("cannot run kill")?;
        }
        let ended = timeout(PATIENCE, self.ended()).await;
        ended.context("it does not stop")?
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
