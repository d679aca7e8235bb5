//! `revertd verify`

use std::process::ExitCode;

use anyhow::{anyhow, bail};
use clap::Args;
use serde_json::{Value, json};
use tokio::signal::unix::{SignalKind, signal};

use super::output::{Output, print, print_json};
use super::progress::Progress;
use crate::config::Settings;
use crate::ledger::verify::{Finding, Range, Verification, Verified};

#[derive(Debug, Args)]
pub struct VerifyArgs {
    /// First ids to check, by their leading digits, such as those that an interrupted run printed.
    #[arg(long, value_name = "HEX")]
    from: Option<String>,
    /// Last ids to check, by their leading digits.
    #[arg(long, value_name = "HEX")]
    to: Option<String>,
    /// Format of the findings: one line of text or one JSON object each.
    #[arg(long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

/// The counts of findings so far.
#[derive(Default)]
struct VerifyReport {
    violations: u64,
    warnings: u64,
}

impl VerifyReport {
    /// Counts and prints findings.
    fn found(&mut self, findings: &[Finding], output: Output) -> anyhow::Result<()> {
        for finding in findings {
            if finding.kind.is_warning() {
                self.warnings += 1;
            } else {
                self.violations += 1;
            }
            match output {
                Output::Text => print(&format!("{finding}\n"))?,
                Output::Json => print_json(&object(finding))?,
            }
        }
        Ok(())
    }
}

pub async fn run(settings: &Settings, args: VerifyArgs) -> anyhow::Result<ExitCode> {
    let Some(range) = Range::of_prefixes(args.from.as_deref(), args.to.as_deref()) else {
        say!(
            "revertd: --from and --to must be at most 32 hexadecimal digits, and --from not beyond \
             --to; see revertd verify --help"
        );
        return Ok(ExitCode::from(2));
    };
    let verification = Verification::begin(settings).await?;
    let mut report = VerifyReport::default();
    report.found(&verification.schema().await?, args.output)?;
    let parts = verification.parts(range);
    let mut checked = Verified::default();
    let mut progress = Progress::new("verified", parts.len() as u64);
    let mut interrupt = signal(SignalKind::interrupt())?;
    for (done, part) in parts.iter().enumerate() {
        let resume = || format!("continue with: revertd verify --from {part}{}", to(&args));
        let (held, findings) = tokio::select! {
            checked = verification.part(*part) =>
                checked.map_err(|error| anyhow!("{error}; {}", resume()))?,
            _ = interrupt.recv() => bail!("interrupted; {}", resume()),
        };
        checked.add(&held);
        progress.aside(|| report.found(&findings, args.output))?;
        let next = parts.get(done + 1).map(|part| format!("from {part} on"));
        progress.reached(done as u64 + 1, next.as_deref().unwrap_or("the end"));
    }
    progress.done();
    let whole = range == Range::ALL;
    if whole {
        report.found(checked.imbalance().as_slice(), args.output)?;
    }
    conclude(&checked, &report, whole, args.output)?;
    Ok(if report.violations > 0 {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}

fn to(args: &VerifyArgs) -> String {
    let to = args.to.as_ref();
    to.map(|to| format!(" --to {to}")).unwrap_or_default()
}

fn conclude(
    checked: &Verified,
    report: &VerifyReport,
    whole: bool,
    output: Output,
) -> std::io::Result<()> {
    let Verified {
        outcomes,
        of_deleted_accounts: gone,
        legs,
        ..
    } = checked;
    let VerifyReport {
        violations,
        warnings,
    } = report;
    if output == Output::Json {
        let summary = json!({"summary": {
            "outcomes": outcomes, "legs": legs, "of_deleted_accounts": gone,
            "violations": violations, "warnings": warnings, "balance_checked": whole,
        }});
        return print(&format!("{summary}\n"));
    }
    let mut text = format!(
        "{outcomes} outcomes, {legs} legs of reverts: {violations} violations, \
         {warnings} warnings\n"
    );
    if *gone > 0 {
        let gone =
            format!("{gone} outcomes belong to deleted accounts, whose entries may be deleted\n");
        text.push_str(&gone);
    }
    if !whole {
        text.push_str("only part of the ids: whether all legs balance was not checked\n");
    }
    print(&text)
}

fn object(finding: &Finding) -> Value {
    json!({
        "code": finding.kind.code(),
        "severity": if finding.kind.is_warning() { "warning" } else { "violation" },
        "message": finding.kind.sentence(),
        "outcome": finding.outcome,
        "usage": finding.usage,
        "account": finding.account,
        "entries": finding.entries,
        "about": finding.about,
    })
}
