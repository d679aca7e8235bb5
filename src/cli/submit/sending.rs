//! The requests of a file on their way: a window at a time, each waited for, and all accounted for
//! at the end.

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

/// Requests that wait for their answers at a time, where nothing else is given.
const WINDOW: u32 = 500;

/// What the shell reports of a process that an interrupt ended.
const INTERRUPTED: i32 = 130;

/// Sends the lines, a window at a time, until each is answered, or no answer comes any more.
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
                Err(error) => Err(anyhow!("{error}; run it again for the rest")),
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

/// A request on its way.
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
    /// The line that is to be sent next.
    next: Option<RequestLine>,
    /// By what their answers are known by.
    waiting: HashMap<String, Waiting>,
    /// In the order in which they give up.
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

    /// When the one that waits longest gives up.
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
        say!("revertd: finishing what is on its way; a second interrupt ends it at once");
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

    /// The one that waits longest gives up.
    fn late(&mut self) -> anyhow::Result<()> {
        let oldest = self.order.pop_front();
        let Some(late) = oldest.and_then(|id| self.waiting.remove(&id)) else {
            return Ok(());
        };
        // After such a time without any answer, none will come.
        self.is_silent = self.last_answer <= late.sent;
        let report = &mut *self.report;
        self.progress.aside(|| report.left(&late.line, UNANSWERED))
    }

    /// The next line, which waits from now on.
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

    /// Tells what became of the rest, as far as it can be written; the first error counts.
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
                _ => "no answer any more",
            };
            let waited = humantime::format_duration(self.args.timeout);
            say!(
                "revertd: {answer} within {waited}; is a worker running, is the fleet paused? \
                What was sent waits in the queue; run it again later"
            );
        }
        if self.is_interrupted {
            say!("revertd: interrupted; run it again for the rest: what is done is not done twice");
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

/// Publishes a request, again and again where the queue is full.
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
