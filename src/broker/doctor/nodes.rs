//! The broker's nodes: alarms, room, partitions; and its feature flags.

use serde_json::Value;

use super::super::management::Management;
use super::unanswered::unanswered;
use crate::common::check::Checks;

const NODE: &str = "amqp-nodes";
const FLAGS: &str = "amqp-feature-flags";

/// What a node needs more of where so many times its limit is left.
const SCARCE: u64 = 2;

pub async fn check(management: &Management, checks: &mut Checks) {
    match management.get("nodes").await {
        Ok(nodes) => nodes
            .as_array()
            .into_iter()
            .flatten()
            .for_each(|each| node(each, checks)),
        Err(error) => unanswered(NODE, &error, checks),
    }
    match management.get("feature-flags").await {
        Ok(flags) => feature_flags(&flags, checks),
        Err(error) => unanswered(FLAGS, &error, checks),
    }
}

fn node(node: &Value, checks: &mut Checks) {
    let name = node["name"].as_str().unwrap_or("a node");
    let yes = |key: &str| node[key].as_bool() == Some(true);
    let number = |key: &str| node[key].as_u64();
    let mut sound = true;
    if !yes("running") {
        let remedy = "start it, or have the cluster forget it (rabbitmqctl forget_cluster_node)";
        return checks.warning(NODE, format!("{name} is not running"), remedy);
    }
    for (alarm, what, remedy) in [
        (
            "mem_alarm",
            "memory",
            "give the node memory, or find which queue or connection takes it",
        ),
        (
            "disk_free_alarm",
            "disk space",
            "free disk space on the node",
        ),
    ] {
        if yes(alarm) {
            sound = false;
            checks.error(
                NODE,
                format!("{name} is out of {what}: no message is taken"),
                remedy,
            );
        }
    }
    if let Some(split) = node["partitions"]
        .as_array()
        .filter(|split| !split.is_empty())
    {
        sound = false;
        let others: Vec<_> = split.iter().filter_map(Value::as_str).collect();
        let seen = format!("{name} is parted from {}", others.join(", "));
        checks.error(
            NODE,
            seen,
            "mend the network, then restart the nodes of one side",
        );
    }
    let (free, limit) = (number("disk_free"), number("disk_free_limit"));
    if let (Some(free), Some(limit)) = (free, limit)
        && sound
    {
        let mib = |bytes: u64| bytes / (1 << 20);
        let seen = format!(
            "{name} runs; {} MiB of disk are free, of which {} are kept",
            mib(free),
            mib(limit)
        );
        if free < limit.saturating_mul(SCARCE) {
            let remedy = "free disk space: below the limit the broker takes no message";
            return checks.warning(NODE, seen, remedy);
        }
        return checks.ok(NODE, seen);
    }
    if sound {
        checks.ok(NODE, format!("{name} runs"));
    }
}

fn feature_flags(flags: &Value, checks: &mut Checks) {
    let flags = flags.as_array().into_iter().flatten();
    let disabled: Vec<_> = flags
        .filter(|flag| flag["state"] == "disabled" && flag["stability"] != "experimental")
        .filter_map(|flag| flag["name"].as_str())
        .collect();
    if disabled.contains(&"quorum_queue") {
        checks.error(
            FLAGS,
            "the feature flag quorum_queue is disabled, without which no queue of revertd's can \
            be declared",
            "rabbitmqctl enable_feature_flag quorum_queue",
        );
    } else if disabled.is_empty() {
        checks.ok(FLAGS, "every stable feature flag is enabled");
    } else {
        checks.warning(
            FLAGS,
            format!(
                "disabled, which stands in the way of an upgrade: {}",
                disabled.join(", ")
            ),
            "rabbitmqctl enable_feature_flag all",
        );
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::common::check::CheckStatus;

    #[test]
    fn alarms_partitions_and_low_disk_are_reported() {
        let sound = json!({"name": "a", "running": true, "mem_alarm": false,
            "disk_free_alarm": false,
            "partitions": [], "disk_free": 900_000_000_u64, "disk_free_limit": 50_000_000});
        for (key, value, status) in [
            ("running", json!(true), CheckStatus::Ok),
            ("running", json!(false), CheckStatus::Warning),
            ("mem_alarm", json!(true), CheckStatus::Error),
            ("disk_free_alarm", json!(true), CheckStatus::Error),
            ("partitions", json!(["b"]), CheckStatus::Error),
            ("disk_free", json!(60_000_000), CheckStatus::Warning),
        ] {
            let (mut changed, mut checks) = (sound.clone(), Checks::default());
            changed[key] = value;
            node(&changed, &mut checks);
            let found: Vec<_> = checks.iter().map(|check| check.status).collect();
            assert_eq!(found, [status], "{key}");
        }
    }

    #[test]
    fn disabled_feature_flags_are_reported() {
        let flag =
            |name, state, stability| json!({"name": name, "state": state, "stability": stability});
        for (flag, status) in [
            (
                flag("quorum_queue", "disabled", "stable"),
                CheckStatus::Error,
            ),
            (flag("another", "disabled", "stable"), CheckStatus::Warning),
            (flag("another", "disabled", "experimental"), CheckStatus::Ok),
            (flag("another", "enabled", "stable"), CheckStatus::Ok),
        ] {
            let mut checks = Checks::default();
            feature_flags(&json!([flag]), &mut checks);
            assert_eq!(checks.count(status), 1, "{flag}");
        }
    }
}
