//! Whether a request arrives whatever its routing key: the request exchange has its alternate
//! exchange.
//!
//! An exchange that is declared with it has it for good. One that was there before gets it by a
//! policy, which only the management API shows.

use serde_json::Value;

use super::super::management::{Management, Unanswered};
use super::super::topology::Alternate;
use crate::broker::connection::parsed;
use crate::common::check::Checks;
use crate::config::Settings;

const ID: &str = "amqp-alternate-exchange";

/// Name of an exchange's argument, and of a policy's key.
const KEY: &str = "alternate-exchange";

pub async fn check(
    alternate: Alternate,
    management: Option<&Management>,
    settings: &Settings,
    checks: &mut Checks,
) {
    let topology = &settings.topology;
    let (exchange, wanted) = (&topology.request_exchange, &topology.alternate_exchange);
    let sound = format!("{exchange} sends requests of any other routing key to {wanted}");
    let set = match (alternate, management) {
        (Alternate::Declared, _) => return checks.ok(ID, sound),
        (Alternate::NotSeen, None) => Err(
            "AMQP does not show whether a policy sets one, and amqp.management_url is not set"
                .to_owned(),
        ),
        (Alternate::NotSeen, Some(management)) => in_force(management, exchange.as_str()).await,
    };
    let seen = match set {
        Ok(Some(set)) if set == wanted.as_str() => return checks.ok(ID, sound),
        Ok(Some(set)) => format!("{exchange} has another alternate exchange than {wanted}: {set}"),
        Ok(None) => format!(
            "{exchange} has no alternate exchange: what is published to it by another routing key \
            than {} is confirmed and dropped",
            topology.request_key
        ),
        Err(error) => {
            let seen = format!(
                "{exchange} may have no alternate exchange, so that what is published to it by \
                another routing key than {} is confirmed and dropped: {error}",
                topology.request_key
            );
            return checks.warning(ID, seen, remedy(settings));
        }
    };
    checks.error(ID, seen, remedy(settings));
}

/// The alternate exchange that the exchange has, by its argument or by its policy.
async fn in_force(management: &Management, exchange: &str) -> Result<Option<String>, String> {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let found = match management.of("exchanges", exchange, "").await {
        Ok(found) => found,
        Err(Unanswered::Missing) => return Ok(None),
        Err(error) => return Err(error.to_string()),
    };
    if let Some(argument) = text(&found["arguments"][KEY]) {
        return Ok(Some(argument));
    }
    let Some(policy) = found["policy"].as_str() else {
        return Ok(None);
    };
    match management.of("policies", policy, "").await {
        Ok(policy) => Ok(text(&policy["definition"][KEY])),
        Err(Unanswered::Missing) => Ok(None),
        Err(error) => Err(error.to_string()),
    }
}

/// What gives an exchange that is there already its alternate exchange.
fn remedy(settings: &Settings) -> String {
    let topology = &settings.topology;
    let (exchange, alternate) = (&topology.request_exchange, &topology.alternate_exchange);
    let url = settings.amqp.url.iter().next();
    let vhost = url
        .and_then(|url| parsed(url).ok())
        .map_or_else(|| "/".to_owned(), |uri| uri.vhost);
    let pattern = regex::escape(exchange.as_str());
    format!(
        "rabbitmqctl set_policy -p '{vhost}' --apply-to exchanges revertd-any '^{pattern}$' \
         '{{\"{KEY}\": \"{alternate}\"}}'"
    )
}
