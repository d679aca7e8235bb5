//! Properties as bytes, so that they can hold values that no client library sends.

use crate::support::raw::{long, short};

/// The properties that are set.
#[derive(Default)]
pub struct Properties {
    pub content_type: Option<Vec<u8>>,
    pub content_encoding: Option<Vec<u8>>,
    pub headers: Option<Vec<u8>>,
    pub delivery_mode: Option<u8>,
    pub priority: Option<u8>,
    pub correlation_id: Option<Vec<u8>>,
    pub reply_to: Option<Vec<u8>>,
    pub expiration: Option<Vec<u8>>,
    pub message_id: Option<Vec<u8>>,
    pub timestamp: Option<u64>,
    pub kind: Option<Vec<u8>>,
    pub user_id: Option<Vec<u8>>,
    pub app_id: Option<Vec<u8>>,
    pub cluster_id: Option<Vec<u8>>,
}

impl Properties {
    /// The flags, then the properties in the order of the flags.
    pub fn bytes(&self) -> Vec<u8> {
        let text = |text: &Option<Vec<u8>>| {
            text.as_ref().map(|text| {
                let mut bytes = Vec::new();
                short(&mut bytes, text);
                bytes
            })
        };
        let headers = self.headers.as_ref().map(|table| {
            let mut bytes = Vec::new();
            long(&mut bytes, table);
            bytes
        });
        let values = [
            text(&self.content_type),
            text(&self.content_encoding),
            headers,
            self.delivery_mode.map(|octet| vec![octet]),
            self.priority.map(|octet| vec![octet]),
            text(&self.correlation_id),
            text(&self.reply_to),
            text(&self.expiration),
            text(&self.message_id),
            self.timestamp.map(|time| time.to_be_bytes().to_vec()),
            text(&self.kind),
            text(&self.user_id),
            text(&self.app_id),
            text(&self.cluster_id),
        ];
        let mut flags = 0u16;
        for (index, value) in values.iter().enumerate() {
            flags |= u16::from(value.is_some()) << (15 - index);
        }
        let mut bytes = flags.to_be_bytes().to_vec();
        bytes.extend(values.into_iter().flatten().flatten());
        bytes
    }
}
