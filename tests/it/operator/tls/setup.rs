//! Environments whose worker uses TLS, and their checks.

use crate::support::tls::{Authority, Issued, amqps_url, ca_file};
use crate::support::*;

/// `url` with other parts; an empty login leaves it as it is.
pub fn with(
    url: &str,
    login: (&str, Option<&str>),
    port: Option<u16>,
    query: Option<&str>,
) -> String {
    let mut url = url::Url::parse(url).expect("a URL");
    let (user, password) = login;
    if !user.is_empty() {
        url.set_username(user).expect("a user");
        url.set_password(password).expect("a password");
    }
    if port.is_some() {
        url.set_port(port).expect("a port");
    }
    if query.is_some() {
        url.set_query(query);
    }
    url.to_string()
}

pub fn database_url(env: &TestEnv) -> String {
    with_database(&env.servers.database, &env.database)
}

/// An environment whose worker uses TLS to both servers, and trusts their authority.
pub async fn encrypted() -> TestEnv {
    let mut env = TestEnv::new().await;
    env.set("AMQP__URL", &amqps_url());
    env.set("AMQP__CA_FILE", &ca_file());
    let url = with(
        &database_url(&env),
        ("", None),
        None,
        Some("sslmode=verify-full"),
    );
    env.set("DATABASE__URL", &url);
    env.set("DATABASE__CA_FILE", &ca_file());
    env
}

/// Sessions of the worker, encrypted or not.
pub async fn sessions(env: &TestEnv, encrypted: bool) -> i64 {
    env.count(&format!(
        "SELECT count(*) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE ssl = \
                {encrypted} \
             AND datname = current_database() AND application_name = 'revertd'"
    ))
    .await
}

/// Publishes `count` requests, each of which can be reverted.
pub async fn publish(env: &TestEnv, count: usize) -> Vec<Request> {
    let customer = env.customer().await;
    let mut requests = Vec::new();
    for _ in 0..count {
        let usage = env.usage(customer.account, 20).await;
        let request = Request::revert(customer.account, usage, 20);
        env.publish(&request).await;
        requests.push(request);
    }
    requests
}

pub async fn answered(events: &mut Mailbox, requests: &[Request]) {
    for request in requests {
        assert_eq!(events.answer(request).await.verdict(), "usage.reverted");
    }
}

/// An environment whose worker shows certificates at both servers, and the role that it has at the
/// database.
pub async fn certified() -> (TestEnv, String, [Issued; 2]) {
    let mut env = encrypted().await;
    let role = format!("c_{}", &env.database[2..]);
    env.sql(&format!(
        "CREATE ROLE {role} LOGIN IN ROLE certified; GRANT USAGE ON SCHEMA public, revertd TO \
                {role}; \
             GRANT ALL ON ALL TABLES IN SCHEMA public, revertd TO {role}"
    ))
    .await;
    let authority = Authority::of_the_servers();
    let [at_broker, at_database] = [authority.client("certified"), authority.client(&role)];
    let external = Some("auth_mechanism=external");
    env.set(
        "AMQP__URL",
        &with(&amqps_url(), ("certified", None), None, external),
    );
    env.set("AMQP__CERT_FILE", &at_broker.cert());
    env.set("AMQP__KEY_FILE", &at_broker.key());
    let query = Some("sslmode=verify-full");
    let url = with(&database_url(&env), (&role, None), None, query);
    env.set("DATABASE__URL", &url);
    env.set("DATABASE__CERT_FILE", &at_database.cert());
    env.set("DATABASE__KEY_FILE", &at_database.key());
    env.set("DATABASE__MIGRATE_ON_START", "false");
    (env, role, [at_broker, at_database])
}

pub async fn teardown_with_role(env: TestEnv, role: &str) {
    let drop = format!("DROP OWNED BY {role}; DROP ROLE {role}");
    env.sql(&drop).await;
    env.teardown().await;
}
