//! The identity of a request and of its content.

use uuid::Uuid;

use super::{Fields, Reference};

/// The namespace of the digests that identify requests, contents and events.
const NAMESPACE: Uuid = Uuid::from_u128(0x6f1d_7a52_91c4_4c1e_8e0b_5a3f_2c77_d940);

/// The identity of a request: client and message id; without a message id, client, usage and
/// content.
#[must_use]
pub fn identity(client: &str, message_id: Option<&str>, usage: Uuid, content: Uuid) -> Uuid {
    let client = client.as_bytes();
    match message_id {
        Some(message_id) => digest(&[b"message", client, message_id.as_bytes()]),
        None => digest(&[b"content", client, usage.as_bytes(), content.as_bytes()]),
    }
}

/// The identity of the refusal `REQUEST_ID_REUSED` of a content under the id of a request.
#[must_use]
pub fn reuse_identity(id: Uuid, content: Uuid) -> Uuid {
    digest(&[b"reuse", id.as_bytes(), content.as_bytes()])
}

pub(super) fn content(fields: &Fields) -> Uuid {
    fn id(reference: Option<&Reference>) -> Option<[u8; 16]> {
        reference.and_then(Reference::id).map(Uuid::into_bytes)
    }
    fn name(reference: Option<&Reference>) -> &[u8] {
        let name = reference.and_then(Reference::name);
        name.unwrap_or_default().as_bytes()
    }
    let (org, project) = (fields.org_id.as_ref(), fields.project_id.as_ref());
    let billing = fields.billing_id.map(Uuid::into_bytes);
    let (org_id, project_id) = (id(org), id(project));
    let amount = fields.amount.get().to_be_bytes();
    let mut parts: Vec<&[u8]> = vec![
        fields.usage_id.as_bytes(),
        &amount,
        billing.as_ref().map_or(&[], |id| id.as_slice()),
        org_id.as_ref().map_or(&[], |id| id.as_slice()),
        project_id.as_ref().map_or(&[], |id| id.as_slice()),
        fields.reason.as_deref().unwrap_or_default().as_bytes(),
    ];
    let names = [name(org), name(project)];
    // Names are separate parts, so that no name has the digest of an id.
    if names.iter().any(|name| !name.is_empty()) {
        parts.extend(names);
    }
    digest(&parts)
}

/// UUID version 5 of the parts. Each part is preceded by its length, so that no two lists of parts
/// have the same text.
pub(crate) fn digest(parts: &[&[u8]]) -> Uuid {
    let mut text = Vec::with_capacity(parts.iter().map(|part| part.len() + 4).sum());
    for part in parts {
        let length = u32::try_from(part.len()).unwrap_or(u32::MAX);
        text.extend_from_slice(&length.to_be_bytes());
        text.extend_from_slice(part);
    }
    Uuid::new_v5(&NAMESPACE, &text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::request::{Amount, Envelope, RevertRequest};

    fn fields() -> Fields {
        Fields {
            usage_id: Uuid::from_u128(1),
            amount: Amount::new(5).expect("positive"),
            billing_id: Some(Uuid::from_u128(2)),
            org_id: None,
            project_id: None,
            reason: None,
        }
    }

    fn envelope(client: &str, message_id: Option<&str>) -> Envelope {
        Envelope {
            client: client.into(),
            message_id: message_id.map(Into::into),
            ..Envelope::default()
        }
    }

    #[test]
    fn identity_is_client_and_message_id() {
        let one = RevertRequest::new(&envelope("a", Some("m")), fields(), false);
        let mut other = fields();
        other.amount = Amount::new(6).expect("positive");
        let two = RevertRequest::new(&envelope("a", Some("m")), other, false);
        assert_eq!(one.id, two.id);
        assert_ne!(one.content, two.content);
        assert_ne!(one.reuse_id, two.reuse_id);
        let three = RevertRequest::new(&envelope("b", Some("m")), fields(), false);
        assert_ne!(one.id, three.id);
    }

    #[test]
    fn identity_without_a_message_id_is_the_content() {
        let one = RevertRequest::new(&envelope("a", None), fields(), false);
        let two = RevertRequest::new(&envelope("a", None), fields(), true);
        let mut other = fields();
        other.reason = Some("x".into());
        let three = RevertRequest::new(&envelope("a", None), other, false);
        assert_eq!(one.id, two.id);
        assert_ne!(one.id, three.id);
    }

    #[test]
    fn every_field_counts_as_content() {
        let bytes = *b"sixteen letters!";
        let id = Uuid::from_bytes(bytes);
        let name = Reference::Name(String::from_utf8(bytes.into()).expect("ASCII"));
        let mut base = fields();
        base.billing_id = None;
        let variants = [
            Fields {
                billing_id: Some(id),
                ..base.clone()
            },
            Fields {
                org_id: Some(Reference::Id(id)),
                ..base.clone()
            },
            Fields {
                project_id: Some(Reference::Id(id)),
                ..base.clone()
            },
            Fields {
                org_id: Some(name.clone()),
                ..base.clone()
            },
            Fields {
                project_id: Some(name.clone()),
                ..base.clone()
            },
            Fields {
                reason: Some(name.to_string()),
                ..base.clone()
            },
            Fields {
                reason: Some("7".into()),
                ..base.clone()
            },
            Fields {
                amount: Amount::new(7).expect("positive"),
                ..base.clone()
            },
            Fields {
                usage_id: Uuid::from_u128(7),
                ..base.clone()
            },
            base,
        ];
        let mut digests: Vec<_> = variants.iter().map(content).collect();
        digests.sort();
        digests.dedup();
        assert_eq!(digests.len(), 10);
    }
}
