//! What `revertd doctor` finds out about the broker, and what of it the worker insists on.
//!
//! Over AMQP it declares nothing that is not there already, publishes nothing that could reach a
//! queue, and takes nothing from one. What AMQP does not show is asked of the management API, where
//! one is configured.

use tokio::time::timeout;

use super::connection::{CONNECT_TIMEOUT, socket, unencrypted, within};
use super::error::BrokerError;
use super::management::{Management, Unanswered};
use super::operation::Operation;
use super::topology::Alternate;
use super::worker_connections::Broker;
use crate::common::check::{Checks, SHOWS_ALL};
use crate::common::connectivity::{CheckIds, reach};
use crate::common::diagnostic::Diagnostic;
use crate::common::tls::fault;
use crate::config::{AmqpUrl, Settings};
use greeting::Greeting;

mod alternate;
mod greeting;
mod managed;
mod nodes;
mod permissions;
mod queue;
mod topology;
mod unanswered;

const WORDS: CheckIds = CheckIds {
    dns: "amqp-dns",
    tcp: "amqp-tcp",
    key: "amqp.url",
};

/// Looks at everything there is to see.
pub async fn doctor(settings: &Settings) -> Checks {
    let mut checks = Checks::default();
    let management = Management::new(settings);
    over_amqp(settings, management.as_ref(), &mut checks).await;
    match management {
        Some(management) => managed::check(&management, settings, &mut checks).await,
        None => checks.skipped_until(
            "amqp-management",
            "policies, bindings, consumer timeout, feature flags, alarms, memory and disk are not \
             seen over AMQP, and amqp.management_url is not set",
            "rabbitmq-plugins enable rabbitmq_management, and set amqp.management_url",
        ),
    }
    checks
}

/// What a worker with `topology.declare = false` insists on, where it can be seen: that what it
/// rejects is kept. And what any worker should warn of: that requests of another routing key do not
/// arrive.
///
/// # Errors
/// What is wrong, and what to do.
pub async fn assure(
    settings: &Settings,
    alternate: Alternate,
) -> Result<Option<Diagnostic>, BrokerError> {
    let management = Management::new(settings);
    if let Some(management) = management.as_ref().filter(|_| !settings.topology.declare) {
        let mut checks = Checks::default();
        managed::work_queue(management, settings, &mut checks).await;
        if let Some(error) = checks.first_error() {
            let error = error.prefixed("RabbitMQ would lose messages: ");
            return Err(BrokerError::permanent(error.suffixed(SHOWS_ALL)));
        }
    }
    let mut checks = Checks::default();
    alternate::check(alternate, management.as_ref(), settings, &mut checks).await;
    let told = checks.iter().find_map(|check| {
        let remedy = check.remedy.as_deref()?;
        Some(Diagnostic::new(&check.seen).remedy(remedy))
    });
    Ok(told)
}

/// Whether the broker knows a login; `None` where that can't be seen.
pub async fn knows_login(settings: &Settings, login: &str) -> Option<bool> {
    match Management::new(settings)?.user(login).await {
        Ok(_) => Some(true),
        Err(Unanswered::Missing) => Some(false),
        Err(Unanswered::NoPlugin(_) | Unanswered::Forbidden(_) | Unanswered::Failed(_)) => None,
    }
}

async fn over_amqp(settings: &Settings, management: Option<&Management>, checks: &mut Checks) {
    let skip = |ids: &[&'static str], why: &str, checks: &mut Checks| {
        for id in ids {
            checks.skipped(id, why);
        }
    };
    let rest = ["amqp-login", "amqp-topology"];
    let urls = settings.amqp.url.iter();
    let servers: Vec<_> = urls
        .map(AmqpUrl::address)
        .map(|(host, port)| (host.to_owned(), port))
        .collect();
    if !reach(WORDS, &servers, checks).await {
        skip(
            &["amqp-tls", "amqp-version"],
            "the broker can't be reached",
            checks,
        );
        skip(&rest, "the broker can't be reached", checks);
        return;
    }
    let Some(greeting) = greeted(settings, checks).await else {
        skip(
            &rest,
            "nothing is sent before the broker has shown what it is",
            checks,
        );
        return;
    };
    let broker = match Broker::connect(settings, true).await {
        Ok(broker) => broker,
        Err(error) => {
            checks.failed("amqp-login", error.diagnostic());
            skip(
                &["amqp-topology"],
                "nothing can be asked without a login",
                checks,
            );
            return;
        }
    };
    let (user, host) = (broker.trust.user(), &broker.host);
    checks.ok("amqp-login", format!("{user} logged in at {host}"));
    let takes = takes_messages(&broker).await;
    match &takes {
        // Told with the other permissions.
        Err(error) if error.is_forbidden() => {}
        Ok(()) => checks.ok("amqp-publishing", "the broker takes messages of this user"),
        Err(error) => checks.failed("amqp-publishing", error.diagnostic()),
    }
    let alternate = topology::check(&broker, settings, checks).await;
    if let Some(alternate) = alternate {
        alternate::check(alternate, management, settings, checks).await;
    }
    if !greeting.is_of_rabbitmq() {
        let why = "how another broker than RabbitMQ takes the questions is not known";
        skip(&["amqp-permissions"], why, checks);
    } else if takes.is_err_and(|error| !error.is_forbidden()) {
        skip(
            &["amqp-permissions"],
            "the broker takes no messages",
            checks,
        );
    } else {
        permissions::check(&broker, settings, checks).await;
    }
    broker.close().await;
}

/// Whether the broker greets, verified where the address says so, and as what.
async fn greeted(settings: &Settings, checks: &mut Checks) -> Option<Greeting> {
    let mut failed = None;
    for url in settings.amqp.url.iter() {
        let opened = timeout(CONNECT_TIMEOUT, socket::open(url)).await;
        let opened = match opened {
            Ok(Ok(socket)) => socket,
            Ok(Err(error)) => {
                let at_tls = fault(&error, "amqp").is_some();
                let error =
                    BrokerError::classify(&error.into(), &url.host(), Operation::Connecting);
                failed = Some((at_tls, error));
                continue;
            }
            Err(_) => {
                failed = Some((url.tls().is_some(), BrokerError::silent(&url.host())));
                continue;
            }
        };
        encryption(settings, checks);
        let host = url.host();
        let read = async {
            let read = greeting::read(opened).await;
            read.map_err(|error| BrokerError::classify(&error, &host, Operation::Connecting))
        };
        return match within(CONNECT_TIMEOUT, &host, read).await {
            Ok(greeting) => {
                greeting.check(settings, checks);
                Some(greeting)
            }
            Err(error) => {
                checks.failed("amqp-version", error.diagnostic());
                None
            }
        };
    }
    if let Some((at_tls, error)) = failed {
        let id = if at_tls { "amqp-tls" } else { "amqp-tcp" };
        checks.failed(id, error.diagnostic());
    }
    checks.skipped("amqp-version", "the broker did not come so far");
    None
}

fn encryption(settings: &Settings, checks: &mut Checks) {
    let clear = unencrypted(settings);
    if !clear.is_empty() {
        let seen = format!("everything goes in the clear to {}", clear.join(", "));
        checks.warning("amqp-tls", seen, "use amqps:// in amqp.url");
    } else if settings.amqp.url.iter().any(|url| url.tls().is_some()) {
        checks.ok("amqp-tls", "encrypted, and the broker verified in full");
    } else {
        checks.ok("amqp-tls", "not encrypted, and within this machine");
    }
}

/// Whether the broker takes messages, and of the user that we take ourselves for: it tells only who
/// publishes. Under an alarm it takes the first message all the same, and nothing after it.
async fn takes_messages(broker: &Broker) -> Result<(), BrokerError> {
    let probing = async {
        let publisher = broker.publisher().await?;
        publisher.probe().await?;
        publisher.probe().await
    };
    tokio::select! {
        probed = probing => probed,
        blocked = broker.blocked() => Err(blocked),
    }
}
