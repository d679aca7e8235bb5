//! The reply queue of the gateway, and the requests that wait for their events from it.
//!
//! Each request has a random correlation id, which only the broker and the worker learn. A client
//! that may publish to the default exchange therefore can't forge an answer. A message that answers
//! no request is dropped. The events of a group may come in several messages. If the connection is
//! lost, all waiting requests end at once, and the next connection has a new queue.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use lapin::Connection;
use lapin::types::ShortString;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};
use uuid::Uuid;

use super::reply_queue::ReplyQueue;
use crate::broker::connection::{CONNECT_TIMEOUT, any_of, close, connect, greeting, within};
use crate::broker::error::BrokerError;
use crate::broker::operation::Operation;
use crate::common::backoff::Backoff;
use crate::config::{AmqpUrl, Settings};

/// The waits between attempts to connect again.
const FIRST_WAIT: Duration = Duration::from_millis(100);
const LONGEST_WAIT: Duration = Duration::from_secs(5);

/// The result of a published request, as far as its publisher can know it.
#[derive(Debug)]
pub enum RequestResult {
    /// The body of its event, or of a message with events of its group.
    Event(Vec<u8>),
    /// Not accepted: no queue is bound for it, or the request exchange does not exist.
    Unroutable,
    /// A queue refused it: the work queue or another bound queue. In the second case the work queue
    /// may have it.
    Full,
    /// Not accepted: the client may not write to the request exchange.
    Forbidden(BrokerError),
    /// Not accepted: the broker does not work at present.
    Unsent(BrokerError),
    /// Unknown: the connection ended before the confirm.
    Lost,
}

/// The reply queue.
pub struct ReplyRouter {
    pending: Arc<PendingReplies>,
    stop: CancellationToken,
    keeper: TaskTracker,
}

/// A request, or a group, whose answers are awaited until this is dropped.
pub struct PendingReply {
    correlation: Correlation,
    answers: mpsc::Receiver<RequestResult>,
}

/// The address of a request's answer, for its publisher.
#[derive(Clone)]
pub(crate) struct Correlation {
    pub id: Uuid,
    pub reply_to: ShortString,
    pending: Arc<PendingReplies>,
}

struct PendingReplies(Mutex<State>);

struct State {
    /// The queue's name, or the error that left none.
    queue: Result<ShortString, BrokerError>,
    waiting: HashMap<Uuid, mpsc::Sender<RequestResult>>,
}

impl ReplyRouter {
    /// Connects once with the login of `amqp.url`; after a loss it connects again by itself. If the
    /// last attempt `failed`, the server must answer a greeting first.
    ///
    /// # Errors
    /// If the broker can't be reached or refuses.
    pub async fn open(settings: Arc<Settings>, failed: bool) -> Result<Self, BrokerError> {
        let queue = ReplyConnection::open(&settings, failed).await?;
        let state = State {
            queue: Ok(queue.replies.name().clone()),
            waiting: HashMap::new(),
        };
        let (pending, stop) = (
            Arc::new(PendingReplies(Mutex::new(state))),
            CancellationToken::new(),
        );
        let keeper = TaskTracker::new();
        keeper.spawn(keep(settings, pending.clone(), stop.clone(), queue));
        keeper.close();
        Ok(Self {
            pending,
            stop,
            keeper,
        })
    }

    /// Prepares to wait for the answer of a request, or for those of a group of `requests`
    /// requests. Of unread answers, it keeps as many as there are requests.
    ///
    /// # Errors
    /// The error, if there is no reply queue at present.
    pub fn expect(&self, requests: usize) -> Result<PendingReply, BrokerError> {
        let id = Uuid::new_v4();
        let (sender, answers) = mpsc::channel(requests);
        let mut state = self.pending.state();
        let reply_to = state.queue.clone()?;
        state.waiting.insert(id, sender);
        drop(state);
        Ok(PendingReply {
            correlation: Correlation {
                id,
                reply_to,
                pending: self.pending.clone(),
            },
            answers,
        })
    }

    /// Whether there is a reply queue.
    ///
    /// # Errors
    /// The error, if there is none at present.
    pub fn ready(&self) -> Result<(), BrokerError> {
        self.pending
            .state()
            .queue
            .as_ref()
            .map(|_| ())
            .map_err(Clone::clone)
    }

    /// Closes the connection, and with it the queue.
    pub async fn close(&self) {
        self.stop.cancel();
        self.keeper.wait().await;
    }
}

impl PendingReply {
    /// The address that its publisher passes on.
    pub(crate) fn correlation(&self) -> Correlation {
        self.correlation.clone()
    }

    /// Waits for the next answer. `None` if none came in time.
    pub async fn answer(&mut self, until: Instant) -> Option<RequestResult> {
        let answer = timeout_at(until, self.answers.recv()).await.ok()?;
        Some(answer.unwrap_or(RequestResult::Lost))
    }
}

impl Drop for PendingReply {
    fn drop(&mut self) {
        let correlation = &self.correlation;
        correlation.pending.state().waiting.remove(&correlation.id);
    }
}

impl Correlation {
    /// Passes the result on to the request, if it still waits.
    pub fn answer(&self, answer: RequestResult) {
        self.pending.answer(self.id, answer);
    }

    /// Passes on the result of another request: a returned message may come with the confirm of
    /// this one.
    pub fn answer_other(&self, id: Option<&ShortString>, answer: RequestResult) {
        if let Some(id) = id.and_then(parsed) {
            self.pending.answer(id, answer);
        }
    }
}

impl PendingReplies {
    fn state(&self) -> MutexGuard<'_, State> {
        // Each change is complete before code can panic.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn answer(&self, id: Uuid, answer: RequestResult) {
        if let Some(waiting) = self.state().waiting.get(&id) {
            // An error means that the request no longer waits, or has an answer for each request.
            let _ = waiting.try_send(answer);
        }
    }

    fn closed(&self, error: BrokerError) {
        let mut state = self.state();
        state.queue = Err(error);
        // A request without a sender reads the answers that came, and then `Lost`.
        state.waiting.clear();
    }
}

fn parsed(id: &ShortString) -> Option<Uuid> {
    Uuid::try_parse(id.as_str()).ok()
}

/// Passes on replies, and connects again after a loss, until it is told to stop.
async fn keep(
    settings: Arc<Settings>,
    pending: Arc<PendingReplies>,
    stop: CancellationToken,
    mut queue: ReplyConnection,
) {
    loop {
        let Some(error) = stop.run_until_cancelled(queue.dispatch(&pending)).await else {
            close(&queue.connection).await;
            return;
        };
        warn!(
            event = "broker_unavailable",
            %error,
            "the connection to the broker ended; the gateway answers 503 until it has a new one"
        );
        pending.closed(error);
        drop(queue);
        let reopening = reopen(&settings, &pending);
        let Some(reopened) = stop.run_until_cancelled(reopening).await else {
            return;
        };
        queue = reopened;
        pending.state().queue = Ok(queue.replies.name().clone());
        info!(
            event = "resumed",
            "the gateway is connected to the broker again"
        );
    }
}

async fn reopen(settings: &Settings, pending: &PendingReplies) -> ReplyConnection {
    let mut backoff = Backoff::new(FIRST_WAIT, LONGEST_WAIT);
    loop {
        sleep(backoff.next_wait()).await;
        match ReplyConnection::open(settings, true).await {
            Ok(queue) => return queue,
            Err(error) => pending.state().queue = Err(error),
        }
    }
}

/// A connection, and the reply queue that is deleted with it.
struct ReplyConnection {
    connection: Connection,
    replies: ReplyQueue,
}

impl ReplyConnection {
    async fn open(settings: &Settings, failed: bool) -> Result<Self, BrokerError> {
        let connecting = |url: AmqpUrl| async move {
            let host = url.host();
            if failed {
                within(CONNECT_TIMEOUT, &host, greeting(&url)).await?;
            }
            let connection = connect(&url, "revertd gateway (replies)").await?;
            Ok((connection, host))
        };
        let (connection, host) = any_of(&settings.amqp.url, connecting).await?;
        let declaring = async {
            let opening = Operation::OpeningChannel;
            let classify = |error| BrokerError::classify(&error, &host, opening);
            let channel = connection.create_channel().await.map_err(classify)?;
            ReplyQueue::declare(&channel, &host).await
        };
        let replies = within(CONNECT_TIMEOUT, &host, declaring).await?;
        Ok(Self {
            connection,
            replies,
        })
    }

    /// Passes on replies until the queue ends, and returns the error.
    async fn dispatch(&mut self, pending: &PendingReplies) -> BrokerError {
        loop {
            match self.replies.next().await {
                Ok(reply) => {
                    if let Ok(id) = Uuid::try_parse(&reply.correlation_id) {
                        pending.answer(id, RequestResult::Event(reply.body));
                    }
                }
                Err(error) => return error,
            }
        }
    }
}
