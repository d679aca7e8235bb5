//! Generates a mixed load from a seed: requests that conflict, exceed the usage, repeat an id or
//! break a rule.

use std::collections::VecDeque;

use rand::RngExt;
use uuid::Uuid;

use super::Request;
use super::draw::{Draw, named};
use super::ledger::PLATFORM;
use super::load::{Load, Nature, Sent};
use super::model::{Asked, Content, Policy};
use super::spelling::{invalid, malformed, spelled};
use super::world::Posting;

/// Usages that several requests ask for at about the same time.
const HOT: usize = 12;

pub struct Mix {
    draw: Draw,
    sent: Vec<Sent>,
    hot: VecDeque<Uuid>,
}

impl Mix {
    pub fn new(policy: Policy, seed: u64) -> Self {
        Self {
            draw: Draw::new(policy, seed),
            sent: Vec::new(),
            hot: VecDeque::new(),
        }
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
            if self.draw.rng.random_ratio(1, 3) {
                self.conflicting();
            } else {
                self.plain();
            }
        }
        self.done()
    }

    fn done(self) -> Load {
        Load {
            world: self.draw.world,
            requests: self.sent,
        }
    }

    fn next(&mut self) {
        match self.draw.rng.random_range(0..100) {
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
        let (usage, amount) = self.draw.usage();
        let part = self.draw.rng.random_range(1..=amount);
        let taken = if self.draw.rng.random() {
            amount
        } else {
            part
        };
        let content = self.draw.content(usage, taken);
        self.ask(content, true);
    }

    /// One of several requests on a usage, now and then more than remains of it.
    fn conflicting(&mut self) {
        if self.hot.len() < HOT || self.draw.rng.random_ratio(1, 5) {
            let (usage, _) = self.draw.usage();
            self.hot.push_back(usage);
        }
        if self.hot.len() > HOT {
            self.hot.pop_front();
        }
        let usage = self.hot[self.draw.rng.random_range(0..self.hot.len())];
        let whole = self.draw.world.postings[&usage].amount;
        let most = if self.draw.rng.random_ratio(1, 6) {
            whole + 5
        } else {
            whole / 2 + 1
        };
        let amount = self.draw.rng.random_range(1..=most);
        let content = self.draw.content(usage, amount);
        self.ask(content, true);
    }

    fn exceeding(&mut self) {
        let (usage, amount) = self.draw.usage();
        let huge = if self.draw.rng.random() {
            i64::MAX
        } else {
            amount + 1
        };
        let content = self.draw.content(usage, huge);
        self.ask(content, true);
    }

    /// Looked for again and again; some ask for one attempt only.
    fn unknown(&mut self) {
        let (usage, account) = (self.draw.id(), self.draw.account());
        let content = named(account, usage, 5);
        let named = self.draw.rng.random_ratio(4, 5);
        self.ask(content, named);
        if self.draw.rng.random_ratio(1, 3) {
            let last = self.sent.last_mut().expect("asked above");
            last.request = last.request.clone().once();
        }
    }

    fn of_another_account(&mut self) {
        let (usage, amount) = self.draw.usage();
        let owner = self.draw.world.postings[&usage].account;
        let mut other = self.draw.account();
        while other.id == owner {
            other = self.draw.account();
        }
        let content = named(other, usage, amount);
        self.ask(content, true);
    }

    fn id_with_other_content(&mut self) {
        let Some(earlier) = self.earlier() else {
            return self.plain();
        };
        let (usage, amount) = if self.draw.rng.random() {
            self.draw.usage()
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
            self.draw.content(usage, amount)
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
        let (usage, amount) = self.draw.usage();
        let most = if self.draw.rng.random_ratio(1, 4) {
            amount + 5
        } else {
            amount
        };
        let taken = self.draw.rng.random_range(1..=most);
        let content = self.draw.content(usage, taken);
        self.ask(content, false);
        if self.draw.rng.random_ratio(1, 3) {
            self.hot.push_back(usage);
        }
    }

    fn no_such_account(&mut self) {
        let (usage, amount) = self.draw.usage();
        let (account, other) = (self.draw.account(), self.draw.id());
        let mut content = Content {
            billing: None,
            ..named(account, usage, amount)
        };
        match self.draw.rng.random_range(0..5) {
            0 => content.billing = Some(other),
            1 => content.org = Some(other),
            2 => content.project = Some(other),
            3 => content.billing = Some(PLATFORM),
            _ => content.billing = Some(self.draw.world.deleted[0].id),
        }
        if self.draw.rng.random_ratio(1, 4) {
            let orgs = self.draw.world.orgs.iter().copied();
            content.org = orgs.clone().find(|org| *org != account.org);
            content.project = None;
            content.billing = Some(account.id);
        }
        self.ask(content, true);
    }

    fn no_usage(&mut self) {
        let (mut account, id) = (self.draw.account(), self.draw.id());
        let posting = if self.draw.rng.random() {
            Posting::purchase(account.id, 50)
        } else {
            let (usage, _) = self.draw.usage();
            account.id = self.draw.world.postings[&usage].account;
            Posting::revert(account.id, usage, &usage.to_string(), 1)
        };
        self.draw.world.postings.insert(id, posting);
        let content = named(account, id, 2);
        self.ask(content, true);
    }

    /// By a Frontier that spelled the usage's id in upper case.
    fn partly_given_back_by_frontier(&mut self) {
        let (usage, amount) = self.draw.usage();
        let part = self.draw.rng.random_range(1..=amount);
        let id = self.draw.id();
        self.draw.world.give_back(usage, &[part], &[id]);
        self.hot.push_back(usage);
        let asked = self.draw.rng.random_range(1..=amount);
        let content = self.draw.content(usage, asked);
        self.ask(content, true);
    }

    fn breaking_a_rule(&mut self) {
        let (usage, amount) = (self.draw.id(), 5);
        let account = self.draw.account();
        let content = named(account, usage, amount);
        let (body, fields) = invalid(&content, &mut self.draw.rng);
        let request = self.message(body, Some(&format!("invalid-{usage}")));
        let nature = Nature::Invalid(fields);
        self.sent.push(Sent { request, nature });
    }

    fn unreadable(&mut self) {
        let body = malformed(&mut self.draw.rng);
        let id = format!("malformed-{}", self.draw.id());
        let named = self.draw.rng.random_ratio(3, 4);
        let request = self.message(body, named.then_some(id.as_str()));
        let nature = Nature::Malformed;
        self.sent.push(Sent { request, nature });
    }

    /// Asks with a message id of its own, or without one.
    fn ask(&mut self, content: Content, named: bool) {
        let message_id = named.then(|| self.draw.id().to_string());
        let client = String::new();
        self.send(Asked {
            client,
            message_id,
            content,
        });
    }

    fn send(&mut self, asked: Asked) {
        let body = spelled(&asked.content, &mut self.draw.rng);
        let request = self.message(body, asked.message_id.as_deref());
        let nature = Nature::Asked(asked);
        self.sent.push(Sent { request, nature });
    }

    fn message(&mut self, body: Vec<u8>, message_id: Option<&str>) -> Request {
        let request = Request::raw(body).correlated(&self.draw.id().to_string());
        match message_id {
            Some(id) => request.id(id),
            None => request,
        }
    }

    /// A request of the last hundreds that has a message id.
    fn earlier(&mut self) -> Option<Asked> {
        let oldest = self.sent.len().saturating_sub(300);
        let index = self
            .draw
            .rng
            .random_range(oldest..self.sent.len().max(oldest + 1));
        match &self.sent.get(index)?.nature {
            Nature::Asked(asked) => Some(asked.clone()).filter(|asked| asked.message_id.is_some()),
            Nature::Invalid(_) | Nature::Malformed | Nature::Unread => None,
        }
    }
}
