//! A message as bytes, and the ids that can be read without parsing its headers.

/// A message as it came.
#[derive(Clone, Debug)]
pub struct RawMessage {
    pub routing_key: Vec<u8>,
    /// Flags and values, as in its header frame.
    pub properties: Vec<u8>,
    pub body: Vec<u8>,
}

impl RawMessage {
    /// The correlation id, or else the message id, as far as they are text.
    pub fn id(&self) -> String {
        let [_, correlation_id, message_id] = self.values();
        let id = correlation_id.or(message_id).unwrap_or_default();
        String::from_utf8_lossy(id).into_owned()
    }

    /// Whether the headers hold these bytes; enough to look for a name or a short text.
    pub fn headers_contain(&self, bytes: &[u8]) -> bool {
        let [headers, ..] = self.values();
        let mut windows = headers.unwrap_or_default().windows(bytes.len());
        windows.any(|window| window == bytes)
    }

    /// Headers, correlation id and message id, if they are set.
    fn values(&self) -> [Option<&[u8]>; 3] {
        /// The bytes before a value, and the bytes of the value.
        type Width = fn(&[u8]) -> (usize, usize);
        let short: Width = |bytes| (1, usize::from(bytes[0]));
        let octet: Width = |_| (0, 1);
        let table: Width = |bytes| {
            let length = u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
            (4, length as usize)
        };
        // From the content type on: encoding, headers, delivery mode, priority, correlation id,
        // reply to, expiration, message id.
        let widths = [
            short, short, table, octet, octet, short, short, short, short,
        ];
        let (flags, mut rest) = self.properties.split_at(2);
        let flags = u16::from_be_bytes([flags[0], flags[1]]);
        let values = widths.iter().enumerate().map(|(index, width)| {
            (flags >> (15 - index) & 1 == 1).then(|| {
                let (before, length) = width(rest);
                let (value, after) = rest[before..].split_at(length);
                rest = after;
                value
            })
        });
        let values: Vec<_> = values.collect();
        [values[2], values[5], values[8]]
    }
}
