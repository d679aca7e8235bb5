//! Puts generated requests into groups, some of them into two.

use std::collections::HashSet;

use rand::RngExt;

use super::load::{RequestKind, Sent, SentGroup};
use super::request_generator::RequestGenerator;

/// Requests of a group.
const MOST: usize = 20;

/// A request of a group: its id, its kind and its JSON object.
#[derive(Clone)]
struct Member {
    id: String,
    kind: RequestKind,
    json: Vec<u8>,
}

impl RequestGenerator {
    /// A group of requests as `next` generates them. Every other group is atomic: it has at most
    /// one such request, among others that can be reverted. Now and then a second group has some
    /// of the requests, too. A request that fits into no group stays a message of its own.
    pub(super) fn group(&mut self, next: impl Fn(&mut Self)) {
        let size = self.generator.rng.random_range(2..=MOST);
        let (first, is_atomic) = (self.sent.len(), self.generator.rng.random());
        for _ in 0..size {
            if is_atomic {
                self.plain();
            } else {
                next(self);
            }
        }
        if is_atomic && self.generator.rng.random() {
            let place = self.generator.rng.random_range(first..self.sent.len());
            self.sent.truncate(self.sent.len() - 1);
            next(self);
            let last = self.sent.len() - 1;
            self.sent.swap(place.min(last), last);
        }
        let members = self.members(first);
        let shared: Vec<_> = members.iter().take(size / 2).cloned().collect();
        self.send_group(is_atomic, members);
        if self.generator.rng.random_ratio(1, 3) {
            let (first, is_atomic) = (self.sent.len(), self.generator.rng.random());
            self.plain();
            let mut members = self.members(first);
            members.extend(shared);
            self.send_group(is_atomic, members);
        }
    }

    /// Takes the messages from the one with this index on as the members of a group. Those without
    /// a message id, malformed ones, and those whose usage or id another has, stay messages.
    fn members(&mut self, first: usize) -> Vec<Member> {
        let (mut ids, mut usages, mut members) = (HashSet::new(), HashSet::new(), Vec::new());
        for sent in self.sent.split_off(first) {
            let id = sent.request.properties.message_id().as_ref();
            let id = id.map(ToString::to_string);
            let fits = match &sent.kind {
                RequestKind::Valid(asked) => usages.insert(asked.content.usage),
                RequestKind::Invalid(_) => true,
                RequestKind::Malformed | RequestKind::CrashesWorker | RequestKind::Group(_) => {
                    false
                }
            };
            match id.filter(|id| fits && ids.insert(id.clone())) {
                Some(id) => members.push(Member {
                    json: element(&id, &sent.request.body),
                    kind: sent.kind,
                    id,
                }),
                None => self.sent.push(sent),
            }
        }
        members
    }

    fn send_group(&mut self, atomic: bool, members: Vec<Member>) {
        if members.is_empty() {
            return;
        }
        let rng = &mut self.generator.rng;
        let (each, single_attempt) = (rng.random_ratio(1, 4), rng.random_ratio(1, 10));
        let replies = if each { "\"replies\":\"each\"," } else { "" };
        let mut body = format!("{{\"atomic\":{atomic},{replies}\"requests\":").into_bytes();
        for (index, member) in members.iter().enumerate() {
            body.push(if index == 0 { b'[' } else { b',' });
            body.extend_from_slice(&member.json);
        }
        body.extend_from_slice(b"]}");
        let members = members.into_iter().map(|member| (member.id, member.kind));
        let members = members.collect();
        let mut sent = Sent::group(body, self.generator.id(), SentGroup { atomic, members });
        if single_attempt {
            sent.request = sent.request.single_attempt();
        }
        self.sent.push(sent);
    }
}

/// The body of a request as an element of a group: with its id.
fn element(id: &str, body: &[u8]) -> Vec<u8> {
    let members = body.strip_prefix(b"{").expect("an object");
    [format!("{{\"request_id\":\"{id}\",").as_bytes(), members].concat()
}
