use std::sync::Arc;

use super::*;

const FRAME_MAX: usize = 131_072;
const BODY_MAX: u64 = 1000;
const CHANNEL: u16 = 3;

fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
    let size = u32::try_from(payload.len()).expect("small").to_be_bytes();
    let channel = CHANNEL.to_be_bytes();
    [&[kind][..], &channel, &size, payload, &[END]].concat()
}

fn deliver(tag: u64, routing_key: &[u8]) -> Vec<u8> {
    let mut payload = DELIVER.to_vec();
    payload.extend(b"\x07revertd");
    payload.extend(tag.to_be_bytes());
    payload.extend(b"\0\x01e");
    payload.push(u8::try_from(routing_key.len()).expect("short"));
    payload.extend(routing_key);
    frame(METHOD, &payload)
}

/// A content header with those property flags and values.
fn header(body: usize, flags: u16, properties: &[u8]) -> Vec<u8> {
    let mut payload = vec![0, 60, 0, 0];
    payload.extend((body as u64).to_be_bytes());
    payload.extend(flags.to_be_bytes());
    payload.extend(properties);
    frame(HEADER, &payload)
}

fn headers(table: &[u8]) -> Vec<u8> {
    let size = u32::try_from(table.len()).expect("small").to_be_bytes();
    header(0, 0x2000, &[&size, table].concat())
}

fn nested(depth: u32) -> Vec<u8> {
    let mut table = b"\x04deep".to_vec();
    for level in 0..depth {
        table.push(b'A');
        table.extend((5 * (depth - level - 1)).to_be_bytes());
    }
    table
}

fn flow() -> Arc<Flow> {
    let flow = Flow::new(u64::MAX, BODY_MAX);
    flow.set_frame_max(FRAME_MAX);
    flow.open(CHANNEL);
    flow
}

/// What the client gets where it reads so many bytes at a time of what comes so many at a time.
fn passed(bytes: &[u8], flow: &Flow, coming: usize, reading: usize) -> Vec<u8> {
    passed_by(bytes, flow, coming, reading, |_| ())
}

/// The same; `each` is told after each read how many bytes the client has.
fn passed_by(
    bytes: &[u8],
    flow: &Flow,
    coming: usize,
    reading: usize,
    each: impl Fn(usize),
) -> Vec<u8> {
    let (mut frames, mut input) = (Frames::new(BODY_MAX), BytesMut::new());
    let (mut passed, mut out) = (Vec::new(), vec![0; reading]);
    for part in bytes.chunks(coming) {
        input.extend_from_slice(part);
        loop {
            let count = frames.pass_on(&mut input, &mut out, flow, false);
            if count == 0 {
                break;
            }
            passed.extend_from_slice(&out[..count]);
            each(passed.len());
        }
    }
    assert!(input.is_empty() && frames.between_frames());
    passed
}

/// Whether the client sees the message of that header as it is; otherwise, without its properties.
fn is_readable(header: &[u8]) -> bool {
    let (flow, deliver) = (flow(), deliver(1, b"revert"));
    let came = passed(&[&deliver, header].concat(), &flow, 9999, 9999);
    let (arrival, _held) = flow.take(CHANNEL, 1).expect("it is whole");
    let seen = if arrival.readable {
        header.to_vec()
    } else {
        self::header(0, 0, b"")
    };
    assert!(came == [deliver, seen].concat());
    arrival.readable
}

#[test]
fn frames_that_lapin_can_parse_pass_unchanged() {
    assert!(is_readable(&header(0, 0, b"")));
    assert!(is_readable(&header(0, 0x0080, b"\x04id-1")));
    assert!(is_readable(&headers(b"")));
    assert!(is_readable(&headers(b"\x01kS\0\0\0\x02\xff\xfe")));
}

#[test]
fn deeply_nested_headers_can_be_parsed() {
    let thread = std::thread::Builder::new().stack_size(crate::broker::raw::inbound::STACK_BYTES);
    let looking = thread.spawn(|| is_readable(&headers(&nested(26_000))));
    assert!(looking.expect("a thread").join().expect("no panic"));
}

#[test]
fn unparseable_properties_are_replaced_by_plain_ones() {
    for (what, header) in [
        ("a message id", header(0, 0x0080, b"\x02\xff\xfe")),
        ("a header's name", headers(b"\x02\xff\xfet\x01")),
        (
            "a name within a header",
            headers(b"\x01kF\0\0\0\x05\x02\xff\xfet\x01"),
        ),
        (
            "a table that is cut off",
            header(0, 0x2000, b"\0\0\0\x09\x01kS\0\0\0"),
        ),
        ("a type of value", headers(b"\x01kZ\0")),
        ("something after them", header(0, 0x0080, b"\x01i and more")),
        (
            "more than a frame",
            headers(&[&b"\x01kS\0\x02\0\0"[..], &vec![b'x'; FRAME_MAX]].concat()),
        ),
    ] {
        assert!(!is_readable(&header), "{what}");
    }
}

#[test]
fn an_unparseable_routing_key_is_left_out() {
    let flow = flow();
    let bytes = [deliver(1, b"\xff\xfe"), header(0, 0, b"")].concat();
    let came = passed(&bytes, &flow, 9999, 9999);
    assert!(parses(&came[..came.len() - header(0, 0, b"").len()]));
    let (arrival, _held) = flow.take(CHANNEL, 1).expect("it is whole");
    assert!(!arrival.readable);
}

#[test]
fn messages_pass_however_the_bytes_are_split() {
    let large: Vec<u8> = (0..2500u32).flat_map(u32::to_be_bytes).collect();
    let bytes = [
        frame(8, b""),
        deliver(1, b"revert"),
        header(4, 0x0080, b"\x04id-1"),
        frame(BODY, b"bo"),
        frame(BODY, b"dy"),
        deliver(2, b"revert"),
        header(3, 0x0080, b"\x02\xff\xfe"),
        frame(BODY, b"bad"),
        deliver(3, b"revert"),
        header(large.len(), 0x0080, b"\x04id-3"),
        frame(BODY, &large[..700]),
        frame(BODY, &large[700..4000]),
        frame(BODY, &large[4000..]),
        deliver(4, b"revert"),
        header(0, 0, b""),
    ]
    .concat();
    let expected = [
        [
            frame(8, b""),
            deliver(1, b"revert"),
            header(4, 0x0080, b"\x04id-1"),
            frame(BODY, b"bo"),
            frame(BODY, b"dy"),
        ]
        .concat(),
        [
            deliver(2, b"revert"),
            header(3, 0, b""),
            frame(BODY, b"bad"),
        ]
        .concat(),
        [
            deliver(3, b"revert"),
            header(1000, 0x0080, b"\x04id-3"),
            frame(BODY, &large[..1000]),
        ]
        .concat(),
        [deliver(4, b"revert"), header(0, 0, b"")].concat(),
    ];
    // How much the client has once it has each message.
    let ends = expected.iter().scan(0, |end, message| {
        *end += message.len();
        Some(*end)
    });
    let (ends, expected): (Vec<usize>, _) = (ends.collect(), expected.concat());
    for (coming, reading) in [
        (1, 1),
        (1, 9999),
        (7, 3),
        (100, 64),
        (9999, 10),
        (9999, 9999),
    ] {
        let flow = flow();
        let came = passed_by(&bytes, &flow, coming, reading, |had| {
            let whole = ends.iter().filter(|end| had >= **end).count();
            assert!(
                flow.messages() >= whole,
                "lapin has bytes that are not recorded"
            );
        });
        assert!(came == expected);
        let arrivals = (1..=4).map(|tag| flow.take(CHANNEL, tag).expect("it is whole").0);
        let arrivals: Vec<Arrival> = arrivals.collect();
        let readable: Vec<bool> = arrivals.iter().map(|arrival| arrival.readable).collect();
        assert_eq!(readable, [true, false, true, true]);
        let cut = arrivals[2].cut.expect("it is cut");
        assert_eq!(cut.bytes, 10_000);
        let digest = ring::digest::digest(&SHA256, &large);
        assert_eq!(cut.sha256, digest.as_ref());
        assert!(arrivals[0].cut.is_none());
    }
}

#[test]
fn no_frame_starts_while_too_many_bytes_are_in_flight() {
    let message = |tag| {
        [
            deliver(tag, b"revert"),
            header(60, 0, b""),
            frame(BODY, &[b'x'; 60]),
        ]
        .concat()
    };
    let bytes: Vec<u8> = (1..=5).flat_map(message).collect();
    let flow = Flow::new(100, BODY_MAX);
    flow.set_frame_max(FRAME_MAX);
    flow.open(CHANNEL);
    let (mut frames, mut input) = (Frames::new(BODY_MAX), BytesMut::from(&bytes[..]));
    // Odd, so that no read ends where a frame does.
    let mut out = [0; 7];
    let mut pass = |anyway| {
        let mut passed = 0;
        loop {
            let count = frames.pass_on(&mut input, &mut out, &flow, anyway);
            passed += count;
            if count == 0 || anyway {
                return passed;
            }
        }
    };
    assert_eq!(pass(false), 2 * bytes.len() / 5);
    assert_eq!(flow.messages(), 2);
    assert_eq!(pass(true), 7, "a heartbeat could come");
    drop(flow.take(CHANNEL, 1));
    assert_eq!(pass(false), bytes.len() / 5 - 7);
    drop(flow.take(CHANNEL, 2));
    drop(flow.take(CHANNEL, 3));
    assert_eq!(pass(false), 2 * bytes.len() / 5);
}
