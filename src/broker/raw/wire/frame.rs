//! A frame as bytes, with what can be told of it without parsing it.

/// What stands around a frame's payload: kind, channel and length before it, a mark after it.
pub const ENVELOPE_BYTES: usize = 8;

/// What a frame carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameKind {
    /// A method, such as `basic.get-ok`.
    Method,
    /// A message's size and properties.
    Header,
    /// A part of its body.
    Body,
}

/// A frame. Of a body no more is kept than was asked for, and of what is larger than a frame may be no more than the
/// first bytes.
pub struct Frame {
    pub kind: FrameKind,
    pub payload_bytes: u64,
    pub(crate) bytes: Vec<u8>,
    pub(crate) whole: bool,
}

impl Frame {
    /// All of it, as the client would parse it; `None` of a body, or where it is larger than a frame may be.
    pub fn whole(&self) -> Option<&[u8]> {
        self.whole.then_some(&self.bytes)
    }

    /// All of it, even where it is larger than a frame may be, unless too much of it was left out.
    pub fn complete(&self) -> Option<&[u8]> {
        let size = self.bytes.len().checked_sub(ENVELOPE_BYTES)?;
        (size as u64 == self.payload_bytes).then_some(&self.bytes)
    }

    /// Class and method of a method frame.
    pub fn method(&self) -> Option<(u16, u16)> {
        let ids = u32::from_be_bytes(self.payload_at(0)?).to_be_bytes();
        let [class, method] = [[ids[0], ids[1]], [ids[2], ids[3]]].map(u16::from_be_bytes);
        (self.kind == FrameKind::Method).then_some((class, method))
    }

    /// A number within the payload.
    pub fn u8_at(&self, offset: usize) -> Option<u8> {
        self.payload_at(offset).map(u8::from_be_bytes)
    }

    /// The same of eight bytes.
    pub fn u64_at(&self, offset: usize) -> Option<u64> {
        self.payload_at(offset).map(u64::from_be_bytes)
    }

    /// What is kept of the payload.
    pub fn payload(&self) -> &[u8] {
        let kept = self.bytes.get(ENVELOPE_BYTES - 1..).unwrap_or_default();
        let size = usize::try_from(self.payload_bytes).unwrap_or(usize::MAX);
        &kept[..kept.len().min(size)]
    }

    fn payload_at<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        let start = ENVELOPE_BYTES - 1 + offset;
        self.bytes.get(start..start + N)?.try_into().ok()
    }
}
