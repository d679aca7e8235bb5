//! Shows the main job on real servers: `make demo`.
//!
//! A worker takes requests off RabbitMQ, one of each kind that succeeds and one of each that is refused; each is
//! printed with its event, and compared with what the event should be. What is made on the servers of
//! `REVERTD_DATABASE__URL` and `REVERTD_AMQP__URL` bears names of this run alone, and is removed in the end.

use std::io::ErrorKind;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use tokio::signal::unix::{Signal, SignalKind, signal};
use uuid::Uuid;

#[path = "demo/desk.rs"]
mod desk;
#[path = "demo/ledger.rs"]
mod ledger;
#[path = "demo/screen.rs"]
mod screen;
#[path = "demo/stage.rs"]
mod stage;

use desk::{Desk, Expected, Request, Tally};
use ledger::{Account, Cast, Ledger};
use screen::Screen;
use stage::Stage;

#[tokio::main]
async fn main() -> ExitCode {
    match run().await {
        Ok(status) => status,
        Err(error) => {
            eprintln!("demo: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Sets the stage and strikes it, whatever happens in between.
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
            eprintln!("demo: interrupted, cleaning up");
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
    eprintln!("demo: {error:#}");
    if !log.is_empty() {
        eprintln!("the program's log:\n{}", log.trim_end());
    }
}

async fn show(stage: &mut Stage) -> Result<()> {
    let began = Instant::now();
    let mut screen = Screen::new();
    let ledger = stage.create_database().await?;
    stage.migrate().await?;
    let cast = Cast::seed(&ledger).await?;
    stage.start_worker().await?;
    screen.opening(stage)?;
    let (balances, entries) = (cast.balances(&ledger).await?, ledger.entries().await?);

    let mut desk = Desk::open(stage, screen).await?;
    tokio::select! {
        told = tell(&mut desk, &cast) => told?,
        ended = stage.worker_ended() => bail!("the worker ended: {}", ended?),
    }
    let (mut screen, tally) = desk.close();

    // Once it is gone, nothing is in its hands, and what a queue holds is all there is.
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

/// Every kind of request, in an order in which each finds what it needs.
async fn tell(desk: &mut Desk, cast: &Cast) -> Result<()> {
    let first = what_succeeds(desk, cast).await?;
    what_was_reverted_before(desk, cast, &first).await?;
    what_is_no_usage_of_the_account(desk, cast, &first.event).await?;
    what_is_no_valid_request(desk, cast, &first).await
}

/// A request that was reverted, and its event.
struct Reverted {
    request: Request,
    event: Value,
}

/// The variants of the API page's body.
async fn what_succeeds(desk: &mut Desk, cast: &Cast) -> Result<Reverted> {
    let (account, org, project) = (cast.acme.account, cast.acme.org, cast.project);
    let [twenty, thirty, forty, fifty, sixty, part, _] = cast.usages;

    let body = json!({"billing_id": account, "usage_id": twenty, "amount": 20});
    let request = Request::new("by billing_id, amount 20", &body);
    let event = desk.ask(&request, Expected::Reverted(20, 20)).await?;

    let body = json!({"org_id": org, "usage_id": thirty, "amount": "30"});
    let by_org = Request::new("by org_id, amount \"30\"", &body);
    desk.ask(&by_org, Expected::Reverted(30, 30)).await?;

    let body = json!({"project_id": project, "usage_id": forty, "amount": 40});
    let by_project = Request::new("by project_id, amount 40", &body);
    desk.ask(&by_project, Expected::Reverted(40, 40)).await?;

    let body = json!({"orgId": org, "usageId": fifty, "amount": "50"});
    let camel_case = Request::new("camelCase: orgId, usageId", &body);
    desk.ask(&camel_case, Expected::Reverted(50, 50)).await?;

    let body = json!({"org_id": org, "project_id": "", "billing_id": account, "usage_id": sixty, "amount": "60"});
    let all_fields = Request::new("every field, project_id \"\"", &body);
    desk.ask(&all_fields, Expected::Reverted(60, 60)).await?;

    let body = json!({"billing_id": account, "usage_id": part, "amount": "5"});
    let partial = Request::new("a part of it: 5 of 70", &body);
    desk.ask(&partial, Expected::Reverted(5, 70)).await?;
    Ok(Reverted { request, event })
}

async fn what_was_reverted_before(desk: &mut Desk, cast: &Cast, first: &Reverted) -> Result<()> {
    let account = cast.acme.account;
    let [twenty, _, _, _, _, part, untouched] = cast.usages;

    let again = first.request.clone().titled("request 1, delivered twice");
    let same = Expected::Same(first.event.clone());
    desk.ask(&again, same).await?;

    let body = json!({"billing_id": account, "usage_id": twenty, "amount": 20});
    let second = Request::new("a second one for its usage", &body);
    let already = Expected::Rejected("ALREADY_REVERTED");
    desk.ask(&second, already.clone()).await?;

    let body = json!({"billing_id": account, "usage_id": part, "amount": 65});
    let rest = Request::new("the rest of request 6", &body);
    desk.ask(&rest, already).await?;

    let body = json!({"billing_id": account, "usage_id": untouched, "amount": 81});
    let too_much = Request::new("too much: 81 of 80", &body);
    let exceeds = Expected::Rejected("AMOUNT_EXCEEDS_USAGE");
    desk.ask(&too_much, exceeds).await?;
    Ok(())
}

async fn what_is_no_usage_of_the_account(
    desk: &mut Desk,
    cast: &Cast,
    revert: &Value,
) -> Result<()> {
    let account = cast.acme.account;
    let names = |usage: &Value| json!({"billing_id": account, "usage_id": usage, "amount": 20});

    let unknown = Request::new("an unknown usage", &names(&json!(Uuid::new_v4())));
    let after_retries = Expected::RejectedAfterRetries("USAGE_NOT_FOUND");
    desk.ask(&unknown, after_retries).await?;

    // Answered at once, since the ladder has been shown.
    let foreign = Request::new(
        "another account's usage",
        &names(&json!(cast.foreign_usage)),
    )
    .once();
    let not_found = Expected::Rejected("USAGE_NOT_FOUND");
    desk.ask(&foreign, not_found).await?;

    let revert_id = &revert["data"]["transaction_id"];
    let of_revert = Request::new("the revert of request 1", &names(revert_id));
    let refused = Expected::Rejected("REVERT_OF_REVERT");
    desk.ask(&of_revert, refused).await?;

    let purchase = Request::new("a purchase of credits", &names(&json!(cast.purchase)));
    let no_usage = Expected::Rejected("NOT_A_USAGE");
    desk.ask(&purchase, no_usage).await?;
    Ok(())
}

async fn what_is_no_valid_request(desk: &mut Desk, cast: &Cast, first: &Reverted) -> Result<()> {
    let usage = cast.usages[6];

    let body = json!({"org_id": Uuid::new_v4(), "usage_id": usage, "amount": 80});
    let nobody = Request::new("an unknown org", &body);
    let not_found = Expected::Rejected("BILLING_ACCOUNT_NOT_FOUND");
    desk.ask(&nobody, not_found).await?;

    let body = json!({"billing_id": cast.acme.account, "usage_id": usage, "amount": 80});
    let other = Request::new("request 1's id, other content", &body).with_id_of(&first.request);
    let reused = Expected::Rejected("REQUEST_ID_REUSED");
    desk.ask(&other, reused).await?;

    let body = json!({"usage_id": usage, "amount": -80});
    let invalid = Request::new("amount -80, of no account", &body);
    let violations = Expected::Rejected("INVALID_FIELD");
    desk.ask(&invalid, violations).await?;

    let rubbish = Request::raw("rubbish: {\"usage_id\": 20", "{\"usage_id\": 20");
    let failed = Expected::Failed("MALFORMED_REQUEST");
    desk.ask(&rubbish, failed).await?;
    Ok(())
}

/// The numbers must add up: the events, the ledger and the queues tell the same story.
fn check(
    tally: &Tally,
    changes: &[(Account, Account)],
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
            after.balance - before.balance,
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

/// The signals that end the demo. Once they are listened for, none of them ends it before it has cleaned up.
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

    /// The exit status that a shell expects after the signal: 128 and its number.
    async fn next(&mut self) -> u8 {
        tokio::select! {
            _ = self.interrupt.recv() => 130,
            _ = self.terminate.recv() => 143,
            _ = self.hangup.recv() => 129,
        }
    }
}
