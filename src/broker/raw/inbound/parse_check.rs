//! Checks with lapin's own parser whether lapin could parse a frame.

use std::panic::catch_unwind;

use amq_protocol::frame::parse_frame;

/// The stack of a thread that parses properties, in bytes; it is reserved, not used. The parser
/// recurses into nested headers, and a frame has room for 26,000 levels. An unoptimized build needs
/// more per level.
pub const STACK_BYTES: usize = if cfg!(debug_assertions) {
    512 << 20
} else {
    64 << 20
};

/// Whether lapin would parse this frame to its end.
pub fn parses(frame: &[u8]) -> bool {
    let parsed = catch_unwind(|| parse_frame(frame).is_ok_and(|(rest, _)| rest.is_empty()));
    // A panic of the parser would end lapin's thread.
    parsed.unwrap_or(false)
}
