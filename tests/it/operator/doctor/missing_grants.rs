//! Missing grants and permissions, each with its remedy.

use super::super::permissions::{Role, documented, drop_role};
use super::report::doctor;
use crate::support::*;

#[tokio::test]
async fn only_the_missing_part_of_a_grant_is_reported() {
    let env = TestEnv::new().await;
    let role = Role::new(&env, "worker", &env.database).await;
    for statement in documented("worker") {
        env.sql(&role.own(&statement, "worker", &env.database))
            .await;
    }
    let name = &role.name;
    env.sql(&format!(
        "REVOKE INSERT ON revertd.outcomes FROM {name}; REVOKE DELETE ON revertd.suspects FROM \
                {name}; \
             REVOKE SELECT (name) ON organizations FROM {name}"
    ))
    .await;
    let report = doctor(&env, &[("DATABASE__URL", &role.url)]);
    assert_eq!(report.count("errors"), 3, "{report:?}");
    for (what, table) in [
        ("INSERT", "revertd.outcomes"),
        ("DELETE", "revertd.suspects"),
        ("SELECT (name)", "public.organizations"),
    ] {
        let seen = format!("{name} lacks {what} on {table}");
        let remedy = format!("GRANT {what} ON {table} TO {name};");
        report.says("database-permissions", "error", &seen, &remedy);
    }
    drop_role(&env, &role).await;
    env.teardown().await;
}

#[tokio::test]
async fn each_missing_grant_is_reported_as_its_statement() {
    let env = TestEnv::new().await;
    let all = documented("worker");
    assert!(all.len() > 5, "{all:?}");
    for missing in &all {
        let role = Role::new(&env, "worker", &env.database).await;
        for statement in all.iter().filter(|statement| *statement != missing) {
            env.sql(&role.own(statement, "worker", &env.database)).await;
        }
        let report = doctor(&env, &[("DATABASE__URL", &role.url)]);
        assert_eq!(report.status, 1, "without {missing}: {report:?}");
        let statement = role.own(missing, "worker", &env.database);
        // Everybody may use the schema public.
        let statement = statement.replace("SCHEMA public, revertd", "SCHEMA revertd");
        report.says("database-permissions", "error", &role.name, &statement);
        drop_role(&env, &role).await;
    }
    let role = Role::new(&env, "worker", &env.database).await;
    for statement in &all {
        env.sql(&role.own(statement, "worker", &env.database)).await;
    }
    let report = doctor(&env, &[("DATABASE__URL", &role.url)]);
    assert_eq!(report.count("errors"), 0, "{report:?}");
    report.says(
        "database-transactions",
        "skipped",
        "only its own transactions",
        "GRANT pg_read_all_stats",
    );
    let name = &role.name;
    env.sql(&format!(
        "ALTER ROLE {name} CONNECTION LIMIT 3; ALTER ROLE {name} SET \
                default_transaction_read_only = on;
             ALTER ROLE {name} SET synchronous_commit = off"
    ))
    .await;
    let report = doctor(&env, &[("DATABASE__URL", &role.url)]);
    report.says(
        "database-connections",
        "error",
        "limit of 3",
        "CONNECTION LIMIT 10",
    );
    report.says(
        "database-writable",
        "error",
        "read-only",
        "default_transaction_read_only",
    );
    report.says("database-synchronous-commit", "ok", "off by default", "");
    drop_role(&env, &role).await;
    env.teardown().await;
}

#[tokio::test]
async fn a_login_without_permissions_is_told_which() {
    let mut env = TestEnv::new().await;
    env.start_worker().await.stop().await;
    let mut url = url::Url::parse(&env.servers.amqp).expect("a URL");
    url.set_username("reader").expect("a user");
    url.set_password(Some("s:é 😀")).expect("a password");
    let reader = doctor(&env, &[("AMQP__URL", url.as_str())]);
    let (replies, dead) = (env.name("replies"), env.name("dead"));
    for exchange in ["amq.default", &replies, &dead] {
        let seen = format!(
            "may not write to the {}",
            match exchange {
                "amq.default" => "default exchange (amq.default)".to_owned(),
                _ if exchange == dead => format!("dead-letter exchange {dead}"),
                _ => format!("reply exchange {replies}"),
            }
        );
        reader.says("amqp-permissions", "error", &seen, "set_permissions");
    }
    reader.says("amqp-permissions", "ok", "may read the work queue", "");
    let bind = format!("may not bind the queue {}", env.name("work"));
    reader.says("amqp-permissions", "error", &bind, "set_permissions");
    let denied = "denied a permission while declaring";
    reader.says("amqp-topology", "error", denied, "set_permissions");
    url.set_username("gateway").expect("a user");
    url.set_password(Some("eD9_mVq4-sLh7kPc2A"))
        .expect("a password");
    logs::password_of(url.as_str());
    let gateway = doctor(&env, &[("AMQP__URL", url.as_str())]);
    gateway.says(
        "amqp-permissions",
        "error",
        "may not read the work queue",
        "set_permissions",
    );
    // Nothing was left behind, nor taken.
    for queue in [env.name("work"), replies, dead.clone()] {
        assert_eq!(env.depth(&queue).await, 0, "{queue}");
    }
    env.delete_queue(&dead).await;
    env.set("TOPOLOGY__DECLARE", "false");
    let report = doctor(&env, &[]);
    report.says(
        "amqp-topology",
        "error",
        &format!("queue {dead}"),
        "topology.declare = true",
    );
    report.says("amqp-topology", "ok", "arguments are not compared", "");
    env.teardown().await;
}
