//! `revertd events`

use std::process::ExitCode;

use anyhow::bail;
use clap::{Args, Subcommand};
use jiff::Timestamp;
use serde_json::json;
use uuid::Uuid;

use super::output::{Output, print, print_json};
use super::prompt;
use super::time_span::timestamp;
use crate::config::Settings;
use crate::ledger::admin::stored::{OutcomeCount, OutcomeFilter, Outcomes};
use publishing::{Published, publish};

mod publishing;

#[derive(Debug, Args)]
pub struct EventsArgs {
    #[command(subcommand)]
    action: EventsCommand,
}

#[derive(Debug, Subcommand)]
enum EventsCommand {
    /// Publish the events of stored outcomes again, unchanged, for consumers that lost them.
    Republish(RepublishArgs),
}

#[derive(Debug, Args)]
struct RepublishArgs {
    /// Of outcomes decided then or later: a time such as 2026-11-25T08:00:00Z, or how long ago,
    /// such as 2h.
    #[arg(long, value_name = "TIME", value_parser = timestamp)]
    since: Option<Timestamp>,
    /// Only outcomes decided before this time: a time such as 2026-11-25T08:00:00Z, or an age such
    /// as 2h.
    #[arg(long, value_name = "TIME", value_parser = timestamp)]
    until: Option<Timestamp>,
    /// Only outcomes of this client's requests.
    #[arg(long)]
    client: Option<String>,
    /// Only outcomes of this org's accounts.
    #[arg(long, value_name = "UUID")]
    org: Option<Uuid>,
    /// Only the outcome of the request with this `message_id`.
    #[arg(long, value_name = "ID")]
    request: Option<String>,
    /// Print how many events there are, and publish nothing.
    #[arg(long)]
    dry_run: bool,
    /// Do not ask for confirmation.
    #[arg(long)]
    yes: bool,
    /// Maximum rate, in events per second.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    rate: Option<u32>,
    /// Format of the result.
    #[arg(long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

pub async fn run(settings: &Settings, args: EventsArgs) -> anyhow::Result<ExitCode> {
    match args.action {
        EventsCommand::Republish(args) => republish(settings, args).await,
    }
}

async fn republish(settings: &Settings, args: RepublishArgs) -> anyhow::Result<ExitCode> {
    if args
        .since
        .zip(args.until)
        .is_some_and(|(since, until)| since >= until)
    {
        say!("revertd: --since must be before --until");
        return Ok(ExitCode::from(2));
    }
    let filter = OutcomeFilter {
        since: args.since,
        until: args.until,
        client: args.client.clone(),
        org: args.org,
        message_id: args.request.clone(),
    };
    let outcomes = Outcomes::open(settings, filter).await?;
    let count = outcomes.count().await?;
    let all = count.applied + count.refused;
    if args.dry_run {
        return conclude(count, &Published::default(), args.output, "would publish");
    }
    if all == 0 {
        return conclude(count, &Published::default(), args.output, "published");
    }
    if !args.yes {
        match prompt::sure(&format!("publish {all} events again?"))? {
            Some(true) => {}
            Some(false) => bail!("nothing was published"),
            None => {
                say!("revertd: nothing was published: there is no terminal to ask on; add --yes");
                return Ok(ExitCode::from(2));
            }
        }
    }
    let published = publish(settings, &outcomes, all, args.rate).await?;
    conclude(count, &published, args.output, "published")
}

fn conclude(
    count: OutcomeCount,
    published: &Published,
    output: Output,
    verb: &str,
) -> anyhow::Result<ExitCode> {
    let OutcomeCount { applied, refused } = count;
    let (unroutable, untold) = (published.unroutable, published.untold);
    let refused = refused - i64::try_from(untold).unwrap_or(i64::MAX);
    let all = applied + refused;
    match output {
        Output::Text => print(&format!(
            "{verb} {all} events: {applied} usage.reverted, {refused} usage.revert.rejected\n{}",
            published.text()
        ))?,
        Output::Json => print_json(
            &json!({"published": verb == "published", "usage.reverted": applied,
                "usage.revert.rejected": refused, "unroutable": unroutable, "untold": untold,
                "routing_keys": published.keys, "of_further_keys": published.others}),
        )?,
    }
    if untold > 0 {
        bail!(
            "{untold} outcomes are refusals that this version does not know, and whose words are \
             not stored; run this with the version that stored them, or a later one"
        );
    }
    if unroutable > 0 {
        bail!(
            "no queue is bound for {unroutable} of them, so no consumer received these; bind one \
             to the reply exchange and publish them again"
        );
    }
    Ok(ExitCode::SUCCESS)
}
