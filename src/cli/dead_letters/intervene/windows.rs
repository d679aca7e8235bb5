//! Takes dead letters out of the queue, a window at a time.
//!
//! Each window is recorded in the database, then published and confirmed (or saved), then
//! acknowledged, then recorded as done. If the process ends in between, the dead letters are still
//! in the queue. Those that were already published are in the work queue too, and a request that is
//! delivered twice is decided once.

use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::run::Run;
use crate::broker::{QueueReader, QueuedMessage};
use crate::cli::dead_letters::action::LetterAction;
use crate::cli::dead_letters::reading::{all_read, open};
use crate::cli::dead_letters::selection::Judged;
use crate::cli::progress::Progress;
use crate::common::failpoint;
use crate::ledger::admin::interventions::{Intervention, Note, Plan};

/// Most dead letters of a window, and the bytes at which a window is closed. A single dead letter
/// may be larger.
const WINDOW: usize = 200;
const WINDOW_BYTES: usize = 8 << 20;

/// Longest time that dead letters stay unacknowledged. RabbitMQ closes a channel whose deliveries
/// are unacknowledged for 30 minutes.
const HOLD: Duration = Duration::from_mins(10);

/// Longest time that dead letters stay unacknowledged from the first window on if `--rate` is
/// given. The reader then leaves deliveries unread between windows, and RabbitMQ closes a
/// connection that reads none of its data for 30 seconds.
const SLOW_HOLD: Duration = Duration::from_secs(15);

impl Run<'_> {
    /// Processes the dead letters that are in the queue now. If the queue was counted before, it
    /// processes at most that count.
    pub(super) async fn go_through(
        &mut self,
        act: &mut LetterAction,
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
            all_read(&browse);
            self.sum.unread = browse.missing().into();
            // Closing waits until the queue has removed the settled messages, so the next session
            // cannot read them again.
            browse.close().await?;
            if is_through || stop.is_cancelled() {
                return Ok(());
            }
            left -= u32::try_from(self.sum.done - before).unwrap_or(left);
        }
    }

    /// `true` if the session reached the end of the queue.
    async fn session(
        &mut self,
        browse: &mut QueueReader,
        act: &mut LetterAction,
        by: Option<&str>,
        began: Instant,
        stop: &CancellationToken,
    ) -> anyhow::Result<bool> {
        let mut until = Instant::now() + HOLD;
        let most = self.rate.map_or(WINDOW, |rate| WINDOW.min(rate as usize));
        while !stop.is_cancelled() && Instant::now() < until {
            let (window, is_last) = self.gather(browse, most, until, stop).await?;
            // Messages that were only read are not acknowledged, so they stay in the queue.
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

    /// The next window, and whether it is the last one.
    async fn gather(
        &mut self,
        browse: &mut QueueReader,
        most: usize,
        until: Instant,
        stop: &CancellationToken,
    ) -> anyhow::Result<(Vec<QueuedMessage>, bool)> {
        let (mut window, mut bytes) = (Vec::new(), 0);
        while window.len() < most
            && bytes < WINDOW_BYTES
            && Instant::now() < until
            && !stop.is_cancelled()
        {
            let Some(letter) = browse.next().await? else {
                return Ok((window, true));
            };
            match self.choice.judge(&letter, &letter.summary()) {
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
        browse: &mut QueueReader,
        act: &mut LetterAction,
        by: Option<&str>,
        window: &[QueuedMessage],
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
        failpoint::hit(failpoint::LETTERS_NOTED);
        act.carry_out(window).await?;
        browse.settle(window).await?;
        self.sum.done += window.len() as u64;
        failpoint::hit(failpoint::LETTERS_SETTLED);
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

fn note(letter: &QueuedMessage) -> Note {
    Note {
        letter: letter.id,
        client: letter.client.clone(),
        message_id: letter.message_id.clone(),
        usage_id: letter.summary().usage_id(),
        reason: letter.reason.clone(),
    }
}
