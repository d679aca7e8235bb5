//! Spans: one for each batch, linked to its messages, one for its statement and one for its publishing; and one for each
//! message whose sender asked to be traced.
//!
//! A message's own span continues the trace of its `traceparent`, and what is published for it names that span as its
//! parent. A `traceparent` that is not sampled is passed on as it came.

use std::sync::Arc;
use std::time::SystemTime;

use opentelemetry::trace::{
    Link, Span as _, SpanBuilder, SpanContext, SpanId, SpanKind, Status, TraceContextExt,
    TraceFlags, TraceId, TraceState, Tracer, TracerProvider,
};
use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::trace::{SdkTracer, Span};

use super::Exporting;

/// Messages that a batch's span is linked to, at most.
const LINKS: usize = 128;

/// Messages of a batch that have a span of their own, at most. Batches are large where much is to be done; there, to trace all
/// would take from the work, and the queue would drop most.
const OWN_SPANS: usize = 32;

/// What makes spans.
#[derive(Clone, Debug)]
pub struct Traces {
    tracer: SdkTracer,
    queue: Arc<str>,
}

impl Traces {
    /// Spans of the workers of `queue`.
    #[must_use]
    pub fn new(exporting: &Exporting, queue: &str) -> Self {
        Self {
            tracer: exporting.provider.tracer("revertd"),
            queue: queue.into(),
        }
    }

    /// Begins the spans of a batch. Of each message, the `traceparent` is replaced by the one under which its event goes
    /// on, where it is sampled and not one too many.
    pub fn begin<'a>(
        &self,
        traceparents: impl ExactSizeIterator<Item = &'a mut Option<String>>,
    ) -> BatchTrace {
        let count = i64::try_from(traceparents.len()).unwrap_or(i64::MAX);
        let slots: Vec<_> = traceparents.collect();
        let (mut links, mut left) = (Vec::new(), OWN_SPANS);
        let of_message = |slot: &&mut Option<String>| {
            // What is neither linked nor continued need not be read.
            if links.len() == LINKS && left == 0 {
                return None;
            }
            let parent = slot.as_deref().and_then(context)?;
            if links.len() < LINKS {
                links.push(Link::new(parent.clone(), Vec::new(), 0));
            }
            let goes_on = parent.is_sampled() && left > 0;
            left -= usize::from(goes_on);
            goes_on.then_some(parent)
        };
        let parents: Vec<_> = slots.iter().map(of_message).collect();
        let name = format!("process {}", self.queue);
        let batch = SpanBuilder::from_name(name.clone())
            .with_kind(SpanKind::Consumer)
            .with_attributes(
                self.attributes("process")
                    .chain([KeyValue::new("messaging.batch.message_count", count)]),
            )
            .with_links(links);
        let batch = self.tracer.build_with_context(batch, &Context::new());
        let of_batch = batch.span_context().clone();
        let messages = parents.into_iter().zip(slots).map(|(parent, slot)| {
            let parent = parent?;
            let message = SpanBuilder::from_name(name.clone())
                .with_kind(SpanKind::Consumer)
                .with_attributes(self.attributes("process"))
                .with_links(vec![Link::new(of_batch.clone(), Vec::new(), 0)]);
            let within = Context::new().with_remote_span_context(parent);
            let span = self.tracer.build_with_context(message, &within);
            let own = span.span_context();
            if own.is_sampled() {
                *slot = Some(format!("00-{}-{}-01", own.trace_id(), own.span_id()));
            }
            Some(span)
        });
        let messages = messages.collect();
        BatchTrace {
            tracer: self.tracer.clone(),
            within: Context::new().with_remote_span_context(of_batch),
            batch,
            messages,
        }
    }

    fn attributes(&self, operation: &'static str) -> impl Iterator<Item = KeyValue> + use<> {
        [
            KeyValue::new("messaging.system", "rabbitmq"),
            KeyValue::new("messaging.operation.type", operation),
            KeyValue::new("messaging.operation.name", operation),
            KeyValue::new("messaging.destination.name", self.queue.clone()),
        ]
        .into_iter()
    }
}

/// The spans of a batch in hand. Dropped before it was settled, they end as failed.
pub struct BatchTrace {
    tracer: SdkTracer,
    /// The batch, as a parent.
    within: Context,
    batch: Span,
    /// Of each message that is traced.
    messages: Vec<Option<Span>>,
}

impl BatchTrace {
    /// The statement is done.
    pub fn decided(&mut self, began: SystemTime, requests: usize, error: Option<&str>) {
        let requests = i64::try_from(requests).unwrap_or(i64::MAX);
        let attributes = [
            KeyValue::new("db.system.name", "postgresql"),
            KeyValue::new("db.operation.name", "apply"),
            KeyValue::new("db.operation.batch.size", requests),
        ];
        self.step("apply", SpanKind::Client, began, attributes, error);
    }

    /// What came of the batch is confirmed.
    pub fn published(
        &mut self,
        exchange: &str,
        began: SystemTime,
        messages: usize,
        error: Option<&str>,
    ) {
        let messages = i64::try_from(messages).unwrap_or(i64::MAX);
        let attributes = [
            KeyValue::new("messaging.system", "rabbitmq"),
            KeyValue::new("messaging.operation.type", "send"),
            KeyValue::new("messaging.operation.name", "publish"),
            KeyValue::new("messaging.destination.name", exchange.to_owned()),
            KeyValue::new("messaging.batch.message_count", messages),
        ];
        let name = format!("publish {exchange}");
        self.step(name, SpanKind::Producer, began, attributes, error);
    }

    /// The batch is acknowledged; `outcomes` says what became of each message, in their order.
    pub fn settled(mut self, outcomes: impl Iterator<Item = (&'static str, &'static str)>) {
        for (span, (outcome, reason)) in self.messages.iter_mut().zip(outcomes) {
            let Some(span) = span else { continue };
            span.set_attribute(KeyValue::new("revertd.outcome", outcome));
            if !reason.is_empty() {
                span.set_attribute(KeyValue::new("revertd.reason", reason));
            }
            if outcome == "dead_lettered" {
                span.set_status(Status::error(reason));
            }
            span.end();
        }
        self.messages.clear();
        self.batch.end();
    }

    fn step(
        &self,
        name: impl Into<std::borrow::Cow<'static, str>>,
        kind: SpanKind,
        began: SystemTime,
        attributes: impl IntoIterator<Item = KeyValue>,
        error: Option<&str>,
    ) {
        let builder = SpanBuilder::from_name(name)
            .with_kind(kind)
            .with_start_time(began)
            .with_attributes(attributes);
        let mut span = self.tracer.build_with_context(builder, &self.within);
        if let Some(error) = error {
            span.set_status(Status::error(error.to_owned()));
        }
        span.end();
    }
}

impl Drop for BatchTrace {
    fn drop(&mut self) {
        // Those that ended take no notice.
        for span in self.messages.iter_mut().flatten() {
            span.set_status(Status::error("not settled; it is delivered again"));
            span.end();
        }
        self.batch
            .set_status(Status::error("not settled; it is delivered again"));
        self.batch.end();
    }
}

/// The context that a well-formed `traceparent` names, unless it is all zeros.
fn context(traceparent: &str) -> Option<SpanContext> {
    let trace_id = TraceId::from_hex(traceparent.get(3..35)?).ok()?;
    let span_id = SpanId::from_hex(traceparent.get(36..52)?).ok()?;
    let flags = u8::from_str_radix(traceparent.get(53..55)?, 16).ok()?;
    // Of the flags only this one has a meaning in version 00.
    let flags = TraceFlags::new(flags) & TraceFlags::SAMPLED;
    let context = SpanContext::new(trace_id, span_id, flags, true, TraceState::default());
    context.is_valid().then_some(context)
}

#[cfg(test)]
mod tests {
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
}
