//! What a mixed load consists of: requests that conflict, exceed, repeat and break rules, drawn by seeded
//! dice.

use std::collections::VecDeque;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use uuid::Uuid;

use super::Request;
use super::ledger::PLATFORM;
use super::load::{Load, Nature, Sent};
use super::model::{Asked, Content, Policy};
use super::spelling::{invalid, malformed, spelled};
use super::world::{Account, Kind, Posting, World};

/// Usages that several requests ask for at about the same time.
const HOT: usize = 12;

pub struct Mix {
    dice: StdRng,
    world: World,
    sent: Vec<Sent>,
    hot: VecDeque<Uuid>,
}

impl Mix {
    pub fn new(policy: Policy, seed: u64) -> Self {
        let mut mix = Self {
            dice: StdRng::seed_from_u64(seed),
            world: World::empty(policy),
            sent: Vec::new(),
            hot: VecDeque::new(),
        };
        mix.found_orgs();
        mix
    }

    pub fn load(mut self, count: usize) -> Load {
        while self.sent.len() < count {
            self.next();
        }
        self.done()
    }

    /// Reverts of usages that are there, a third of them in conflict.
    pub fn plain_load(mut self, count: usize) -> Load {
        while self.sent.len() < count {
            if self.dice.random_ratio(1, 3) {
                self.conflicting();
            } else {
                self.plain();
            }
        }
        self.done()
    }

    fn done(self) -> Load {
        Load {
            world: self.world,
            requests: self.sent,
        }
    }

    /// Four orgs: each with a disabled account, older than its default; a younger one; a project; a deleted
    /// account, the oldest of all.
    fn found_orgs(&mut self) {
        for _ in 0..4 {
            let org = self.id();
            self.world.orgs.push(org);
            let project = self.id();
            self.world.projects.push((project, org));
            for active in [false, true, true] {
                let id = self.id();
                self.world.accounts.push(Account { id, org, active });
            }
            let (id, active) = (self.id(), true);
            self.world.deleted.push(Account { id, org, active });
        }
    }

    fn next(&mut self) {
        match self.dice.random_range(0..100) {
            0..34 => self.conflicting(),
            34..62 => self.plain(),
            62..67 => self.exceeding(),
            67..70 => self.unknown(),
            70..72 => self.of_another_account(),
            72..76 => self.id_with_other_content(),
            76..80 => self.again_in_other_words(),
            80..84 => self.without_message_id(),
            84..87 => self.no_such_account(),
            87..90 => self.no_usage(),
            90..94 => self.partly_given_back_by_frontier(),
            94..97 => self.breaking_a_rule(),
            _ => self.unreadable(),
        }
    }

    fn plain(&mut self) {
        let (usage, amount) = self.usage();
        let part = self.dice.random_range(1..=amount);
        let taken = if self.dice.random() { amount } else { part };
        let content = self.content(usage, taken);
        self.ask(content, true);
    }

    /// One of several requests on a usage, now and then more than remains of it.
    fn conflicting(&mut self) {
        if self.hot.len() < HOT || self.dice.random_ratio(1, 5) {
            let (usage, _) = self.usage();
            self.hot.push_back(usage);
        }
        if self.hot.len() > HOT {
            self.hot.pop_front();
        }
        let usage = self.hot[self.dice.random_range(0..self.hot.len())];
        let whole = self.world.postings[&usage].amount;
        let most = if self.dice.random_ratio(1, 6) {
            whole + 5
        } else {
            whole / 2 + 1
        };
        let amount = self.dice.random_range(1..=most);
        let content = self.content(usage, amount);
        self.ask(content, true);
    }

    fn exceeding(&mut self) {
        let (usage, amount) = self.usage();
        let huge = if self.dice.random() {
            i64::MAX
        } else {
            amount + 1
        };
        let content = self.content(usage, huge);
        self.ask(content, true);
    }

    /// Looked for again and again; some ask for one attempt only.
    fn unknown(&mut self) {
        let (usage, account) = (self.id(), self.account());
        let content = self.named(account, usage, 5);
        let named = self.dice.random_ratio(4, 5);
        self.ask(content, named);
        if self.dice.random_ratio(1, 3) {
            let last = self.sent.last_mut().expect("asked above");
            last.request = last.request.clone().once();
        }
    }

    fn of_another_account(&mut self) {
        let (usage, amount) = self.usage();
        let owner = self.world.postings[&usage].account;
        let mut other = self.account();
        while other.id == owner {
            other = self.account();
        }
        let content = self.named(other, usage, amount);
        self.ask(content, true);
    }

    fn id_with_other_content(&mut self) {
        let Some(earlier) = self.earlier() else {
            return self.plain();
        };
        let (usage, amount) = if self.dice.random() {
            self.usage()
        } else {
            (
                earlier.content.usage,
                earlier.content.amount.saturating_add(1),
            )
        };
        let content = if usage == earlier.content.usage {
            Content {
                amount,
                ..earlier.content
            }
        } else {
            self.content(usage, amount)
        };
        self.send(Asked { content, ..earlier });
    }

    fn again_in_other_words(&mut self) {
        match self.earlier() {
            Some(earlier) => self.send(earlier),
            None => self.plain(),
        }
    }

    fn without_message_id(&mut self) {
        let (usage, amount) = self.usage();
        let most = if self.dice.random_ratio(1, 4) {
            amount + 5
        } else {
            amount
        };
        let taken = self.dice.random_range(1..=most);
        let content = self.content(usage, taken);
        self.ask(content, false);
        if self.dice.random_ratio(1, 3) {
            self.hot.push_back(usage);
        }
    }

    fn no_such_account(&mut self) {
        let (usage, amount) = self.usage();
        let (account, other) = (self.account(), self.id());
        let mut content = Content {
            billing: None,
            ..self.named(account, usage, amount)
        };
        match self.dice.random_range(0..5) {
            0 => content.billing = Some(other),
            1 => content.org = Some(other),
            2 => content.project = Some(other),
            3 => content.billing = Some(PLATFORM),
            _ => content.billing = Some(self.world.deleted[0].id),
        }
        if self.dice.random_ratio(1, 4) {
            let orgs = self.world.orgs.iter().copied();
            content.org = orgs.clone().find(|org| *org != account.org);
            content.project = None;
            content.billing = Some(account.id);
        }
        self.ask(content, true);
    }

    fn no_usage(&mut self) {
        let (mut account, id) = (self.account(), self.id());
        let posting = if self.dice.random() {
            Posting::purchase(account.id, 50)
        } else {
            let (usage, _) = self.usage();
            account.id = self.world.postings[&usage].account;
            Posting::revert(account.id, usage, &usage.to_string(), 1)
        };
        self.world.postings.insert(id, posting);
        let content = self.named(account, id, 2);
        self.ask(content, true);
    }

    /// By a Frontier that spelled the usage's id in upper case.
    fn partly_given_back_by_frontier(&mut self) {
        let (usage, amount) = self.usage();
        let account = self.world.postings[&usage].account;
        let part = self.dice.random_range(1..=amount);
        let revert = Posting::revert(account, usage, &usage.to_string().to_uppercase(), part);
        let id = self.id();
        self.world.postings.insert(id, revert);
        self.hot.push_back(usage);
        let asked = self.dice.random_range(1..=amount);
        let content = self.content(usage, asked);
        self.ask(content, true);
    }

    fn breaking_a_rule(&mut self) {
        let (usage, amount) = (self.id(), 5);
        let account = self.account();
        let content = self.named(account, usage, amount);
        let (body, fields) = invalid(&content, &mut self.dice);
        let request = self.message(body, Some(&format!("invalid-{usage}")));
        let nature = Nature::Invalid(fields);
        self.sent.push(Sent { request, nature });
    }

    fn unreadable(&mut self) {
        let body = malformed(&mut self.dice);
        let id = format!("malformed-{}", self.id());
        let named = self.dice.random_ratio(3, 4);
        let request = self.message(body, named.then_some(id.as_str()));
        let nature = Nature::Malformed;
        self.sent.push(Sent { request, nature });
    }

    /// Asks with a message id of its own, or without one.
    fn ask(&mut self, content: Content, named: bool) {
        let message_id = named.then(|| self.id().to_string());
        let client = String::new();
        self.send(Asked {
            client,
            message_id,
            content,
        });
    }

    fn send(&mut self, asked: Asked) {
        let body = spelled(&asked.content, &mut self.dice);
        let request = self.message(body, asked.message_id.as_deref());
        let nature = Nature::Asked(asked);
        self.sent.push(Sent { request, nature });
    }

    fn message(&mut self, body: Vec<u8>, message_id: Option<&str>) -> Request {
        let request = Request::raw(body).correlated(&self.id().to_string());
        match message_id {
            Some(id) => request.id(id),
            None => request,
        }
    }

    /// A request of the last hundreds that has a message id.
    fn earlier(&mut self) -> Option<Asked> {
        let oldest = self.sent.len().saturating_sub(300);
        let index = self
            .dice
            .random_range(oldest..self.sent.len().max(oldest + 1));
        match &self.sent.get(index)?.nature {
            Nature::Asked(asked) => Some(asked.clone()).filter(|asked| asked.message_id.is_some()),
            Nature::Invalid(_) | Nature::Malformed | Nature::Unread => None,
        }
    }

    /// A new usage.
    fn usage(&mut self) -> (Uuid, i64) {
        let (id, account) = (self.id(), self.account());
        let (amount, form) = (
            self.dice.random_range(1..=1000),
            self.dice.random_range(0..12),
        );
        let posting = Posting::usage(account.id, amount, form);
        self.world.postings.insert(id, posting);
        (id, amount)
    }

    /// A content on a known usage. How the account is named depends on the usage alone, so that two
    /// contents of one id always differ in usage or amount, by which their outcomes are told apart.
    fn content(&mut self, usage: Uuid, amount: i64) -> Content {
        let posting = &self.world.postings[&usage];
        debug_assert!(matches!(posting.kind, Kind::Usage { .. }));
        let owner = posting.account;
        let of = |account: &&Account| account.id == owner;
        let account = *self.world.accounts.iter().find(of).expect("known");
        let mut content = self.named(account, usage, amount);
        let default = |other: &&Account| other.org == account.org && other.active;
        let is_default = self.world.accounts.iter().find(default).expect("one").id == account.id;
        let project = self
            .world
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
        if usage.as_bytes()[14] % 4 == 0 {
            content.reason = Some("falsch gezählt: \"zwei\" \u{1f4b8}".into());
        }
        content
    }

    fn named(&self, account: Account, usage: Uuid, amount: i64) -> Content {
        Content {
            usage,
            amount,
            billing: Some(account.id),
            org: None,
            project: None,
            reason: None,
        }
    }

    fn account(&mut self) -> Account {
        self.world.accounts[self.dice.random_range(0..self.world.accounts.len())]
    }

    fn id(&mut self) -> Uuid {
        uuid::Builder::from_random_bytes(self.dice.random()).into_uuid()
    }
}
