//! Writes log lines to standard error.

use std::io::{IsTerminal, Write};
use std::sync::atomic::{AtomicBool, Ordering};

use tracing::{Level, Metadata, error, warn};
use tracing_subscriber::filter::{EnvFilter, FilterExt, filter_fn};
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::registry::Registry;
use tracing_subscriber::util::SubscriberInitExt;

use crate::common::printable;
use crate::config::LogFormat;

/// The filter if `RUST_LOG` is not set. The client libraries' own log lines are off, because their
/// errors are returned and logged by revertd.
const DEFAULT_FILTER: &str = "revertd=info";

/// Whether what ends the process is a log line too: a service's, whose log is JSON, is read by
/// machines.
static LOGS_FATAL: AtomicBool = AtomicBool::new(false);

/// Logs the error that ends the process; `false` if the caller must print it.
pub fn fatal(error: &anyhow::Error) -> bool {
    let logs = LOGS_FATAL.load(Ordering::Relaxed);
    if logs {
        error!(event = "fatal", "{error:#}");
    }
    logs
}

/// Installs the subscriber that writes log lines.
pub fn init(format: LogFormat, is_service: bool) {
    let chosen = std::env::var("RUST_LOG")
        .ok()
        .filter(|filter| !filter.is_empty());
    let filter = EnvFilter::builder().parse_lossy(chosen.as_deref().unwrap_or(DEFAULT_FILTER));
    let filter = filter.and(filter_fn(|metadata| !shows_payloads(metadata)));
    let terminal = std::io::stderr().is_terminal();
    let json = match format {
        LogFormat::Auto => !terminal,
        LogFormat::Text => false,
        LogFormat::Json => true,
    };
    LOGS_FATAL.store(json && is_service, Ordering::Relaxed);
    let form = match (json, terminal) {
        (true, _) => Form::Json,
        (false, true) => Form::Coloured,
        (false, false) => Form::Plain,
    };
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(move || Printable(form))
        .with_target(false);
    let lines: Box<dyn Layer<Registry> + Send + Sync> = match form {
        Form::Json => {
            let lines = lines.json().flatten_event(true).with_ansi(false);
            Box::new(lines.with_filter(filter))
        }
        Form::Coloured | Form::Plain => {
            Box::new(lines.with_ansi(form == Form::Coloured).with_filter(filter))
        }
    };
    tracing_subscriber::registry().with(lines).init();
}

/// The format of log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Json,
    Plain,
    Coloured,
}

/// A writer to standard error that escapes non-printable characters.
struct Printable(Form);

impl Write for Printable {
    /// Expects a whole log line per call.
    fn write(&mut self, line: &[u8]) -> std::io::Result<usize> {
        let text = String::from_utf8_lossy(line);
        // A line break within the text would look like the start of another log line.
        let (text, end) = match text.strip_suffix('\n') {
            Some(text) => (text, "\n"),
            None => (&*text, ""),
        };
        let shown = match self.0 {
            Form::Json => printable::json(text),
            Form::Plain => printable::visible(text),
            Form::Coloured => printable::coloured(text),
        };
        let mut stderr = std::io::stderr().lock();
        stderr.write_all(format!("{shown}{end}").as_bytes())?;
        Ok(line.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        std::io::stderr().flush()
    }
}

/// Says once which servers everything goes to in the clear, over a network, and what would encrypt
/// it.
pub fn warn_of_clear_text(server: &str, hosts: &[String], remedy: &str) {
    if !hosts.is_empty() {
        let hosts = hosts.join(", ");
        warn!(
            event = "clear_text",
            hosts,
            "the connection to {server} is not encrypted, nor is the server verified; {remedy}"
        );
    }
}

/// Lines of the clients that print whole messages, frames and parameters: never, whatever
/// `RUST_LOG` says.
fn shows_payloads(metadata: &Metadata<'_>) -> bool {
    let (target, level) = (metadata.target(), *metadata.level());
    target.starts_with("lapin::returned_messages")
        || target.starts_with("tokio_postgres::query")
        || (target.starts_with("lapin") && level == Level::TRACE)
}
