//! What the management API shows and AMQP does not: arguments and policies as they come out,
//! bindings, nodes.

use std::collections::BTreeSet;

use serde_json::Value;

use super::super::management::{Management, Unanswered};
use super::super::topology::{ANY_KEY, REPLY_KEYS};
use super::nodes;
use super::queue::{BrokerInfo, QueueInfo, QueueRole};
use super::unanswered::unanswered;
use crate::broker::queues::rungs;
use crate::common::check::Checks;
use crate::config::Settings;

const API: &str = "amqp-management";
const QUEUE: &str = "amqp-queue";
const RUNG: &str = "amqp-retry-queues";
const BINDING: &str = "amqp-bindings";

/// Queues bound to the reply exchange that are looked at, at most.
const SUBSCRIBERS: usize = 100;

/// Everything.
pub async fn check(management: &Management, settings: &Settings, checks: &mut Checks) {
    if management.is_exposed() {
        let seen = format!("the password goes in the clear to {}", management.host());
        checks.warning(
            "amqp-management-tls",
            seen,
            "use https:// in amqp.management_url",
        );
    }
    let overview = match management.get("overview").await {
        Ok(overview) => overview,
        Err(error) => return unanswered(API, &error, checks),
    };
    let version = overview["rabbitmq_version"].as_str().unwrap_or_default();
    checks.ok(
        API,
        format!("{} answers, of RabbitMQ {version}", management.host()),
    );
    let broker = BrokerInfo::of(version);
    for (name, role) in roles(settings) {
        queue(management, settings, &broker, &name, role, checks).await;
    }
    other_rungs(management, settings, checks).await;
    bindings(management, settings, checks).await;
    nodes::check(management, checks).await;
}

/// The work queue alone. Where the API can't be asked, that is no error.
pub async fn work_queue(management: &Management, settings: &Settings, checks: &mut Checks) {
    // Its delivery limit is not looked at more closely than the queue itself tells.
    let (broker, name) = (BrokerInfo::of(""), settings.topology.work_queue.as_str());
    queue(management, settings, &broker, name, QueueRole::Work, checks).await;
}

fn roles(settings: &Settings) -> Vec<(String, QueueRole)> {
    let topology = &settings.topology;
    let mut all = vec![(topology.work_queue.to_string(), QueueRole::Work)];
    let delays = settings
        .retry
        .delays
        .iter()
        .map(|delay| delay.0.as_millis());
    let rungs = settings.retry_queues().into_iter().zip(delays);
    all.extend(rungs.map(|(name, delay_ms)| (name, QueueRole::Rung { delay_ms })));
    if topology.reply_queue_declare {
        all.push((topology.reply_queue.to_string(), QueueRole::Replies));
    }
    all.push((topology.denied_queue.to_string(), QueueRole::Replies));
    all.push((topology.dead_letter_queue.to_string(), QueueRole::Dead));
    all
}

async fn queue(
    management: &Management,
    settings: &Settings,
    broker: &BrokerInfo,
    name: &str,
    role: QueueRole,
    checks: &mut Checks,
) {
    match management.of("queues", name, "").await {
        Ok(answer) => {
            let queue = QueueInfo {
                name,
                role,
                answer: &answer,
            };
            queue.check(QUEUE, broker, settings, checks);
        }
        // Whether it should be there is told where it is asked for over AMQP.
        Err(Unanswered::Missing) => checks.skipped(QUEUE, format!("the queue {name} is not there")),
        Err(error) => unanswered(QUEUE, &error, checks),
    }
}

/// Retry queues of another ladder, which no worker declares and only the broker reads.
async fn other_rungs(management: &Management, settings: &Settings, checks: &mut Checks) {
    let found = match rungs::others(management, settings).await {
        Ok(found) => found,
        Err(error) => return unanswered(RUNG, &error, checks),
    };
    if found.is_empty() {
        let prefix = &settings.topology.retry_queue_prefix;
        checks.ok(
            RUNG,
            format!("every queue {prefix}.* has its delay in retry.delays"),
        );
    }
    for (name, messages) in found {
        let seen = format!(
            "the queue {name} is there, and retry.delays has no such delay: {messages} messages \
             wait in it"
        );
        let remedy = match messages {
            0 => format!("rabbitmqctl delete_queue {name}, once no worker runs with that delay"),
            _ => "wait until it is empty: they go back to the work queue when their time is over"
                .to_owned(),
        };
        checks.warning(RUNG, seen, remedy);
    }
}

/// Whether requests, events and dead letters reach their queues.
async fn bindings(management: &Management, settings: &Settings, checks: &mut Checks) {
    let topology = &settings.topology;
    let (work, dead) = (
        topology.work_queue.as_str(),
        topology.dead_letter_queue.as_str(),
    );
    for (queue, exchange, key, remedy) in [
        (
            work,
            topology.request_exchange.as_str(),
            topology.request_key.as_str(),
            "no request arrives",
        ),
        (
            work,
            topology.alternate_exchange.as_str(),
            ANY_KEY,
            "a request with another routing key is confirmed and dropped",
        ),
        (
            dead,
            topology.dead_letter_exchange.as_str(),
            dead,
            "dead letters are kept from their queue",
        ),
    ] {
        let by = match key {
            ANY_KEY => String::new(),
            key => format!(" by {key}"),
        };
        match management.of("queues", queue, "/bindings").await {
            Ok(found) => {
                let mut found = found.as_array().into_iter().flatten();
                if found
                    .any(|binding| binding["source"] == exchange && binding["routing_key"] == key)
                {
                    checks.ok(BINDING, format!("{queue} is bound to {exchange}{by}"));
                } else {
                    let seen = format!("{queue} is not bound to {exchange}{by}: {remedy}");
                    let remedy =
                        "start `revertd worker` with topology.declare = true, or bind it by hand";
                    checks.error(BINDING, seen, remedy);
                }
            }
            Err(Unanswered::Missing) => {
                checks.skipped(BINDING, format!("the queue {queue} is not there"));
            }
            Err(error) => unanswered(BINDING, &error, checks),
        }
    }
    subscribers(management, settings, checks).await;
}

/// Whether every result and error reaches a queue, and whether the queues that are bound take what
/// they are sent.
async fn subscribers(management: &Management, settings: &Settings, checks: &mut Checks) {
    let exchange = settings.topology.reply_exchange.as_str();
    let found = management.of("exchanges", exchange, "/bindings/source");
    let found = match found.await {
        Ok(found) => found,
        Err(Unanswered::Missing) => {
            return checks.skipped(BINDING, format!("the exchange {exchange} is not there"));
        }
        Err(error) => return unanswered(BINDING, &error, checks),
    };
    // Another exchange that is bound need not pass on anything.
    let to_queue = |binding: &&Value| binding["destination_type"] == "queue";
    let bound: Vec<_> = found
        .as_array()
        .into_iter()
        .flatten()
        .filter(to_queue)
        .collect();
    let is_bound = |key: &str| bound.iter().any(|binding| binding["routing_key"] == key);
    if is_bound("#") || REPLY_KEYS.into_iter().all(is_bound) {
        checks.ok(
            BINDING,
            format!("every result and error of {exchange} reaches a queue"),
        );
    } else {
        checks.warning(
            BINDING,
            format!(
                "{} queues are bound to {exchange}, none to every result and error: events that no \
                 queue is bound for are in the database alone",
                bound.len()
            ),
            "set topology.reply_queue_declare = true, or bind a queue by result.# and error.#",
        );
    }
    let queues = bound
        .iter()
        .filter_map(|binding| binding["destination"].as_str());
    let queues: BTreeSet<_> = queues.collect();
    for queue in queues.into_iter().take(SUBSCRIBERS) {
        match management.of("queues", queue, "").await {
            Ok(answer) if refuses(&answer) => checks.warning(
                BINDING,
                format!(
                    "{queue} is bound to {exchange} and refuses events when it is full: requests \
                     whose events it refuses wait on the retry queues"
                ),
                "have its owner declare it with x-overflow = drop-head, or read it in time",
            ),
            // It was deleted meanwhile, or is none that this user sees.
            Ok(_) | Err(_) => {}
        }
    }
}

/// Whether a queue refuses messages beyond a bound, by its arguments or its policy.
fn refuses(queue: &Value) -> bool {
    let rejects = |overflow: &Value| {
        let overflow = overflow.as_str().unwrap_or_default();
        overflow.starts_with("reject-publish")
    };
    let (arguments, policy) = (&queue["arguments"], &queue["effective_policy_definition"]);
    rejects(&arguments["x-overflow"]) || rejects(&policy["overflow"])
}
