//! The facts about a message that its frames showed.

use ring::digest::{Digest, SHA256, digest};

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

impl Cut {
    /// The size and the digest of a body.
    pub(crate) fn of(body: &[u8]) -> Self {
        Self::new(body.len() as u64, &digest(&SHA256, body))
    }

    pub(crate) fn new(bytes: u64, digest: &Digest) -> Self {
        let mut sha256 = [0; 32];
        sha256.copy_from_slice(digest.as_ref());
        Self { bytes, sha256 }
    }
}
