//! Whether the client could parse a frame: asked of the client's own parser.

use std::panic::catch_unwind;

use amq_protocol::frame::parse_frame;

/// Stack of a thread that parses properties, in bytes, reserved and not used. The client's parser recurses into
/// nested headers, and a frame holds 26,000 levels. An unoptimized build needs more a level.
pub const STACK_BYTES: usize = if cfg!(debug_assertions) {
    512 << 20
} else {
    64 << 20
};

/// Whether the client would parse this frame, to its end.
pub fn parses(frame: &[u8]) -> bool {
    let parsed = catch_unwind(|| parse_frame(frame).is_ok_and(|(rest, _)| rest.is_empty()));
    // What makes the parser panic would end the client's thread.
    parsed.unwrap_or(false)
}
