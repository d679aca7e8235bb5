//! The operations: handles one HTTP request, from its headers to its answer.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, BodyDataStream};
use axum::extract::{Extension, Request, State};
use axum::http::{HeaderMap, Response, StatusCode};
use futures_util::StreamExt;
use tokio::time::{Instant, timeout};

use super::answer;
use super::credentials::credentials;
use super::group_results::GroupResults;
use super::headers::{Ids, is_json};
use super::metrics::GatewayFault;
use super::problem::Problem;
use super::sessions::NoSession;
use super::shared::Gateway;
use crate::broker::{ClientConnection, OutgoingRequest, RequestResult};
use crate::common::http_server::{BodyError, BodyLimits, Source, content_length, expects_continue};
use crate::domain::request::{self, RequestLimits, Undecodable};
use crate::telemetry::LoginRefusal;

/// How much of a refused request's body is read, and for how long. If the server closed the
/// connection while the client still writes, the client would lose the answer.
const UNWANTED_MAX_BYTES: usize = 1024 * 1024;
const UNWANTED_TIMEOUT: Duration = Duration::from_secs(1);

/// The operation of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// A single request.
    Request,
    /// A group of requests.
    Group,
}

/// What a call waits for.
enum Awaited {
    Event,
    Results(GroupResults),
}

impl Operation {
    /// The largest body in bytes, and its setting.
    fn max_bytes(self, limits: &RequestLimits) -> (u64, &'static str) {
        match self {
            Self::Request => limits.of_requests(),
            Self::Group => limits.of_groups(),
        }
    }

    /// Parses the body as the worker does.
    fn parse(
        self,
        body: &[u8],
        message_id: &str,
        limits: &RequestLimits,
    ) -> Result<Awaited, Problem> {
        match (self, request::parse(body, Some(message_id), limits)) {
            (Self::Request, Ok(request::Body::Request(_))) => Ok(Awaited::Event),
            (Self::Group, Ok(request::Body::Group(group))) => {
                Ok(Awaited::Results(GroupResults::new(message_id, &group)))
            }
            (Self::Request, Ok(request::Body::Group(_))) => Err(Problem::is_group()),
            // Only the fields of a single request are invalid as a whole.
            (Self::Group, Ok(request::Body::Request(_)) | Err(Undecodable::Invalid { .. })) => {
                Err(Problem::is_no_group())
            }
            (_, Err(error)) => Err(Problem::undecodable(error)),
        }
    }
}

impl Awaited {
    /// The number of requests.
    fn requests(&self) -> usize {
        match self {
            Self::Event => 1,
            Self::Results(results) => results.requests(),
        }
    }

    /// The answer at the deadline.
    fn so_far(&mut self) -> Result<Response<Body>, Problem> {
        let so_far = match self {
            Self::Event => None,
            Self::Results(results) => results.so_far()?,
        };
        so_far.ok_or_else(Problem::no_answer)
    }

    /// Takes a reply. The answer, once it is complete.
    fn add(&mut self, reply: &[u8]) -> Result<Option<Response<Body>>, Problem> {
        match self {
            Self::Event => answer::of_event(reply).map(Some),
            Self::Results(results) => results.add(reply),
        }
    }
}

pub async fn revert(
    State(gateway): State<Arc<Gateway>>,
    Extension(ids): Extension<Ids>,
    Extension(source): Extension<Source>,
    Extension(operation): Extension<Operation>,
    request: Request,
) -> Response<Body> {
    let (parts, body) = request.into_parts();
    let mut body = body.into_data_stream();
    let decided = gateway.decide(operation, source, &parts.headers, &mut body, ids);
    let response = match decided.await {
        Ok(response) => response,
        Err(problem) => refuse(problem, &parts.headers, body).await,
    };
    let count = match (response.status(), operation) {
        (StatusCode::OK, Operation::Request) => &gateway.metrics.reverted,
        (StatusCode::OK, Operation::Group) => &gateway.metrics.groups,
        (StatusCode::SERVICE_UNAVAILABLE, _) => &gateway.metrics.unavailable,
        (StatusCode::GATEWAY_TIMEOUT, _) => &gateway.metrics.unanswered,
        _ => &gateway.metrics.rejected,
    };
    count.add();
    response
}

pub async fn wrong_path(request: Request) -> Response<Body> {
    refuse_unread(Problem::wrong_path(), request).await
}

pub async fn wrong_method(request: Request) -> Response<Body> {
    refuse_unread(Problem::wrong_method(), request).await
}

pub async fn refuse_unread(problem: Problem, request: Request) -> Response<Body> {
    let (parts, body) = request.into_parts();
    refuse(problem, &parts.headers, body.into_data_stream()).await
}

/// Reads the rest of the body, within bounds, then answers.
async fn refuse(problem: Problem, headers: &HeaderMap, mut body: BodyDataStream) -> Response<Body> {
    if !expects_continue(headers) {
        let reading = async {
            let mut read = 0;
            while let Some(Ok(chunk)) = body.next().await {
                read += chunk.len();
                if read > UNWANTED_MAX_BYTES {
                    return;
                }
            }
        };
        let _ = timeout(UNWANTED_TIMEOUT, reading).await;
    }
    problem.into_response()
}

impl Gateway {
    /// Checks the login, then the request, then takes a permit, in this order: a stranger learns
    /// nothing about the checks of a request, and a body that never arrives takes no permit. Until
    /// then the client's share bounds its requests.
    async fn decide(
        &self,
        operation: Operation,
        source: Source,
        headers: &HeaderMap,
        body: &mut BodyDataStream,
        ids: Ids,
    ) -> Result<Response<Body>, Problem> {
        let login = self.login(source, headers).await?;
        let limits = self.settings.amqp.request_limits();
        let (max_bytes, key) = operation.max_bytes(&limits);
        let weight = self.weight(headers, max_bytes);
        let Some(_share) = self.shares.take(login.client().to_owned(), weight) else {
            let share = self.shares.most();
            self.metrics
                .warn(GatewayFault::Share, login.client(), &share);
            return Err(Problem::too_many_requests(share));
        };
        if !is_json(headers) {
            return Err(Problem::not_json());
        }
        let message_id = ids
            .message_id
            .map_err(|violation| Problem::invalid(vec![violation]))?;
        let body = BodyLimits::of(max_bytes).read(headers, body).await;
        let body = body.map_err(|error| match error {
            BodyError::TooLarge => Problem::too_large(max_bytes, key),
            BodyError::Slow => Problem::slow_body(),
            BodyError::CutOff => Problem::cut_off_body(),
        })?;
        let awaited = operation.parse(&body, &message_id, &limits)?;
        let places = u32::try_from(weight).unwrap_or(u32::MAX);
        let Ok(_places) = self.places.try_acquire_many(places) else {
            let limit = self.settings.gateway.max_in_flight;
            self.metrics
                .warn(GatewayFault::Saturated, login.client(), &limit);
            return Err(Problem::saturated());
        };
        let traceparent = ids
            .traceparent
            .and_then(|given| Some(given.to_str().ok()?.to_owned()));
        let posting = OutgoingRequest {
            message_id: message_id.clone(),
            body,
            traceparent,
        };
        let answered = self.ask(&login, posting, awaited).await;
        answered.map_err(|problem| problem.about(&message_id))
    }

    /// The number of requests that a call counts as: one for each `amqp.max_message_bytes` that its
    /// body may have, at most the share of a client.
    fn weight(&self, headers: &HeaderMap, max_bytes: u64) -> usize {
        let bytes = content_length(headers).unwrap_or(max_bytes);
        let each = self.settings.amqp.max_message_bytes.bytes();
        let requests = usize::try_from(bytes.div_ceil(each)).unwrap_or(usize::MAX);
        requests.clamp(1, self.shares.most())
    }

    async fn login(
        &self,
        source: Source,
        headers: &HeaderMap,
    ) -> Result<Arc<ClientConnection>, Problem> {
        let Some(credentials) = credentials(headers) else {
            self.metrics.logins.refused(LoginRefusal::NoCredentials);
            return Err(Problem::client_unknown());
        };
        let client = credentials.id.as_str();
        // Open no login while the broker does not answer: a login that has begun can't be
        // cancelled.
        if let Err(error) = self.replies.ready() {
            self.metrics
                .warn_of_error(GatewayFault::Broker, client, &error);
            return Err(Problem::broker_unavailable());
        }
        self.sessions
            .of(&credentials, source)
            .await
            .map_err(|error| match error {
                NoSession::Refused => Problem::client_unknown(),
                NoSession::BackOff { wait, .. } => Problem::too_many_guesses(wait),
                NoSession::Barred => {
                    self.metrics
                        .warn(GatewayFault::Barred, client, &"at its login");
                    Problem::barred()
                }
                NoSession::Busy => {
                    self.metrics
                        .warn(GatewayFault::Logins, client, &"at its login");
                    Problem::too_many_logins()
                }
                NoSession::Unavailable(error) => {
                    self.metrics
                        .warn_of_error(GatewayFault::Broker, client, &error);
                    Problem::broker_unavailable()
                }
            })
    }

    /// Publishes the request as its client, and waits for its events.
    async fn ask(
        &self,
        login: &Arc<ClientConnection>,
        posting: OutgoingRequest,
        mut awaited: Awaited,
    ) -> Result<Response<Body>, Problem> {
        let client = login.client();
        let expected = self.replies.expect(awaited.requests());
        let mut expected = expected.map_err(|error| {
            self.metrics
                .warn_of_error(GatewayFault::Broker, client, &error);
            Problem::broker_unavailable()
        })?;
        let message_id = posting.message_id.clone();
        login.publish(posting, &expected);
        let until = Instant::now() + self.settings.gateway.timeout;
        loop {
            let Some(result) = expected.answer(until).await else {
                self.metrics
                    .warn(GatewayFault::NoAnswer, client, &message_id);
                return awaited.so_far();
            };
            let reply = self.reply(client, &message_id, result)?;
            if let Some(response) = awaited.add(&reply)? {
                return Ok(response);
            }
        }
    }

    /// The reply, or the problem of a request that has none.
    fn reply(
        &self,
        client: &str,
        message_id: &str,
        result: RequestResult,
    ) -> Result<Vec<u8>, Problem> {
        let (trouble, detail, problem) = match result {
            RequestResult::Event(reply) => return Ok(reply),
            RequestResult::Unroutable => {
                let exchange = self.settings.topology.request_exchange.as_str();
                (GatewayFault::Unroutable, exchange, Problem::unroutable())
            }
            RequestResult::Full => {
                let queue = self.settings.topology.work_queue.as_str();
                (GatewayFault::Full, queue, Problem::full())
            }
            RequestResult::Forbidden(error) => {
                self.metrics
                    .warn_of_error(GatewayFault::Forbidden, client, &error);
                return Err(Problem::publish_not_permitted());
            }
            RequestResult::Unsent(error) => {
                self.metrics
                    .warn_of_error(GatewayFault::Broker, client, &error);
                return Err(Problem::broker_unavailable());
            }
            RequestResult::Lost => (GatewayFault::Lost, message_id, Problem::lost()),
        };
        self.metrics.warn(trouble, client, &detail);
        Err(problem)
    }
}
