//! What is known of a message that came, beside what the client tells of it.

/// A message that came in whole.
#[derive(Debug, PartialEq, Eq)]
pub struct Arrival {
    pub channel: u16,
    pub tag: u64,
    /// What it takes of the bytes in flight.
    pub bytes: u64,
    /// Whether the client sees its own properties. Others can't be parsed.
    pub readable: bool,
    pub cut: Option<Cut>,
}

/// A body of which only the first bytes were passed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cut {
    /// The size of the whole, in bytes.
    pub bytes: u64,
    /// The digest of the whole.
    pub sha256: [u8; 32],
}
