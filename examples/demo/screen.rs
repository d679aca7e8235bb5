//! The output of the demo, in columns of at most 80 characters.

use std::io::{IsTerminal, Stdout, Write};
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value;

use super::desk::{Expected, Tally};
use super::ledger::Balance;
use super::stage::{RETRY_DELAYS, Stage};

const GREEN: u8 = 32;
const YELLOW: u8 = 33;
const RED: u8 = 31;
const BOLD: u8 = 1;

pub struct Screen {
    out: Stdout,
    colours: bool,
}

impl Screen {
    pub fn new() -> Self {
        let wanted = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        let out = std::io::stdout();
        Self {
            colours: wanted && out.is_terminal(),
            out,
        }
    }

    pub fn opening(&mut self, stage: &Stage) -> Result<()> {
        let (database, queues) = (&stage.database, stage.name("*"));
        self.line(&format!(
            "A worker takes requests off {queues} and writes to {database}.\n"
        ))?;
        let header = format!(" #  {:<30}  {:<8}  reason or amount", "request", "event");
        let header = self.painted(BOLD, &header);
        self.line(&header)
    }

    pub fn request(
        &mut self,
        number: usize,
        title: &str,
        event: &Value,
        expected: &Expected,
        took: Duration,
    ) -> Result<()> {
        let (verdict, colour) = match event["type"].as_str() {
            Some("usage.reverted") => ("reverted", GREEN),
            Some("usage.revert.rejected") => ("rejected", YELLOW),
            Some("usage.revert.failed") => ("failed", RED),
            _ => ("?", RED),
        };
        let verdict = self.painted(colour, &format!("{verdict:<8}"));
        let detail = detail(event, expected, took);
        self.line(&format!("{number:>2}  {title:<30}  {verdict}  {detail}"))
    }

    pub fn balances(&mut self, changes: &[(Balance, Balance)]) -> Result<()> {
        let header = format!(
            "    {:<30}{:>10}{:>10}{:>10}",
            "balance of", "before", "after", "change"
        );
        let header = self.painted(BOLD, &header);
        self.line(&format!("\n{header}"))?;
        for (before, after) in changes {
            let (name, before, after) = (before.name, before.amount, after.amount);
            let change = match after - before {
                0 => "0".to_owned(),
                change => format!("{change:+}"),
            };
            self.line(&format!(
                "    {name:<30}{before:>10}{after:>10}{change:>10}"
            ))?;
        }
        Ok(())
    }

    pub fn counts(
        &mut self,
        tally: &Tally,
        written: i64,
        letters: usize,
        took: Duration,
    ) -> Result<()> {
        let Tally {
            requests,
            reverted,
            rejected,
            failed,
            given,
        } = tally;
        let reverts = given.len();
        self.line(&format!(
            "\n{reverted} events tell of {reverts} reverts, of 2 entries each. All of it took \
            {:.1} s.",
            took.as_secs_f64()
        ))?;
        let letters = match letters {
            1 => "1 dead letter".to_owned(),
            letters => format!("{letters} dead letters"),
        };
        self.line(&format!(
            "{requests} requests: {reverted} reverted, {rejected} rejected, {failed} failed; \
             {written} entries written, {letters}"
        ))
    }

    /// Returns an error if the reader is gone; `println!` would panic.
    fn line(&mut self, line: &str) -> Result<()> {
        writeln!(self.out, "{line}").context("cannot print")
    }

    fn painted(&self, colour: u8, text: &str) -> String {
        if self.colours {
            format!("\x1b[{colour}m{text}\x1b[0m")
        } else {
            text.to_owned()
        }
    }
}

fn detail(event: &Value, expected: &Expected, took: Duration) -> String {
    let data = &event["data"];
    let text = |value: &Value| value.as_str().unwrap_or("?").to_owned();
    let short_id = || text(&event["id"]).chars().take(8).collect::<String>();
    let info = &data["error"]["details"][0];
    let reason = text(&info["reason"]);
    match expected {
        Expected::Reverted(..) if data["error"].is_null() => {
            let (amount, of) = (text(&data["amount"]), text(&data["usage_amount"]));
            format!("{amount} of {of}, event {}", short_id())
        }
        Expected::Same(earlier) if event == earlier => {
            format!("the same event, {}", short_id())
        }
        Expected::RejectedAfterRetries(_) => {
            let (retries, seconds) = (RETRY_DELAYS.len(), took.as_secs_f64());
            format!("{reason}, {retries} retries, {seconds:.1} s")
        }
        Expected::Failed(_) => format!("{reason}, dead letter"),
        Expected::Reverted(..) | Expected::Same(_) | Expected::Rejected(_) => {
            let violations = data["error"]["details"][1]["fieldViolations"].as_array();
            let fields: Vec<_> = (violations.into_iter().flatten())
                .map(|violation| text(&violation["field"]))
                .collect();
            match info["metadata"]["remaining"].as_str() {
                Some(remaining) => format!("{reason}, {remaining} left"),
                None if fields.is_empty() => reason,
                None => format!("{reason}: {}", fields.join(", ")),
            }
        }
    }
}
