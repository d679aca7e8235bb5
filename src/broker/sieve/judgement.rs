//! Whether the client could read a message: asked of the client's own parser, out of its reach.

use amq_protocol::frame::parse_frame;
use tokio::sync::oneshot;

use super::super::wire::frame::Frame;

/// Stack of a thread that parses properties, in bytes, reserved and not used. The client's parser recurses into
/// nested headers, and a frame holds 26,000 levels. An unoptimized build needs more a level.
pub const STACK_BYTES: usize = if cfg!(debug_assertions) {
    512 << 20
} else {
    64 << 20
};

/// Whether the client would parse all of these frames.
///
/// # Errors
/// Where no thread can be started, so that nothing is known of them.
pub async fn readable(frames: [Frame; 2]) -> std::io::Result<bool> {
    let (sender, judged) = oneshot::channel();
    std::thread::Builder::new()
        .name("revertd-judgement".into())
        .stack_size(STACK_BYTES)
        .spawn(move || {
            // Nobody waits for it any more where this fails.
            let _ = sender.send(frames.iter().all(parses));
        })?;
    // Where the parser panics there is no answer, as the client would have had none.
    Ok(judged.await.unwrap_or(false))
}

fn parses(frame: &Frame) -> bool {
    let parsed = frame.whole().map(parse_frame);
    parsed.is_some_and(|parsed| parsed.is_ok_and(|(rest, _)| rest.is_empty()))
}

#[cfg(test)]
mod tests {
    use super::super::super::wire::Wire;
    use super::*;

    const FRAME_MAX: usize = 131_072;

    /// A header frame with those property flags and values, as it is read from a connection.
    async fn header(flags: u16, properties: &[u8]) -> Frame {
        let mut payload = vec![0, 60, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2];
        payload.extend(flags.to_be_bytes());
        payload.extend(properties);
        let mut bytes = vec![2, 0, 1];
        bytes.extend(u32::try_from(payload.len()).expect("small").to_be_bytes());
        bytes.extend(payload);
        bytes.push(0xce);
        let stream = tokio::io::join(bytes.as_slice(), tokio::io::sink());
        let mut wire = Wire::new(stream, FRAME_MAX);
        wire.frame().await.expect("a frame")
    }

    async fn headers(table: &[u8]) -> Frame {
        let mut properties = u32::try_from(table.len())
            .expect("small")
            .to_be_bytes()
            .to_vec();
        properties.extend(table);
        header(0x2000, &properties).await
    }

    fn nested(depth: u32) -> Vec<u8> {
        let mut table = b"\x04deep".to_vec();
        for level in 0..depth {
            table.push(b'A');
            table.extend((5 * (depth - level - 1)).to_be_bytes());
        }
        table
    }

    async fn is_readable(frame: Frame) -> bool {
        let plain = header(0, b"").await;
        readable([plain, frame]).await.expect("a thread")
    }

    #[tokio::test]
    async fn what_the_client_can_parse_is_readable() {
        assert!(is_readable(header(0, b"").await).await);
        assert!(is_readable(header(0x0080, b"\x04id-1").await).await);
        assert!(is_readable(headers(b"").await).await);
        assert!(is_readable(headers(b"\x01kS\0\0\0\x02\xff\xfe").await).await);
        assert!(is_readable(headers(&nested(26_000)).await).await);
    }

    #[tokio::test]
    async fn what_the_client_can_not_parse_is_not() {
        let not_utf8 = header(0x0080, b"\x02\xff\xfe").await;
        assert!(!is_readable(not_utf8).await, "a message id");
        let key = headers(b"\x02\xff\xfet\x01").await;
        assert!(!is_readable(key).await, "a header's name");
        let nested = headers(b"\x01kF\0\0\0\x05\x02\xff\xfet\x01").await;
        assert!(!is_readable(nested).await, "a name within a header");
        let cut_off = header(0x2000, b"\0\0\0\x09\x01kS\0\0\0").await;
        assert!(!is_readable(cut_off).await, "a table that is cut off");
        let unknown = headers(b"\x01kZ\0").await;
        assert!(!is_readable(unknown).await, "a type of value");
        let longer = header(0x0080, b"\x01i and more").await;
        assert!(!is_readable(longer).await, "something after the properties");
    }

    #[tokio::test]
    async fn a_header_larger_than_a_frame_is_not() {
        let mut table = b"\x01kS\0\x02\0\0".to_vec();
        table.resize(FRAME_MAX, b'x');
        assert!(!is_readable(headers(&table).await).await);
    }
}
