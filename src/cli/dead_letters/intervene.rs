//! `revertd dead-letters replay` and `discard`: the selection, the operator's confirmation and the
//! result.

use std::collections::BTreeSet;
use std::process::ExitCode;

use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

use super::action::LetterAction;
use super::args::{Chosen, Discard, Replay, WRONG_USAGE};
use super::counts::{LetterCounts, letters};
use super::reading::{all_read, exit_code, open};
use super::save::Save;
use super::selection::{Candidates, Judged, Selection};
use super::summary::RunSummary;
use crate::cli::operator;
use crate::cli::output::{Output, print};
use crate::cli::prompt;
use crate::cli::terminal::{folded, width};
use crate::config::Settings;
use crate::ledger::admin::interventions::{Intervention, InterventionKind};

mod run;
mod windows;

use run::Run;

/// What a shell reports of a process that SIGINT ended.
const INTERRUPTED: u8 = 130;

pub async fn replay(settings: &Settings, args: Replay) -> anyhow::Result<ExitCode> {
    let choice = choice(
        settings,
        InterventionKind::Replay,
        &args.chosen,
        args.include_malformed,
    );
    let run = Run {
        settings,
        choice,
        why: args.why,
        saved_to: None,
        rate: args.rate,
        body_bytes: settings.amqp.request_limits().largest().0,
        sum: RunSummary::default(),
        passed: 0,
        progress: None,
        intervention: None,
    };
    run.intervene(args.chosen, async || LetterAction::replay(settings).await)
        .await
}

pub async fn discard(settings: &Settings, args: Discard) -> anyhow::Result<ExitCode> {
    let save = args.save.as_deref();
    let run = Run {
        settings,
        choice: choice(settings, InterventionKind::Discard, &args.chosen, false),
        why: args.why,
        saved_to: save.map(|path| path.display().to_string()),
        rate: None,
        body_bytes: if save.is_some() { u64::MAX } else { 0 },
        sum: RunSummary::default(),
        passed: 0,
        progress: None,
        intervention: None,
    };
    run.intervene(args.chosen, async || {
        Ok(LetterAction::Discard(save.map(Save::new).transpose()?))
    })
    .await
}

fn choice(
    settings: &Settings,
    action: InterventionKind,
    chosen: &Chosen,
    include_malformed: bool,
) -> Selection {
    Selection {
        action,
        filter: chosen.filter.clone(),
        ids: chosen.ids.clone(),
        resolved: None,
        include_malformed,
        max_body_bytes: settings.amqp.request_limits().largest().0,
        now: Timestamp::now(),
    }
}

impl Run<'_> {
    async fn intervene(
        mut self,
        chosen: Chosen,
        act: impl AsyncFnOnce() -> anyhow::Result<LetterAction>,
    ) -> anyhow::Result<ExitCode> {
        let (action, output) = (self.choice.action, chosen.output);
        let verb = action.name();
        if !chosen.all && chosen.ids.is_empty() && chosen.filter.is_empty() {
            say!("revertd: say which letters to {verb}: by ID, by a filter, or --all; see --help");
            return Ok(ExitCode::from(WRONG_USAGE));
        }
        let mut waiting = None;
        if chosen.dry_run || !chosen.yes || !chosen.ids.is_empty() {
            let (counts, there) = self.look().await?;
            self.sum.done = counts.total();
            if chosen.dry_run || counts.total() == 0 {
                self.sum.is_dry = chosen.dry_run;
                if output == Output::Text {
                    print(&folded(&counts.text(), width()))?;
                }
                self.sum.print(action, output)?;
                return Ok(exit_code(self.sum.unread == 0));
            }
            if !chosen.yes {
                say!("{}", folded(&counts.text(), width()).trim_end());
                match prompt::sure(&format!("{verb} {}?", letters(counts.total())))? {
                    Some(true) => {}
                    Some(false) => anyhow::bail!("nothing was done"),
                    None => {
                        say!(
                            "revertd: there is no terminal to ask on; add --yes to {verb} {}, or \
                             --dry-run to only count them",
                            letters(counts.total())
                        );
                        return Ok(ExitCode::from(WRONG_USAGE));
                    }
                }
            }
            waiting = Some(there);
            self.sum = RunSummary::default();
        }
        let stop = stop_on_interrupt()?;
        let mut act = act().await?;
        let by = operator::by(chosen.by);
        let done = self
            .go_through(&mut act, waiting, by.as_deref(), &stop)
            .await;
        if let Some(progress) = &self.progress {
            progress.done();
        }
        self.sum.intervention = self.intervention.as_ref().map(Intervention::id);
        self.sum.is_interrupted = stop.is_cancelled();
        self.sum.print(action, output)?;
        done?;
        Ok(if stop.is_cancelled() {
            ExitCode::from(INTERRUPTED)
        } else {
            exit_code(self.sum.unread == 0)
        })
    }

    /// Counts the selected dead letters, resolves the ids, and returns the number of dead letters.
    async fn look(&mut self) -> anyhow::Result<(LetterCounts, u32)> {
        let mut browse = open(self.settings, 0).await?;
        let waiting = browse.waiting();
        let mut counts = LetterCounts::default();
        let mut candidates: Vec<_> = self
            .choice
            .ids
            .iter()
            .map(|_| Candidates::default())
            .collect();
        while let Some(letter) = browse.next().await? {
            let summary = letter.summary();
            for (id, candidates) in self.choice.ids.iter().zip(&mut candidates) {
                if super::filter::names(id, &letter, &summary) {
                    candidates.add(&letter);
                }
            }
            match self.choice.judge(&letter, &summary) {
                Judged::Other => {}
                Judged::Left(obstacle) => self.sum.leave(obstacle),
                Judged::Taken => counts.add(&letter.reason, &letter.client),
            }
        }
        all_read(&browse);
        self.sum.unread = browse.missing().into();
        browse.close().await?;
        if !candidates.is_empty() {
            let named = self.choice.ids.iter().zip(&candidates);
            let resolved = named.map(|(id, candidates)| candidates.only(id));
            let resolved: anyhow::Result<BTreeSet<_>> = resolved.collect();
            self.choice.resolved = Some(resolved?);
        }
        Ok((counts, waiting))
    }
}

/// The first interrupt lets the current window finish, the second ends the process. Neither loses a
/// dead letter.
fn stop_on_interrupt() -> std::io::Result<CancellationToken> {
    let mut interrupts = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::interrupt())?;
    let stop = CancellationToken::new();
    let told = stop.clone();
    tokio::spawn(async move {
        while interrupts.recv().await.is_some() {
            if told.is_cancelled() {
                std::process::exit(INTERRUPTED.into());
            }
            told.cancel();
            say!("revertd: finishing the current window; a second interrupt ends it at once");
        }
    });
    Ok(stop)
}
