//! A frame as bytes, and the facts that are known without parsing it.

/// The number of bytes around a frame's payload: kind, channel and length before it, a mark after
/// it.
pub const ENVELOPE_BYTES: usize = 8;

/// The kind of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameKind {
    /// A method, such as `basic.get-ok`.
    Method,
    /// A content header: size and properties of a message.
    Header,
    /// A part of a body.
    Body,
}

/// A frame. Of a body, only the requested bytes are kept; of a payload above the frame limit, only
/// the first bytes.
pub struct Frame {
    pub kind: FrameKind,
    pub payload_bytes: u64,
    pub(crate) bytes: Vec<u8>,
    pub(crate) whole: bool,
}

impl Frame {
    /// The whole frame, as lapin would parse it. `None` for a body, or above the frame limit.
    pub fn whole(&self) -> Option<&[u8]> {
        self.whole.then_some(&self.bytes)
    }

    /// The whole frame, even above the frame limit. `None` if bytes were left out.
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

    /// A 16-bit number within the payload.
    pub fn u8_at(&self, offset: usize) -> Option<u8> {
        self.payload_at(offset).map(u8::from_be_bytes)
    }

    /// A 64-bit number within the payload.
    pub fn u64_at(&self, offset: usize) -> Option<u64> {
        self.payload_at(offset).map(u64::from_be_bytes)
    }

    /// The kept part of the payload.
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
