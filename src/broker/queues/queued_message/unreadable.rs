//! What can be told of a message whose properties the client's parser refuses: read by hand, nothing believed to be text.

use super::QueuedMessage;

/// The reason that such a letter is listed under, whatever its `x-death` would say.
const REASON: &str = "unreadable";

/// How a property stands on the wire.
#[derive(Clone, Copy)]
enum Form {
    /// A length in one byte, and text.
    Short,
    /// A length in four bytes, and names and values.
    Table,
    Octet,
    /// Seconds, in eight bytes.
    Time,
}

/// The properties, in the order of their flags from the highest bit down.
const FORMS: [Form; 12] = [
    Form::Short, // content type
    Form::Short, // content encoding
    Form::Table,
    Form::Octet, // delivery mode
    Form::Octet, // priority
    Form::Short, // correlation id
    Form::Short, // reply to
    Form::Short, // expiration
    Form::Short, // message id
    Form::Time,
    Form::Short, // type
    Form::Short, // user id
];

const MESSAGE_ID: usize = 8;
const TIMESTAMP: usize = 9;
const USER_ID: usize = 11;

/// A letter of which only that is known. `payload` is that of its header frame.
pub fn letter(payload: &[u8]) -> QueuedMessage {
    let values = values(payload.get(12..).unwrap_or_default());
    let text = |index: usize| {
        let bytes: Option<&[u8]> = values[index];
        bytes.map(|bytes| String::from_utf8_lossy(bytes).into_owned())
    };
    let since = values[TIMESTAMP].and_then(|bytes| bytes.try_into().ok());
    QueuedMessage {
        reason: REASON.into(),
        client: text(USER_ID).unwrap_or_default(),
        message_id: text(MESSAGE_ID).filter(|id| !id.is_empty()),
        since: since.map(u64::from_be_bytes).and_then(super::of_seconds),
        ..QueuedMessage::blank()
    }
}

/// Each property's bytes, up to where they are cut off.
fn values(properties: &[u8]) -> [Option<&[u8]>; FORMS.len()] {
    let mut values = [None; FORMS.len()];
    let Some((flags, mut rest)) = properties.split_first_chunk() else {
        return values;
    };
    let flags = u16::from_be_bytes(*flags);
    for (index, form) in FORMS.into_iter().enumerate() {
        if (flags >> (15 - index)) & 1 == 0 {
            continue;
        }
        let Some((value, after)) = form.split(rest) else {
            break;
        };
        values[index] = Some(value);
        rest = after;
    }
    values
}

impl Form {
    fn split(self, bytes: &[u8]) -> Option<(&[u8], &[u8])> {
        let (length, bytes) = match self {
            Self::Short => {
                let (length, rest) = bytes.split_first()?;
                (usize::from(*length), rest)
            }
            Self::Table => {
                let (length, rest) = bytes.split_first_chunk()?;
                (usize::try_from(u32::from_be_bytes(*length)).ok()?, rest)
            }
            Self::Octet => (1, bytes),
            Self::Time => (8, bytes),
        };
        bytes.split_at_checked(length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A header's payload with those flags and values.
    fn payload(flags: u16, values: &[u8]) -> Vec<u8> {
        let mut payload = vec![0; 12];
        payload.extend(flags.to_be_bytes());
        payload.extend(values);
        payload
    }

    #[test]
    fn readable_parts_of_an_unreadable_message_are_kept() {
        let read = letter(&payload(0x0080, b"\x02\xff\xfe"));
        assert_eq!(read.message_id.as_deref(), Some("\u{fffd}\u{fffd}"));
        let values = b"\0\0\0\x04\x02\xff\xfet\x02id\0\0\0\0\0\0\0\x07\x05alice";
        let read = letter(&payload(0x20d0, values));
        assert_eq!(read.message_id.as_deref(), Some("id"));
        assert_eq!(read.client, "alice");
        assert_eq!(read.since.map(jiff::Timestamp::as_second), Some(7));
        assert_eq!(read.reason, "unreadable");
    }

    #[test]
    fn truncated_properties_are_absent() {
        for cut in [&b""[..], b"\0", b"\x09short", b"\xff\xff\xff\xffx"] {
            for flags in [0x0080, 0x2080, 0xfff0] {
                let read = letter(&payload(flags, cut));
                assert_eq!((read.message_id, read.client), (None, String::new()));
            }
        }
        assert_eq!(letter(b"").message_id, None);
    }
}
