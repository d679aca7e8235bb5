//! The body of a request: JSON to [`Fields`], with every violation at once.
//!
//! A body is JSON if it follows the grammar of RFC 8259, which permits numbers of any size, lone
//! surrogates and nesting of any depth. Keys and values are therefore kept as text, and only the
//! six fields are parsed.

use std::borrow::Cow;
use std::fmt;

use serde::Deserializer;
use serde::de::{MapAccess, Visitor};
use serde_json::value::RawValue;
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
/// [`Undecodable::Malformed`] if the body is no JSON object in UTF-8, [`Undecodable::Invalid`] if a
/// field is missing, of the wrong form, out of range, or given twice.
pub fn decode(body: &[u8]) -> Result<Fields, Undecodable> {
    // serde_json does not check the UTF-8 of ignored strings.
    let text = std::str::from_utf8(body)
        .map_err(|_| Undecodable::Malformed("the body is not UTF-8".into()))?;
    let mut raw = Raw::default();
    let each = |key: Option<Cow<'_, str>>, value| {
        let named =
            |(snake, camel): &(&str, &str)| [*snake, *camel].map(Some).contains(&key.as_deref());
        if let Some(field) = NAMES.iter().position(named) {
            raw.given[field] = Given::read(value);
            raw.times[field] = raw.times[field].saturating_add(1);
        }
    };
    each_member(text, each).map_err(|error| malformed(text, &error))?;
    raw.check()
}

/// The text of another member, under either of its names, of an object that [`decode`] parsed.
/// `None` if it is absent.
///
/// # Errors
/// If it is no text, or given more than once.
pub fn text_member(body: &[u8], names: [&str; 2]) -> Result<Option<String>, NotOneText> {
    let (mut found, mut times) = (Given::Absent, 0);
    let each = |key: Option<Cow<'_, str>>, value| {
        if names.map(Some).contains(&key.as_deref()) {
            (found, times) = (Given::read(value), times + 1);
        }
    };
    let text = std::str::from_utf8(body).map_err(|_| NotOneText)?;
    each_member(text, each).map_err(|_| NotOneText)?;
    match found {
        _ if times > 1 => Err(NotOneText),
        Given::Absent => Ok(None),
        Given::Text(text) => Ok(Some(text.into_owned())),
        Given::NoText | Given::Number(_) | Given::Other => Err(NotOneText),
    }
}

/// The error of [`text_member`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotOneText;

/// The position of the JSON error, without the text around it, which is the publisher's payload.
fn malformed(text: &str, error: &serde_json::Error) -> Undecodable {
    use serde_json::error::Category;
    // A number that is too large for serde_json is still JSON, and no object.
    let is_json = serde_json::from_str::<&RawValue>(text).is_ok();
    let what = match error.classify() {
        _ if is_json => "the body is not a JSON object",
        Category::Eof => "the body is cut off or empty",
        Category::Data | Category::Syntax | Category::Io => "the body is not valid JSON",
    };
    let (line, column) = (error.line(), error.column());
    Undecodable::Malformed(format!("{what} (line {line}, column {column})"))
}

/// The JSON value of a field.
#[derive(Clone, Debug, Default, PartialEq)]
enum Given<'a> {
    #[default]
    Absent,
    Text(Cow<'a, str>),
    /// A string with a lone surrogate, which is no text.
    NoText,
    /// A number, as spelled.
    Number(&'a str),
    /// Any other value: a boolean, an array, an object.
    Other,
}

impl<'a> Given<'a> {
    /// Parses a value that is known to be JSON.
    fn read(value: &'a str) -> Self {
        match value.as_bytes().first() {
            Some(b'"') => text(value).map_or(Self::NoText, Self::Text),
            Some(b'n') => Self::Absent,
            Some(b'-' | b'0'..=b'9') => Self::Number(value),
            _ => Self::Other,
        }
    }
}

/// The text of a JSON string; `None` if it has a lone surrogate.
fn text(value: &str) -> Option<Cow<'_, str>> {
    if !value.contains('\\') {
        return Some(Cow::Borrowed(&value[1..value.len() - 1]));
    }
    serde_json::from_str(value).ok().map(Cow::Owned)
}

#[derive(Default)]
struct Raw<'a> {
    given: [Given<'a>; 6],
    times: [u8; 6],
}

impl Raw<'_> {
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
                // A field that is given twice has no single value for the event.
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
            Given::NoText | Given::Number(_) | Given::Other => false,
        }
    }

    /// Whether the field is absent, rather than given twice with `null` last.
    fn missing(&self, field: usize) -> bool {
        self.absent(field) && self.times[field] < 2
    }

    fn uuid(&self, field: usize, violations: &mut Vec<Violation>) -> Option<Uuid> {
        if self.absent(field) {
            return None;
        }
        let parsed = match &self.given[field] {
            Given::Text(text) => text.parse::<Hyphenated>().ok().map(Hyphenated::into_uuid),
            Given::Absent | Given::NoText | Given::Number(_) | Given::Other => None,
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
        (!long && !control).then(|| Reference::Name(text.clone().into_owned()))
    }

    fn amount(&self, violations: &mut Vec<Violation>) -> Option<Amount> {
        const FORM: &str = "must be an integer, as a number or as a string of decimal digits";
        const RANGE: &str = "must be from 1 to 9223372036854775807";
        if self.absent(AMOUNT) {
            return None;
        }
        let digits = match &self.given[AMOUNT] {
            Given::Text(text) => decimal(text),
            Given::Number(text) => decimal(text),
            Given::Absent | Given::NoText | Given::Other => None,
        };
        let parsed = digits.ok_or(FORM).and_then(|digits| {
            let value = digits.parse().ok().and_then(Amount::new);
            value.ok_or(RANGE)
        });
        parsed
            .map_err(|error| violate(violations, AMOUNT, error))
            .ok()
    }

    fn reason(&mut self, violations: &mut Vec<Violation>) -> Option<String> {
        if self.absent(REASON) {
            return None;
        }
        let text = match std::mem::take(&mut self.given[REASON]) {
            Given::Text(text) => text,
            Given::NoText => {
                let error = "must be Unicode text: one of its escapes is half of a surrogate pair";
                violate(violations, REASON, error);
                return None;
            }
            Given::Absent | Given::Number(_) | Given::Other => {
                violate(violations, REASON, "must be a string");
                return None;
            }
        };
        let long = text.chars().count() > REASON_MAX_CHARS;
        let control = text.chars().any(char::is_control);
        if long {
            violate(violations, REASON, "must be at most 512 characters long");
        }
        if control {
            violate(violations, REASON, "must not contain control characters");
        }
        (!long && !control).then(|| text.into_owned())
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

/// Visits the members of an object: the key, `None` if it is no text, and the raw value.
fn each_member<'a>(
    text: &'a str,
    visit: impl FnMut(Option<Cow<'a, str>>, &'a str),
) -> Result<(), serde_json::Error> {
    let mut json = serde_json::Deserializer::from_str(text);
    json.deserialize_map(Members(visit))?;
    json.end()
}

struct Members<F>(F);

impl<'de, F: FnMut(Option<Cow<'de, str>>, &'de str)> Visitor<'de> for Members<F> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<(), A::Error> {
        while let Some((key, value)) = map.next_entry::<&RawValue, &RawValue>()? {
            (self.0)(text(key.get()), value.get());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
