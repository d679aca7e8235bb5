//! The W3C's trace context, as far as revertd passes it on. Pure.

/// Whether `text` is a `traceparent` of version 00: four fields of lower-case hexadecimal digits.
#[must_use]
pub fn is_traceparent(text: &str) -> bool {
    let fields: Vec<_> = text.split('-').collect();
    let hex = |field: &str| {
        field
            .bytes()
            .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
    };
    fields.iter().map(|field| field.len()).eq([2, 32, 16, 2]) && fields.iter().all(|f| hex(f))
}
