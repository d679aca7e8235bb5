//! The contract as a sequential machine: requests come one after another, and each is answered.
//!
//! The model is pure and written from the contract alone. It uses nothing of the program, so that
//! an error there is not repeated here.

use std::collections::{BTreeMap, HashMap};

use uuid::Uuid;

use super::initial_ledger::{InitialLedger, Kind};
use super::ledger::NAMESPACE;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    Once,
    Cumulative,
}

/// The six fields, parsed: the content of a request.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Content {
    pub usage: Uuid,
    pub amount: i64,
    pub billing: Option<Uuid>,
    pub org: Option<Uuid>,
    pub project: Option<Uuid>,
    pub reason: Option<String>,
}

/// A request whose fields break no rule.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ValidRequest {
    pub client: String,
    pub message_id: Option<String>,
    pub content: Content,
}

impl ValidRequest {
    /// The identity of a request: client and message id; without a message id, client and content.
    fn identity(&self) -> Identity {
        let content = self.message_id.is_none().then(|| self.content.clone());
        (self.client.clone(), self.message_id.clone(), content)
    }
}

type Identity = (String, Option<String>, Option<Content>);

/// The result of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    pub org: Option<Uuid>,
    pub account: Option<Uuid>,
    /// When it was decided, in the form of the events.
    pub at: String,
    /// Whether it is stored, and so is the answer for ever.
    pub stored: bool,
    pub verdict: Verdict,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    Applied(Revert),
    Refused {
        reason: String,
        metadata: BTreeMap<String, String>,
    },
}

impl Verdict {
    /// The reason of a refusal, or nothing.
    pub fn reason(&self) -> Option<&str> {
        match self {
            Self::Applied(_) => None,
            Self::Refused { reason, .. } => Some(reason),
        }
    }
}

/// A revert that was applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Revert {
    /// The entry on the customer's account, and the one on the platform's.
    pub entry: Uuid,
    pub platform_entry: Uuid,
    /// n-th revert of this usage by revertd, from 0.
    pub number: i32,
    pub usage_amount: i64,
    /// The amount reverted before by any writer, and the part of it by other writers.
    pub before: i64,
    pub by_others: i64,
}

/// A revert of a usage, in the order of time.
struct Given {
    entry: Uuid,
    amount: i64,
    at: String,
    by_others: bool,
    /// Whether Frontier counts it for the number in the id of the next entry: only if the
    /// usage id is spelled as Frontier spells it.
    counted: bool,
}

/// All that decides the next request.
pub struct Model<'a> {
    ledger: &'a InitialLedger,
    given: HashMap<Uuid, Vec<Given>>,
    owners: HashMap<Identity, (Content, Answer)>,
    reused: HashMap<(Identity, Content), Answer>,
}

impl<'a> Model<'a> {
    /// The ledger before the first request.
    pub fn new(ledger: &'a InitialLedger) -> Self {
        let mut given: HashMap<Uuid, Vec<Given>> = HashMap::new();
        for (id, posting) in &ledger.postings {
            if let Kind::Revert { of, at } = &posting.kind {
                given.entry(*of).or_default().push(Given {
                    entry: *id,
                    amount: posting.amount,
                    at: at.clone(),
                    by_others: true,
                    counted: posting.metadata["revert_request_using"] == of.to_string(),
                });
            }
        }
        for reverts in given.values_mut() {
            reverts.sort_by(|one, other| (&one.at, one.entry).cmp(&(&other.at, other.entry)));
        }
        Self {
            ledger,
            given,
            owners: HashMap::new(),
            reused: HashMap::new(),
        }
    }

    /// Answers the next request, at that time. A request of an atomic group that is refused gets
    /// the metadata of this refusal: it is refused for the group, unless a row up to
    /// `REQUEST_ID_REUSED` refuses it anyway.
    pub fn decide(
        &mut self,
        asked: &ValidRequest,
        at: &str,
        group_refusal: Option<&BTreeMap<String, String>>,
    ) -> Answer {
        let identity = asked.identity();
        let reuse = (identity.clone(), asked.content.clone());
        if let Some((content, answer)) = self.owners.get(&identity) {
            if *content == asked.content {
                return answer.clone();
            }
            if let Some(answer) = self.reused.get(&reuse) {
                return answer.clone();
            }
        }
        let (account, verdict) = self.judge(asked, &identity, group_refusal);
        let stored = match &verdict {
            Verdict::Applied(_) => true,
            Verdict::Refused { reason, .. } => {
                let admitted = reason != "INVALID_FIELD" && reason != "BILLING_ACCOUNT_NOT_FOUND";
                admitted && asked.message_id.is_some()
            }
        };
        let answer = Answer {
            org: account.map(|(_, org)| org),
            account: account.map(|(id, _)| id),
            at: at.to_owned(),
            stored,
            verdict,
        };
        if let Verdict::Applied(revert) = &answer.verdict {
            self.given
                .entry(asked.content.usage)
                .or_default()
                .push(Given {
                    entry: revert.entry,
                    amount: asked.content.amount,
                    at: at.to_owned(),
                    by_others: false,
                    counted: true,
                });
        }
        if stored {
            match &answer.verdict {
                Verdict::Refused { reason, .. } if reason == "REQUEST_ID_REUSED" => {
                    self.reused.insert(reuse, answer.clone());
                }
                Verdict::Applied(_) | Verdict::Refused { .. } => {
                    let owner = (asked.content.clone(), answer.clone());
                    self.owners.insert(identity, owner);
                }
            }
        }
        answer
    }

    /// The verdict on a request by itself, as if it came next.
    pub fn verdict(&self, asked: &ValidRequest) -> Verdict {
        self.judge(asked, &asked.identity(), None).1
    }

    /// The contract's table, row by row; with it the account and its org.
    fn judge(
        &self,
        asked: &ValidRequest,
        identity: &Identity,
        group_refusal: Option<&BTreeMap<String, String>>,
    ) -> (Option<(Uuid, Uuid)>, Verdict) {
        let content = &asked.content;
        let once = self.ledger.policy == Policy::Once;
        if !once && asked.message_id.is_none() {
            return (None, refused("INVALID_FIELD", &[]));
        }
        let Some((account, org)) = self.ledger.account_of(content) else {
            return (None, refused("BILLING_ACCOUNT_NOT_FOUND", &[]));
        };
        let verdict = if self.owners.contains_key(identity) {
            refused("REQUEST_ID_REUSED", &[])
        } else if let Some(metadata) = group_refusal {
            Verdict::Refused {
                reason: "GROUP_REFUSED".into(),
                metadata: metadata.clone(),
            }
        } else {
            self.judge_usage(content, account, once)
        };
        (Some((account, org)), verdict)
    }

    fn judge_usage(&self, content: &Content, account: Uuid, once: bool) -> Verdict {
        let posting = self.ledger.postings.get(&content.usage);
        let Some(usage) = posting.filter(|posting| posting.account == account) else {
            return refused("USAGE_NOT_FOUND", &[]);
        };
        match usage.kind {
            Kind::Revert { .. } => return refused("REVERT_OF_REVERT", &[]),
            Kind::Purchase => return refused("NOT_A_USAGE", &[]),
            Kind::Usage { closed: true } => return refused("REVERT_WINDOW_CLOSED", &[]),
            Kind::Usage { closed: false } => {}
        }
        let given = self
            .given
            .get(&content.usage)
            .map_or(&[][..], Vec::as_slice);
        if let (true, Some(first)) = (once, given.first()) {
            let (entry, amount) = (first.entry.to_string(), first.amount.to_string());
            let metadata = [
                ("transaction_id", entry),
                ("amount", amount),
                ("time", first.at.clone()),
            ];
            return refused("ALREADY_REVERTED", &metadata);
        }
        let total = |others: bool| -> i64 {
            let counted = given.iter().filter(|given| !others || given.by_others);
            counted.map(|given| given.amount).sum()
        };
        let remaining = (usage.amount - total(false)).max(0);
        if content.amount > remaining {
            let metadata = [
                ("usage_amount", usage.amount.to_string()),
                ("remaining", remaining.to_string()),
            ];
            return refused("AMOUNT_EXCEEDS_USAGE", &metadata);
        }
        let counted = given.iter().filter(|given| given.counted).count();
        let entry = entry_id(content.usage, counted, account);
        let own = given.iter().filter(|given| !given.by_others).count();
        Verdict::Applied(Revert {
            entry,
            platform_entry: with_version_8(entry),
            number: i32::try_from(own).expect("few"),
            usage_amount: usage.amount,
            before: total(false),
            by_others: total(true),
        })
    }
}

/// The other leg's id, which differs only in its version.
fn with_version_8(id: Uuid) -> Uuid {
    let mut bytes = id.into_bytes();
    bytes[6] = bytes[6] & 0x0f | 0x80;
    Uuid::from_bytes(bytes)
}

/// Frontier's id of an entry that reverts a usage, with n rows before it that Frontier counts.
pub fn entry_id(usage: Uuid, n: usize, account: Uuid) -> Uuid {
    Uuid::new_v5(&NAMESPACE, format!("{usage}:{n}:{account}").as_bytes())
}

fn refused(reason: &str, metadata: &[(&str, String)]) -> Verdict {
    let pairs = metadata
        .iter()
        .map(|(key, value)| ((*key).to_owned(), value.clone()));
    Verdict::Refused {
        reason: reason.to_owned(),
        metadata: pairs.collect(),
    }
}
