//! Generates orgs, accounts and usages from a seed.

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use uuid::Uuid;

use super::initial_ledger::{Account, InitialLedger, Kind, Posting};
use super::model::{Content, Policy};

/// The random numbers, and the ledger generated so far.
pub struct LedgerGenerator {
    pub rng: StdRng,
    pub ledger: InitialLedger,
}

impl LedgerGenerator {
    /// The same orgs and accounts for the same seed.
    pub fn new(policy: Policy, seed: u64) -> Self {
        let mut generator = Self {
            rng: StdRng::seed_from_u64(seed),
            ledger: InitialLedger::empty(policy),
        };
        generator.found_orgs();
        generator
    }

    /// Four orgs: each with a disabled account, newer than its default; an older one; a project; a
    /// deleted account, the oldest of all.
    fn found_orgs(&mut self) {
        for _ in 0..4 {
            let org = self.id();
            self.ledger.orgs.push(org);
            let project = self.id();
            self.ledger.projects.push((project, org));
            for active in [true, true, false] {
                let id = self.id();
                self.ledger.accounts.push(Account { id, org, active });
            }
            let (id, active) = (self.id(), true);
            self.ledger.deleted.push(Account { id, org, active });
        }
    }

    /// A new usage of some amount.
    pub fn usage(&mut self) -> (Uuid, i64) {
        let amount = self.rng.random_range(1..=1000);
        (self.usage_of(amount), amount)
    }

    /// A new usage of that amount.
    pub fn usage_of(&mut self, amount: i64) -> Uuid {
        let (id, account) = (self.id(), self.account());
        let form = self.rng.random_range(0..12);
        let posting = Posting::usage(account.id, amount, form);
        self.ledger.postings.insert(id, posting);
        id
    }

    /// A content on a known usage. The form of the account depends on the usage alone, so two
    /// contents of one id always differ in usage or amount, which distinguishes their outcomes.
    pub fn content(&mut self, usage: Uuid, amount: i64) -> Content {
        let posting = &self.ledger.postings[&usage];
        debug_assert!(matches!(posting.kind, Kind::Usage { .. }));
        let owner = posting.account;
        let of = |account: &&Account| account.id == owner;
        let account = *self.ledger.accounts.iter().find(of).expect("known");
        let mut content = named(account, usage, amount);
        let default = |other: &&Account| other.org == account.org && other.active;
        let is_default = self.ledger.accounts.iter().rfind(default).expect("one").id == account.id;
        let project = self
            .ledger
            .projects
            .iter()
            .find(|(_, org)| *org == account.org);
        let project = Some(project.expect("one each").0);
        match usage.as_bytes()[15] % 8 {
            0 if is_default => (content.billing, content.org) = (None, Some(account.org)),
            1 if is_default => (content.billing, content.project) = (None, project),
            2 => content.org = Some(account.org),
            3 => content.project = project,
            _ => {}
        }
        if usage.as_bytes()[14].is_multiple_of(4) {
            content.reason = Some("falsch gezählt: \"zwei\" \u{1f4b8}".into());
        }
        content
    }

    pub fn account(&mut self) -> Account {
        self.ledger.accounts[self.rng.random_range(0..self.ledger.accounts.len())]
    }

    pub fn id(&mut self) -> Uuid {
        uuid::Builder::from_random_bytes(self.rng.random()).into_uuid()
    }
}

/// A content that names the account itself.
pub fn named(account: Account, usage: Uuid, amount: i64) -> Content {
    Content {
        usage,
        amount,
        billing: Some(account.id),
        org: None,
        project: None,
        reason: None,
    }
}
