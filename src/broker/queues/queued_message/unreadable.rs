//! What can be told of a message whose properties the client's parser refuses: read by hand,
//! nothing believed to be text.

/// What can be told of it.
pub struct Unreadable {
    /// The property `user_id`.
    pub client: Option<String>,
    /// The property `message_id`, unless empty.
    pub message_id: Option<String>,
    /// The property `timestamp`, in seconds.
    pub seconds: Option<u64>,
}

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

/// Reads the payload of a header frame.
pub fn read(payload: &[u8]) -> Unreadable {
    let values = values(payload.get(12..).unwrap_or_default());
    let text = |index: usize| {
        let bytes: Option<&[u8]> = values[index];
        bytes.map(|bytes| String::from_utf8_lossy(bytes).into_owned())
    };
    let seconds = values[TIMESTAMP].and_then(|bytes| bytes.try_into().ok());
    Unreadable {
        client: text(USER_ID),
        message_id: text(MESSAGE_ID).filter(|id| !id.is_empty()),
        seconds: seconds.map(u64::from_be_bytes),
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
        let told = read(&payload(0x0080, b"\x02\xff\xfe"));
        assert_eq!(told.message_id.as_deref(), Some("\u{fffd}\u{fffd}"));
        let values = b"\0\0\0\x04\x02\xff\xfet\x02id\0\0\0\0\0\0\0\x07\x05alice";
        let told = read(&payload(0x20d0, values));
        assert_eq!(told.message_id.as_deref(), Some("id"));
        assert_eq!(told.client.as_deref(), Some("alice"));
        assert_eq!(told.seconds, Some(7));
    }

    #[test]
    fn truncated_properties_are_absent() {
        for cut in [&b""[..], b"\0", b"\x09short", b"\xff\xff\xff\xffx"] {
            for flags in [0x0080, 0x2080, 0xfff0] {
                let told = read(&payload(flags, cut));
                assert_eq!((told.message_id, told.client), (None, None));
            }
        }
        assert_eq!(read(b"").message_id, None);
    }
}
