//! W3C Trace Context: the check of a `traceparent` before it is passed on.

/// Whether `text` is a `traceparent` of version 00: four fields of lower-case hexadecimal digits,
/// with trace id and span id other than zero.
#[must_use]
pub fn is_traceparent(text: &str) -> bool {
    let fields: Vec<_> = text.split('-').collect();
    let hex = |field: &str| {
        field
            .bytes()
            .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
    };
    let [version, trace, span, flags] = fields.as_slice() else {
        return false;
    };
    let id = |field: &str| field.bytes().any(|digit| digit != b'0');
    *version == "00"
        && (trace.len(), span.len(), flags.len()) == (32, 16, 2)
        && fields.iter().all(|field| hex(field))
        && id(trace)
        && id(span)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trace_context_has_the_form_of_version_00() {
        let sound = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        assert!(is_traceparent(sound));
        for other in [
            "",
            "00-1-2-3",
            &sound.to_uppercase(),
            &sound.replacen("00", "01", 1),
            &sound.replacen("00", "ff", 1),
            &format!("{sound}-00"),
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
        ] {
            assert!(!is_traceparent(other), "{other}");
        }
    }
}
