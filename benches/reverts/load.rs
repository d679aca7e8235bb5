//! The requests of a run, each computed from its number.

use std::ops::Range;

use lapin::BasicProperties;
use lapin::types::{AMQPValue, FieldTable};
use uuid::Uuid;

/// The requests of a run.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// Number of the first request. A later load on the same stage continues the numbers.
    pub first: u32,
    /// Number of requests, each for a usage of its own.
    pub requests: u32,
    /// Number of accounts that the usages are spread over.
    pub accounts: u32,
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

    /// The number of messages.
    pub const fn messages(self) -> u32 {
        self.requests * self.copies()
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

    /// The body of a request.
    pub fn body(self, number: u32) -> String {
        let account = account_id(number, self.accounts);
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

    /// The properties of a request.
    pub fn properties(self, number: u32) -> BasicProperties {
        let properties = BasicProperties::default()
            .with_delivery_mode(2)
            .with_message_id(message_id(number).into());
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
}

/// Every id is computed from a number, in SQL and here, so nothing need be stored.
pub fn usage_id(number: u32) -> Uuid {
    Uuid::new_v5(&Uuid::nil(), number.to_string().as_bytes())
}

pub fn account_id(number: u32, accounts: u32) -> Uuid {
    let name = format!("account{}", number % accounts);
    Uuid::new_v5(&Uuid::nil(), name.as_bytes())
}

pub fn message_id(number: u32) -> String {
    format!("request-{number}")
}
