//! Inspects and rewrites the frames of a connection: bytes in, bytes out, without I/O.

use std::collections::BTreeMap;

use bytes::{Buf, BytesMut};
use ring::digest::{Context, SHA256};

use super::arrival::{Arrival, Cut};
use super::flow::Flow;
use super::parse_check::parses;

/// The size of a frame's header (kind, channel, size), in bytes.
const HEAD: usize = 7;

/// The mark at the end of a frame.
const END: u8 = 0xce;

const METHOD: u8 = 1;
const HEADER: u8 = 2;
const BODY: u8 = 3;

/// Class and method of `basic.deliver`.
const DELIVER: [u8; 4] = [0, 60, 0, 60];

/// The size of class, weight and body size in a content header, in bytes.
const SIZED: usize = 12;

/// The memory that parsed properties take, in bytes per byte on the wire.
const HEADER_WEIGHT: u64 = 8;

/// The state of the frames, which may be incomplete.
pub struct Frames {
    /// Bytes of a body that are passed on.
    body_max: u64,
    step: Step,
    /// Bytes that replace a removed frame, and are passed on first.
    inserted: BytesMut,
    /// The incomplete messages, by channel.
    arriving: BTreeMap<u16, Arriving>,
}

/// The treatment of the next bytes.
enum Step {
    /// A frame begins.
    Frame,
    /// The number of bytes left of a frame that is passed on unchanged.
    Pass(u64),
    /// The number of bytes left of a frame that is dropped.
    Drop(u64),
    /// The number of bytes left of a body frame that is cut, including the end mark.
    Cut { channel: u16, left: u64 },
}

/// An incomplete message.
struct Arriving {
    tag: u64,
    readable: bool,
    bytes: u64,
    body: u64,
    /// The number of outstanding bytes of the body.
    missing: u64,
    /// If the body is cut: its beginning, which is passed on at the end, and the digest so far.
    cut: Option<(Vec<u8>, Context)>,
}

impl Frames {
    pub fn new(body_max: u64) -> Self {
        Self {
            body_max,
            step: Step::Frame,
            inserted: BytesMut::new(),
            arriving: BTreeMap::new(),
        }
    }

    /// Whether the last frame is passed on completely.
    pub fn between_frames(&self) -> bool {
        self.inserted.is_empty() && matches!(self.step, Step::Frame)
    }

    /// Moves bytes from `input` to `out`, and returns their number. No frame is begun while too
    /// many bytes are in flight, unless `anyway`. Zero: more input or more room is needed.
    pub fn pass_on(
        &mut self,
        input: &mut BytesMut,
        out: &mut [u8],
        flow: &Flow,
        anyway: bool,
    ) -> usize {
        let mut passed = 0;
        while passed < out.len() {
            if !self.inserted.is_empty() {
                passed += moved(&mut self.inserted, &mut out[passed..], u64::MAX);
                continue;
            }
            match self.step {
                Step::Frame => {
                    if !anyway && flow.is_full() || !self.begin(input, flow) {
                        break;
                    }
                }
                Step::Pass(0) | Step::Drop(0) => self.step = Step::Frame,
                Step::Cut { channel, left: 0 } => {
                    self.step = Step::Frame;
                    self.whole(channel, flow);
                }
                _ if input.is_empty() => break,
                Step::Pass(ref mut left) => {
                    let count = moved(input, &mut out[passed..], *left);
                    (*left, passed) = (*left - count as u64, passed + count);
                }
                Step::Drop(ref mut left) => {
                    let count = at_most(input.len(), *left);
                    input.advance(count);
                    *left -= count as u64;
                }
                Step::Cut { .. } => self.cut(input),
            }
        }
        passed
    }

    /// Inspects a frame. `false`: more bytes are needed.
    fn begin(&mut self, input: &mut BytesMut, flow: &Flow) -> bool {
        let Some(&[kind, high, low, ref size @ ..]) = input.first_chunk::<HEAD>() else {
            return false;
        };
        let channel = u16::from_be_bytes([high, low]);
        let (size, length) = (
            u64::from(u32::from_be_bytes(*size)),
            u32::from_be_bytes(*size) as usize + HEAD + 1,
        );
        let fits = length <= flow.frame_max();
        match kind {
            METHOD if fits && input.len() < length => return false,
            METHOD if fits => self.method(channel, &input[..length]),
            HEADER if self.arriving.contains_key(&channel) => {
                let needed = if fits { length } else { HEAD + SIZED };
                if input.len() < needed {
                    return false;
                }
                self.header(channel, &input[..needed], fits, size, flow);
            }
            BODY if self.arriving.contains_key(&channel) => self.body(input, channel, size, flow),
            _ => self.step = Step::Pass(length as u64),
        }
        true
    }

    /// Inspects a method. `basic.deliver` contains texts of the publisher.
    fn method(&mut self, channel: u16, frame: &[u8]) {
        let length = frame.len() as u64;
        self.step = Step::Pass(length);
        let payload = &frame[HEAD..];
        let Some(tag_at) = payload
            .strip_prefix(&DELIVER)
            .and_then(|rest| rest.first())
            .map(|name| DELIVER.len() + 1 + usize::from(*name))
        else {
            return;
        };
        let Some(tag) = payload.get(tag_at..).and_then(<[u8]>::first_chunk) else {
            return;
        };
        let readable = parses(frame);
        if !readable {
            // The replacement has no exchange and no routing key.
            let kept = &payload[..payload.len().min(tag_at + 9)];
            self.insert(METHOD, channel, &[kept, &[0, 0]].concat());
            self.step = Step::Drop(length);
        }
        let arriving = Arriving {
            tag: u64::from_be_bytes(*tag),
            readable,
            bytes: 0,
            body: 0,
            missing: u64::MAX,
            cut: None,
        };
        self.arriving.insert(channel, arriving);
    }

    /// Inspects a content header. If the frame is too large for lapin, only the size is passed on.
    fn header(&mut self, channel: u16, frame: &[u8], fits: bool, size: u64, flow: &Flow) {
        let Some(arriving) = self.arriving.get_mut(&channel) else {
            return;
        };
        let payload = &frame[HEAD..];
        let Some(body) = payload.get(4..).and_then(<[u8]>::first_chunk) else {
            self.step = Step::Pass(size + HEAD as u64 + 1);
            return;
        };
        let body = u64::from_be_bytes(*body);
        (arriving.body, arriving.missing) = (body, body);
        arriving.readable &= fits && parses(frame);
        let is_cut = body > self.body_max;
        arriving.cut = is_cut.then(|| (Vec::new(), Context::new(&SHA256)));
        let properties = if arriving.readable {
            &payload[SIZED..payload.len() - 1]
        } else {
            &[0, 0]
        };
        arriving.bytes = properties.len() as u64 * HEADER_WEIGHT;
        flow.arriving(arriving.bytes);
        if arriving.readable && !is_cut {
            self.step = Step::Pass(frame.len() as u64);
        } else {
            let size_kept = body.min(self.body_max).to_be_bytes();
            let header = [&payload[..4], &size_kept, properties].concat();
            self.insert(HEADER, channel, &header);
            self.step = Step::Drop(size + HEAD as u64 + 1);
        }
        self.whole(channel, flow);
    }

    /// Inspects a body frame.
    fn body(&mut self, input: &mut BytesMut, channel: u16, size: u64, flow: &Flow) {
        let Some(arriving) = self.arriving.get_mut(&channel) else {
            return;
        };
        arriving.missing = arriving.missing.saturating_sub(size);
        if arriving.cut.is_some() {
            input.advance(HEAD);
            let left = size + 1;
            self.step = Step::Cut { channel, left };
            return;
        }
        arriving.bytes += size;
        flow.arriving(size);
        self.step = Step::Pass(size + HEAD as u64 + 1);
        self.whole(channel, flow);
    }

    /// Reads a part of a body that is cut: the first bytes are kept, all bytes are digested.
    fn cut(&mut self, input: &mut BytesMut) {
        let Step::Cut {
            channel,
            ref mut left,
        } = self.step
        else {
            return;
        };
        // Without the end mark.
        let count = at_most(input.len(), *left - 1);
        if count == 0 {
            input.advance(1);
            *left = 0;
            return;
        }
        let arriving = self.arriving.get_mut(&channel);
        if let Some((kept, digest)) = arriving.and_then(|arriving| arriving.cut.as_mut()) {
            let part = &input[..count];
            digest.update(part);
            let room = self.body_max - kept.len() as u64;
            kept.extend_from_slice(&part[..at_most(count, room)]);
        }
        input.advance(count);
        *left -= count as u64;
    }

    /// Reports a complete message before lapin receives its last bytes, since a consumer may take
    /// the delivery at once.
    fn whole(&mut self, channel: u16, flow: &Flow) {
        let is_whole = |arriving: &Arriving| arriving.missing == 0;
        if !self.arriving.get(&channel).is_some_and(is_whole) {
            return;
        }
        let Some(mut arriving) = self.arriving.remove(&channel) else {
            return;
        };
        let cut = arriving.cut.take().map(|(kept, digest)| {
            arriving.bytes += kept.len() as u64;
            flow.arriving(kept.len() as u64);
            // The frame limit includes the frame's header and end mark.
            for part in kept.chunks(flow.frame_max().saturating_sub(HEAD + 1).max(1)) {
                self.insert(BODY, channel, part);
            }
            Cut::new(arriving.body, &digest.finish())
        });
        flow.arrived(Arrival {
            channel,
            tag: arriving.tag,
            bytes: arriving.bytes,
            readable: arriving.readable,
            cut,
        });
    }

    fn insert(&mut self, kind: u8, channel: u16, payload: &[u8]) {
        let size = u32::try_from(payload.len()).unwrap_or(u32::MAX);
        let inserted = &mut self.inserted;
        inserted.extend_from_slice(&[kind]);
        inserted.extend_from_slice(&channel.to_be_bytes());
        inserted.extend_from_slice(&size.to_be_bytes());
        inserted.extend_from_slice(payload);
        inserted.extend_from_slice(&[END]);
    }
}

/// Moves at most `most` bytes, and returns their number.
fn moved(from: &mut BytesMut, to: &mut [u8], most: u64) -> usize {
    let count = at_most(from.len().min(to.len()), most);
    to[..count].copy_from_slice(&from[..count]);
    from.advance(count);
    count
}

fn at_most(count: usize, most: u64) -> usize {
    usize::try_from(most).map_or(count, |most| count.min(most))
}

#[cfg(test)]
mod tests;
