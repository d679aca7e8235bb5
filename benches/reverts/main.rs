//! The benchmark (BENCHMARKS.md).

mod broker_alone;
mod database_alone;
mod meter;
mod process;
mod run;
mod stage;

use anyhow::Result;
use clap::{Parser, Subcommand};

#[derive(Parser)]
struct Args {
    /// Given by `cargo bench`.
    #[arg(long, hide = true, global = true)]
    bench: bool,
    #[command(subcommand)]
    command: What,
}

#[derive(Subcommand)]
enum What {
    /// Quick experiment.
    Try {
        #[arg(long, default_value_t = 100_000)]
        requests: u32,
        #[arg(long, default_value_t = 1)]
        rounds: u32,
        /// Which: a, b, c, d.
        #[arg(long, value_delimiter = ',', default_value = "a,b,c,d")]
        which: Vec<String>,
    },
    #[command(hide = true)]
    BrokerAlone(broker_alone::Args),
    #[command(hide = true)]
    DatabaseAlone(database_alone::Args),
}

#[tokio::main]
async fn main() -> Result<()> {
    match Args::parse().command {
        What::Try {
            requests,
            rounds,
            which,
        } => run::try_out(requests, rounds, &which).await,
        What::BrokerAlone(args) => broker_alone::run(args).await,
        What::DatabaseAlone(args) => database_alone::run(args).await,
    }
}
