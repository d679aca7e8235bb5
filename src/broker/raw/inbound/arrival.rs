//! The facts about a message that its frames showed.

/// A complete message.
#[derive(Debug, PartialEq, Eq)]
pub struct Arrival {
    pub channel: u16,
    pub tag: u64,
    /// Its share of the bytes in flight.
    pub bytes: u64,
    /// Whether lapin sees its own properties. If not, they can't be parsed.
    pub readable: bool,
    pub cut: Option<Cut>,
}

/// A body of which only the beginning was passed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cut {
    /// The size of the whole body, in bytes.
    pub bytes: u64,
    /// The SHA-256 of the whole body.
    pub sha256: [u8; 32],
}
