//! Spans: one for each batch, linked to its messages; one for its statement; one for its
//! publishing; and one for each message whose publisher sampled it.
//!
//! A message's own span continues the trace of its `traceparent`, and the messages published for it
//! name that span as their parent. A `traceparent` that is not sampled is passed on unchanged.

use std::sync::Arc;
use std::time::SystemTime;

use opentelemetry::trace::{
    Link, Span as _, SpanBuilder, SpanContext, SpanId, SpanKind, Status, TraceContextExt,
    TraceFlags, TraceId, TraceState, Tracer, TracerProvider,
};
use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::trace::{SdkTracer, Span};

use super::Exporting;

/// Most messages that a batch's span links to.
const LINKS: usize = 128;

/// Most messages of a batch that get a span of their own. Batches are large under load; spans for
/// all messages would slow the work down, and the export queue would drop most of them.
const OWN_SPANS: usize = 32;

/// Creates the spans.
#[derive(Clone, Debug)]
pub struct Traces {
    tracer: SdkTracer,
    queue: Arc<str>,
}

impl Traces {
    /// Creates spans of the workers that consume `queue`.
    #[must_use]
    pub fn new(exporting: &Exporting, queue: &str) -> Self {
        Self {
            tracer: exporting.provider.tracer("revertd"),
            queue: queue.into(),
        }
    }

    /// Begins the spans of a batch. The `traceparent` of a sampled message is replaced by that of
    /// the message's own span, for the first `OWN_SPANS` of them; the message's event continues
    /// from it.
    pub fn begin<'a>(
        &self,
        traceparents: impl ExactSizeIterator<Item = &'a mut Option<String>>,
    ) -> BatchTrace {
        let count = i64::try_from(traceparents.len()).unwrap_or(i64::MAX);
        let slots: Vec<_> = traceparents.collect();
        let (mut links, mut left) = (Vec::new(), OWN_SPANS);
        let of_message = |slot: &&mut Option<String>| {
            // Parse a traceparent only if it can still be linked or continued.
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

/// A message of a batch that is acknowledged.
#[derive(Clone, Copy, Debug)]
pub struct SettledMessage {
    /// Its outcome; `mixed` for a group whose requests have several.
    pub outcome: &'static str,
    /// The reason of the outcome, or the empty string.
    pub reason: &'static str,
    /// The number of requests, if it is a group.
    pub group_size: Option<usize>,
}

/// The spans of a batch in flight. If it is dropped before `settled`, the spans end as failed.
pub struct BatchTrace {
    tracer: SdkTracer,
    /// The batch's span, as a parent.
    within: Context,
    batch: Span,
    /// The spans of the messages; `None` for a message that is not traced.
    messages: Vec<Option<Span>>,
}

impl BatchTrace {
    /// Records the span of the batch's statement, which began at `began`.
    pub fn decided(&mut self, began: SystemTime, requests: usize, error: Option<&str>) {
        let requests = i64::try_from(requests).unwrap_or(i64::MAX);
        let attributes = [
            KeyValue::new("db.system.name", "postgresql"),
            KeyValue::new("db.operation.name", "apply"),
            KeyValue::new("db.operation.batch.size", requests),
        ];
        self.step("apply", SpanKind::Client, began, attributes, error);
    }

    /// Records the span of the batch's publishing, which began at `began`.
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

    /// Ends the spans: the batch is acknowledged. `messages` are in the order of the batch.
    pub fn settled(mut self, messages: impl Iterator<Item = SettledMessage>) {
        for (span, message) in self.messages.iter_mut().zip(messages) {
            let Some(span) = span else { continue };
            let SettledMessage {
                outcome,
                reason,
                group_size,
            } = message;
            if let Some(size) = group_size {
                let size = i64::try_from(size).unwrap_or(i64::MAX);
                span.set_attribute(KeyValue::new("revertd.group.size", size));
            }
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
        // A span that has already ended ignores this.
        for span in self.messages.iter_mut().flatten() {
            span.set_status(Status::error("not settled; it is delivered again"));
            span.end();
        }
        self.batch
            .set_status(Status::error("not settled; it is delivered again"));
        self.batch.end();
    }
}

/// The context of a well-formed `traceparent`; `None` if an id in it is all zeros.
fn context(traceparent: &str) -> Option<SpanContext> {
    let trace_id = TraceId::from_hex(traceparent.get(3..35)?).ok()?;
    let span_id = SpanId::from_hex(traceparent.get(36..52)?).ok()?;
    let flags = u8::from_str_radix(traceparent.get(53..55)?, 16).ok()?;
    // Version 00 defines only this flag.
    let flags = TraceFlags::new(flags) & TraceFlags::SAMPLED;
    let context = SpanContext::new(trace_id, span_id, flags, true, TraceState::default());
    context.is_valid().then_some(context)
}

#[cfg(test)]
mod tests;
