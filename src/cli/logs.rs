//! Log lines on standard error.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::Directive;

use crate::settings::LogFormat;

/// What is logged where `RUST_LOG` is not set. The clients' own complaints come back as our errors.
const DEFAULT_FILTER: &str = "info,lapin=off,tokio_postgres=off,refinery_core=off";

pub fn init(format: LogFormat) {
    let chosen = std::env::var("RUST_LOG")
        .ok()
        .filter(|filter| !filter.is_empty());
    let filter = EnvFilter::builder().parse_lossy(chosen.as_deref().unwrap_or(DEFAULT_FILTER));
    // These print whole messages and parameters; payloads are never logged, whatever RUST_LOG says.
    let filter = [
        "lapin::returned_messages=off",
        "lapin::io_loop=info",
        "tokio_postgres::query=off",
    ]
    .into_iter()
    .filter_map(|directive| directive.parse::<Directive>().ok())
    .fold(filter, EnvFilter::add_directive);
    let json = match format {
        LogFormat::Auto => !std::io::stderr().is_terminal(),
        LogFormat::Text => false,
        LogFormat::Json => true,
    };
    let builder = tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_env_filter(filter)
        .with_target(false);
    if json {
        builder.json().flatten_event(true).with_ansi(false).init();
    } else {
        builder.with_ansi(std::io::stderr().is_terminal()).init();
    }
}
