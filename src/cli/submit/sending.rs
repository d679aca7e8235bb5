//! Sends the requests of a file, a window at a time, waits for each answer, and reports every
//! request at the end.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use anyhow::anyhow;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Instant, sleep, sleep_until};

use super::args::SubmitArgs;
use super::lines::{RequestLine, RequestLines, RequestSource};
use super::looked::Looked;
use super::report::{SubmitReport, UNANSWERED, UNSENT};
use crate::broker::{PublishResult, Reply, RequestClient, RequestPublisher, Submission};
use crate::cli::progress::Progress;
use crate::common::backoff::Backoff;

/// Default of --window.
const WINDOW: u32 = 500;

/// Exit status of a process that an interrupt ended.
const INTERRUPTED: i32 = 130;

/// Sends the lines, a window at a time, until each is answered or answers stop.
pub async fn send(
    client: &mut RequestClient,
    source: &RequestSource,
    args: &SubmitArgs,
    looked: &Looked,
    report: &mut SubmitReport,
) -> anyhow::Result<()> {
    let (sender, answers) = client.split();
    let mut sending = Sending::new(source, args, looked, report)?;
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

/// A request in flight.
struct Waiting {
    line: RequestLine,
    sent: Instant,
    until: Instant,
}

struct Sending<'a> {
    args: &'a SubmitArgs,
    looked: &'a Looked,
    report: &'a mut SubmitReport,
    lines: RequestLines,
    /// The line to send next.
    next: Option<RequestLine>,
    /// Requests in flight by their correlation id.
    waiting: HashMap<String, Waiting>,
    /// Their correlation ids in the order of their deadlines.
    order: VecDeque<String>,
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
        source: &RequestSource,
        args: &'a SubmitArgs,
        looked: &'a Looked,
        report: &'a mut SubmitReport,
    ) -> anyhow::Result<Self> {
        let mut lines = source.lines()?;
        let began = Instant::now();
        Ok(Self {
            args,
            looked,
            report,
            next: looked.next(&mut lines)?,
            lines,
            waiting: HashMap::new(),
            order: VecDeque::new(),
            progress: Progress::new("answered", looked.good),
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
        let window = self.args.of_file.window.unwrap_or(WINDOW) as usize;
        self.sends_more() && self.waiting.len() < window
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
        let Some(done) = self.waiting.remove(&answer.correlation_id) else {
            return Ok(());
        };
        self.answered += 1;
        self.last_answer = Instant::now();
        let (report, line) = (&mut *self.report, &done.line);
        let told = self.progress.aside(|| report.answered(line, &answer.event));
        self.progress
            .reached(self.answered, &format!("line {}", line.number));
        told
    }

    /// Gives up the request with the earliest deadline.
    fn late(&mut self) -> anyhow::Result<()> {
        let oldest = self.order.pop_front();
        let Some(late) = oldest.and_then(|id| self.waiting.remove(&id)) else {
            return Ok(());
        };
        // No answer came for a whole timeout, so none is expected any more.
        self.is_silent = self.last_answer <= late.sent;
        let report = &mut *self.report;
        self.progress.aside(|| report.left(&late.line, UNANSWERED))
    }

    /// Takes the next line, which is in flight from now on.
    fn next(&mut self) -> anyhow::Result<Option<Submission>> {
        let Some(line) = self.next.take() else {
            return Ok(None);
        };
        let id = line.number.to_string();
        let submission = Submission {
            message_id: line.message_id.clone(),
            correlation_id: id.clone(),
            body: line.body().to_string().into_bytes(),
            max_attempts: self.args.max_attempts,
        };
        let sent = Instant::now();
        let until = sent + self.args.timeout;
        self.order.push_back(id.clone());
        self.waiting.insert(id, Waiting { line, sent, until });
        self.sent += 1;
        let next = self.looked.next(&mut self.lines);
        self.next = next.map_err(|error| anyhow!("{error}; the lines after it were not sent"))?;
        Ok(Some(submission))
    }

    /// Reports the remaining lines, even if a line can't be written. Returns the first error.
    fn account_for(mut self, done: anyhow::Result<()>) -> anyhow::Result<()> {
        self.progress.done();
        let mut failed = done.err();
        let waiting = self.waiting.into_values();
        let mut left: Vec<_> = waiting.map(|waiting| waiting.line).collect();
        left.sort_by_key(|line| line.number);
        for line in left {
            if let Err(error) = self.report.left(&line, UNANSWERED) {
                failed.get_or_insert(error);
            }
        }
        while let Some(line) = self.next {
            if let Err(error) = self.report.left(&line, UNSENT) {
                failed.get_or_insert(error);
            }
            self.next = self.looked.next(&mut self.lines).unwrap_or_default();
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

/// Publishes a request, and repeats it with backoff while the queue is full.
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
