use opentelemetry_sdk::trace::SdkTracerProvider;

use super::{Exporting, OWN_SPANS, Traces, context};

#[test]
fn spans_of_a_large_batch_are_bounded() {
    let exporting = Exporting {
        provider: SdkTracerProvider::builder().build(),
    };
    let parent = |n: usize| Some(format!("00-{:032x}-b7ad6b7169203331-01", n + 1));
    let before: Vec<_> = (0..OWN_SPANS + 10).map(parent).collect();
    let mut after = before.clone();
    let trace = Traces::new(&exporting, "work").begin(after.iter_mut());
    let pairs = || before.iter().zip(&after);
    assert_eq!(
        pairs().filter(|(one, other)| one != other).count(),
        OWN_SPANS
    );
    assert!(
        pairs().all(|(one, other)| one.as_ref().map(|text| &text[..35])
            == other.as_ref().map(|text| &text[..35]))
    );
    trace.settled(std::iter::empty());
}

#[test]
fn an_all_zero_traceparent_is_ignored() {
    let (trace, span) = ("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331");
    let sampled = context(&format!("00-{trace}-{span}-01")).expect("valid");
    assert_eq!(sampled.trace_id().to_string(), trace);
    assert_eq!(sampled.span_id().to_string(), span);
    assert!(sampled.is_sampled());
    let not = context(&format!("00-{trace}-{span}-00")).expect("valid");
    assert!(!not.is_sampled());
    let other_flags = context(&format!("00-{trace}-{span}-fe")).expect("valid");
    assert!(!other_flags.is_sampled());
    assert!(context(&format!("00-{}-{span}-01", "0".repeat(32))).is_none());
    assert!(context(&format!("00-{trace}-{}-01", "0".repeat(16))).is_none());
}
