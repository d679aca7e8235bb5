//! `revertd usages`

use std::fmt::Write;
use std::process::ExitCode;

use anyhow::{anyhow, bail};
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};

use super::output::{Output, print, print_json};
use super::progress::Progress;
use super::terminal::{time, visible};
use crate::config::Settings;
use crate::ledger::admin::usages::{UsageCount, UsageScope, Usages};

mod args;
mod requests;

pub use args::UsagesArgs;
use requests::{Target, line};

/// Usages that are read in one step.
const AT_A_TIME: u32 = 1000;

/// As the parser of arguments ends.
const WRONG_USAGE: u8 = 2;

pub async fn run(settings: &Settings, args: UsagesArgs) -> anyhow::Result<ExitCode> {
    if let Some(error) = args.contradiction() {
        say!("revertd: {error}; see revertd usages --help");
        return Ok(ExitCode::from(WRONG_USAGE));
    }
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::select! {
        done = write(settings, &args) => done?,
        _ = interrupt.recv() => match &args.file {
            Some(file) => bail!("interrupted; {} was not written", file.display()),
            None => bail!("interrupted; the requests are not complete"),
        },
    }
    Ok(ExitCode::SUCCESS)
}

async fn write(settings: &Settings, args: &UsagesArgs) -> anyhow::Result<()> {
    let file = args.file.as_deref().filter(|_| !args.dry_run);
    let mut target = Target::new(file)?;
    let filter = args
        .filter()
        .ok_or_else(|| anyhow!("give --org or --account"))?;
    let scope = filter.scope.clone();
    let Some(usages) = Usages::open(settings, filter).await? else {
        return Err(unknown(&scope));
    };
    let count = usages.count().await?;
    let is_output_free = args.dry_run || file.is_some();
    tell(settings, &count, args.output, is_output_free)?;
    if args.dry_run {
        return Ok(());
    }
    usages.begin().await?;
    let all = u64::try_from(count.usages).unwrap_or(0);
    let mut progress = Progress::new("written", all);
    let mut done = 0;
    loop {
        let some = usages.next(AT_A_TIME).await?;
        let Some(last) = some.last() else { break };
        let mut lines = String::new();
        for usage in &some {
            lines.push_str(&line(usage, &args.batch, args.reason.as_deref())?);
        }
        if !target.write(&lines)? {
            break;
        }
        done += some.len() as u64;
        progress.reached(done, &format!("usage {}", last.id));
    }
    progress.done();
    target.finish()?;
    if let Some(file) = file {
        let file = file.display();
        say!("revertd: wrote {file}; next: revertd submit --file {file} --dry-run");
    }
    Ok(())
}

/// Prints the counts: to standard output, unless the requests go there.
fn tell(
    settings: &Settings,
    count: &UsageCount,
    output: Output,
    is_output_free: bool,
) -> anyhow::Result<()> {
    let UsageCount {
        usages,
        accounts,
        sum,
        ..
    } = count;
    let (first, last) = (count.first.map(time), count.last.map(time));
    if output == Output::Json {
        let object = json!({"usages": usages, "accounts": accounts, "sum": sum.to_string(),
            "first": first, "last": last});
        if is_output_free {
            print_json(&object)?;
        } else {
            say!("{object}");
        }
        return Ok(());
    }
    let (usages, accounts) = (counted(*usages, "usage"), counted(*accounts, "account"));
    let mut text = format!("{usages} of {accounts}, {sum} in all");
    if let Some((first, last)) = first.zip(last) {
        let _ = write!(text, ", written from {first} to {last}");
    }
    if let Some(age) = settings.revert.max_age {
        let age = humantime::format_duration(age);
        let _ = write!(
            text,
            "\nusages older than {age} (revert.max_age) are left out"
        );
    }
    if is_output_free {
        print(&format!("{text}\n"))?;
    } else {
        say!("{text}");
    }
    Ok(())
}

fn counted(count: i64, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}

fn unknown(scope: &UsageScope) -> anyhow::Error {
    match scope {
        UsageScope::Org(org) => anyhow!(
            "no org {}: it does not exist here, or is deleted; give its id, or its name as in \
             organizations.name",
            visible(&org.to_string())
        ),
        UsageScope::Account(account) => anyhow!(
            "no account {account}: it does not exist here, it or its org is deleted, or it is the \
             platform's own; give the id of a customer's account"
        ),
    }
}
