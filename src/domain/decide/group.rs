//! Decides an atomic group: all of its requests are reverted, or none.

use std::collections::HashMap;

use uuid::Uuid;

use super::batch::{Batch, Progress};
use super::facts::Question;
use super::ruling::{Ruling, Write};
use crate::domain::outcome::{Decision, Metadata, Verdict};
use crate::domain::refusal::RefusalReason;
use crate::domain::request::FirstRefusal;

impl Batch<'_> {
    /// Decides the members of a group. If one fails, none is decided. If one is refused, the others
    /// are refused for it. If one must wait for its usage, and none is refused, none is decided.
    pub(super) fn rule_group(&mut self, members: &[Question<'_>]) {
        let (first, progress) = (self.rulings.len(), self.progress_of(members));
        for member in members {
            self.rule(member);
        }
        let rulings = &self.rulings[first..];
        let before_all = members[0].request.member.as_ref();
        let before_all = before_all.and_then(|member| member.refused.clone());
        let refused = before_all
            .into_iter()
            .chain(first_refusal(members, rulings));
        let refused = refused.min_by_key(|refused| refused.index);
        let decisions = || rulings.iter().map(|ruling| &ruling.decision);
        let failed = decisions().find(|decision| is_failed(decision));
        let waits = decisions().find(|decision| **decision == Decision::NotYet);
        let undecided = failed.or(waits.filter(|_| refused.is_none())).cloned();
        if refused.is_none() && undecided.is_none() {
            return;
        }
        let rulings = self.take_back(first, progress);
        for (member, ruling) in members.iter().zip(rulings) {
            let ruling = match (&undecided, &refused) {
                (Some(decision), _) => Ruling {
                    decision: decision.clone(),
                    write: Write::Nothing,
                },
                (None, Some(refused)) => self.refused_with(member, ruling, refused),
                (None, None) => ruling,
            };
            self.add(ruling);
        }
    }

    /// What this batch reverts of the members' usages so far.
    fn progress_of(&self, members: &[Question<'_>]) -> HashMap<Uuid, Option<Progress>> {
        let usages = members.iter().map(|member| member.request.fields.usage_id);
        usages
            .map(|usage| (usage, self.usages.get(&usage).cloned()))
            .collect()
    }

    /// Takes back the rulings from the one with this index on.
    fn take_back(
        &mut self,
        first: usize,
        progress: HashMap<Uuid, Option<Progress>>,
    ) -> Vec<Ruling> {
        self.stored.retain(|_, index| *index < first);
        for (usage, progress) in progress {
            match progress {
                Some(progress) => self.usages.insert(usage, progress),
                None => self.usages.remove(&usage),
            };
        }
        self.rulings.split_off(first)
    }

    /// The ruling on a member of a group that is refused. An outcome that is stored already, and a
    /// refusal before the look-up of the usage, remain: they are the answer to the request alone,
    /// too.
    fn refused_with(
        &self,
        member: &Question<'_>,
        ruling: Ruling,
        refused: &FirstRefusal,
    ) -> Ruling {
        let index = member.request.member.as_ref().map(|member| member.index);
        let depends_on_usage = match (ruling.write, refusal(&ruling.decision)) {
            (Write::Revert(_), _) => true,
            (Write::Refusal, reason) => reason != Some(RefusalReason::RequestIdReused.row().reason),
            (Write::Found | Write::Nothing, _) => ruling.decision == Decision::NotYet,
        };
        if !depends_on_usage {
            return ruling;
        }
        if index == Some(refused.index) {
            return self.refused_first(member, ruling);
        }
        let metadata = Metadata::from([
            ("index".to_owned(), refused.index.to_string()),
            ("reason".to_owned(), refused.reason.clone()),
        ]);
        self.refuse(member, RefusalReason::GroupRefused, metadata)
    }
}

impl Batch<'_> {
    /// The ruling on the first refused member: its metadata must not name what the group would have
    /// reverted.
    fn refused_first(&self, member: &Question<'_>, ruling: Ruling) -> Ruling {
        let reason = refusal(&ruling.decision).and_then(RefusalReason::of_name);
        match reason {
            Some(reason) => self.refuse(member, reason, self.metadata(member, reason)),
            None => ruling,
        }
    }
}

/// The first member that is refused. A member that was reverted before counts as reverted.
fn first_refusal(members: &[Question<'_>], rulings: &[Ruling]) -> Option<FirstRefusal> {
    let refused = |(member, ruling): (&Question<'_>, &Ruling)| {
        Some(FirstRefusal {
            index: member.request.member.as_ref()?.index,
            reason: refusal(&ruling.decision)?.to_owned(),
        })
    };
    members.iter().zip(rulings).find_map(refused)
}

/// The reason of a refusal.
fn refusal(decision: &Decision) -> Option<&str> {
    match decision {
        Decision::Decided(outcome) | Decision::Repeated(outcome) => match &outcome.verdict {
            Verdict::Refused(refusal) => Some(refusal.code().reason),
            Verdict::Applied(_) => None,
        },
        Decision::NotYet | Decision::Failed(_) | Decision::SetAside(..) => None,
    }
}

fn is_failed(decision: &Decision) -> bool {
    match decision {
        Decision::Decided(_) | Decision::Repeated(_) | Decision::NotYet => false,
        Decision::Failed(_) | Decision::SetAside(..) => true,
    }
}
