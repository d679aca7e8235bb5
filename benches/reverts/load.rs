//! The requests of a run, each computed from its number.

use std::fmt::Write;
use std::ops::Range;

use lapin::BasicProperties;
use lapin::types::{AMQPValue, FieldTable};
use uuid::Uuid;

/// Requests of each group.
pub const GROUP: u32 = 100;

/// The requests of a run.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// Number of the first request. A later load on the same stage continues the numbers.
    pub first: u32,
    /// Number of requests, each for a usage of its own.
    pub requests: u32,
    /// Number of accounts that the usages are spread over.
    pub accounts: u32,
    /// Number of consecutive requests on the same account.
    pub in_a_row: u32,
    /// Number of requests of a message. Groups have requests of kind `Good`.
    pub group: u32,
    pub kind: Kind,
    /// Whether each request has a `user_id`.
    pub named: bool,
    /// Whether each request has a `traceparent`.
    pub traced: bool,
    /// One `traceparent` in this many is sampled; none if 0.
    pub sampled_every: u32,
}

/// The outcome of the requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Every request succeeds.
    Good,
    /// Every request is published twice.
    Twice,
    /// Every request is for more than its usage.
    Excessive,
    /// Every request is for an unknown usage, without retries.
    Unknown,
    /// No request is JSON.
    Malformed,
}

/// Contents of database and broker after a load.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Expected {
    pub applied: u32,
    pub refused: u32,
    pub dead_letters: u32,
}

impl Load {
    pub const fn good(requests: u32) -> Self {
        Self {
            first: 1,
            requests,
            accounts: 1000,
            in_a_row: 1,
            group: 1,
            kind: Kind::Good,
            named: false,
            traced: false,
            sampled_every: 0,
        }
    }

    pub const fn of(kind: Kind, requests: u32) -> Self {
        Self {
            kind,
            ..Self::good(requests)
        }
    }

    /// At least `requests` requests in full groups, each of which is on one account.
    pub const fn groups(requests: u32) -> Self {
        Self {
            in_a_row: GROUP,
            group: GROUP,
            ..Self::good(requests.div_ceil(GROUP) * GROUP)
        }
    }

    /// The next load of the same kind on the same stage.
    pub const fn next(self, requests: u32) -> Self {
        Self {
            first: self.first + self.requests,
            requests,
            ..self
        }
    }

    pub const fn numbers(self) -> Range<u32> {
        self.first..self.first + self.requests
    }

    /// How many times each request is published.
    pub const fn copies(self) -> u32 {
        match self.kind {
            Kind::Twice => 2,
            Kind::Good | Kind::Excessive | Kind::Unknown | Kind::Malformed => 1,
        }
    }

    /// The numbers of the requests of each message.
    pub fn by_message(self) -> impl Iterator<Item = Range<u32>> {
        let (numbers, group) = (self.numbers(), self.group);
        let firsts = numbers.clone().step_by(group as usize);
        firsts.map(move |first| first..numbers.end.min(first + group))
    }

    /// The number of messages.
    pub const fn messages(self) -> u32 {
        self.requests.div_ceil(self.group) * self.copies()
    }

    /// The number of messages of this load and the earlier loads of the same stage.
    pub const fn all_messages(self) -> u32 {
        (self.first - 1 + self.requests).div_ceil(self.group) * self.copies()
    }

    /// The expected contents after this load and the earlier loads of the same stage.
    pub fn expected(self) -> Expected {
        let all = self.first + self.requests - 1;
        let nothing = Expected::default();
        match self.kind {
            Kind::Good | Kind::Twice => Expected {
                applied: all,
                ..nothing
            },
            Kind::Excessive | Kind::Unknown => Expected {
                refused: all,
                ..nothing
            },
            Kind::Malformed => Expected {
                dead_letters: all,
                ..nothing
            },
        }
    }

    /// The body of the message that has the requests of these numbers.
    pub fn message_body(self, numbers: &Range<u32>) -> String {
        if self.group == 1 {
            return self.body(numbers.start);
        }
        let account = self.account_id(numbers.start);
        let mut body = format!(r#"{{"billing_id":"{account}","requests":["#);
        for number in numbers.clone() {
            let comma = if number == numbers.start { "" } else { "," };
            let usage = usage_id(number);
            let _ = write!(body, r#"{comma}{{"usage_id":"{usage}","amount":"20"}}"#);
        }
        body + "]}"
    }

    /// The account of a request.
    pub fn account_id(self, number: u32) -> Uuid {
        let name = format!("account{}", number.div_ceil(self.in_a_row) % self.accounts);
        Uuid::new_v5(&Uuid::nil(), name.as_bytes())
    }

    /// The body of a single request.
    pub fn body(self, number: u32) -> String {
        let account = self.account_id(number);
        let (usage, amount) = match self.kind {
            Kind::Unknown => (Uuid::new_v5(&account, &number.to_be_bytes()), 20),
            Kind::Excessive => (usage_id(number), 21),
            Kind::Good | Kind::Twice | Kind::Malformed => (usage_id(number), 20),
        };
        let end = match self.kind {
            Kind::Malformed => "",
            Kind::Good | Kind::Twice | Kind::Excessive | Kind::Unknown => "}",
        };
        format!(r#"{{"billing_id":"{account}","usage_id":"{usage}","amount":"{amount}"{end}"#)
    }

    /// The properties of a message, by the number of its first request.
    pub fn properties(self, number: u32) -> BasicProperties {
        let properties = BasicProperties::default()
            .with_delivery_mode(2)
            .with_message_id(self.id_of_message(number).into());
        let mut headers = FieldTable::default();
        if self.kind == Kind::Unknown {
            // Without this header, the request would wait for its usage on the retry ladder.
            headers.insert("x-max-attempts".into(), AMQPValue::LongInt(1));
        }
        if self.traced {
            let sampled = self.sampled_every > 0 && number.is_multiple_of(self.sampled_every);
            let trace = Uuid::new_v5(&Uuid::nil(), message_id(number).as_bytes()).simple();
            let flags = u8::from(sampled);
            let parent = format!("00-{trace}-00000000{number:08x}-{flags:02x}");
            headers.insert("traceparent".into(), AMQPValue::LongString(parent.into()));
        }
        if headers.inner().is_empty() {
            properties
        } else {
            properties.with_headers(headers)
        }
    }

    /// The `message_id` of a message, by the number of its first request.
    pub fn id_of_message(self, number: u32) -> String {
        match self.group {
            1 => message_id(number),
            _ => format!("group-{number}"),
        }
    }
}

/// Every id is computed from a number, in SQL and here, so nothing need be stored.
pub fn usage_id(number: u32) -> Uuid {
    Uuid::new_v5(&Uuid::nil(), number.to_string().as_bytes())
}

pub fn message_id(number: u32) -> String {
    format!("request-{number}")
}
