//! The body of a request: JSON to [`Fields`], with every violation at once.

use std::fmt;

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use uuid::Uuid;
use uuid::fmt::Hyphenated;

use super::{
    Amount, Fields, Fragments, NAME_MAX_CHARS, REASON_MAX_CHARS, Reference, Undecodable, Violation,
};

const NAMES: [(&str, &str); 6] = [
    ("usage_id", "usageId"),
    ("amount", "amount"),
    ("billing_id", "billingId"),
    ("org_id", "orgId"),
    ("project_id", "projectId"),
    ("reason", "reason"),
];
const USAGE_ID: usize = 0;
const AMOUNT: usize = 1;
const BILLING_ID: usize = 2;
const ORG_ID: usize = 3;
const PROJECT_ID: usize = 4;
const REASON: usize = 5;

/// Parses a body (contract, section Request).
///
/// # Errors
/// [`Undecodable::Malformed`] where it is no JSON object in UTF-8, [`Undecodable::Invalid`] where a field
/// is missing, of the wrong form, out of range, or given twice.
pub fn decode(body: &[u8]) -> Result<Fields, Undecodable> {
    // serde_json leaves the bytes of ignored strings unchecked, so the text is checked as a whole.
    let text = std::str::from_utf8(body)
        .map_err(|_| Undecodable::Malformed("the body is not UTF-8".into()))?;
    let raw: Raw = serde_json::from_str(text).map_err(|error| malformed(&error))?;
    raw.check()
}

/// Says where the JSON breaks, without the text around it: that is the publisher's payload.
fn malformed(error: &serde_json::Error) -> Undecodable {
    let what = match error.classify() {
        serde_json::error::Category::Data => "the body is not a JSON object",
        serde_json::error::Category::Eof => "the body is cut off or empty",
        serde_json::error::Category::Syntax | serde_json::error::Category::Io => {
            "the body is not valid JSON"
        }
    };
    let (line, column) = (error.line(), error.column());
    Undecodable::Malformed(format!("{what} (line {line}, column {column})"))
}

/// A field as it stands in the JSON text.
#[derive(Clone, Debug, Default, PartialEq)]
enum Given {
    #[default]
    Absent,
    Text(String),
    Integer(i64),
    /// A number that is no int64: a fraction, an exponent, or too large.
    Number,
    /// true, an array, an object.
    Other,
}

#[derive(Default)]
struct Raw {
    given: [Given; 6],
    times: [u8; 6],
}

impl Raw {
    fn check(mut self) -> Result<Fields, Undecodable> {
        let mut violations = Vec::new();
        for (field, times) in self.times.iter().enumerate() {
            if *times > 1 {
                violate(&mut violations, field, "is given more than once");
            }
        }
        let usage_id = self.uuid(USAGE_ID, &mut violations);
        let amount = self.amount(&mut violations);
        let billing_id = self.uuid(BILLING_ID, &mut violations);
        let org_id = self.reference(ORG_ID, &mut violations);
        let project_id = self.reference(PROJECT_ID, &mut violations);
        let reason = self.reason(&mut violations);
        if self.missing(USAGE_ID) {
            violate(&mut violations, USAGE_ID, "is required");
        }
        if self.missing(AMOUNT) {
            violate(&mut violations, AMOUNT, "is required");
        }
        if self.missing(BILLING_ID) && self.missing(ORG_ID) && self.missing(PROJECT_ID) {
            violate(
                &mut violations,
                BILLING_ID,
                "one of billing_id, org_id and project_id is required",
            );
        }
        if !self.absent(ORG_ID) && !self.absent(PROJECT_ID) {
            violate(
                &mut violations,
                ORG_ID,
                "give org_id or project_id, not both",
            );
        }
        match (usage_id, amount) {
            (Some(usage_id), Some(amount)) if violations.is_empty() => Ok(Fields {
                usage_id,
                amount,
                billing_id,
                org_id,
                project_id,
                reason,
            }),
            _ => {
                // A field given twice has no one value to repeat.
                let once = |field: usize| self.times[field] < 2;
                Err(Undecodable::Invalid {
                    fragments: Fragments {
                        usage_id: usage_id.filter(|_| once(USAGE_ID)),
                        amount: amount.filter(|_| once(AMOUNT)),
                        billing_id: billing_id.filter(|_| once(BILLING_ID)),
                        org_id: org_id.and_then(|org| org.id()).filter(|_| once(ORG_ID)),
                        reason: reason.filter(|_| once(REASON)),
                    },
                    violations,
                })
            }
        }
    }

    fn absent(&self, field: usize) -> bool {
        match &self.given[field] {
            Given::Absent => true,
            Given::Text(text) => text.is_empty(),
            Given::Integer(_) | Given::Number | Given::Other => false,
        }
    }

    /// Absent, and not merely because the last of two said so.
    fn missing(&self, field: usize) -> bool {
        self.absent(field) && self.times[field] < 2
    }

    fn uuid(&self, field: usize, violations: &mut Vec<Violation>) -> Option<Uuid> {
        if self.absent(field) {
            return None;
        }
        let parsed = match &self.given[field] {
            Given::Text(text) => text.parse::<Hyphenated>().ok().map(Hyphenated::into_uuid),
            Given::Absent | Given::Integer(_) | Given::Number | Given::Other => None,
        };
        if parsed.is_none() {
            violate(violations, field, "must be a hyphenated UUID, as a string");
        }
        parsed
    }

    /// A UUID, or else a name.
    fn reference(&self, field: usize, violations: &mut Vec<Violation>) -> Option<Reference> {
        if self.absent(field) {
            return None;
        }
        let Given::Text(text) = &self.given[field] else {
            violate(violations, field, "must be a UUID or a name, as a string");
            return None;
        };
        if let Ok(id) = Uuid::try_parse(text) {
            return Some(Reference::Id(id));
        }
        let long = text.chars().count() > NAME_MAX_CHARS;
        let control = text.chars().any(char::is_control);
        if long {
            violate(violations, field, "must be at most 255 characters long");
        }
        if control {
            violate(violations, field, "must not contain control characters");
        }
        (!long && !control).then(|| Reference::Name(text.clone()))
    }

    fn amount(&self, violations: &mut Vec<Violation>) -> Option<Amount> {
        const FORM: &str = "must be an integer, as a number or as a string of decimal digits";
        const RANGE: &str = "must be from 1 to 9223372036854775807";
        if self.absent(AMOUNT) {
            return None;
        }
        let parsed = match &self.given[AMOUNT] {
            Given::Integer(value) => Amount::new(*value).ok_or(RANGE),
            Given::Text(text) => decimal(text).ok_or(FORM).and_then(|digits| {
                let value = digits.parse().ok().and_then(Amount::new);
                value.ok_or(RANGE)
            }),
            Given::Absent | Given::Number | Given::Other => Err(FORM),
        };
        parsed
            .map_err(|wrong| violate(violations, AMOUNT, wrong))
            .ok()
    }

    fn reason(&mut self, violations: &mut Vec<Violation>) -> Option<String> {
        if self.absent(REASON) {
            return None;
        }
        let Given::Text(text) = std::mem::take(&mut self.given[REASON]) else {
            violate(violations, REASON, "must be a string");
            return None;
        };
        let long = text.chars().count() > REASON_MAX_CHARS;
        let control = text.chars().any(char::is_control);
        if long {
            violate(violations, REASON, "must be at most 512 characters long");
        }
        if control {
            violate(violations, REASON, "must not contain control characters");
        }
        (!long && !control).then_some(text)
    }
}

fn violate(violations: &mut Vec<Violation>, field: usize, description: &str) {
    violations.push(Violation {
        field: NAMES[field].0,
        description: description.into(),
    });
}

/// The text of an integer as JSON writes one: an optional minus, digits, no leading zero.
fn decimal(text: &str) -> Option<&str> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let plain = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    (plain && (digits == "0" || !digits.starts_with('0'))).then_some(text)
}

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(RawVisitor)
    }
}

struct RawVisitor;

impl<'de> Visitor<'de> for RawVisitor {
    type Value = Raw;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Raw, A::Error> {
        let mut raw = Raw::default();
        while let Some(field) = map.next_key_seed(Name)? {
            match field {
                Some(field) => {
                    raw.given[field] = map.next_value()?;
                    raw.times[field] = raw.times[field].saturating_add(1);
                }
                None => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(raw)
    }
}

/// A key: the number of the field it names, in either spelling, or none.
struct Name;

impl<'de> DeserializeSeed<'de> for Name {
    type Value = Option<usize>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Name {
    type Value = Option<usize>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E>(self, key: &str) -> Result<Self::Value, E> {
        Ok(NAMES
            .iter()
            .position(|(snake, camel)| key == *snake || key == *camel))
    }
}

impl<'de> Deserialize<'de> for Given {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(GivenVisitor)
    }
}

struct GivenVisitor;

impl<'de> Visitor<'de> for GivenVisitor {
    type Value = Given;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<Given, E> {
        Ok(Given::Absent)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Given, E> {
        Ok(Given::Other)
    }

    fn visit_i64<E>(self, value: i64) -> Result<Given, E> {
        Ok(Given::Integer(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Given, E> {
        Ok(i64::try_from(value).map_or(Given::Number, Given::Integer))
    }

    fn visit_f64<E>(self, _: f64) -> Result<Given, E> {
        Ok(Given::Number)
    }

    fn visit_str<E>(self, text: &str) -> Result<Given, E> {
        Ok(Given::Text(text.to_owned()))
    }

    fn visit_string<E>(self, text: String) -> Result<Given, E> {
        Ok(Given::Text(text))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Given, A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Given::Other)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Given, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Given::Other)
    }
}

#[cfg(test)]
mod tests;
