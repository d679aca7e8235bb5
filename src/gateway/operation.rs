//! The operation: one HTTP request, from its headers to its answer.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, BodyDataStream};
use axum::extract::{Extension, Request, State};
use axum::http::{HeaderMap, Response, StatusCode};
use futures_util::StreamExt;
use tokio::time::timeout;

use super::Gateway;
use super::answer;
use super::credentials::credentials;
use super::headers::{Ids, is_json};
use super::metrics::GatewayFault;
use super::problem::Problem;
use super::sessions::NoSession;
use crate::broker::{ClientConnection, OutgoingRequest, RequestResult};
use crate::common::http_server::{BodyError, BodyLimits, Source, expects_continue};
use crate::domain::request;
use crate::telemetry::LoginRefusal;

/// What is read of a body that nobody wants, and for how long: a connection closed under a client
/// that still writes takes the answer with it.
const UNWANTED_MAX_BYTES: usize = 1024 * 1024;
const UNWANTED_TIMEOUT: Duration = Duration::from_secs(1);

pub async fn revert(
    State(gateway): State<Arc<Gateway>>,
    Extension(ids): Extension<Ids>,
    Extension(source): Extension<Source>,
    request: Request,
) -> Response<Body> {
    let (parts, body) = request.into_parts();
    let mut body = body.into_data_stream();
    let response = match gateway.decide(source, &parts.headers, &mut body, ids).await {
        Ok(response) => response,
        Err(problem) => refuse(problem, &parts.headers, body).await,
    };
    let count = match response.status() {
        StatusCode::OK => &gateway.metrics.reverted,
        StatusCode::SERVICE_UNAVAILABLE => &gateway.metrics.unavailable,
        StatusCode::GATEWAY_TIMEOUT => &gateway.metrics.unanswered,
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

/// Answers once what the client is still writing is read, within bounds.
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
    /// Who asks, then what is asked, then whether there is a place for it; in this order, so that a
    /// stranger learns nothing, and a body that does not come takes no place. Until then a client
    /// is bounded by its share.
    async fn decide(
        &self,
        source: Source,
        headers: &HeaderMap,
        body: &mut BodyDataStream,
        ids: Ids,
    ) -> Result<Response<Body>, Problem> {
        let login = self.login(source, headers).await?;
        let Some(_share) = self.shares.take(login.client().to_owned()) else {
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
        let limits = BodyLimits::of(self.settings.amqp.max_message_bytes.bytes());
        let body = limits.read(headers, body).await;
        let body = body.map_err(|error| match error {
            BodyError::TooLarge => Problem::too_large(limits.max_bytes),
            BodyError::Slow => Problem::slow_body(),
            BodyError::CutOff => Problem::cut_off_body(),
        })?;
        request::decode(&body).map_err(Problem::undecodable)?;
        let Ok(_place) = self.places.try_acquire() else {
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
        let answered = self.ask(&login, posting).await;
        answered.map_err(|problem| problem.about(&message_id))
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
        // Of a broker that does not answer nobody is asked: what a login begins with one can't be
        // taken back.
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

    /// Publishes the request as its client, and waits for its event.
    async fn ask(
        &self,
        login: &Arc<ClientConnection>,
        posting: OutgoingRequest,
    ) -> Result<Response<Body>, Problem> {
        let client = login.client();
        let expected = self.replies.expect().map_err(|error| {
            self.metrics
                .warn_of_error(GatewayFault::Broker, client, &error);
            Problem::broker_unavailable()
        })?;
        let message_id = posting.message_id.clone();
        login.publish(posting, &expected);
        let Some(answer) = expected.answer(self.settings.gateway.timeout).await else {
            self.metrics
                .warn(GatewayFault::NoAnswer, client, &message_id);
            return Err(Problem::no_answer());
        };
        let (trouble, detail, problem) = match answer {
            RequestResult::Event(event) => return answer::of_event(&event),
            RequestResult::Unroutable => {
                let exchange = self.settings.topology.request_exchange.to_string();
                (GatewayFault::Unroutable, exchange, Problem::unroutable())
            }
            RequestResult::Full => {
                let queue = self.settings.topology.work_queue.to_string();
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
