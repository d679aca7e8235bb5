//! Finds the queue in which a request waits: a rung of the retry ladder, or the dead-letter queue.

use std::fmt::Write;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::time::timeout;

use super::place::{Place, places};
use crate::broker::{self, BrokerError, Noted, QueueReader, QueuedMessage};
use crate::cli::terminal::{ago, named, visible};
use crate::config::Settings;
use crate::ledger::admin::history::Subject;

/// Most messages that are reported. If there are more, only that fact is reported.
const LETTERS_MAX: usize = 100;

/// The messages that wait, and the sources that could not be read.
#[derive(Debug, Default)]
pub struct Waiting {
    pub letters: Vec<WaitingLetter>,
    pub unseen: Vec<String>,
}

/// A message that waits on a rung or is dead-lettered.
#[derive(Debug)]
pub struct WaitingLetter {
    queue: String,
    is_dead: bool,
    id: String,
    client: String,
    claimed_by: Option<String>,
    message_id: Option<String>,
    place: Place,
    reason: String,
    noted: Option<Noted>,
    attempts: u32,
    since: Option<Timestamp>,
    is_untrusted: bool,
    /// The queue of its `reply_to`, if `amqp.reply_to_pattern` does not allow it.
    reply_to_refused: Option<String>,
}

/// Searches the rungs and the dead-letter queue within the time limit.
pub async fn look(settings: &Settings, subject: &Subject, limit: Duration) -> Waiting {
    let mut waiting = Waiting::default();
    let dead = settings.topology.dead_letter_queue.as_str();
    let mut rungs = settings.retry_queues();
    match timeout(limit, broker::other_rungs(settings)).await {
        Ok(Ok(others)) => rungs.extend(others),
        Ok(Err(error)) => waiting.unseen.push(error.to_string()),
        Err(_) => {}
    }
    let mut queues: Vec<_> = rungs.iter().map(String::as_str).collect();
    queues.push(dead);
    let deadline = tokio::time::Instant::now() + limit;
    for queue in queues {
        let left = deadline.saturating_duration_since(tokio::time::Instant::now());
        match timeout(left, look_into(settings, queue, subject, &mut waiting)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => waiting.unseen.push(error.to_string()),
            Err(_) => waiting.unseen.push(format!(
                "{queue} to its end, within the time limit; use a longer --timeout"
            )),
        }
    }
    waiting
}

async fn look_into(
    settings: &Settings,
    queue: &str,
    subject: &Subject,
    waiting: &mut Waiting,
) -> Result<(), BrokerError> {
    let mut browse = QueueReader::open(settings, queue, 0).await?;
    if browse.others() > 0 {
        let others = browse.others();
        waiting.unseen.push(format!(
            "messages that {others} other reader(s) of {queue} hold at this moment"
        ));
    }
    'letters: while let Some(letter) = browse.next().await? {
        for (message_id, place) in places(subject, &letter) {
            if waiting.letters.len() == LETTERS_MAX {
                let unseen = format!("more than {LETTERS_MAX} requests that wait");
                waiting.unseen.push(unseen);
                break 'letters;
            }
            let found = WaitingLetter::new(settings, queue, &letter, message_id, place);
            waiting.letters.push(found);
        }
    }
    let (missing, counted) = (browse.missing(), browse.waiting());
    if missing > 0 {
        waiting.unseen.push(format!(
            "{missing} of the {counted} messages that were counted in {queue}"
        ));
    }
    browse.close().await
}

impl WaitingLetter {
    fn new(
        settings: &Settings,
        queue: &str,
        letter: &QueuedMessage,
        message_id: Option<String>,
        place: Place,
    ) -> Self {
        let reply_to = letter.reply_to.clone();
        Self {
            queue: queue.into(),
            is_dead: queue == settings.topology.dead_letter_queue.as_str(),
            id: letter.id.simple().to_string(),
            client: letter.client.clone(),
            claimed_by: letter.claimed_by.clone(),
            message_id,
            place,
            reason: letter.reason.clone(),
            noted: letter.noted.clone(),
            attempts: letter.attempts,
            since: letter.since,
            is_untrusted: letter.is_untrusted,
            reply_to_refused: reply_to.filter(|queue| !settings.may_reply_to(queue)),
        }
    }

    pub fn text(&self) -> String {
        let request = named(self.message_id.as_deref().unwrap_or_default());
        let client = named(&self.client);
        let mut text = match &self.place {
            Place::Single => format!("request {request} of client {client}"),
            Place::Group(size) => {
                format!("group {request} of client {client}, {size} requests in all")
            }
            Place::Member { group, index } => {
                let group = named(group);
                format!("request {request} of client {client}, in group {group}, request {index}")
            }
        };
        match (&self.claimed_by, &self.place) {
            (Some(login), _) if self.is_dead || self.is_untrusted => {
                let _ = write!(text, ", which only {} claims,", named(login));
            }
            (Some(login), _) => {
                let _ = write!(text, ", put there by {},", named(login));
            }
            (None, Place::Single) => {}
            (None, Place::Group(_) | Place::Member { .. }) => text.push(','),
        }
        text.push_str(" waits");
        let (queue, attempts) = (&self.queue, self.attempts);
        let _ = if self.is_dead {
            let reason = named(&self.reason);
            let id = &self.id[..12];
            writeln!(
                text,
                " among the dead letters ({queue}): {reason}, letter {id}"
            )
        } else {
            let what = if self.is_untrusted {
                "until that login is trusted"
            } else {
                "for its next attempt"
            };
            writeln!(text, " on {queue} {what}; {attempts} so far")
        };
        if let Some(noted) = &self.noted {
            let _ = writeln!(text, "  {}", visible(&noted.message));
        }
        if let Some(queue) = &self.reply_to_refused {
            let queue = named(queue);
            let _ = writeln!(
                text,
                "  its event will not be copied to its reply_to {queue}: \
                 amqp.reply_to_pattern does not allow it"
            );
        }
        if self.since.is_some() {
            let ago = ago(self.since, Timestamp::now());
            let _ = writeln!(text, "  since {ago} ago, {attempts} attempts");
        }
        text
    }

    pub fn json(&self) -> Value {
        let group = match &self.place {
            Place::Single => Value::Null,
            Place::Group(size) => json!({"id": self.message_id, "size": size}),
            Place::Member { group, index } => json!({"id": group, "index": index}),
        };
        json!({
            "queue": self.queue,
            "dead": self.is_dead,
            "letter": self.id,
            "client": self.client,
            "client_claimed_by": self.claimed_by,
            "request_id": self.message_id,
            "group": group,
            "reason": if self.is_dead { Some(&self.reason) } else { None },
            "message": self.noted.as_ref().map(|noted| &noted.message),
            "attempts": self.attempts,
            "since": self.since,
            "reply_to_refused": self.reply_to_refused,
        })
    }
}
