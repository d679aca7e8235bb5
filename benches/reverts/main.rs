//! The benchmark (docs/operations/benchmarks.md): measures `revertd`, its bounds
//! and its alternatives.

mod batches;
mod broker_alone;
mod contest;
mod database_alone;
mod deadline;
mod disk;
mod frontier;
mod gateway;
mod grants;
mod history;
mod http;
mod latency;
mod load;
mod machine;
mod memory;
mod meter;
mod openloop;
mod peers;
mod plot;
mod process;
mod processes;
mod report;
mod rounds;
mod run;
mod shapes;
mod stage;
mod start;
mod submit;
mod sustained;
mod table;
mod telemetry;
mod trend;
mod verify;
mod wire;

use std::fmt::Write;
use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};

use machine::Machine;
use meter::Servers;
use report::Section;
use run::Bench;

/// Measures revertd on the servers of `REVERTD_DATABASE__URL` and `REVERTD_AMQP__URL`. Without a
/// command it runs every measurement except `peers`.
#[derive(Parser)]
struct Args {
    /// Passed by `cargo bench`
    #[arg(long, hide = true, global = true)]
    bench: bool,
    /// Requests of a run in full batches
    #[arg(long, global = true)]
    requests: Option<u32>,
    /// Number of rounds; a round runs each case once
    #[arg(long, global = true)]
    rounds: Option<u32>,
    /// A setting of the revertd under test, as an environment variable:
    /// `REVERTD_WORKER__CONCURRENCY=2`
    #[arg(long, global = true, value_parser = setting)]
    set: Vec<(String, String)>,
    /// Folder for the report [default: `bench` in the target folder]
    #[arg(long, global = true)]
    report: Option<PathBuf>,
    /// Also write the tables into the project's pages
    #[arg(long, global = true)]
    record: bool,
    #[command(subcommand)]
    command: Option<What>,
}

#[derive(Clone, Subcommand)]
enum What {
    /// Throughput of contenders (a) to (e) and (g)
    Table {
        /// Only these contenders
        #[arg(long, value_delimiter = ',')]
        only: Vec<char>,
    },
    /// Latency from request to event at shares of the sustained rate
    Latency {
        /// Shares, in per cent
        #[arg(long, value_delimiter = ',', default_value = "10,30,50,70,90")]
        shares: Vec<u32>,
        /// Seconds of each load
        #[arg(long, default_value_t = 20.0)]
        seconds: f64,
    },
    /// Peak memory with many requests waiting
    Memory {
        #[arg(long, default_value_t = 1_000_000)]
        waiting: u32,
    },
    /// Time from the start of the process to the first acknowledgement and to full speed
    Start,
    /// Bytes per revert in tables, indexes and write-ahead log
    Disk,
    /// Throughput with a short and with a long history
    History {
        #[arg(long, default_value_t = 10_000_000)]
        rows: u32,
    },
    /// Throughput of other loads
    Shapes,
    /// Throughput of three processes, compared with one
    Processes,
    /// Throughput for different batch sizes
    Batches,
    /// Throughput with grants
    Grants,
    /// Throughput and latency over HTTP
    Gateway,
    /// Throughput with metrics and traces
    Telemetry,
    /// Time of `revertd submit --file`
    Submit {
        #[arg(long, default_value_t = 100_000)]
        lines: u32,
    },
    /// Time and memory of `revertd verify`
    Verify {
        #[arg(long, default_value_t = 10_000_000)]
        entries: u32,
    },
    /// Throughput compared with workers in Node.js (`make bench-peers`)
    Peers,
    /// Contenders (a) to (d) and (g), and one latency, in three minutes
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
    let machine = Machine::look(args.options()).await?;
    let whole = what.is_none();
    let (requests, rounds) = match what {
        Some(What::Quick) => (30_000, 2),
        Some(What::Table { .. } | What::Latency { .. } | What::Peers) | None => (100_000, 5),
        _ => (100_000, 3),
    };
    let bench = Bench {
        servers: Servers::find(),
        requests: args.requests.unwrap_or(requests),
        rounds: args.rounds.unwrap_or(rounds),
        settings: args.set.clone(),
    };
    println!("{}", machine.table(&command()).text());
    let mut sections = Sections {
        done: Vec::new(),
        recorded: args.record.then_some(&machine),
    };
    match what {
        Some(what) => sections.part(&bench, &what).await?,
        None => sections.whole(&bench, args.rounds.unwrap_or(3)).await?,
    }
    let sections = sections.done;
    let folder = args.report.clone().map_or_else(default_folder, Ok)?;
    report::write(&folder, &command(), &machine, &sections)?;
    if args.record {
        report::record(&command(), &machine, &sections, whole)?;
    }
    Ok(())
}

/// The measured sections. Each is printed and recorded as soon as it is complete, because a long
/// run may fail at its end.
struct Sections<'a> {
    done: Vec<Section>,
    recorded: Option<&'a Machine>,
}

impl Sections<'_> {
    async fn part(&mut self, bench: &Bench, what: &What) -> Result<()> {
        match what {
            What::Table { only } => self.add(contest::measure(bench, only).await?.0)?,
            What::Latency { shares, seconds } => {
                self.add(latency::measure(bench, None, shares, *seconds).await?)?;
            }
            What::Memory { waiting } => self.add(memory::measure(bench, *waiting).await?)?,
            What::Start => self.add(start::measure(bench).await?)?,
            What::Disk => self.add(disk::measure(bench).await?)?,
            What::History { rows } => self.add(history::measure(bench, *rows).await?)?,
            What::Shapes => self.add(shapes::measure(bench).await?)?,
            What::Processes => self.add(processes::measure(bench).await?)?,
            What::Batches => self.add(batches::measure(bench).await?)?,
            What::Grants => self.add(grants::measure(bench).await?)?,
            What::Gateway => self.add(gateway::measure(bench).await?)?,
            What::Telemetry => self.add(telemetry::measure(bench).await?)?,
            What::Submit { lines } => self.add(submit::measure(bench, *lines).await?)?,
            What::Verify { entries } => self.add(verify::measure(bench, *entries).await?)?,
            What::Peers => self.add(peers::measure(bench).await?)?,
            What::Quick => {
                let quick = ['a', 'b', 'c', 'd', 'g'];
                let (table, throughput) = contest::measure(bench, &quick).await?;
                self.add(table)?;
                self.add(latency::measure(bench, throughput, &[50], 10.0).await?)?;
            }
            What::BrokerAlone(_) | What::DatabaseAlone(_) => {}
        }
        Ok(())
    }

    /// Runs every measurement except the peers, which install packages, in the order of the page.
    /// Less noisy measurements run fewer rounds.
    async fn whole(&mut self, bench: &Bench, rounds: u32) -> Result<()> {
        let (table, throughput) = contest::measure(bench, &[]).await?;
        self.add(table)?;
        let (shares, seconds) = ([10, 30, 50, 70, 90], 20.0);
        self.add(latency::measure(bench, throughput, &shares, seconds).await?)?;
        let bench = &Bench {
            rounds,
            ..bench.clone()
        };
        self.add(shapes::measure(bench).await?)?;
        self.add(processes::measure(bench).await?)?;
        self.add(batches::measure(bench).await?)?;
        self.add(grants::measure(bench).await?)?;
        self.add(gateway::measure(bench).await?)?;
        self.add(telemetry::measure(bench).await?)?;
        self.add(submit::measure(bench, 100_000).await?)?;
        self.add(history::measure(bench, 10_000_000).await?)?;
        let once = &Bench {
            rounds: 1,
            ..bench.clone()
        };
        self.add(verify::measure(once, 10_000_000).await?)?;
        self.add(memory::measure(bench, 1_000_000).await?)?;
        self.add(start::measure(bench).await?)?;
        self.add(disk::measure(bench).await?)?;
        Ok(())
    }

    fn add(&mut self, section: Section) -> Result<()> {
        section.print();
        if let Some(machine) = self.recorded {
            report::record(&command(), machine, std::slice::from_ref(&section), false)?;
        }
        self.done.push(section);
        Ok(())
    }
}

/// The command as a user types it, without the options for the destination of the figures.
fn command() -> String {
    let mut arguments = std::env::args().skip(1);
    let mut kept = Vec::new();
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--bench" | "--record" => {}
            "--report" => drop(arguments.next()),
            other if other.starts_with("--report=") => {}
            _ => kept.push(argument),
        }
    }
    match kept.join(" ").as_str() {
        "" => "make bench".to_owned(),
        "quick" => "make bench-quick".to_owned(),
        "peers" => "make bench-peers".to_owned(),
        arguments => format!("make bench BENCH_ARGS=\"{arguments}\""),
    }
}

impl Args {
    /// The options that change a measurement, as written after its name.
    fn options(&self) -> String {
        let mut options = String::new();
        for (name, value) in [("requests", self.requests), ("rounds", self.rounds)] {
            if let Some(value) = value {
                let _ = write!(options, " --{name} {value}");
            }
        }
        for (name, value) in &self.set {
            let _ = write!(options, " --set {name}={value}");
        }
        options
    }
}

/// The folder `bench` in the target folder of this program.
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
