//! Checks that atomic groups were reverted whole or refused whole, by the words of the contract.
//!
//! The requests of an atomic group in these tests have different usages. So each outcome can be
//! checked among those of its usage, and a group by the outcomes of its requests.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::load::{RequestKind, SentGroup};
use super::model::{Model, ValidRequest, Verdict};
use super::report::{AuditResult, Finding};

const GROUP_REFUSED: &str = "GROUP_REFUSED";

/// The refusals up to row 6, which a request has in a refused group as by itself.
const BEFORE_THE_USAGE: [&str; 3] = [
    "INVALID_FIELD",
    "BILLING_ACCOUNT_NOT_FOUND",
    "REQUEST_ID_REUSED",
];

/// The observed result of a request.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Seen<'a> {
    Nothing,
    Reverted,
    Refused(&'a str),
}

/// Atomic groups, and the observed verdicts on their requests.
pub struct AtomicGroups<'a> {
    groups: &'a [&'a SentGroup],
    /// The groups of each request, and its index there.
    places: HashMap<&'a ValidRequest, Vec<(usize, usize)>>,
    observed: HashMap<&'a ValidRequest, Verdict>,
    /// Requests that are refused on the ledger before the first request. Since reverts are never
    /// undone, they are refused later, too. A usage that is not found makes its group wait instead.
    never: HashSet<&'a ValidRequest>,
}

impl<'a> AtomicGroups<'a> {
    /// `model` has decided nothing yet.
    pub fn new(groups: &'a [&'a SentGroup], model: &Model<'_>) -> Self {
        let (mut places, mut never) = (HashMap::<_, Vec<_>>::new(), HashSet::new());
        for (group, sent) in groups.iter().enumerate() {
            for (index, asked) in valid(sent) {
                places.entry(asked).or_default().push((group, index));
                let verdict = model.verdict(asked);
                if verdict
                    .reason()
                    .is_some_and(|reason| reason != "USAGE_NOT_FOUND")
                {
                    never.insert(asked);
                }
            }
        }
        Self {
            groups,
            places,
            observed: HashMap::new(),
            never,
        }
    }

    pub fn add(&mut self, asked: &'a ValidRequest, verdict: &Verdict) {
        self.observed.insert(asked, verdict.clone());
    }

    /// Compares each group; `sent` tells how many messages have a request. An outcome that one of
    /// the other messages may have brought about says nothing about the group.
    pub fn compare(&self, sent: impl Fn(&ValidRequest) -> usize, count: &mut AuditResult) {
        for group in self.groups {
            let seen: Vec<_> = (0..group.members.len())
                .map(|index| self.seen(group, index))
                .collect();
            let is_refused = seen.iter().any(|seen| matches!(seen, Seen::Refused(_)));
            let first = seen
                .iter()
                .position(|seen| matches!(seen, Seen::Refused(reason) if *reason != GROUP_REFUSED));
            for (index, asked) in valid(group).filter(|(_, asked)| sent(asked) == 1) {
                let is_wrong = match seen[index] {
                    Seen::Nothing => false,
                    Seen::Reverted => is_refused,
                    Seen::Refused(reason) => {
                        reason != GROUP_REFUSED
                            && !BEFORE_THE_USAGE.contains(&reason)
                            && first != Some(index)
                    }
                };
                if is_wrong {
                    let text = format!("{asked:?}, number {index} of a group, of {seen:?}");
                    count.found(Finding::Twice, text);
                }
            }
        }
    }

    /// The metadata of an observed `GROUP_REFUSED` if a group of the request explains it.
    pub fn refusal(
        &self,
        asked: &ValidRequest,
        verdict: &Verdict,
    ) -> Option<BTreeMap<String, String>> {
        match verdict {
            Verdict::Refused { reason, metadata } if reason == GROUP_REFUSED => self
                .is_explained(asked, metadata, &mut Vec::new())
                .then(|| metadata.clone()),
            Verdict::Refused { .. } | Verdict::Applied(_) => None,
        }
    }

    /// Whether one of its groups, other than `except`, refused the request with this metadata.
    fn is_explained(
        &self,
        asked: &ValidRequest,
        metadata: &BTreeMap<String, String>,
        except: &mut Vec<usize>,
    ) -> bool {
        let (Some(first), Some(reason)) = (metadata.get("index"), metadata.get("reason")) else {
            return false;
        };
        let Ok(first) = first.parse::<usize>() else {
            return false;
        };
        let places = self.places.get(asked).map_or(&[][..], Vec::as_slice);
        places.iter().any(|(number, index)| {
            let group = self.groups[*number];
            if except.contains(number) || first == *index || first >= group.members.len() {
                return false;
            }
            except.push(*number);
            let is_refused = self.seen(group, first) == Seen::Refused(reason)
                && (reason != GROUP_REFUSED || self.is_explained_elsewhere(group, first, except));
            except.pop();
            is_refused && (0..first).all(|earlier| self.may_be_reverted(group, earlier))
        })
    }

    fn is_explained_elsewhere(
        &self,
        group: &SentGroup,
        index: usize,
        except: &mut Vec<usize>,
    ) -> bool {
        match &group.members[index].1 {
            RequestKind::Valid(asked) => match self.observed.get(asked) {
                Some(Verdict::Refused { metadata, .. }) => {
                    self.is_explained(asked, metadata, except)
                }
                Some(Verdict::Applied(_)) | None => false,
            },
            RequestKind::Invalid(_)
            | RequestKind::Malformed
            | RequestKind::CrashesWorker
            | RequestKind::Group(_) => false,
        }
    }

    /// Whether a request of a group need not be the first that is refused.
    fn may_be_reverted(&self, group: &SentGroup, index: usize) -> bool {
        let is_never = match &group.members[index].1 {
            RequestKind::Valid(asked) => self.never.contains(asked),
            RequestKind::Invalid(_)
            | RequestKind::Malformed
            | RequestKind::CrashesWorker
            | RequestKind::Group(_) => true,
        };
        !is_never
            && match self.seen(group, index) {
                Seen::Nothing | Seen::Reverted => true,
                Seen::Refused(reason) => reason == GROUP_REFUSED,
            }
    }

    fn seen(&self, group: &SentGroup, index: usize) -> Seen<'_> {
        match &group.members[index].1 {
            RequestKind::Valid(asked) => match self.observed.get(asked) {
                Some(Verdict::Applied(_)) => Seen::Reverted,
                Some(Verdict::Refused { reason, .. }) => Seen::Refused(reason),
                None => Seen::Nothing,
            },
            RequestKind::Invalid(_)
            | RequestKind::Malformed
            | RequestKind::CrashesWorker
            | RequestKind::Group(_) => Seen::Refused("INVALID_FIELD"),
        }
    }
}

/// The valid requests of a group, with their indexes.
fn valid(group: &SentGroup) -> impl Iterator<Item = (usize, &ValidRequest)> {
    let members = group.members.iter().enumerate();
    members.filter_map(|(index, (_, kind))| match kind {
        RequestKind::Valid(asked) => Some((index, asked)),
        RequestKind::Invalid(_)
        | RequestKind::Malformed
        | RequestKind::CrashesWorker
        | RequestKind::Group(_) => None,
    })
}
