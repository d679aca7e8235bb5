//! The items of a batch: each is disposed of by itself. A single request is one item, a request of
//! a group likewise; an atomic group that is not decided is one item as a whole.

use std::sync::Arc;

use jiff::Timestamp;

use super::shared::Shared;
use crate::broker::{DeliveredGroup, Delivery};
use crate::common::failpoint;
use crate::domain::disposition::{self, Disposition, MemberReading, Reading};
use crate::domain::event::Event;
use crate::domain::outcome::{Decision, Failure};
use crate::domain::request::{FirstRefusal, Fragments, Group, Member, Replies, RevertRequest};

/// A batch whose requests are decided.
#[derive(Default)]
pub struct Items {
    /// Each item as a delivery.
    pub deliveries: Vec<Delivery>,
    /// What becomes of each.
    pub dispositions: Vec<Disposition>,
    /// The items of each message of the batch.
    pub of_message: Vec<MessageItems>,
    /// The number of groups whose requests are items.
    pub groups: usize,
    /// The number of requests of these groups.
    pub group_requests: usize,
}

/// The items of a message.
#[derive(Clone, Copy)]
pub struct MessageItems {
    /// The number of items.
    pub count: usize,
    /// The number of requests, if the message is a group.
    pub group_size: Option<usize>,
}

/// A batch whose bodies are parsed.
#[derive(Default)]
pub struct ParsedBatch {
    messages: Vec<Parsed>,
    /// The requests to decide, in the order of delivery.
    pub requests: Vec<RevertRequest>,
}

/// A message of the batch.
enum Parsed {
    Done(Delivery, Disposition),
    /// The next request.
    Request(Delivery),
    Group {
        group: Delivery,
        is_atomic: bool,
        replies: Replies,
        requests: Vec<ParsedMember>,
    },
}

/// A request of a group.
enum ParsedMember {
    /// The next request.
    Request(Delivery),
    Refused(Delivery, Event),
}

impl ParsedBatch {
    pub fn new(shared: &Shared, deliveries: Vec<Delivery>) -> Self {
        let now = Timestamp::now();
        let mut parsed = Self {
            messages: Vec::with_capacity(deliveries.len()),
            requests: Vec::with_capacity(deliveries.len()),
        };
        for delivery in deliveries {
            parsed.add(shared, delivery, now);
        }
        parsed
    }

    fn add(&mut self, shared: &Shared, mut delivery: Delivery, now: Timestamp) {
        let message = match read(shared, &delivery, now) {
            Reading::Request(request) => {
                self.requests.push(request);
                Parsed::Request(delivery)
            }
            Reading::Group(group) => {
                let (is_atomic, replies) = (group.atomic, group.replies);
                let requests = self.add_group(shared, &delivery, group, now);
                Parsed::Group {
                    group: delivery,
                    is_atomic,
                    replies,
                    requests,
                }
            }
            Reading::Done(disposition) => {
                if is_malformed(&disposition) {
                    delivery.cut_at(shared.settings.amqp.max_message_bytes.bytes());
                }
                Parsed::Done(delivery, disposition)
            }
        };
        self.messages.push(message);
    }

    fn add_group(
        &mut self,
        shared: &Shared,
        delivery: &Delivery,
        group: Group<'_>,
        now: Timestamp,
    ) -> Vec<ParsedMember> {
        let identity = delivery.message_identity();
        let needs_client = shared.settings.needs_grants();
        let (first, mut refused) = (self.requests.len(), None);
        let mut members = Vec::with_capacity(group.requests.len());
        for (index, request) in group.requests.into_iter().enumerate() {
            let envelope = request.envelope(&delivery.envelope);
            let body = request.body().into_owned();
            let ladder = &shared.ladder;
            let fields = request.fields;
            let reading = disposition::read_member(
                &envelope,
                &body,
                fields,
                index,
                needs_client,
                ladder,
                now,
            );
            let member = delivery.member(envelope, body);
            members.push(match reading {
                MemberReading::Request(mut request) => {
                    request.member = group.atomic.then_some(Member {
                        group: identity,
                        index,
                        refused: None,
                    });
                    self.requests.push(request);
                    ParsedMember::Request(member)
                }
                MemberReading::Refused(reason, event) => {
                    let reason = reason.row().reason.to_owned();
                    refused.get_or_insert(FirstRefusal { index, reason });
                    ParsedMember::Refused(member, event)
                }
            });
        }
        for request in &mut self.requests[first..] {
            if let Some(member) = &mut request.member {
                member.refused.clone_from(&refused);
            }
        }
        members
    }

    /// The items, by a decision for each request.
    pub fn into_items(self, shared: &Shared, decisions: &[Decision]) -> Items {
        let mut decided = self.requests.iter().zip(decisions);
        let mut items = Items {
            of_message: Vec::with_capacity(self.messages.len()),
            ..Items::default()
        };
        for message in self.messages {
            let before = items.deliveries.len();
            let group_size = message.group_size();
            match message {
                Parsed::Done(delivery, disposition) => items.push(delivery, disposition),
                Parsed::Request(delivery) => items.decide(shared, delivery, &mut decided),
                Parsed::Group {
                    group,
                    is_atomic,
                    replies,
                    requests,
                } => {
                    let group = (group, is_atomic, replies);
                    items.decide_group(shared, group, requests, &mut decided);
                }
            }
            let count = items.deliveries.len() - before;
            items.of_message.push(MessageItems { count, group_size });
        }
        items
    }
}

impl Items {
    fn push(&mut self, delivery: Delivery, disposition: Disposition) {
        self.deliveries.push(delivery);
        self.dispositions.push(disposition);
    }

    fn decide<'a>(
        &mut self,
        shared: &Shared,
        delivery: Delivery,
        decided: &mut impl Iterator<Item = (&'a RevertRequest, &'a Decision)>,
    ) {
        let (request, decision) = decided.next().expect("a decision for each request");
        let (envelope, body, now) = (&delivery.envelope, &delivery.body, Timestamp::now());
        let ladder = &shared.ladder;
        let disposition = disposition::dispose(envelope, body, request, decision, ladder, now);
        self.push(delivery, disposition);
    }

    fn decide_group<'a>(
        &mut self,
        shared: &Shared,
        (group, is_atomic, replies): (Delivery, bool, Replies),
        requests: Vec<ParsedMember>,
        decided: &mut (impl Iterator<Item = (&'a RevertRequest, &'a Decision)> + Clone),
    ) {
        let count = requests
            .iter()
            .filter(|request| request.is_to_decide())
            .count();
        let undecided = decided.clone().take(count).find_map(|(_, decision)| {
            let is_undecided = match decision {
                Decision::Decided(_) | Decision::Repeated(_) => false,
                Decision::NotYet | Decision::Failed(_) | Decision::SetAside(..) => true,
            };
            is_undecided.then_some(decision)
        });
        if let Some(decision) = undecided.filter(|_| is_atomic) {
            decided.nth(count - 1);
            let (envelope, body, now) = (&group.envelope, &group.body, Timestamp::now());
            let disposition = disposition::dispose_undecided(
                envelope,
                body,
                &Fragments::default(),
                decision,
                &shared.ladder,
                now,
            );
            self.push(group, disposition);
            return;
        }
        self.groups += 1;
        self.group_requests += requests.len();
        let group = Arc::new(DeliveredGroup {
            id: group.envelope.message_id.clone().unwrap_or_default(),
            size: requests.len(),
            replies,
            message: group,
        });
        for request in requests {
            let in_group = Some(group.clone());
            match request {
                ParsedMember::Request(mut delivery) => {
                    delivery.group = in_group;
                    self.decide(shared, delivery, decided);
                }
                ParsedMember::Refused(mut delivery, event) => {
                    delivery.group = in_group;
                    self.push(delivery, Disposition::Answer(event));
                }
            }
        }
    }
}

impl Parsed {
    fn group_size(&self) -> Option<usize> {
        match self {
            Self::Done(..) | Self::Request(_) => None,
            Self::Group { requests, .. } => Some(requests.len()),
        }
    }
}

impl ParsedMember {
    fn is_to_decide(&self) -> bool {
        match self {
            Self::Request(_) => true,
            Self::Refused(..) => false,
        }
    }
}

fn read<'a>(shared: &Shared, delivery: &'a Delivery, now: Timestamp) -> Reading<'a> {
    let (settings, envelope) = (&shared.settings, &delivery.envelope);
    let crashes = delivery.crashes;
    if crashes >= settings.worker.max_crashes {
        let identity = delivery.message_identity();
        return Reading::Done(disposition::unread(envelope, identity, crashes, now));
    }
    failpoint::hit_with(failpoint::READING, &delivery.body);
    let limits = settings.amqp.request_limits();
    if delivery.cut.is_some() {
        let (identity, bytes) = (delivery.message_identity(), delivery.body_bytes());
        let disposition = disposition::too_large(envelope, identity, bytes, &limits, now);
        return Reading::Done(disposition);
    }
    let (needs_client, ladder) = (settings.needs_grants(), &shared.ladder);
    disposition::read(envelope, &delivery.body, &limits, needs_client, ladder, now)
}

fn is_malformed(disposition: &Disposition) -> bool {
    matches!(
        disposition,
        Disposition::DeadLetter {
            failure: Failure::Malformed(_),
            ..
        }
    )
}
