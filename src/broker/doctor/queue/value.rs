//! What counts for a queue where its arguments and a policy both say something, and which of them
//! to change.

use serde_json::Value;

use super::info::QueueInfo;

const RECREATE: &str = "delete the queue once it is empty, and have `revertd worker` declare it \
    (topology.declare = true)";
const POLICY: &str =
    "take that out of the policy (rabbitmqctl list_policies, list_operator_policies)";

/// Who says something of a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ValueSource {
    /// The queue itself: its kind, or an argument that it was declared with, or lacks.
    Queue,
    Policy,
}

impl ValueSource {
    /// What to do where that is wrong. A queue's own arguments can't be changed.
    pub fn remedy(self) -> &'static str {
        match self {
            Self::Queue => RECREATE,
            Self::Policy => POLICY,
        }
    }
}

impl QueueInfo<'_> {
    /// Of argument and policy, the smaller one counts.
    pub fn number(&self, key: &str) -> Option<(i64, ValueSource)> {
        let both = self.both(key).into_iter();
        both.filter_map(|(value, source)| Some((value.as_i64()?, source)))
            .min_by_key(|(value, _)| *value)
    }

    /// The argument wins.
    pub fn text(&self, key: &str) -> Option<(&str, ValueSource)> {
        self.texts(key).last()
    }

    /// What it does when it is full: the policy wins, unlike elsewhere. What the argument says
    /// comes after it, since it counts once the policy is gone. Where neither says anything, the
    /// oldest are dropped.
    pub fn overflows(&self) -> Vec<(&str, ValueSource)> {
        let mut said: Vec<_> = self.texts("overflow").collect();
        if said.is_empty() {
            said.push(("drop-head", ValueSource::Queue));
        }
        said
    }

    fn texts(&self, key: &str) -> impl Iterator<Item = (&str, ValueSource)> {
        let both = self.both(key).into_iter();
        both.filter_map(|(value, source)| Some((value.as_str()?, source)))
    }

    /// What the policy says and what the argument.
    fn both(&self, key: &str) -> [(&Value, ValueSource); 2] {
        let answer = self.answer;
        [
            (
                &answer["effective_policy_definition"][key],
                ValueSource::Policy,
            ),
            (&answer["arguments"][format!("x-{key}")], ValueSource::Queue),
        ]
    }
}
