//! Sends the groups of a file, a window at a time, waits for each answer, and reports every request
//! at the end.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use anyhow::{Context, anyhow};
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use serde_json::Value;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Instant, sleep, sleep_until};

use super::args::SubmitArgs;
use super::groups::{Grouping, Groups, LineGroup};
use super::lines::RequestLine;
use super::report::{SubmitReport, UNANSWERED, UNSENT};
use crate::broker::{PublishResult, Reply, RequestClient, RequestPublisher, Submission};
use crate::cli::progress::Progress;
use crate::common::backoff::Backoff;
use crate::domain::event_batch;

/// Context of an event that can't be read.
const NO_JSON: &str = "the event is not JSON";

/// Exit status of a process that an interrupt ended.
const INTERRUPTED: i32 = 130;

/// Sends the groups, a window of requests at a time, until each of the `requests` is answered or
/// answers stop.
pub async fn send(
    client: &mut RequestClient,
    groups: Groups<'_>,
    args: &SubmitArgs,
    grouping: &Grouping,
    requests: u64,
    report: &mut SubmitReport,
) -> anyhow::Result<()> {
    let (sender, answers) = client.split();
    let mut sending = Sending::new(groups, args, grouping.window, requests, report)?;
    let mut offers = FuturesUnordered::new();
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut done = Ok(());
    while done.is_ok() && !sending.is_over() {
        let (goes_on, waits, until) = (sending.goes_on(), sending.waits(), sending.until());
        done = tokio::select! {
            biased;
            _ = interrupt.recv() => {
                sending.interrupt();
                Ok(())
            }
            answer = answers.next() => match answer {
                Ok(answer) => sending.answered(&answer),
                Err(error) => Err(anyhow!("{error}; run the command again to send the rest")),
            },
            Some(offered) = offers.next(), if !offers.is_empty() => offered,
            () = sleep_until(until), if waits => sending.late(),
            () = due(args.of_file.rate, sending.began, sending.sent), if goes_on => {
                sending.next().map(|submission| {
                    offers.extend(submission.map(|submission| try_publish(sender, submission)));
                })
            }
        };
    }
    sending.account_for(done)
}

/// A group in flight, with its lines without an answer.
struct Waiting {
    message_id: String,
    /// By request id.
    lines: HashMap<String, RequestLine>,
    /// Lines with the id of one of `lines`.
    repeated: Vec<RequestLine>,
    sent: Instant,
    until: Instant,
}

impl Waiting {
    /// The lines that an event answers. They wait no longer.
    fn answered(&mut self, event: &Value) -> Vec<RequestLine> {
        let id = event["data"]["request_id"].as_str().unwrap_or_default();
        match self.lines.remove(id) {
            Some(line) => {
                let repeated = self.repeated.extract_if(.., |line| line.message_id == id);
                let mut lines: Vec<_> = repeated.collect();
                lines.insert(0, line);
                lines
            }
            // A dead letter of the group as a whole.
            None if id == self.message_id => self.left(),
            None => Vec::new(),
        }
    }

    /// The lines without an answer, in the order of the file. They wait no longer.
    fn left(&mut self) -> Vec<RequestLine> {
        let mut lines: Vec<_> = self.lines.drain().map(|(_, line)| line).collect();
        lines.append(&mut self.repeated);
        lines.sort_by_key(|line| line.number);
        lines
    }
}

struct Sending<'a> {
    args: &'a SubmitArgs,
    report: &'a mut SubmitReport,
    groups: Groups<'a>,
    /// The group to send next.
    next: Option<LineGroup>,
    /// Groups in flight by their correlation id.
    waiting: HashMap<String, Waiting>,
    /// Their correlation ids in the order of their deadlines.
    order: VecDeque<String>,
    /// Lines that wait, and how many may.
    in_flight: usize,
    window: usize,
    progress: Progress,
    began: Instant,
    sent: u64,
    answered: u64,
    last_answer: Instant,
    is_silent: bool,
    is_interrupted: bool,
}

impl<'a> Sending<'a> {
    fn new(
        mut groups: Groups<'a>,
        args: &'a SubmitArgs,
        window: usize,
        requests: u64,
        report: &'a mut SubmitReport,
    ) -> anyhow::Result<Self> {
        let began = Instant::now();
        Ok(Self {
            args,
            report,
            next: groups.next()?,
            groups,
            waiting: HashMap::new(),
            order: VecDeque::new(),
            in_flight: 0,
            window,
            progress: Progress::new("answered", requests),
            began,
            sent: 0,
            answered: 0,
            last_answer: began,
            is_silent: false,
            is_interrupted: false,
        })
    }

    fn sends_more(&self) -> bool {
        self.next.is_some() && !self.is_interrupted && !self.is_silent
    }

    fn is_over(&self) -> bool {
        self.waiting.is_empty() && !self.sends_more()
    }

    fn goes_on(&self) -> bool {
        let next = self.next.as_ref().map_or(0, LineGroup::lines);
        let has_room = self.in_flight == 0 || self.in_flight + next <= self.window;
        self.sends_more() && has_room
    }

    fn waits(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// The earliest deadline.
    fn until(&mut self) -> Instant {
        while let Some(id) = self.order.front() {
            match self.waiting.get(id) {
                Some(oldest) => return oldest.until,
                None => self.order.pop_front(),
            };
        }
        Instant::now() + self.args.timeout
    }

    fn interrupt(&mut self) {
        if self.is_interrupted {
            std::process::exit(INTERRUPTED);
        }
        self.is_interrupted = true;
        say!(
            "revertd: waiting for the requests in flight; a second interrupt ends the command \
        at once"
        );
    }

    fn answered(&mut self, answer: &Reply) -> anyhow::Result<()> {
        let id = &answer.correlation_id;
        let Some(waiting) = self.waiting.get_mut(id) else {
            return Ok(());
        };
        self.last_answer = Instant::now();
        let mut told = Ok(());
        for event in event_batch::events(&answer.body).context(NO_JSON)? {
            let event = serde_json::from_str(event.get()).context(NO_JSON)?;
            for line in waiting.answered(&event) {
                self.answered += 1;
                self.in_flight -= 1;
                let report = &mut *self.report;
                told = told.and(self.progress.aside(|| report.answered(&line, &event)));
                let number = line.number;
                self.progress
                    .reached(self.answered, &format!("line {number}"));
            }
        }
        if waiting.lines.is_empty() {
            self.waiting.remove(id);
        }
        told
    }

    /// Gives up the group with the earliest deadline.
    fn late(&mut self) -> anyhow::Result<()> {
        let oldest = self.order.pop_front();
        let Some(mut late) = oldest.and_then(|id| self.waiting.remove(&id)) else {
            return Ok(());
        };
        // No answer came for a whole timeout, so none is expected any more.
        self.is_silent = self.last_answer <= late.sent;
        let (report, lines) = (&mut *self.report, late.left());
        self.in_flight -= lines.len();
        self.progress.aside(|| {
            let left = lines.iter().map(|line| report.left(line, UNANSWERED));
            left.fold(Ok(()), Result::and)
        })
    }

    /// Takes the next group, which is in flight from now on.
    fn next(&mut self) -> anyhow::Result<Option<Submission>> {
        let Some(group) = self.next.take() else {
            return Ok(None);
        };
        let submission = group.submission(self.args.max_attempts);
        self.in_flight += group.lines();
        self.sent += group.requests.len() as u64;
        let sent = Instant::now();
        let requests = group.requests.into_iter();
        let waiting = Waiting {
            message_id: submission.message_id.clone(),
            lines: requests
                .map(|line| (line.message_id.clone(), line))
                .collect(),
            repeated: group.repeated,
            sent,
            until: sent + self.args.timeout,
        };
        let id = &submission.correlation_id;
        self.order.push_back(id.clone());
        self.waiting.insert(id.clone(), waiting);
        let next = self.groups.next();
        self.next = next.map_err(|error| anyhow!("{error}; the lines after it were not sent"))?;
        Ok(Some(submission))
    }

    /// Reports the remaining lines, even if a line can't be written. Returns the first error.
    fn account_for(mut self, done: anyhow::Result<()>) -> anyhow::Result<()> {
        self.progress.done();
        let mut failed = done.err();
        let waiting = self.waiting.values_mut();
        let mut left: Vec<_> = waiting.flat_map(Waiting::left).collect();
        left.sort_by_key(|line| line.number);
        for line in left {
            if let Err(error) = self.report.left(&line, UNANSWERED) {
                failed.get_or_insert(error);
            }
        }
        while let Some(group) = self.next {
            for line in group.requests.iter().chain(&group.repeated) {
                if let Err(error) = self.report.left(line, UNSENT) {
                    failed.get_or_insert(error);
                }
            }
            self.next = self.groups.next().unwrap_or_default();
        }
        if self.is_silent {
            let answer = match self.answered {
                0 => "no answer",
                _ => "no further answer",
            };
            let waited = humantime::format_duration(self.args.timeout);
            say!(
                "revertd: {answer} within {waited}; check that a worker runs and the fleet is \
                not paused. Requests that were sent wait in the queue; run the command again \
                later"
            );
        }
        if self.is_interrupted {
            say!(
                "revertd: interrupted; run the command again to send the rest; nothing is \
            reverted twice"
            );
        }
        failed.map_or(Ok(()), Err)
    }
}

/// Returns when the next request may be sent.
async fn due(rate: Option<u32>, began: Instant, sent: u64) {
    if let Some(rate) = rate {
        let nanos = sent.saturating_mul(1_000_000_000) / u64::from(rate);
        sleep_until(began + Duration::from_nanos(nanos)).await;
    }
}

/// Publishes a message, and repeats it with backoff while the queue is full.
async fn try_publish(sender: &RequestPublisher, submission: Submission) -> anyhow::Result<()> {
    let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(5));
    loop {
        match sender.try_publish(&submission).await? {
            PublishResult::Confirmed => return Ok(()),
            PublishResult::Unroutable => return Err(sender.unroutable().into()),
            PublishResult::Refused => sleep(backoff.next_wait()).await,
        }
    }
}
