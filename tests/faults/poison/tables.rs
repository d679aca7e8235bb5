//! Header tables of every type and with extreme values, as bytes.

use rand::RngExt;
use rand::rngs::StdRng;

use super::bodies::random_bytes;
use crate::support::raw::{long, short};

/// Headers that a worker reads or writes.
const NAMES: [&str; 16] = [
    "x-attempts",
    "x-max-attempts",
    "x-client",
    "x-first-attempt-at",
    "x-error-code",
    "x-error-reason",
    "x-headers-dropped",
    "x-delivery-count",
    "x-death",
    "x-first-death-reason",
    "x-last-death-queue",
    "traceparent",
    "x-stream-offset",
    "",
    "\u{0}",
    "x-\u{1f4a5}",
];

/// Largest headers: a frame, less the other properties and the headers that the broker adds at a
/// redelivery.
const LARGEST: usize = 131_072 - 8192;

/// The content of a table: forged, absurd or huge, but acceptable to the broker.
pub fn table(queue: &str, rng: &mut StdRng) -> Vec<u8> {
    let mut table = Vec::new();
    // With all three, it looks like a message that a worker under another login published: it waits
    // for a day until that login is trusted.
    let never = ["x-attempts", "x-client", "x-first-attempt-at"][rng.random_range(0..3)];
    for _ in 0..rng.random_range(0..5) {
        let name = NAMES[rng.random_range(0..NAMES.len())];
        if name == never {
            continue;
        }
        short(&mut table, name.as_bytes());
        let value = value(0, rng);
        // Of an array of anything else than deaths, RabbitMQ 3.10 itself breaks: it stops
        // dead-lettering, for every queue of the node.
        if name == "x-death" && (value[0] == b'A' || rng.random()) {
            table.extend(deaths(queue, rng));
        } else {
            table.extend(value);
        }
    }
    if rng.random_ratio(1, 10) {
        // The broker takes no other type for these.
        short(&mut table, if rng.random() { b"CC" } else { b"BCC" });
        let mut keys = Vec::new();
        for key in ["revert", "nowhere", queue] {
            text(&mut keys, key.as_bytes());
        }
        table.push(b'A');
        long(&mut table, &keys);
    }
    match rng.random_range(0..80) {
        0 | 1 => {
            short(&mut table, b"huge");
            let size = rng.random_range(50_000..LARGEST - table.len());
            text(&mut table, &vec![b'x'; size]);
        }
        2 | 3 => {
            short(&mut table, b"deep");
            let depth = rng.random_range(1..3000);
            for level in 0..depth {
                table.push(b'A');
                table.extend((5 * (depth - level - 1u32)).to_be_bytes());
            }
        }
        _ => {}
    }
    table
}

/// The same, with a name that is not UTF-8, at the top or within.
pub fn misnamed(queue: &str, rng: &mut StdRng) -> Vec<u8> {
    let mut names = Vec::new();
    short(&mut names, b"x-\xff");
    names.extend(b"t\x01");
    let mut table = table(queue, rng);
    if rng.random() {
        table.extend(names);
    } else {
        short(&mut table, b"within");
        table.push(b'F');
        long(&mut table, &names);
    }
    table
}

/// A life that this message never had.
fn deaths(queue: &str, rng: &mut StdRng) -> Vec<u8> {
    let mut death = Vec::new();
    short(&mut death, b"queue");
    text(&mut death, queue.as_bytes());
    short(&mut death, b"reason");
    let reasons = ["rejected", "expired", "maxlen", "delivery_limit", "boredom"];
    let reason = reasons[rng.random_range(0..reasons.len())];
    text(&mut death, reason.as_bytes());
    short(&mut death, b"count");
    death.push(b'l');
    death.extend(rng.random::<i64>().to_be_bytes());
    let mut array = vec![b'F'];
    long(&mut array, &death);
    let mut value = vec![b'A'];
    long(&mut value, &array);
    value
}

/// A value of any type, with its type's letter.
fn value(depth: usize, rng: &mut StdRng) -> Vec<u8> {
    let types: &[u8] = if depth < 4 {
        b"tbBsuIilfdDSTVxAF"
    } else {
        b"tbBsuIilfdDSTVx"
    };
    let kind = types[rng.random_range(0..types.len())];
    let mut bytes = vec![kind];
    let extreme = rng.random_ratio(1, 3);
    let mut number = |width: usize| {
        let of: fn(&mut StdRng) -> u8 = if extreme { |_| 0xff } else { StdRng::random };
        (0..width).map(|_| of(rng)).collect::<Vec<u8>>()
    };
    match kind {
        b't' | b'b' | b'B' => bytes.extend(number(1)),
        b's' | b'u' => bytes.extend(number(2)),
        b'I' | b'i' => bytes.extend(number(4)),
        b'l' | b'T' => bytes.extend(number(8)),
        b'D' => bytes.extend(number(5)),
        // The broker takes no infinity.
        b'f' => bytes.extend(if extreme { f32::MAX } else { -0.0 }.to_be_bytes()),
        b'd' => bytes.extend(if extreme { f64::MIN } else { 1e-308 }.to_be_bytes()),
        b'V' => {}
        b'A' => {
            let count = rng.random_range(0..3);
            let values = (0..count)
                .flat_map(|_| value(depth + 1, rng))
                .collect::<Vec<_>>();
            long(&mut bytes, &values);
        }
        b'F' => {
            let mut table = Vec::new();
            short(&mut table, b"a");
            table.extend(value(depth + 1, rng));
            long(&mut bytes, &table);
        }
        _ => {
            let size = rng.random_range(0..600);
            let digits = rng.random_range(0..30);
            let text = match rng.random_range(0..3) {
                0 => random_bytes(size, rng),
                1 => vec![b'9'; digits],
                _ => b"somebody else".to_vec(),
            };
            long(&mut bytes, &text);
        }
    }
    bytes
}

fn text(to: &mut Vec<u8>, text: &[u8]) {
    to.push(b'S');
    long(to, text);
}
