//! `revertd submit --file FILE --dry-run`: the outcome that each request would have, by the
//! database. Nothing is sent.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write;
use std::io;
use std::process::ExitCode;

use serde_json::{Value, json};

use super::groups::{Grouping, Groups};
use super::lines::{RequestLine, RequestLines, RequestSource};
use super::looked::Looked;
use super::report::INVALID;
use super::summary::summary;
use crate::cli::output::{Output, print, print_json};
use crate::config::Settings;
use crate::domain::event::Event;
use crate::domain::outcome::{Decision, Verdict};
use crate::domain::request::{Envelope, Member, RevertRequest};
use crate::ledger::Ledger;

/// Counts a line whose usage an earlier line, decided apart, would revert in part.
const DEPENDS: &str = "DEPENDS_ON_EARLIER_LINE";

/// Requests that are decided at a time, unless they are an atomic group.
const AT_A_TIME: usize = 100;

pub async fn run(
    settings: &Settings,
    source: &RequestSource,
    looked: &Looked,
    grouping: &Grouping,
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
    let mut together = Together::new(source, looked, grouping)?;
    while let Some((lines, repeated)) = together.next()? {
        let request = |(index, line): (usize, &RequestLine)| {
            let envelope = Envelope {
                client: client.clone(),
                message_id: Some(line.message_id.clone()),
                ..Envelope::default()
            };
            let request = RevertRequest::new(&envelope, line.fields.clone(), true);
            RevertRequest {
                // One group is decided at a time.
                member: grouping.is_atomic.then_some(Member {
                    group: uuid::Uuid::nil(),
                    index,
                    refused: None,
                }),
                ..request
            }
        };
        let requests: Vec<_> = lines.iter().enumerate().map(request).collect();
        let trials = ledger.dry_run(&requests).await?;
        for ((line, request), trial) in lines.iter().zip(&requests).zip(&trials) {
            tried.tell(line, request, trial)?;
            for same in repeated
                .iter()
                .filter(|same| same.message_id == line.message_id)
            {
                tried.tell(same, request, trial)?;
            }
        }
        tried.remember(&lines, &trials);
    }
    tried.conclude()
}

/// The lines that are decided together.
enum Together<'a> {
    Lines(&'a Looked, RequestLines),
    Groups(Groups<'a>),
}

impl<'a> Together<'a> {
    fn new(
        source: &RequestSource,
        looked: &'a Looked,
        grouping: &'a Grouping,
    ) -> anyhow::Result<Self> {
        Ok(if grouping.is_atomic {
            Self::Groups(Groups::new(source, looked, grouping)?)
        } else {
            Self::Lines(looked, source.lines()?)
        })
    }

    /// The next lines to decide, and those that are answered as one of them is.
    fn next(&mut self) -> io::Result<Option<(Vec<RequestLine>, Vec<RequestLine>)>> {
        match self {
            Self::Groups(groups) => {
                let group = groups.next()?;
                Ok(group.map(|group| (group.requests, group.repeated)))
            }
            Self::Lines(looked, lines) => {
                let mut some = Vec::with_capacity(AT_A_TIME);
                while some.len() < AT_A_TIME
                    && let Some(line) = looked.next(lines)?
                {
                    some.push(line);
                }
                Ok((!some.is_empty()).then(|| (some, Vec::new())))
            }
        }
    }
}

/// The results so far.
struct DryRunCounts {
    output: Output,
    counts: BTreeMap<String, u64>,
    /// Usages that an earlier line, decided apart, would revert in part, with the line.
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

    /// Remembers the reverts of these lines, which the next lines do not see.
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
