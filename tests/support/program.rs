//! The program under test as a command, whose output is kept (`logs.rs`).

use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use super::logs;

/// Where it is.
pub fn binary() -> PathBuf {
    PathBuf::from(env!("CARGO_BIN_EXE_revertd"))
}

/// A command line of the program. It has only the variables that are set on it. It has few of the
/// methods of [`Command`], so that nothing is written unseen.
pub struct Program(Command);

impl Program {
    pub fn new(arguments: &[&str]) -> Self {
        Self::of(&binary(), arguments)
    }

    /// The same of another build.
    pub fn of(binary: &Path, arguments: &[&str]) -> Self {
        let mut command = Command::new(binary);
        command
            .env_clear()
            .envs(std::env::var("RUST_LOG").map(|filter| ("RUST_LOG", filter)))
            .args(arguments)
            .stdin(Stdio::null());
        Self(command)
    }

    pub fn env(&mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> &mut Self {
        self.0.env(name, value);
        self
    }

    pub fn env_remove(&mut self, name: impl AsRef<OsStr>) -> &mut Self {
        self.0.env_remove(name);
        self
    }

    /// Runs it to its end.
    pub fn output(&mut self) -> io::Result<Output> {
        let output = self.0.output()?;
        logs::keep("log", &output.stderr);
        logs::keep("out", &output.stdout);
        Ok(output)
    }

    /// The command line itself, for who closes its pipes or measures it.
    pub fn bare(self) -> Command {
        self.0
    }

    /// Starts it; its standard error is for who asks.
    pub fn spawn(&mut self) -> io::Result<Child> {
        self.0.stdout(Stdio::null()).stderr(Stdio::piped()).spawn()
    }
}
