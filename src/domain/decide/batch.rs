//! The contract's table, applied to one request after another.

use std::collections::HashMap;

use jiff::Timestamp;
use uuid::Uuid;

use super::entry_id;
use super::facts::{DecisionPolicy, EntryKind, Question};
use super::history::{self, Earlier, History, Source};
use super::ruling::{NewRevert, Ruling, Write};
use crate::domain::outcome::{Decision, Entry, Failure, Metadata, Outcome, Refusal, Verdict};
use crate::domain::refusal::RefusalReason;
use crate::domain::request::RevertRequest;

/// A batch that is being decided.
pub(super) struct Batch<'a> {
    pub(super) questions: &'a [Question<'a>],
    history: &'a History,
    policy: DecisionPolicy,
    now: Timestamp,
    /// The rulings on the first questions.
    pub(super) rulings: Vec<Ruling>,
    /// The index of the ruling that stores the outcome of this id.
    pub(super) stored: HashMap<Uuid, usize>,
    /// The usages of which this batch reverts something.
    pub(super) usages: HashMap<Uuid, Progress>,
}

/// What this batch reverts of a usage.
#[derive(Clone, Debug, Default)]
pub(super) struct Progress {
    reverts: usize,
    amount: i64,
    /// The first of these reverts: its id, amount and time.
    first: Option<(Uuid, i64, Option<Timestamp>)>,
}

impl Progress {
    /// The first revert, as metadata of the refusal of a later request.
    fn first(&self) -> Option<Metadata> {
        let (transaction_id, amount, time) = self.first?;
        Some(history::earlier(transaction_id, amount, time))
    }
}

impl<'a> Batch<'a> {
    pub(super) fn new(
        questions: &'a [Question<'a>],
        history: &'a History,
        policy: DecisionPolicy,
        now: Timestamp,
    ) -> Self {
        Self {
            questions,
            history,
            policy,
            now,
            rulings: Vec::with_capacity(questions.len()),
            stored: HashMap::with_capacity(questions.len()),
            usages: HashMap::with_capacity(questions.len()),
        }
    }

    pub(super) fn rule(&mut self, question: &Question<'_>) {
        let ruling = self.ruling(question);
        self.add(ruling);
    }

    pub(super) fn add(&mut self, ruling: Ruling) {
        if let (Write::Refusal | Write::Revert(_), Decision::Decided(outcome)) =
            (ruling.write, &ruling.decision)
        {
            self.stored.insert(outcome.id, self.rulings.len());
        }
        self.rulings.push(ruling);
    }

    fn ruling(&mut self, question: &Question<'_>) -> Ruling {
        let in_batch = |id| {
            let index = *self.stored.get(&id)?;
            let content = self.questions[index].request.content;
            Some((content, &self.rulings[index].decision))
        };
        let is_reused = match self.history.earlier(question.request, in_batch) {
            Earlier::Same(decision, source) => {
                return Ruling {
                    decision: decision.clone(),
                    write: match source {
                        Source::History => Write::Found,
                        Source::Batch => Write::Nothing,
                    },
                };
            }
            Earlier::Reused => true,
            Earlier::New => false,
        };
        match self.refusal(question, is_reused) {
            Some((reason, metadata)) => self.refuse(question, reason, metadata),
            None => self.revert(question),
        }
    }

    /// The contract's table from row 2 on: the first row that applies. `is_reused`: other content
    /// is stored under the id.
    fn refusal(
        &self,
        question: &Question<'_>,
        is_reused: bool,
    ) -> Option<(RefusalReason, Metadata)> {
        let Question { request, facts, .. } = *question;
        let because = |reason| Some((reason, Metadata::new()));
        if self.policy.needs_grants && request.client.is_empty() {
            return because(RefusalReason::ClientUnknown);
        }
        // The only field that a setting requires: message_id.
        if self.policy.is_cumulative && request.message_id.is_none() {
            return because(RefusalReason::InvalidField);
        }
        // A client without a grant does not learn whether an org, account or usage exists.
        if !facts.is_granted {
            return because(RefusalReason::OrgNotGranted);
        }
        if facts.account.is_none() {
            return because(RefusalReason::BillingAccountNotFound);
        }
        if is_reused {
            return because(RefusalReason::RequestIdReused);
        }
        let Some(usage) = &facts.usage else {
            return because(RefusalReason::UsageNotFound);
        };
        match usage.kind {
            EntryKind::Usage => {}
            EntryKind::Revert => return because(RefusalReason::RevertOfRevert),
            EntryKind::Other => return because(RefusalReason::NotAUsage),
        }
        if usage.is_closed {
            return because(RefusalReason::RevertWindowClosed);
        }
        if !self.policy.is_cumulative
            && let Some(earlier) = self.earlier_revert(request)
        {
            return Some((RefusalReason::AlreadyReverted, earlier));
        }
        (request.fields.amount.get() > usage.remaining(self.reverted(request))).then(|| {
            let reason = RefusalReason::AmountExceedsUsage;
            (reason, self.metadata(question, reason))
        })
    }

    /// The metadata of a refusal.
    pub(super) fn metadata(&self, question: &Question<'_>, reason: RefusalReason) -> Metadata {
        let Question { request, facts, .. } = *question;
        match (reason, &facts.usage) {
            (RefusalReason::AlreadyReverted, _) => self.earlier_revert(request).unwrap_or_default(),
            (RefusalReason::AmountExceedsUsage, Some(usage)) => {
                let remaining = usage.remaining(self.reverted(request));
                Metadata::from([
                    ("usage_amount".to_owned(), usage.amount.to_string()),
                    ("remaining".to_owned(), remaining.to_string()),
                ])
            }
            _ => Metadata::new(),
        }
    }

    /// The earliest revert of the usage, as metadata of a refusal.
    fn earlier_revert(&self, request: &RevertRequest) -> Option<Metadata> {
        let usage_id = request.fields.usage_id;
        let in_batch = self.usages.get(&usage_id).and_then(Progress::first);
        in_batch.or_else(|| self.history.reverts(usage_id).earliest())
    }

    /// The amount of the usage that is reverted, or will be by this batch.
    fn reverted(&self, request: &RevertRequest) -> i64 {
        let usage_id = request.fields.usage_id;
        let in_batch = self.usages.get(&usage_id);
        self.history.reverts(usage_id).total() + in_batch.map_or(0, |progress| progress.amount)
    }

    pub(super) fn refuse(
        &self,
        question: &Question<'_>,
        reason: RefusalReason,
        metadata: Metadata,
    ) -> Ruling {
        let request = question.request;
        if reason == RefusalReason::UsageNotFound && !request.last_attempt {
            return Ruling {
                decision: Decision::NotYet,
                write: Write::Nothing,
            };
        }
        let is_reuse = reason == RefusalReason::RequestIdReused;
        // A refusal that is not stored contains no fact that was looked up.
        let is_stored = reason.row().is_stored;
        let account = question.facts.account.filter(|_| is_stored);
        let outcome = Outcome {
            id: if is_reuse {
                request.reuse_id
            } else {
                request.id
            },
            org_id: account.map(|account| account.org_id),
            account_id: account.map(|account| account.id),
            decided_at: self.now,
            verdict: Verdict::Refused(Refusal::of_row(reason, metadata)),
        };
        let write = match (is_stored, &request.message_id) {
            (true, Some(_)) => Write::Refusal,
            (true, None) if reason != RefusalReason::UsageNotFound => Write::Found,
            (true, None) | (false, _) => Write::Nothing,
        };
        Ruling {
            decision: Decision::Decided(outcome),
            write,
        }
    }

    fn revert(&mut self, question: &Question<'_>) -> Ruling {
        let Question { request, facts, .. } = *question;
        let (Some(account), Some(usage)) = (facts.account, &facts.usage) else {
            unreachable!("the table refuses a request without an account or a usage");
        };
        let (usage_id, amount) = (request.fields.usage_id, request.fields.amount.get());
        let reverts = self.history.reverts(usage_id);
        let progress = self.usages.get(&usage_id);
        let (nth, taken) = progress.map_or((0, 0), |before| (before.reverts, before.amount));
        let revert_no = i32::try_from(reverts.own_count() + nth as u64);
        let (Some(number), Ok(revert_no)) = (reverts.free_number(nth), revert_no) else {
            let text = "no id is free for its entry: too many entries name the usage";
            return Ruling {
                decision: Decision::Failed(Failure::RetriesExhausted(text.into())),
                write: Write::Nothing,
            };
        };
        let reverted_before = reverts.total() + taken;
        let transaction_id = entry_id::entry_id(usage_id, number, account.id);
        let entry = Entry {
            transaction_id,
            platform_transaction_id: entry_id::platform_leg(transaction_id),
            usage_amount: usage.amount,
            reverted_total: reverted_before + amount,
        };
        let time = usage.created_later.unwrap_or(Some(self.now));
        let progress = self.usages.entry(usage_id).or_default();
        progress.first.get_or_insert((transaction_id, amount, time));
        progress.reverts += 1;
        progress.amount += amount;
        Ruling {
            decision: Decision::Decided(Outcome {
                id: request.id,
                org_id: Some(account.org_id),
                account_id: Some(account.id),
                decided_at: self.now,
                verdict: Verdict::Applied(entry),
            }),
            write: Write::Revert(NewRevert {
                reverted_before,
                reverted_by_others: reverts.by_others(),
                revert_no,
            }),
        }
    }
}
