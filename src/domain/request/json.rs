//! JSON by its grammar alone: the members of an object as text, and the kind of their values.
//!
//! A body is JSON if it follows the grammar of RFC 8259, which permits numbers of any size, lone
//! surrogates and nesting of any depth. Keys and values are therefore kept as text.

use std::borrow::Cow;
use std::fmt;

use serde::Deserializer;
use serde::de::{MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::body::Undecodable;

/// The text of a body.
pub(super) fn utf8(body: &[u8]) -> Result<&str, Undecodable> {
    // serde_json does not check the UTF-8 of ignored strings.
    std::str::from_utf8(body).map_err(|_| Undecodable::Malformed("the body is not UTF-8".into()))
}

/// The position of the JSON error, without the text around it, which is the publisher's payload.
pub(super) fn malformed(text: &str, error: &serde_json::Error) -> Undecodable {
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

/// The JSON value of a member.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) enum Given<'a> {
    #[default]
    Absent,
    Text(Cow<'a, str>),
    /// A string with a lone surrogate, which is no text.
    NoText,
    /// A number, as spelled.
    Number(&'a str),
    /// Any other value, as spelled: a boolean, an array, an object.
    Other(&'a str),
}

impl<'a> Given<'a> {
    /// Parses a value that is known to be JSON.
    fn read(value: &'a str) -> Self {
        match value.as_bytes().first() {
            Some(b'"') => text(value).map_or(Self::NoText, Self::Text),
            Some(b'n') => Self::Absent,
            Some(b'-' | b'0'..=b'9') => Self::Number(value),
            _ => Self::Other(value),
        }
    }
}

/// A member of an object, under any of its names: its last value, and how often it is given.
#[derive(Clone, Debug, Default)]
pub(super) struct Member<'a> {
    pub value: Given<'a>,
    times: u8,
}

impl<'a> Member<'a> {
    /// Adds a value that is known to be JSON.
    pub(super) fn add(&mut self, value: &'a str) {
        self.value = Given::read(value);
        self.times = self.times.saturating_add(1);
    }

    pub(super) fn is_repeated(&self) -> bool {
        self.times > 1
    }

    /// Whether its value counts as absent: `null` and the empty string do.
    pub(super) fn is_absent(&self) -> bool {
        match &self.value {
            Given::Absent => true,
            Given::Text(text) => text.is_empty(),
            Given::NoText | Given::Number(_) | Given::Other(_) => false,
        }
    }

    /// Whether it is absent, rather than given twice with `null` last.
    pub(super) fn is_missing(&self) -> bool {
        self.is_absent() && !self.is_repeated()
    }
}

/// The text of a JSON string; `None` if it has a lone surrogate.
fn text(value: &str) -> Option<Cow<'_, str>> {
    if !value.contains('\\') {
        return Some(Cow::Borrowed(&value[1..value.len() - 1]));
    }
    serde_json::from_str(value).ok().map(Cow::Owned)
}

/// Visits the members of an object: the key and the raw value. Keys that are no text are skipped.
pub(super) fn each_member<'a>(
    text: &'a str,
    visit: impl FnMut(&str, &'a str),
) -> Result<(), serde_json::Error> {
    let mut json = serde_json::Deserializer::from_str(text);
    json.deserialize_map(Members(visit))?;
    json.end()
}

/// Visits the elements of an array, as raw values.
pub(super) fn each_element<'a>(
    text: &'a str,
    visit: impl FnMut(&'a str),
) -> Result<(), serde_json::Error> {
    let mut json = serde_json::Deserializer::from_str(text);
    json.deserialize_seq(Elements(visit))?;
    json.end()
}

struct Members<F>(F);

impl<'de, F: FnMut(&str, &'de str)> Visitor<'de> for Members<F> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<(), A::Error> {
        while let Some((key, value)) = map.next_entry::<&RawValue, &RawValue>()? {
            if let Some(key) = text(key.get()) {
                (self.0)(&key, value.get());
            }
        }
        Ok(())
    }
}

struct Elements<F>(F);

impl<'de, F: FnMut(&'de str)> Visitor<'de> for Elements<F> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array")
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut elements: A) -> Result<(), A::Error> {
        while let Some(element) = elements.next_element::<&RawValue>()? {
            (self.0)(element.get());
        }
        Ok(())
    }
}
