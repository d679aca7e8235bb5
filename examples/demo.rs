//! Shows the main job on real servers: `make demo`.
//!
//! A worker consumes requests from RabbitMQ: one of each kind that succeeds, and one of each that
//! is refused. The demo prints each request with its event, and compares the event with the
//! expected one. Everything that it creates on the servers of `REVERTD_DATABASE__URL` and
//! `REVERTD_AMQP__URL` has names of this run alone, and is removed at the end.

use std::io::{ErrorKind, Write};
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use tokio::signal::unix::{Signal, SignalKind, signal};

#[path = "demo/desk.rs"]
mod desk;
#[path = "demo/ledger.rs"]
mod ledger;
#[path = "demo/process.rs"]
mod process;
#[path = "demo/screen.rs"]
mod screen;
#[path = "demo/stage.rs"]
mod stage;
#[path = "demo/story.rs"]
mod story;

use desk::{Desk, Tally};
use ledger::{Balance, Cast};
use screen::Screen;
use stage::Stage;

#[tokio::main]
async fn main() -> ExitCode {
    match run().await {
        Ok(status) => status,
        Err(error) => {
            say(&line(&error));
            ExitCode::FAILURE
        }
    }
}

/// Creates the stage, runs the demo, and removes the stage in any case.
async fn run() -> Result<ExitCode> {
    let mut signals = Signals::new()?;
    let mut stage = tokio::select! {
        stage = Stage::connect() => stage?,
        status = signals.next() => return Ok(ExitCode::from(status)),
    };
    let status = tokio::select! {
        shown = show(&mut stage) => match shown {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                complain(&error, &stage.log());
                ExitCode::FAILURE
            }
        },
        status = signals.next() => {
            say("interrupted, cleaning up");
            ExitCode::from(status)
        }
    };
    stage.strike().await?;
    Ok(status)
}

fn complain(error: &anyhow::Error, log: &str) {
    let gone = |cause: &std::io::Error| cause.kind() == ErrorKind::BrokenPipe;
    if error.downcast_ref().is_some_and(gone) {
        return; // whoever read the output has seen enough
    }
    say(&line(error));
    if !log.is_empty() {
        say(&format!("the log of revertd:\n{}", log.trim_end()));
    }
}

/// An error with its causes, without the causes that its text already contains: the errors of some
/// libraries do, those of others do not.
fn line(error: &anyhow::Error) -> String {
    let mut line = error.to_string();
    for cause in error.chain().skip(1).map(ToString::to_string) {
        if !line.ends_with(&cause) {
            line = format!("{line}: {cause}");
        }
    }
    line
}

/// Unlike `eprintln!`, it does not panic if the reader is gone: a panic would leave the stage
/// behind.
fn say(text: &str) {
    let _ = writeln!(std::io::stderr(), "demo: {text}");
}

async fn show(stage: &mut Stage) -> Result<()> {
    let began = Instant::now();
    let mut screen = Screen::new();
    let ledger = stage.create_database().await?;
    stage.migrate().await?;
    let cast = Cast::seed(&ledger).await?;
    stage.grant(cast.acme.org).await?;
    stage.start_worker().await?;
    screen.opening(stage)?;
    let (balances, entries) = (cast.balances(&ledger).await?, ledger.entries().await?);

    let mut desk = Desk::open(stage, screen).await?;
    tokio::select! {
        told = story::tell(&mut desk, &cast) => told?,
        ended = stage.worker_ended() => bail!("the worker ended: {}", ended?),
    }
    let (mut screen, tally) = desk.close();

    // After the stop no message is in flight, so the depths of the queues are complete.
    stage.stop_worker().await?;
    let letters = stage.take_all("dead").await?;
    let left = stage.take_all("work").await?;
    let changes: Vec<_> = (balances.into_iter())
        .zip(cast.balances(&ledger).await?)
        .collect();
    let written = ledger.entries().await? - entries;
    screen.balances(&changes)?;
    screen.counts(&tally, written, letters, began.elapsed())?;
    check(&tally, &changes, written, letters, left)
}

/// Checks that the events, the ledger and the queues agree.
fn check(
    tally: &Tally,
    changes: &[(Balance, Balance)],
    written: i64,
    letters: usize,
    left: usize,
) -> Result<()> {
    let (reverts, failed) = (tally.given.len(), tally.failed);
    ensure!(
        usize::try_from(written)? == 2 * reverts,
        "{written} entries were written for {reverts} reverts, not 2 for each"
    );
    ensure!(
        letters == failed,
        "{letters} dead letters for {failed} failed requests"
    );
    ensure!(left == 0, "{left} requests are left in the work queue");
    for (before, after) in changes {
        let (change, told) = (
            after.amount - before.amount,
            tally.change_of(before.account),
        );
        let name = before.name;
        ensure!(
            change == told,
            "the balance of {name} changed by {change}, by the events it should by {told}"
        );
    }
    Ok(())
}

/// The signals that end the demo. Once it listens for them, it always cleans up before it ends.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
}

impl Signals {
    fn new() -> Result<Self> {
        let listen = |kind| signal(kind).context("cannot listen for signals");
        Ok(Self {
            interrupt: listen(SignalKind::interrupt())?,
            terminate: listen(SignalKind::terminate())?,
            hangup: listen(SignalKind::hangup())?,
        })
    }

    /// The exit status that a shell expects after the signal: 128 plus its number.
    async fn next(&mut self) -> u8 {
        tokio::select! {
            _ = self.interrupt.recv() => 130,
            _ = self.terminate.recv() => 143,
            _ = self.hangup.recv() => 129,
        }
    }
}
