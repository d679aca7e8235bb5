//! `revertd submit`

use std::io::Read;
use std::process::ExitCode;

use anyhow::{Context, anyhow, bail};
use serde_json::{Map, Value};

use super::output::{Output, print, print_json};
use crate::broker::{RequestClient, Submission};
use crate::config::Settings;
use crate::domain::event::EventType;
use crate::domain::request::{self, Body};

mod args;
mod dry_run;
mod file;
mod groups;
mod lines;
mod looked;
mod report;
mod sending;
mod summary;

pub use args::SubmitArgs;
use args::WRONG_USAGE;
use report::NO_ANSWER;
use summary::summary;

pub async fn run(settings: &Settings, args: SubmitArgs) -> anyhow::Result<ExitCode> {
    // clap ignores `requires` of an argument whose required argument conflicts with a present one.
    if args.of_file.lacks_its_file() {
        say!(
            "revertd: --format, --batch, --skip-invalid, --dry-run, --group-size, --atomic, \
             --rate, --window and --failed need --file; nothing was sent; see revertd submit --help"
        );
        return Ok(ExitCode::from(WRONG_USAGE));
    }
    if let Some(path) = args.of_file.file.clone() {
        return file::run(settings, path, &args).await;
    }
    let (timeout, output) = (args.timeout, args.output);
    let submission = submission(args)?;
    let (id, limits) = (&submission.message_id, settings.amqp.request_limits());
    if let Ok(Body::Group(_)) = request::parse(&submission.body, Some(id), &limits) {
        bail!(
            "the body has a member requests, so it is a group; write its requests to a file, one \
             on each line, and send that with --file"
        );
    }
    let mut client = RequestClient::connect(settings).await?;
    let (sender, answers) = client.split();
    sender.publish(&submission).await?;
    let event = answers.event(id, timeout).await;
    client.close().await;
    let Some(event) = event.map_err(|error| {
        anyhow!(
            "{error}; request {id} was published and is still \
        processed"
        )
    })?
    else {
        let waited = humantime::format_duration(timeout);
        say!(
            "revertd: no event for request {id} within {waited}; the request is still processed; \
             send it again with --message-id {id} to get its event"
        );
        return Ok(ExitCode::from(NO_ANSWER));
    };
    let event: Value = serde_json::from_slice(&event).context("the event is not JSON")?;
    match output {
        Output::Json => print_json(&event)?,
        Output::Text => print(&format!("{}\n", summary(&event)))?,
    }
    let reverted = event["type"] == EventType::Reverted.name();
    Ok(if reverted {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn submission(args: SubmitArgs) -> anyhow::Result<Submission> {
    let body = match args.body.as_deref() {
        Some("-") => {
            let mut body = Vec::new();
            std::io::stdin()
                .read_to_end(&mut body)
                .context("cannot read the body from standard input")?;
            body
        }
        Some(body) => body.as_bytes().to_vec(),
        None => {
            let fields = [
                ("usage_id", args.usage_id),
                ("amount", args.amount),
                ("billing_id", args.billing_id),
                ("org_id", args.org_id),
                ("project_id", args.project_id),
                ("reason", args.reason),
            ];
            let given = |(name, value): (&str, Option<String>)| {
                Some((name.to_owned(), Value::from(value?)))
            };
            Value::from(fields.into_iter().filter_map(given).collect::<Map<_, _>>())
                .to_string()
                .into_bytes()
        }
    };
    let fresh = || uuid::Uuid::new_v4().to_string();
    let message_id = args.message_id.unwrap_or_else(fresh);
    Ok(Submission {
        correlation_id: message_id.clone(),
        message_id,
        body,
        max_attempts: args.max_attempts,
    })
}
