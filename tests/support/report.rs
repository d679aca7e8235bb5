//! The result of a run under faults: counted, printed, and kept for the table of `make faults`.

use std::fmt::{self, Write as _};
use std::fs::OpenOptions;
use std::io::Write as _;
use std::ops::AddAssign;
use std::time::Duration;

use rand::random;

/// Findings that a failing test prints; the rest only counts.
const SHOWN: usize = 40;

/// The results of the requests of one or several runs.
#[derive(Clone, Debug, Default)]
pub struct AuditResult {
    /// Requests whose publishing was confirmed.
    pub requests: usize,
    /// Requests with neither an outcome nor an event nor a dead letter.
    pub lost: usize,
    /// Wrong reverts: more than allowed, without an outcome, or with unequal legs.
    pub twice: usize,
    /// Requests without any event, and messages left behind.
    pub unanswered: usize,
    /// Outcomes with two different events, or with an event that differs from the stored outcome or
    /// from the contract.
    pub differing: usize,
    /// The findings with their ids, also those that no column counts.
    pub findings: Vec<String>,
}

/// The column in which a finding counts.
#[derive(Clone, Copy, Debug)]
pub enum Finding {
    Lost,
    Twice,
    Unanswered,
    Differing,
    /// An error of another kind.
    Other,
}

impl AuditResult {
    pub fn found(&mut self, wrong: Finding, text: impl Into<String>) {
        match wrong {
            Finding::Lost => self.lost += 1,
            Finding::Twice => self.twice += 1,
            Finding::Unanswered => self.unanswered += 1,
            Finding::Differing => self.differing += 1,
            Finding::Other => {}
        }
        self.findings.push(format!("{wrong:?}: {}", text.into()));
    }

    pub fn is_clean(&self) -> bool {
        self.lost + self.twice + self.unanswered + self.differing == 0 && self.findings.is_empty()
    }

    /// The findings as a failing test shows them.
    pub fn describe(&self) -> String {
        let mut text = String::new();
        for finding in self.findings.iter().take(SHOWN) {
            let _ = writeln!(text, "  {finding}");
        }
        if let Some(more @ 1..) = self.findings.len().checked_sub(SHOWN) {
            let _ = writeln!(text, "  and {more} more");
        }
        text
    }
}

impl AddAssign for AuditResult {
    fn add_assign(&mut self, other: Self) {
        self.requests += other.requests;
        self.lost += other.lost;
        self.twice += other.twice;
        self.unanswered += other.unanswered;
        self.differing += other.differing;
        self.findings.extend(other.findings);
    }
}

/// Whether the faults run in full (`make faults`) rather than in their quick form (`make test`).
pub fn full() -> bool {
    std::env::var("REVERTD_FAULTS").is_ok_and(|form| form == "full")
}

/// One size for the quick form, another for the full one.
pub fn sized(quick: usize, in_full: usize) -> usize {
    if full() { in_full } else { quick }
}

/// The seed of this run's random numbers: `REVERTD_FAULTS_SEED`, or a new one; printed, so that it
/// can be run again.
pub fn seed() -> u64 {
    let given = std::env::var("REVERTD_FAULTS_SEED").ok();
    let seed = given.map_or_else(random, |text| {
        text.parse().expect("REVERTD_FAULTS_SEED is a whole number")
    });
    println!("seed: {seed} (replay with REVERTD_FAULTS_SEED={seed})");
    seed
}

/// How long requests waited for their events.
#[derive(Clone, Debug, Default)]
pub struct Latencies(Vec<Duration>);

impl Latencies {
    pub fn new(mut waits: Vec<Duration>) -> Self {
        waits.sort_unstable();
        Self(waits)
    }

    /// The longest wait of the fastest 99 of 100.
    pub fn p99(&self) -> Duration {
        let rank = (self.0.len() * 99).div_ceil(100).max(1) - 1;
        self.0.get(rank).copied().unwrap_or_default()
    }

    pub fn longest(&self) -> Duration {
        self.0.last().copied().unwrap_or_default()
    }
}

impl fmt::Display for Latencies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (p99, longest) = (self.p99().as_millis(), self.longest().as_millis());
        write!(
            f,
            "{} answered, p99 {p99} ms, longest {longest} ms",
            self.0.len()
        )
    }
}

/// Adds a line to the file that `REVERTD_FAULTS_REPORT` names, and prints it; fails with every
/// finding unless the count is clean.
pub fn report(fault: &str, runs: usize, count: AuditResult) {
    report_measured(fault, runs, count, "");
}

/// The same with how long requests waited that had nothing to do with the fault.
pub fn report_beside(fault: &str, runs: usize, count: AuditResult, waits: &Latencies) {
    let (p99, longest) = (waits.p99().as_millis(), waits.longest().as_millis());
    let measured = format!("p99 {p99} ms, longest {longest} ms");
    report_measured(fault, runs, count, &measured);
}

/// The same with a measurement in words.
#[expect(
    clippy::needless_pass_by_value,
    reason = "a count that was reported is done with"
)]
pub fn report_measured(fault: &str, runs: usize, count: AuditResult, measured: &str) {
    let line = format!(
        "{fault}\t{runs}\t{}\t{}\t{}\t{}\t{}\t{measured}\n",
        count.requests, count.lost, count.twice, count.unanswered, count.differing
    );
    print!("{line}");
    if let Ok(path) = std::env::var("REVERTD_FAULTS_REPORT") {
        let mut file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(path)
            .expect("the file of REVERTD_FAULTS_REPORT can be written");
        // One write, so that lines of several processes do not mix.
        file.write_all(line.as_bytes()).expect("written");
    }
    assert!(count.is_clean(), "{fault}:\n{}", count.describe());
}
