//! The body of a request: JSON to [`Fields`], with every violation at once.

use uuid::Uuid;
use uuid::fmt::Hyphenated;

use super::body::{
    Amount, Fields, Fragments, InvalidFields, NAME_MAX_CHARS, REASON_MAX_CHARS, Reference,
    Undecodable, Violation,
};
use super::json::{Given, Member, each_member, malformed, utf8};

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

/// The violation of a member that has two values.
pub(super) const REPEATED: &str = "is given more than once";

/// The violation of a string that is no text.
pub(super) const NO_TEXT: &str =
    "must be Unicode text: one of its escapes is half of a surrogate pair";

/// Parses a body (contract, section Request).
///
/// # Errors
/// [`Undecodable::Malformed`] if the body is no JSON object in UTF-8, [`Undecodable::Invalid`] if a
/// field is missing, of the wrong form, out of range, or given twice.
pub fn decode(body: &[u8]) -> Result<Fields, Undecodable> {
    let text = utf8(body)?;
    let raw = RawFields::read(text, |_, _| ()).map_err(|error| malformed(text, &error))?;
    Ok(raw.check()?)
}

/// The text of another member, under either of its names, of an object that [`decode`] parsed.
/// `None` if it is absent.
///
/// # Errors
/// If it is no text, or given more than once.
pub fn text_member(body: &[u8], names: [&str; 2]) -> Result<Option<String>, NotOneText> {
    let mut member = Member::default();
    let each = |key: &str, value| {
        if names.contains(&key) {
            member.add(value);
        }
    };
    let text = std::str::from_utf8(body).map_err(|_| NotOneText)?;
    each_member(text, each).map_err(|_| NotOneText)?;
    match member.value {
        _ if member.is_repeated() => Err(NotOneText),
        Given::Absent => Ok(None),
        Given::Text(text) => Ok(Some(text.into_owned())),
        Given::NoText | Given::Number(_) | Given::Other(_) => Err(NotOneText),
    }
}

/// The error of [`text_member`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotOneText;

/// The six fields of an object, before they are checked.
#[derive(Clone, Default)]
pub(super) struct RawFields<'a> {
    members: [Member<'a>; 6],
}

impl<'a> RawFields<'a> {
    /// Reads the fields of an object. `other` gets every other member.
    pub(super) fn read(
        text: &'a str,
        mut other: impl FnMut(&str, &'a str),
    ) -> Result<Self, serde_json::Error> {
        let mut raw = Self::default();
        let each = |key: &str, value| match field(key) {
            Some(field) => raw.members[field].add(value),
            None => other(key, value),
        };
        each_member(text, each)?;
        Ok(raw)
    }

    /// Takes the account of `defaults` if no account is given, and its reason if no reason is
    /// given. Whether anything was taken.
    pub(super) fn inherit(&mut self, defaults: &Self) -> bool {
        let account: &[usize] = &[BILLING_ID, ORG_ID, PROJECT_ID];
        let mut inherited = false;
        for fields in [account, &[REASON]] {
            if fields.iter().all(|field| self.members[*field].is_missing()) {
                for field in fields {
                    inherited |= !defaults.members[*field].is_absent();
                    self.members[*field] = defaults.members[*field].clone();
                }
            }
        }
        inherited
    }

    /// The violations of fields that stand beside the requests of a group.
    pub(super) fn check_defaults(mut self) -> Vec<Violation> {
        let mut violations = self.repeated();
        for field in [USAGE_ID, AMOUNT] {
            if !self.absent(field) {
                violate(&mut violations, field, "must stand in each of the requests");
            }
        }
        self.uuid(BILLING_ID, &mut violations);
        self.reference(ORG_ID, &mut violations);
        self.reference(PROJECT_ID, &mut violations);
        self.reason(&mut violations);
        self.one_of_org_and_project(&mut violations);
        violations
    }

    pub(super) fn check(mut self) -> Result<Fields, InvalidFields> {
        let mut violations = self.repeated();
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
        self.one_of_org_and_project(&mut violations);
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
                let once = |field: usize| !self.members[field].is_repeated();
                Err(InvalidFields {
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

    fn repeated(&self) -> Vec<Violation> {
        let mut violations = Vec::new();
        for (field, member) in self.members.iter().enumerate() {
            if member.is_repeated() {
                violate(&mut violations, field, REPEATED);
            }
        }
        violations
    }

    fn one_of_org_and_project(&self, violations: &mut Vec<Violation>) {
        if !self.absent(ORG_ID) && !self.absent(PROJECT_ID) {
            violate(violations, ORG_ID, "give org_id or project_id, not both");
        }
    }

    fn absent(&self, field: usize) -> bool {
        self.members[field].is_absent()
    }

    fn missing(&self, field: usize) -> bool {
        self.members[field].is_missing()
    }

    fn uuid(&self, field: usize, violations: &mut Vec<Violation>) -> Option<Uuid> {
        if self.absent(field) {
            return None;
        }
        let parsed = match &self.members[field].value {
            Given::Text(text) => text.parse::<Hyphenated>().ok().map(Hyphenated::into_uuid),
            Given::Absent | Given::NoText | Given::Number(_) | Given::Other(_) => None,
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
        let Given::Text(text) = &self.members[field].value else {
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
        let digits = match &self.members[AMOUNT].value {
            Given::Text(text) => decimal(text),
            Given::Number(text) => decimal(text),
            Given::Absent | Given::NoText | Given::Other(_) => None,
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
        let text = match std::mem::take(&mut self.members[REASON].value) {
            Given::Text(text) => text,
            Given::NoText => {
                violate(violations, REASON, NO_TEXT);
                return None;
            }
            Given::Absent | Given::Number(_) | Given::Other(_) => {
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

/// The field of that name.
fn field(key: &str) -> Option<usize> {
    let named = |(snake, camel): &(&str, &str)| [*snake, *camel].contains(&key);
    NAMES.iter().position(named)
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

#[cfg(test)]
mod tests;
