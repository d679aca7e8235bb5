//! `revertd submit --file`: sends the requests of a file in groups, and reports each answer.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::bail;

use super::args::{SubmitArgs, WRONG_USAGE};
use super::groups::{Grouping, Groups};
use super::lines::RequestSource;
use super::looked::look_through;
use super::report::SubmitReport;
use super::{dry_run, sending};
use crate::broker::RequestClient;
use crate::config::Settings;

/// Where nothing else is given.
const BATCH: &str = "file";

pub async fn run(
    settings: &Settings,
    path: PathBuf,
    args: &SubmitArgs,
) -> anyhow::Result<ExitCode> {
    let of_file = &args.of_file;
    let is_same = |failed: &PathBuf| match (failed.canonicalize(), path.canonicalize()) {
        (Ok(failed), Ok(path)) => failed == path,
        _ => *failed == path,
    };
    if of_file.failed.as_ref().is_some_and(is_same) {
        bail!("--failed names the same file as --file; name another");
    }
    // The file is read twice: to check it before anything is sent, and then to send it.
    if !std::fs::metadata(&path).is_ok_and(|found| found.is_file()) && path.exists() {
        bail!(
            "{} is not a regular file, so it can't be read twice; copy it to a regular file \
            first",
            path.display()
        );
    }
    let source = RequestSource {
        format: of_file
            .format
            .unwrap_or_else(|| RequestSource::format_of(&path)),
        path,
        batch: of_file.batch.clone().unwrap_or_else(|| BATCH.into()),
        line_max_bytes: settings.amqp.max_message_bytes.bytes(),
    };
    let grouping = match Grouping::new(settings, of_file, &source.batch) {
        Ok(grouping) => grouping,
        Err(error) => {
            say!("revertd: {error}; nothing was sent; see revertd submit --help");
            return Ok(ExitCode::from(WRONG_USAGE));
        }
    };
    let looked = look_through(&source)?;
    if looked.error > 0 && !of_file.skip_invalid {
        bail!(
            "{} lines are invalid, and nothing was sent; correct them, or skip them with \
            --skip-invalid",
            looked.error
        );
    }
    if looked.good == 0 {
        say!("revertd: {} contains no requests", source.path.display());
    }
    if grouping.is_atomic {
        say!(
            "revertd: each group of {} lines is reverted as a whole or not at all (--atomic); the \
            last group may be smaller",
            grouping.size
        );
    }
    if of_file.dry_run {
        return dry_run::run(settings, &source, &looked, &grouping, args.output).await;
    }
    let mut client = RequestClient::connect(settings).await?;
    let mut report = SubmitReport::new(args.output, of_file.failed.as_deref())?;
    report.skipped(looked.error);
    let groups = Groups::new(&source, &looked, &grouping)?;
    let done = sending::send(
        &mut client,
        groups,
        args,
        &grouping,
        looked.good,
        &mut report,
    )
    .await;
    client.close().await;
    let concluded = report.conclude();
    done?;
    concluded
}
