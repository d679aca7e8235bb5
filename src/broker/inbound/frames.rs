//! The frames of a connection on their way to the client: pure, bytes in and bytes out.

use std::collections::BTreeMap;

use bytes::{Buf, BytesMut};
use ring::digest::{Context, SHA256};

use super::arrival::{Arrival, Cut};
use super::flow::Flow;
use super::parse_check::parses;

/// Kind, channel and size, before a frame's payload.
const HEAD: usize = 7;

/// The mark after it.
const END: u8 = 0xce;

const METHOD: u8 = 1;
const HEADER: u8 = 2;
const BODY: u8 = 3;

/// Class and method of a delivery.
const DELIVER: [u8; 4] = [0, 60, 0, 60];

/// Class, weight and body size, at the beginning of a content header.
const SIZED: usize = 12;

/// Memory that parsed properties take, in bytes for each byte of theirs.
const HEADER_WEIGHT: u64 = 8;

/// Frames of which a part may be on its way.
pub struct Frames {
    /// Bytes of a body that are passed on.
    body_max: u64,
    step: Step,
    /// What goes before everything else, in place of something that was taken out.
    inserted: BytesMut,
    /// Messages that are not whole yet, by channel.
    arriving: BTreeMap<u16, Arriving>,
}

/// What is done with the next bytes.
enum Step {
    /// A frame begins.
    Frame,
    /// So many belong to a frame that is passed on as it is.
    Pass(u64),
    /// So many belong to one that is not.
    Drop(u64),
    /// So many are a body's, of which so many are passed on.
    Body { channel: u16, left: u64, keep: u64 },
}

/// A message whose beginning came.
struct Arriving {
    tag: u64,
    readable: bool,
    bytes: u64,
    body: u64,
    /// Bytes of the body that did not come yet.
    missing: u64,
    /// Of those, what is passed on.
    keep: u64,
    /// The digest of what came, where the body is cut.
    digest: Option<Context>,
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

    /// Whether the client has everything of the last frame.
    pub fn between_frames(&self) -> bool {
        self.inserted.is_empty() && matches!(self.step, Step::Frame)
    }

    /// Moves what can be moved from `input` to `out`, and returns how much that is. Zero: more input is needed.
    pub fn pass_on(&mut self, input: &mut BytesMut, out: &mut [u8], flow: &Flow) -> usize {
        let mut passed = 0;
        while passed < out.len() {
            if !self.inserted.is_empty() {
                passed += moved(&mut self.inserted, &mut out[passed..], u64::MAX);
                continue;
            }
            match self.step {
                Step::Frame => {
                    if !self.begin(input, flow) {
                        break;
                    }
                }
                Step::Pass(0) | Step::Drop(0) | Step::Body { left: 0, .. } => {
                    self.step = Step::Frame;
                    self.whole(flow);
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
                Step::Body { .. } => passed += self.cut(input, &mut out[passed..]),
            }
        }
        passed
    }

    /// Looks at a frame. `false`: there is not enough of it.
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

    /// A method. That of a delivery has texts of the publisher.
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
            // Without the names of exchange and routing key.
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
            keep: 0,
            digest: None,
        };
        self.arriving.insert(channel, arriving);
    }

    /// A message's size and properties; of a frame that is too large for the client the size alone.
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
        arriving.keep = body.min(self.body_max);
        arriving.readable &= fits && parses(frame);
        arriving.digest = (body > self.body_max).then(|| Context::new(&SHA256));
        let properties = if arriving.readable {
            &payload[SIZED..payload.len() - 1]
        } else {
            &[0, 0]
        };
        arriving.bytes = properties.len() as u64 * HEADER_WEIGHT;
        flow.arriving(arriving.bytes);
        if arriving.readable && arriving.digest.is_none() {
            self.step = Step::Pass(frame.len() as u64);
            return;
        }
        let size_kept = arriving.keep.to_be_bytes();
        let header = [&payload[..4], &size_kept, properties].concat();
        self.insert(HEADER, channel, &header);
        self.step = Step::Drop(size + HEAD as u64 + 1);
    }

    /// A part of a message's body.
    fn body(&mut self, input: &mut BytesMut, channel: u16, size: u64, flow: &Flow) {
        let Some(arriving) = self.arriving.get_mut(&channel) else {
            return;
        };
        arriving.missing = arriving.missing.saturating_sub(size);
        let keep = size.min(arriving.keep);
        arriving.keep -= keep;
        arriving.bytes += keep;
        flow.arriving(keep);
        if arriving.digest.is_none() {
            self.step = Step::Pass(size + HEAD as u64 + 1);
            return;
        }
        input.advance(HEAD);
        if keep > 0 {
            let size = u32::try_from(keep).unwrap_or(u32::MAX);
            self.inserted.extend_from_slice(&[BODY]);
            self.inserted.extend_from_slice(&channel.to_be_bytes());
            self.inserted.extend_from_slice(&size.to_be_bytes());
        }
        self.step = Step::Body {
            channel,
            left: size + 1,
            keep,
        };
    }

    /// Passes on the first bytes of a body's frame, and none of the rest.
    fn cut(&mut self, input: &mut BytesMut, out: &mut [u8]) -> usize {
        let Step::Body {
            channel,
            ref mut left,
            ref mut keep,
        } = self.step
        else {
            return 0;
        };
        // All but the mark at the frame's end.
        let payload = at_most(input.len(), *left - 1);
        let count = if *keep > 0 {
            at_most(payload.min(out.len()), *keep)
        } else {
            payload
        };
        if count == 0 {
            input.advance(1);
            *left = 0;
            return 0;
        }
        let arriving = self.arriving.get_mut(&channel);
        if let Some(digest) = arriving.and_then(|arriving| arriving.digest.as_mut()) {
            digest.update(&input[..count]);
        }
        *left -= count as u64;
        if *keep == 0 {
            input.advance(count);
            return 0;
        }
        *keep -= count as u64;
        let ends = *keep == 0;
        let passed = moved(input, out, count as u64);
        if ends {
            self.inserted.extend_from_slice(&[END]);
        }
        passed
    }

    /// Tells of the messages that came to their end.
    fn whole(&mut self, flow: &Flow) {
        let done =
            |(channel, arriving): (&u16, &Arriving)| (arriving.missing == 0).then_some(*channel);
        while let Some(channel) = self.arriving.iter().find_map(done) {
            let Some(arriving) = self.arriving.remove(&channel) else {
                return;
            };
            let bytes = arriving.body;
            let cut = arriving.digest.map(|digest| {
                let mut sha256 = [0; 32];
                sha256.copy_from_slice(digest.finish().as_ref());
                Cut { bytes, sha256 }
            });
            flow.arrived(Arrival {
                channel,
                tag: arriving.tag,
                bytes: arriving.bytes,
                readable: arriving.readable,
                cut,
            });
        }
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

/// Moves bytes from the one to the other, at most so many, and returns how many.
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
