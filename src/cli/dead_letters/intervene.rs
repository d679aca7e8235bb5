//! `revertd dead-letters replay` and `discard`: letters leave the queue a window at a time.
//!
//! Each window is noted in the database, then carried out (published and confirmed, or saved), then taken off the queue, then
//! noted as done. Whoever ends the process in between finds the letters in the queue still; those that were published by
//! then are in the work queue too, and a request that comes twice is decided once.

use std::collections::BTreeSet;
use std::process::ExitCode;
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::act::Act;
use super::choice::{Candidates, Choice, Judged};
use super::save::Save;
use super::sum::Sum;
use super::survey::{Counts, letters};
use super::{Chosen, Discard, Replay, WRONG_USAGE, ask, open};
use crate::broker::{Browse, Letter};
use crate::cli::lines::{folded, width};
use crate::cli::progress::Progress;
use crate::cli::{Output, print, who};
use crate::ledger::interventions::{Action, Intervention, Note, Plan};
use crate::seam;
use crate::settings::Settings;

/// Letters that leave together, and how many bytes of them are held at most, but for a single larger one.
const WINDOW: usize = 200;
const WINDOW_BYTES: usize = 8 << 20;

/// Longest that letters are held without being settled: the broker closes the channel of who takes half an hour.
const HOLD: Duration = Duration::from_mins(10);

/// The same from the first window on where `--rate` leaves letters unread in between: the broker gives up a connection that
/// takes nothing of what it sends for 30 seconds.
const SLOW_HOLD: Duration = Duration::from_secs(15);

/// What a shell reports of a process that SIGINT ended.
const INTERRUPTED: u8 = 130;

pub async fn replay(settings: &Settings, args: Replay) -> anyhow::Result<ExitCode> {
    let choice = choice(
        settings,
        Action::Replay,
        &args.chosen,
        args.include_malformed,
    );
    let run = Run {
        settings,
        choice,
        why: args.why,
        saved_to: None,
        rate: args.rate,
        body_bytes: settings.amqp.max_message_bytes.bytes(),
        sum: Sum::default(),
        passed: 0,
        progress: None,
        intervention: None,
    };
    run.intervene(args.chosen, async || Act::replay(settings).await)
        .await
}

pub async fn discard(settings: &Settings, args: Discard) -> anyhow::Result<ExitCode> {
    let save = args.save.as_deref();
    let run = Run {
        settings,
        choice: choice(settings, Action::Discard, &args.chosen, false),
        why: args.why,
        saved_to: save.map(|path| path.display().to_string()),
        rate: None,
        body_bytes: if save.is_some() { u64::MAX } else { 0 },
        sum: Sum::default(),
        passed: 0,
        progress: None,
        intervention: None,
    };
    run.intervene(args.chosen, async || {
        Ok(Act::Discard(save.map(Save::new).transpose()?))
    })
    .await
}

fn choice(settings: &Settings, action: Action, chosen: &Chosen, include_malformed: bool) -> Choice {
    Choice {
        action,
        filter: chosen.filter.clone(),
        ids: chosen.ids.clone(),
        resolved: None,
        include_malformed,
        max_body_bytes: settings.amqp.max_message_bytes.bytes(),
        now: Timestamp::now(),
    }
}

struct Run<'a> {
    settings: &'a Settings,
    choice: Choice,
    why: Option<String>,
    saved_to: Option<String>,
    rate: Option<u32>,
    body_bytes: u64,
    sum: Sum,
    /// Letters that were met, and done or left.
    passed: u64,
    progress: Option<Progress>,
    intervention: Option<Intervention>,
}

impl Run<'_> {
    async fn intervene(
        mut self,
        chosen: Chosen,
        act: impl AsyncFnOnce() -> anyhow::Result<Act>,
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
                return Ok(ExitCode::SUCCESS);
            }
            if !chosen.yes {
                say!("{}", folded(&counts.text(), width()).trim_end());
                match ask::sure(&format!("{verb} {}?", letters(counts.total())))? {
                    Some(true) => {}
                    Some(false) => anyhow::bail!("nothing was done"),
                    None => {
                        say!(
                            "revertd: there is no terminal to ask on; add --yes to {verb} {}, or --dry-run to look",
                            letters(counts.total())
                        );
                        return Ok(ExitCode::from(WRONG_USAGE));
                    }
                }
            }
            waiting = Some(there);
            self.sum = Sum::default();
        }
        let stop = stop_on_interrupt()?;
        let mut act = act().await?;
        let by = who::by(chosen.by);
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
            ExitCode::SUCCESS
        })
    }

    /// Counts what would be taken, finds what the ids stand for, and tells how many letters there are.
    async fn look(&mut self) -> anyhow::Result<(Counts, u32)> {
        let mut browse = open(self.settings, 0).await?;
        let waiting = browse.waiting();
        let mut counts = Counts::default();
        let mut candidates: Vec<_> = self
            .choice
            .ids
            .iter()
            .map(|_| Candidates::default())
            .collect();
        while let Some(letter) = browse.next().await? {
            for (id, candidates) in self.choice.ids.iter().zip(&mut candidates) {
                if super::filter::names(id, &letter) {
                    candidates.add(&letter);
                }
            }
            match self.choice.judge(&letter, &letter.told()) {
                Judged::Other => {}
                Judged::Left(obstacle) => self.sum.leave(obstacle),
                Judged::Taken => counts.add(&letter.reason, &letter.client),
            }
        }
        browse.close().await?;
        if !candidates.is_empty() {
            let named = self.choice.ids.iter().zip(&candidates);
            let resolved = named.map(|(id, candidates)| candidates.only(id));
            let resolved: anyhow::Result<BTreeSet<_>> = resolved.collect();
            self.choice.resolved = Some(resolved?);
        }
        Ok((counts, waiting))
    }

    /// Goes through the letters that are there now, or of those no more than were there when somebody was asked.
    async fn go_through(
        &mut self,
        act: &mut Act,
        waiting: Option<u32>,
        by: Option<&str>,
        stop: &CancellationToken,
    ) -> anyhow::Result<()> {
        let began = Instant::now();
        let mut left = waiting.unwrap_or(u32::MAX);
        loop {
            let mut browse = open(self.settings, self.body_bytes).await?;
            browse.limit(left);
            left = browse.waiting();
            let before = self.sum.done;
            self.passed = before;
            self.progress
                .get_or_insert_with(|| Progress::new("letters", before + u64::from(left)));
            self.sum.left.clear();
            let is_through = self.session(&mut browse, act, by, began, stop).await?;
            // What was settled is noted by the queue before the next session could meet it again.
            browse.close().await?;
            if is_through || stop.is_cancelled() {
                return Ok(());
            }
            left -= u32::try_from(self.sum.done - before).unwrap_or(left);
        }
    }

    /// `true` where it came to the end.
    async fn session(
        &mut self,
        browse: &mut Browse,
        act: &mut Act,
        by: Option<&str>,
        began: Instant,
        stop: &CancellationToken,
    ) -> anyhow::Result<bool> {
        let mut until = Instant::now() + HOLD;
        let most = self.rate.map_or(WINDOW, |rate| WINDOW.min(rate as usize));
        while !stop.is_cancelled() && Instant::now() < until {
            let (window, is_last) = self.gather(browse, most, until, stop).await?;
            // What was only gathered stays in the queue.
            if stop.is_cancelled() {
                break;
            }
            if !window.is_empty() {
                if self.rate.is_some() {
                    until = until.min(Instant::now() + SLOW_HOLD);
                }
                self.carry_out(browse, act, by, &window).await?;
            }
            if is_last {
                return Ok(true);
            }
            if let Some(rate) = self.rate {
                let due = Duration::from_millis(self.sum.done * 1000 / u64::from(rate));
                tokio::select! {
                    () = tokio::time::sleep_until(began + due) => {}
                    () = stop.cancelled() => {}
                }
            }
        }
        Ok(false)
    }

    /// The next window, and whether it is the last.
    async fn gather(
        &mut self,
        browse: &mut Browse,
        most: usize,
        until: Instant,
        stop: &CancellationToken,
    ) -> anyhow::Result<(Vec<Letter>, bool)> {
        let (mut window, mut bytes) = (Vec::new(), 0);
        while window.len() < most
            && bytes < WINDOW_BYTES
            && Instant::now() < until
            && !stop.is_cancelled()
        {
            let Some(letter) = browse.next().await? else {
                return Ok((window, true));
            };
            match self.choice.judge(&letter, &letter.told()) {
                Judged::Other => self.pass(1),
                Judged::Left(obstacle) => {
                    self.sum.leave(obstacle);
                    self.pass(1);
                }
                Judged::Taken => {
                    bytes += letter.body.len() + letter.header.len();
                    window.push(letter);
                }
            }
        }
        Ok((window, false))
    }

    async fn carry_out(
        &mut self,
        browse: &mut Browse,
        act: &mut Act,
        by: Option<&str>,
        window: &[Letter],
    ) -> anyhow::Result<()> {
        if self.intervention.is_none() {
            let plan = Plan {
                action: self.choice.action,
                by,
                chosen: self.choice.noted(),
                why: self.why.as_deref(),
                saved_to: self.saved_to.as_deref(),
            };
            self.intervention = Some(Intervention::begin(self.settings, &plan).await?);
        }
        let Some(intervention) = &mut self.intervention else {
            return Ok(());
        };
        let notes: Vec<_> = window.iter().map(note).collect();
        intervention.note(&notes).await?;
        seam::pass(seam::LETTERS_NOTED);
        act.carry_out(window).await?;
        browse.settle(window).await?;
        self.sum.done += window.len() as u64;
        seam::pass(seam::LETTERS_SETTLED);
        intervention.done().await?;
        self.pass(window.len() as u64);
        Ok(())
    }

    fn pass(&mut self, letters: u64) {
        self.passed += letters;
        if let Some(progress) = &mut self.progress {
            let done = format!("{} {}", self.sum.done, self.choice.action.participle());
            progress.reached(self.passed, &done);
        }
    }
}

fn note(letter: &Letter) -> Note {
    Note {
        letter: letter.id,
        client: letter.client.clone(),
        message_id: letter.message_id.clone(),
        usage_id: letter.told().usage_id,
        reason: letter.reason.clone(),
    }
}

/// The first interrupt lets the window in hand be finished, the second ends the process: nothing is lost by either.
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
            say!("revertd: finishing what is in hand; a second interrupt ends it at once");
        }
    });
    Ok(stop)
}
