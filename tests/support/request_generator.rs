//! Generates a mixed load from a seed: requests that conflict, exceed the usage, repeat an id or
//! break a rule.

use std::collections::VecDeque;

use rand::RngExt;
use uuid::Uuid;

use super::Request;
use super::initial_ledger::Posting;
use super::ledger::PLATFORM;
use super::ledger_generator::{LedgerGenerator, named};
use super::load::{Load, RequestKind, Sent};
use super::model::{Content, Policy, ValidRequest};
use super::request_bodies::{encode, invalid, malformed};

/// Usages that several requests ask for at about the same time.
const HOT: usize = 12;

pub struct RequestGenerator {
    pub(super) generator: LedgerGenerator,
    pub(super) sent: Vec<Sent>,
    hot: VecDeque<Uuid>,
}

impl RequestGenerator {
    pub fn new(policy: Policy, seed: u64) -> Self {
        Self {
            generator: LedgerGenerator::new(policy, seed),
            sent: Vec::new(),
            hot: VecDeque::new(),
        }
    }

    pub fn load(mut self, count: usize) -> Load {
        while self.sent.len() < count {
            self.next_message(Self::next);
        }
        self.done()
    }

    /// Groups, and malformed messages among them.
    pub fn group_load(mut self, count: usize) -> Load {
        while self.sent.len() < count {
            if self.generator.rng.random_ratio(1, 8) {
                self.unreadable();
            } else {
                self.group(Self::next);
            }
        }
        self.done()
    }

    /// Reverts of usages that are there, a third of them in conflict.
    pub fn plain_load(mut self, count: usize) -> Load {
        while self.sent.len() < count {
            self.next_message(|generator| {
                if generator.generator.rng.random_ratio(1, 3) {
                    generator.conflicting();
                } else {
                    generator.plain();
                }
            });
        }
        self.done()
    }

    /// A request by itself, or a group now and then. About a quarter of the requests are in groups.
    fn next_message(&mut self, next: impl Fn(&mut Self)) {
        if self.generator.rng.random_ratio(1, 32) {
            self.group(next);
        } else {
            next(self);
        }
    }

    fn done(self) -> Load {
        Load {
            ledger: self.generator.ledger,
            requests: self.sent,
        }
    }

    fn next(&mut self) {
        match self.generator.rng.random_range(0..100) {
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

    pub(super) fn plain(&mut self) {
        let (usage, amount) = self.generator.usage();
        let part = self.generator.rng.random_range(1..=amount);
        let taken = if self.generator.rng.random() {
            amount
        } else {
            part
        };
        let content = self.generator.content(usage, taken);
        self.ask(content, true);
    }

    /// One of several requests on a usage, now and then more than remains of it.
    fn conflicting(&mut self) {
        if self.hot.len() < HOT || self.generator.rng.random_ratio(1, 5) {
            let (usage, _) = self.generator.usage();
            self.hot.push_back(usage);
        }
        if self.hot.len() > HOT {
            self.hot.pop_front();
        }
        let usage = self.hot[self.generator.rng.random_range(0..self.hot.len())];
        let whole = self.generator.ledger.postings[&usage].amount;
        let most = if self.generator.rng.random_ratio(1, 6) {
            whole + 5
        } else {
            whole / 2 + 1
        };
        let amount = self.generator.rng.random_range(1..=most);
        let content = self.generator.content(usage, amount);
        self.ask(content, true);
    }

    fn exceeding(&mut self) {
        let (usage, amount) = self.generator.usage();
        let huge = if self.generator.rng.random() {
            i64::MAX
        } else {
            amount + 1
        };
        let content = self.generator.content(usage, huge);
        self.ask(content, true);
    }

    /// Looked for again and again; some ask for one attempt only.
    fn unknown(&mut self) {
        let (usage, account) = (self.generator.id(), self.generator.account());
        let content = named(account, usage, 5);
        let named = self.generator.rng.random_ratio(4, 5);
        self.ask(content, named);
        if self.generator.rng.random_ratio(1, 3) {
            let last = self.sent.last_mut().expect("asked above");
            last.request = last.request.clone().single_attempt();
        }
    }

    fn of_another_account(&mut self) {
        let (usage, amount) = self.generator.usage();
        let owner = self.generator.ledger.postings[&usage].account;
        let mut other = self.generator.account();
        while other.id == owner {
            other = self.generator.account();
        }
        let content = named(other, usage, amount);
        self.ask(content, true);
    }

    fn id_with_other_content(&mut self) {
        let Some(earlier) = self.earlier() else {
            return self.plain();
        };
        let (usage, amount) = if self.generator.rng.random() {
            self.generator.usage()
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
            self.generator.content(usage, amount)
        };
        self.send(ValidRequest { content, ..earlier });
    }

    fn again_in_other_words(&mut self) {
        match self.earlier() {
            Some(earlier) => self.send(earlier),
            None => self.plain(),
        }
    }

    fn without_message_id(&mut self) {
        let (usage, amount) = self.generator.usage();
        let most = if self.generator.rng.random_ratio(1, 4) {
            amount + 5
        } else {
            amount
        };
        let taken = self.generator.rng.random_range(1..=most);
        let content = self.generator.content(usage, taken);
        self.ask(content, false);
        if self.generator.rng.random_ratio(1, 3) {
            self.hot.push_back(usage);
        }
    }

    fn no_such_account(&mut self) {
        let (usage, amount) = self.generator.usage();
        let (account, other) = (self.generator.account(), self.generator.id());
        let mut content = Content {
            billing: None,
            ..named(account, usage, amount)
        };
        match self.generator.rng.random_range(0..5) {
            0 => content.billing = Some(other),
            1 => content.org = Some(other),
            2 => content.project = Some(other),
            3 => content.billing = Some(PLATFORM),
            _ => content.billing = Some(self.generator.ledger.deleted[0].id),
        }
        if self.generator.rng.random_ratio(1, 4) {
            let orgs = self.generator.ledger.orgs.iter().copied();
            content.org = orgs.clone().find(|org| *org != account.org);
            content.project = None;
            content.billing = Some(account.id);
        }
        self.ask(content, true);
    }

    fn no_usage(&mut self) {
        let (mut account, id) = (self.generator.account(), self.generator.id());
        let posting = if self.generator.rng.random() {
            Posting::purchase(account.id, 50)
        } else {
            let (usage, _) = self.generator.usage();
            account.id = self.generator.ledger.postings[&usage].account;
            Posting::revert(account.id, usage, &usage.to_string(), 1)
        };
        self.generator.ledger.postings.insert(id, posting);
        let content = named(account, id, 2);
        self.ask(content, true);
    }

    /// Frontier reverted a part of the usage, with the usage id in upper case.
    fn partly_given_back_by_frontier(&mut self) {
        let (usage, amount) = self.generator.usage();
        let part = self.generator.rng.random_range(1..=amount);
        let id = self.generator.id();
        self.generator.ledger.give_back(usage, &[part], &[id]);
        self.hot.push_back(usage);
        let asked = self.generator.rng.random_range(1..=amount);
        let content = self.generator.content(usage, asked);
        self.ask(content, true);
    }

    fn breaking_a_rule(&mut self) {
        let (usage, amount) = (self.generator.id(), 5);
        let account = self.generator.account();
        let content = named(account, usage, amount);
        let (body, fields) = invalid(&content, &mut self.generator.rng);
        let request = self.message(body, Some(&format!("invalid-{usage}")));
        let kind = RequestKind::Invalid(fields);
        self.sent.push(Sent { request, kind });
    }

    fn unreadable(&mut self) {
        let body = malformed(&mut self.generator.rng);
        let id = format!("malformed-{}", self.generator.id());
        let named = self.generator.rng.random_ratio(3, 4);
        let request = self.message(body, named.then_some(id.as_str()));
        let kind = RequestKind::Malformed;
        self.sent.push(Sent { request, kind });
    }

    /// Asks with a message id of its own, or without one.
    fn ask(&mut self, content: Content, named: bool) {
        let message_id = named.then(|| self.generator.id().to_string());
        let client = String::new();
        self.send(ValidRequest {
            client,
            message_id,
            content,
        });
    }

    fn send(&mut self, asked: ValidRequest) {
        let body = encode(&asked.content, &mut self.generator.rng);
        let request = self.message(body, asked.message_id.as_deref());
        let kind = RequestKind::Valid(asked);
        self.sent.push(Sent { request, kind });
    }

    fn message(&mut self, body: Vec<u8>, message_id: Option<&str>) -> Request {
        let request = Request::raw(body).correlated(&self.generator.id().to_string());
        match message_id {
            Some(id) => request.id(id),
            None => request,
        }
    }

    /// A request of the last hundreds that has a message id.
    fn earlier(&mut self) -> Option<ValidRequest> {
        let oldest = self.sent.len().saturating_sub(300);
        let index = self
            .generator
            .rng
            .random_range(oldest..self.sent.len().max(oldest + 1));
        let parts = self.sent.get(index)?.parts();
        match parts[self.generator.rng.random_range(0..parts.len())].1 {
            RequestKind::Valid(asked) => {
                Some(asked.clone()).filter(|asked| asked.message_id.is_some())
            }
            RequestKind::Invalid(_)
            | RequestKind::Malformed
            | RequestKind::CrashesWorker
            | RequestKind::Group(_) => None,
        }
    }
}
