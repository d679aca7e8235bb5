//! Bodies: a valid request, and its mutations.

use rand::RngExt;
use rand::rngs::StdRng;
use serde_json::Value;
use uuid::Uuid;

/// As deep as `amqp.max_message_bytes` lets a body nest.
const DEEPEST: usize = 32_000;

/// About `amqp.max_message_bytes`, and well above.
const LARGE: std::ops::Range<usize> = 60_000..70_000;
const HUGE: std::ops::Range<usize> = 100_000..2_000_000;

/// A body of `usage`, mutated or not.
pub fn body(account: Uuid, usage: Uuid, rng: &mut StdRng) -> Vec<u8> {
    let amount = rng.random_range(1..=20);
    let plain = format!(r#"{{"billing_id":"{account}","usage_id":"{usage}","amount":{amount}}}"#);
    match rng.random_range(0..14) {
        0 => plain.into_bytes(),
        1 | 2 => flipped(plain.into_bytes(), rng),
        3 => {
            let end = rng.random_range(0..plain.len());
            plain.as_bytes()[..end].to_vec()
        }
        4 => {
            let mut bytes = plain.into_bytes();
            let at = rng.random_range(0..=bytes.len());
            let count = rng.random_range(1..40);
            bytes.splice(at..at, random_bytes(count, rng));
            bytes
        }
        5 => with(&plain, &format!(r#""more":{}"#, nested(rng))),
        6 => {
            let number = NUMBERS[rng.random_range(0..NUMBERS.len())];
            let text = format!(r#""amount":{amount}"#);
            plain
                .replace(&text, &format!(r#""amount":{number}"#))
                .into_bytes()
        }
        7 => {
            let twice = [
                format!(r#""usage_id":"{usage}""#),
                format!(r#""usageId":"{usage}""#),
                format!(r#""amount":{amount}"#),
                format!(r#""billingId":"{account}""#),
            ];
            with(&plain, &twice[rng.random_range(0..twice.len())])
        }
        8 => {
            let mut bytes = with(&plain, r#""reason":"?""#);
            let at = bytes
                .iter()
                .rposition(|byte| *byte == b'?')
                .expect("it is there");
            let text = TEXTS[rng.random_range(0..TEXTS.len())];
            bytes.splice(at..=at, text.iter().copied());
            bytes
        }
        9 => WHOLE[rng.random_range(0..WHOLE.len())].to_vec(),
        10 => {
            let count = rng.random_range(1..2000);
            random_bytes(count, rng)
        }
        11 => {
            let huge = rng.random_ratio(1, 50);
            let size = rng.random_range(if huge { HUGE } else { LARGE });
            with(&plain, &format!(r#""more":"{}""#, "x".repeat(size)))
        }
        12 => {
            // NULs, as of a writer that died.
            let mut bytes = plain.into_bytes();
            let start = rng.random_range(0..bytes.len());
            bytes[start..].fill(0);
            bytes
        }
        _ => {
            // The end of one after the start of another.
            let cut = rng.random_range(0..plain.len());
            let other = plain.replace(&usage.to_string(), &Uuid::nil().to_string());
            [&plain.as_bytes()[..cut], &other.as_bytes()[cut / 2..]].concat()
        }
    }
}

/// The usage and the amount that a body asks for, where it may be granted at all; read by other
/// means than the worker's.
pub fn asks_for(body: &[u8]) -> Option<(Uuid, i64)> {
    /// A field that is given twice, in any spelling, is refused.
    #[derive(serde::Deserialize)]
    struct Plain {
        #[serde(alias = "usageId")]
        usage_id: Uuid,
        amount: Value,
        #[serde(alias = "billingId")]
        billing_id: Option<Uuid>,
    }
    let plain: Plain = serde_json::from_slice(body).ok()?;
    let amount = match plain.amount {
        Value::String(text) => text.parse().ok()?,
        number => number.as_i64()?,
    };
    plain.billing_id?;
    Some((plain.usage_id, amount))
}

const NUMBERS: [&str; 14] = [
    "1e400",
    "-1e400",
    "1e-400",
    "5.0",
    "5e0",
    "-0",
    "00005",
    "0x5",
    "9223372036854775807",
    "9223372036854775808",
    "-9223372036854775809",
    "123456789012345678901234567890123456789012345678901234567890",
    "NaN",
    "\"5 \"",
];

const TEXTS: [&[u8]; 9] = [
    b"\xff\xfe",
    b"\xc0\x80",
    b"\xed\xa0\x80",
    b"\\ud800",
    b"\\udc00\\ud800",
    b"\\u0000",
    b"\0",
    b"\\x41",
    b"\"",
];

const WHOLE: [&[u8]; 10] = [
    b"",
    b" ",
    b"{}",
    b"[]",
    b"null",
    b"\"request\"",
    b"\xef\xbb\xbf{}",
    b"{\"usage_id\":null}",
    b"{} {}",
    b"\0",
];

fn flipped(mut bytes: Vec<u8>, rng: &mut StdRng) -> Vec<u8> {
    for _ in 0..rng.random_range(1..=8) {
        let at = rng.random_range(0..bytes.len());
        bytes[at] ^= 1 << rng.random_range(0..8);
    }
    bytes
}

fn nested(rng: &mut StdRng) -> String {
    let depth = rng.random_range(1..DEEPEST);
    let closed = rng.random_ratio(4, 5);
    if rng.random() {
        "[".repeat(depth) + &"]".repeat(if closed { depth } else { depth - 1 })
    } else {
        let depth = depth / 3;
        r#"{"":"#.repeat(depth) + "1" + &"}".repeat(if closed { depth } else { depth / 2 })
    }
}

/// The body with another member.
fn with(plain: &str, member: &str) -> Vec<u8> {
    let open = plain.strip_suffix('}').expect("an object");
    format!("{open},{member}}}").into_bytes()
}

pub fn random_bytes(count: usize, rng: &mut StdRng) -> Vec<u8> {
    (0..count).map(|_| rng.random()).collect()
}
