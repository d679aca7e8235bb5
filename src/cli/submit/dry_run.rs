//! `revertd submit --file FILE --dry-run`: the outcome that each request would have, by the
//! database. Nothing is sent.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write;
use std::process::ExitCode;

use serde_json::{Value, json};

use super::lines::{RequestLine, RequestSource};
use super::looked::Looked;
use super::report::INVALID;
use super::summary::summary;
use crate::cli::output::{Output, print, print_json};
use crate::config::Settings;
use crate::domain::event::Event;
use crate::domain::outcome::{Decision, Verdict};
use crate::domain::request::{Envelope, RevertRequest};
use crate::ledger::Ledger;

/// Counts a line whose usage an earlier line, tried in another transaction, would revert in part.
const DEPENDS: &str = "DEPENDS_ON_EARLIER_LINE";

/// Requests of one transaction: few, since a worker on the same usage waits for it.
const AT_A_TIME: usize = 100;

pub async fn run(
    settings: &Settings,
    source: &RequestSource,
    looked: &Looked,
    output: Output,
) -> anyhow::Result<ExitCode> {
    let ledger = Ledger::new(settings)?;
    let urls = settings.amqp.url.iter();
    let client = urls
        .map(crate::config::AmqpUrl::user)
        .next()
        .unwrap_or_default();
    let mut tried = DryRunCounts {
        output,
        counts: BTreeMap::new(),
        taken: HashMap::new(),
        good: looked.error == 0,
    };
    if looked.error > 0 {
        tried.counts.insert(INVALID.into(), looked.error);
    }
    let mut lines = source.lines()?;
    loop {
        let mut some = Vec::with_capacity(AT_A_TIME);
        while some.len() < AT_A_TIME
            && let Some(line) = looked.next(&mut lines)?
        {
            some.push(line);
        }
        if some.is_empty() {
            break;
        }
        let request = |line: &RequestLine| {
            let envelope = Envelope {
                client: client.clone(),
                message_id: Some(line.message_id.clone()),
                ..Envelope::default()
            };
            RevertRequest::new(&envelope, line.fields.clone(), true)
        };
        let requests: Vec<_> = some.iter().map(request).collect();
        let trials = ledger.dry_run(&requests).await?;
        for ((line, request), trial) in some.iter().zip(&requests).zip(&trials) {
            tried.tell(line, request, trial)?;
        }
        tried.remember(&some, &trials);
    }
    tried.conclude()
}

/// The results so far.
struct DryRunCounts {
    output: Output,
    counts: BTreeMap<String, u64>,
    /// Usages that an earlier transaction would have reverted in part, with the line.
    taken: HashMap<uuid::Uuid, u64>,
    /// Whether all requests would be reverted.
    good: bool,
}

impl DryRunCounts {
    fn tell(
        &mut self,
        line: &RequestLine,
        request: &RevertRequest,
        trial: &Decision,
    ) -> anyhow::Result<()> {
        let is_stored = matches!(trial, Decision::Repeated(_));
        let event = match trial {
            Decision::Decided(outcome) | Decision::Repeated(outcome) => {
                let event = Event::of_outcome(request, outcome);
                serde_json::from_slice::<Value>(&event.body)?
            }
            Decision::NotYet => Value::Null,
            Decision::Failed(failure) | Decision::SetAside(failure, _) => {
                json!({"error": failure.message()})
            }
        };
        let reason = &event["data"]["error"]["details"][0]["reason"];
        let verdict = reason.as_str().or(event["type"].as_str());
        let verdict = verdict.unwrap_or("WOULD_FAIL").to_owned();
        let earlier = self.taken.get(&line.fields.usage_id).filter(|_| !is_stored);
        // A success that depends on another line is not certain.
        let is_certain = earlier.is_none() || !is_applied(trial);
        self.good &= is_applied(trial) && is_certain;
        match self.output {
            Output::Json => print_json(
                &json!({"line": line.number, "verdict": verdict, "decided_before": is_stored,
                    "depends_on_line": earlier, "event": event}),
            )?,
            Output::Text => {
                let when = if is_stored {
                    "was answered before"
                } else {
                    "would be answered"
                };
                let answer = match event["error"].as_str() {
                    Some(why) => why.to_owned(),
                    None if event.is_null() => "nothing: other writers keep winning this usage \
                    or message_id"
                        .into(),
                    None => summary(&event),
                };
                let depends =
                    earlier.map(|line| format!(" (if line {line} does not change the usage)"));
                let depends = depends.unwrap_or_default();
                print(&format!("line {}: {when} {answer}{depends}\n", line.number))?;
            }
        }
        let counted = if is_certain { &verdict } else { DEPENDS };
        *self.counts.entry(counted.to_owned()).or_default() += 1;
        Ok(())
    }

    /// Remembers the reverts of this transaction, which the next transaction does not see.
    fn remember(&mut self, lines: &[RequestLine], trials: &[Decision]) {
        for (line, trial) in lines.iter().zip(trials) {
            if is_applied(trial) && matches!(trial, Decision::Decided(_)) {
                self.taken
                    .entry(line.fields.usage_id)
                    .or_insert(line.number);
            }
        }
    }

    fn conclude(&self) -> anyhow::Result<ExitCode> {
        match self.output {
            Output::Json => print_json(&json!({"summary": self.counts, "dry_run": true}))?,
            Output::Text => {
                let all: u64 = self.counts.values().sum();
                let mut text = format!("{all} requests, none sent (--dry-run)\n");
                for (verdict, count) in &self.counts {
                    let _ = writeln!(text, "{count:>9}  {verdict}");
                }
                print(&text)?;
            }
        }
        Ok(if self.good {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        })
    }
}

fn is_applied(trial: &Decision) -> bool {
    match trial {
        Decision::Decided(outcome) | Decision::Repeated(outcome) => {
            matches!(outcome.verdict, Verdict::Applied(_))
        }
        Decision::NotYet | Decision::Failed(_) | Decision::SetAside(..) => false,
    }
}
