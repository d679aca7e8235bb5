//! The benchmark (BENCHMARKS.md): measures `revertd` beside what bounds it and what it is an alternative to.

mod broker_alone;
mod contest;
mod database_alone;
mod deadline;
mod frontier;
mod latency;
mod load;
mod machine;
mod meter;
mod openloop;
mod plot;
mod process;
mod report;
mod rounds;
mod run;
mod stage;
mod table;
mod wire;

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};

use machine::Machine;
use meter::Servers;
use report::Section;
use run::Bench;

/// Measures revertd on the servers of `REVERTD_DATABASE__URL` and `REVERTD_AMQP__URL`; everything, where no
/// measurement is named.
#[derive(Parser)]
struct Args {
    /// Given by `cargo bench`.
    #[arg(long, hide = true, global = true)]
    bench: bool,
    /// Requests of a run in full batches.
    #[arg(long, global = true)]
    requests: Option<u32>,
    /// Rounds in which everything is run once.
    #[arg(long, global = true)]
    rounds: Option<u32>,
    /// A setting of the program under test, as in its environment: `REVERTD_WORKER__CONCURRENCY=2`.
    #[arg(long, global = true, value_parser = setting)]
    set: Vec<(String, String)>,
    /// Where the report goes; otherwise below the build's folder.
    #[arg(long, global = true)]
    report: Option<PathBuf>,
    /// Write the tables into the project's pages as well.
    #[arg(long, global = true)]
    record: bool,
    #[command(subcommand)]
    command: Option<What>,
}

#[derive(Clone, Subcommand)]
enum What {
    /// Throughput of (a) to (e).
    Table,
    /// Request to event at shares of the throughput.
    Latency,
    /// (a) to (d) and one latency, in less than two minutes.
    Quick,
    #[command(hide = true)]
    BrokerAlone(broker_alone::Args),
    #[command(hide = true)]
    DatabaseAlone(database_alone::Args),
}

#[tokio::main]
async fn main() -> Result<()> {
    let args = Args::parse();
    match args.command.clone() {
        Some(What::BrokerAlone(args)) => broker_alone::run(args).await,
        Some(What::DatabaseAlone(args)) => database_alone::run(args).await,
        what => report(&args, what).await,
    }
}

async fn report(args: &Args, what: Option<What>) -> Result<()> {
    let machine = Machine::look().await?;
    let whole = what.is_none();
    let (requests, rounds) = match what {
        Some(What::Quick) => (30_000, 2),
        _ => (100_000, 5),
    };
    let bench = Bench {
        servers: Servers::find(),
        requests: args.requests.unwrap_or(requests),
        rounds: args.rounds.unwrap_or(rounds),
        settings: args.set.clone(),
    };
    println!("{}", machine.table(&command()).text());
    let sections = measure(&bench, what).await?;
    let folder = args.report.clone().map_or_else(default_folder, Ok)?;
    report::write(&folder, &command(), &machine, &sections)?;
    if args.record {
        report::record(&command(), &machine, &sections, whole)?;
    }
    Ok(())
}

async fn measure(bench: &Bench, what: Option<What>) -> Result<Vec<Section>> {
    let mut sections = Sections::default();
    match what {
        Some(What::Table) => sections.add(contest::measure(bench, true).await?.0),
        Some(What::Latency) => sections.add(latency::measure(bench, None, latency::FULL).await?),
        Some(What::Quick) => {
            let (table, throughput) = contest::measure(bench, false).await?;
            sections.add(table);
            sections.add(latency::measure(bench, Some(throughput), latency::QUICK).await?);
        }
        None => {
            let (table, throughput) = contest::measure(bench, true).await?;
            sections.add(table);
            sections.add(latency::measure(bench, Some(throughput), latency::FULL).await?);
        }
        Some(What::BrokerAlone(_) | What::DatabaseAlone(_)) => {}
    }
    Ok(sections.0)
}

/// What was measured, each shown as soon as it is.
#[derive(Default)]
struct Sections(Vec<Section>);

impl Sections {
    fn add(&mut self, section: Section) {
        section.print();
        self.0.push(section);
    }
}

/// The command as whoever runs this would write it.
fn command() -> String {
    let mut arguments: Vec<_> = std::env::args().skip(1).collect();
    arguments.retain(|argument| argument != "--bench");
    match arguments.join(" ").as_str() {
        "" => "make bench".to_owned(),
        "quick" => "make bench-quick".to_owned(),
        "peers" => "make bench-peers".to_owned(),
        arguments => format!("make bench BENCH_ARGS=\"{arguments}\""),
    }
}

/// `bench` in the folder that this program was built in.
fn default_folder() -> Result<PathBuf> {
    let program = std::env::current_exe()?;
    let target = program.ancestors().nth(3).context("a target folder")?;
    Ok(target.join("bench"))
}

fn setting(text: &str) -> Result<(String, String), String> {
    let split = text
        .split_once('=')
        .map(|(name, value)| (name.to_owned(), value.to_owned()));
    split.ok_or_else(|| "it has the form NAME=VALUE".to_owned())
}
