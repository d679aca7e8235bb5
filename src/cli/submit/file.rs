//! `revertd submit --file`: the requests of a file, many at a time, each with its answer.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::bail;

use super::lines::{Format, LineError, RequestLine, RequestSource};
use super::report::SubmitReport;
use super::{SubmitArgs, dry_run, sending};
use crate::broker::RequestClient;
use crate::config::Settings;

/// The number of invalid lines that are reported one by one.
const WRONG_TOLD: u64 = 50;

/// Where nothing else is given.
const BATCH: &str = "file";

#[derive(Debug, clap::Args)]
pub struct FileArgs {
    /// Requests from a file instead: a JSON object a line, or CSV with a header; the six fields, and `message_id`, optional.
    #[arg(long, value_name = "FILE", conflicts_with_all =
        ["usage_id", "amount", "billing_id", "org_id", "project_id", "reason", "body", "message_id"])]
    pub file: Option<PathBuf>,
    /// How the file is written. Without: by its ending, .csv or any other.
    #[arg(long, value_enum)]
    format: Option<Format>,
    /// What the ids of lines without a `message_id` begin with. The same file and batch again ask the same requests
    /// again, which changes nothing; another batch asks new ones.
    #[arg(long, value_name = "NAME", value_parser = batch)]
    batch: Option<String>,
    /// Go on without the lines that are no requests, instead of sending nothing.
    #[arg(long)]
    skip_invalid: bool,
    /// Say what each request would come to at this moment, by the database, and send nothing.
    #[arg(long)]
    dry_run: bool,
    /// Requests a second, at most.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub rate: Option<u32>,
    /// Requests that wait for their answers at a time. Without: 500.
    #[arg(long, value_name = "N", value_parser =
        clap::value_parser!(u32).range(1..=10_000))]
    pub window: Option<u32>,
    /// Write what was not reverted into this file, with its reason, as requests that can be sent again. It takes
    /// that place at the end.
    #[arg(long, value_name = "FILE", conflicts_with = "dry_run")]
    failed: Option<PathBuf>,
}

impl FileArgs {
    /// Whether something is given that means nothing without a file.
    pub fn lacks_its_file(&self) -> bool {
        let given = self.format.is_some()
            || self.batch.is_some()
            || self.skip_invalid
            || self.dry_run
            || self.rate.is_some()
            || self.window.is_some()
            || self.failed.is_some();
        given && self.file.is_none()
    }
}

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
        bail!("--failed names the file of the requests itself; name another");
    }
    // It is read twice: before anything is sent, and then for sending.
    if !std::fs::metadata(&path).is_ok_and(|found| found.is_file()) && path.exists() {
        bail!(
            "{} is no regular file, and can't be read twice; save it as one first",
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
    let looked = look_through(&source)?;
    if looked.error > 0 && !of_file.skip_invalid {
        bail!(
            "{} lines are no requests, and nothing was sent; correct them, or leave them out with --skip-invalid",
            looked.error
        );
    }
    if looked.good == 0 {
        say!("revertd: {} has no requests", source.path.display());
    }
    if of_file.dry_run {
        return dry_run::run(settings, &source, &looked, args.output).await;
    }
    let mut client = RequestClient::connect(settings).await?;
    let mut report = SubmitReport::new(args.output, of_file.failed.as_deref())?;
    report.skipped(looked.error);
    let done = sending::send(&mut client, &source, args, &looked, &mut report).await;
    client.close().await;
    let concluded = report.conclude();
    done?;
    concluded
}

/// What was found before anything is sent.
pub struct Looked {
    pub good: u64,
    /// Lines that are no requests.
    pub error: u64,
    /// Of them, those that only others show to be none: they have an id that another line has for something else.
    clashing: HashSet<u64>,
    /// The last line; what was added to the file since was not looked at.
    last: u64,
}

impl Looked {
    /// The next line that is a request.
    pub fn next(
        &self,
        lines: &mut impl Iterator<Item = std::io::Result<Result<RequestLine, LineError>>>,
    ) -> std::io::Result<Option<RequestLine>> {
        for line in lines {
            // The wrong ones were told before.
            if let Ok(line) = line?
                && line.number <= self.last
                && !self.clashing.contains(&line.number)
            {
                return Ok(Some(line));
            }
        }
        Ok(None)
    }
}

/// Looks at every line before anything is sent: how many are requests, and how many are not.
fn look_through(source: &RequestSource) -> anyhow::Result<Looked> {
    let mut looked = Looked {
        good: 0,
        error: 0,
        clashing: HashSet::new(),
        last: 0,
    };
    let mut repeated = 0u64;
    // What each id asks, and the line that has it first.
    let mut asked: HashMap<String, (uuid::Uuid, u64)> = HashMap::new();
    let tell = |number: u64, why: &str, looked: &mut Looked| {
        looked.error += 1;
        if looked.error <= WRONG_TOLD {
            say!("revertd: line {number}: {why}");
        } else if looked.error == WRONG_TOLD + 1 {
            say!("revertd: further lines are not shown");
        }
    };
    for line in source.lines()? {
        match line? {
            Ok(line) => {
                looked.last = looked.last.max(line.number);
                let content = line.content();
                let first = asked.entry(line.message_id);
                let (first, at) = *first.or_insert((content, line.number));
                if first != content {
                    let why = format!("has the id of line {at}, and asks for something else");
                    tell(line.number, &why, &mut looked);
                    looked.clashing.insert(line.number);
                    continue;
                }
                looked.good += 1;
                repeated += u64::from(at != line.number);
            }
            Err(line) => {
                looked.last = looked.last.max(line.number);
                tell(line.number, &line.why, &mut looked);
            }
        }
    }
    if repeated > 0 {
        say!(
            "revertd: {repeated} lines ask the same as an earlier one under its id, and are answered as that is; give them a \
             message_id of their own if they are to be requests of their own"
        );
    }
    Ok(looked)
}

fn batch(text: &str) -> Result<String, String> {
    if text.is_empty() || text.len() > 200 || text.chars().any(char::is_control) {
        return Err("must be a name of 1 to 200 bytes without control characters".into());
    }
    Ok(text.to_owned())
}
