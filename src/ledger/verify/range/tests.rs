use super::*;

#[test]
fn parts_cover_a_range_without_gaps_and_no_more() {
    for (from, to, number) in [
        (None, None, 1),
        (None, None, 256),
        (Some("3f"), Some("7abc"), 16),
        (Some("8"), Some("8"), 65536),
        (Some("00000000-0001"), None, 4),
    ] {
        let range = Range::of_prefixes(from, to).expect("hexadecimal");
        let parts: Vec<_> = range.parts(number).collect();
        assert_eq!(parts[0].first, range.first);
        assert_eq!(parts[parts.len() - 1].last, range.last);
        for pair in parts.windows(2) {
            assert_eq!(pair[0].last + 1, pair[1].first);
        }
    }
    let all: Vec<_> = Range::ALL.parts(256).collect();
    assert_eq!((all.len(), all[37].to_string().as_str()), (256, "2500"));
}

#[test]
fn an_invalid_or_descending_range_is_refused() {
    for (from, to) in [
        (Some("g"), None),
        (Some("2"), Some("1")),
        (Some(""), Some("-x")),
    ] {
        assert_eq!(Range::of_prefixes(from, to), None, "{from:?} {to:?}");
    }
    assert_eq!(Range::of_prefixes(None, None), Some(Range::ALL));
}
