//! TLS and secrets: who is trusted, who is refused, and what a restart takes up. Against the servers' encrypted ports.

use super::startup::refused;
use crate::support::raw::{RawConnection, short};
use crate::support::tls::{
    Authority, Issued, TlsNegotiation, TlsProxy, amqps_url, ca_file, instance,
};
use crate::support::*;

/// `url` with other parts; an empty login leaves it as it is.
fn with(url: &str, login: (&str, Option<&str>), port: Option<u16>, query: Option<&str>) -> String {
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

fn database_url(env: &TestEnv) -> String {
    with_database(&env.servers.database, &env.database)
}

/// An environment whose worker speaks TLS to both servers, whose authority it is told.
async fn encrypted() -> TestEnv {
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
async fn sessions(env: &TestEnv, encrypted: bool) -> i64 {
    env
        .count(&format!(
            "SELECT count(*) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE ssl = {encrypted} \
             AND datname = current_database() AND application_name = 'revertd'"
        ))
        .await
}

/// Publishes `count` requests, each of which can be reverted.
async fn publish(env: &TestEnv, count: usize) -> Vec<Request> {
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

async fn answered(events: &mut Mailbox, requests: &[Request]) {
    for request in requests {
        assert_eq!(events.answer(request).await.verdict(), "usage.reverted");
    }
}

#[tokio::test]
async fn a_request_is_reverted_with_tls_to_both_servers() {
    let env = encrypted().await;
    let mut worker = env.start_worker().await;
    let mut events = env.events().await;
    let requests = publish(&env, 20).await;
    answered(&mut events, &requests).await;
    assert!(sessions(&env, true).await > 0);
    assert_eq!(sessions(&env, false).await, 0);
    assert!(!worker.log().contains("not encrypted"), "{}", worker.log());

    let body = String::from_utf8(requests[0].body.clone()).expect("JSON");
    let output = env.command(&["submit", "--body", &body]).output();
    let stdout = String::from_utf8(output.expect("runs").stdout).expect("UTF-8");
    assert!(stdout.contains("ALREADY_REVERTED"), "{stdout}");
    assert!(worker.stop().await.success());
    env.assert_ledger_is_sound().await;
    env.teardown().await;
}

#[tokio::test]
async fn tls_works_with_several_hosts_and_libpq_pairs() {
    let mut env = encrypted().await;
    let url = url::Url::parse(&database_url(&env)).expect("a URL");
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let vacant = listener.local_addr().expect("bound").port();
    drop(listener);
    let pairs = format!(
        "host=127.0.0.1,localhost port={vacant},{} user={} password='{}' dbname={} sslmode=require \
         sslrootcert='{}' channel_binding=require",
        url.port().expect("a port"),
        url.username(),
        url.password().expect("a password"),
        env.database,
        ca_file(),
    );
    env.set("DATABASE__URL", &pairs);
    let mut worker = env.start_worker().await;
    let mut events = env.events().await;
    answered(&mut events, &publish(&env, 3).await).await;
    assert_eq!(sessions(&env, false).await, 0);
    assert!(worker.stop().await.success());
    env.teardown().await;
}

#[tokio::test]
async fn system_authorities_are_trusted_without_ca_file() {
    let mut env = TestEnv::new().await;
    let query = Some("sslmode=verify-full");
    let url = with(&database_url(&env), ("", None), None, query);
    env.set("DATABASE__URL", &url);
    let stranger = Authority::stranger().client("x");
    for (system, named, trusted) in [
        (ca_file(), None, true),
        (stranger.ca(), None, false),
        (stranger.ca(), Some(ca_file()), true),
        (ca_file(), Some(stranger.ca()), false),
    ] {
        let mut command = env.command(&["migrate"]);
        command.env("SSL_CERT_FILE", system);
        if let Some(named) = named {
            command.env("REVERTD_DATABASE__CA_FILE", named);
        }
        let migrated = command.output().expect("runs");
        let stderr = String::from_utf8_lossy(&migrated.stderr);
        assert_eq!(migrated.status.success(), trusted, "{stderr}");
        let why = "no trusted authority signed";
        assert!(trusted || stderr.contains(why), "{stderr}");
    }
    env.teardown().await;
}

/// An environment whose worker shows certificates at both servers, and the role that it has at the database.
async fn certified() -> (TestEnv, String, [Issued; 2]) {
    let mut env = encrypted().await;
    let role = format!("c_{}", &env.database[2..]);
    env
        .sql(&format!(
            "CREATE ROLE {role} LOGIN IN ROLE certified; GRANT USAGE ON SCHEMA public, revertd TO {role}; \
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

async fn teardown_with_role(env: TestEnv, role: &str) {
    let drop = format!("DROP OWNED BY {role}; DROP ROLE {role}");
    env.sql(&drop).await;
    env.teardown().await;
}

#[tokio::test]
async fn client_certificates_replace_passwords() {
    let (env, role, _files) = certified().await;
    let mut worker = env.start_worker().await;
    let mut events = env.events().await;
    answered(&mut events, &publish(&env, 3).await).await;
    // A retry bears the worker's own user, which the broker knows from the certificate.
    let unknown = Request::revert(env.customer().await.account, uuid::Uuid::new_v4(), 20);
    env.publish(&unknown).await;
    assert_eq!(events.answer(&unknown).await.verdict(), "USAGE_NOT_FOUND");
    assert!(worker.stop().await.success());
    teardown_with_role(env, &role).await;
}

#[tokio::test]
async fn a_user_other_than_the_certificates_ends_the_start() {
    let (mut env, role, _files) = certified().await;
    let external = Some("auth_mechanism=external");
    env.set(
        "AMQP__URL",
        &with(&amqps_url(), ("revertd", None), None, external),
    );
    let log = refused(&env).await;
    for said in [
        "'revertd'",
        "'certified'",
        "amqp.url must name the user",
        "certificate",
    ] {
        assert!(log.contains(said), "{said}: {log}");
    }
    teardown_with_role(env, &role).await;
}

#[tokio::test]
async fn a_refused_client_certificate_ends_the_start() {
    let stranger = Authority::stranger();
    for section in ["AMQP", "DATABASE"] {
        let (mut env, role, _files) = certified().await;
        let name = if section == "AMQP" {
            "certified"
        } else {
            &role
        };
        let unknown = stranger.client(name);
        env.set(&format!("{section}__CERT_FILE"), &unknown.cert());
        env.set(&format!("{section}__KEY_FILE"), &unknown.key());
        let log = refused(&env).await;
        assert!(log.contains("refuses our certificate"), "{section}: {log}");
        let key = format!("{}.cert_file", section.to_lowercase());
        assert!(log.contains(&key), "{log}");
        teardown_with_role(env, &role).await;
    }
}

#[tokio::test]
async fn unreadable_messages_are_rejected_over_tls() {
    let (env, role, _files) = certified().await;
    env.start_worker().await.stop().await;
    let mut raw = RawConnection::open(&env.servers.amqp).await;
    let mut properties = 0x0080u16.to_be_bytes().to_vec();
    short(&mut properties, b"\xff\xfe");
    raw.publish(&env.name("requests"), b"revert", &properties, b"{}")
        .await;
    raw.confirmed().await;
    raw.publish(&env.name("requests"), b"revert", &properties, b"{}")
        .await;
    raw.confirmed().await;
    let requests = publish(&env, 3).await;
    let mut worker = env.start_worker().await;
    answered(&mut env.events().await, &requests).await;
    eventually("both are dead letters", async || {
        env.depth(&env.name("dead")).await == 2
    })
    .await;
    assert!(worker.stop().await.success());
    teardown_with_role(env, &role).await;
}

#[tokio::test]
async fn an_unverifiable_server_certificate_ends_the_start() {
    let servers = Authority::of_the_servers();
    let here = ["localhost", "127.0.0.1"];
    let cases = [
        (
            "AMQP",
            Authority::stranger().server(&here),
            "no trusted authority signed",
        ),
        ("AMQP", servers.expired_server(&here), "has expired"),
        ("AMQP", servers.server(&["localhost"]), "for another host"),
        (
            "DATABASE",
            Authority::stranger().server(&here),
            "no trusted authority signed",
        ),
        ("DATABASE", servers.expired_server(&here), "has expired"),
        (
            "DATABASE",
            servers.server(&["localhost"]),
            "for another host",
        ),
    ];
    for (section, shown, said) in cases {
        let mut env = encrypted().await;
        let key = format!("{section}__URL");
        let url = env.setting(&key).expect("set").to_owned();
        let negotiation = if section == "AMQP" {
            TlsNegotiation::Immediate
        } else {
            TlsNegotiation::Postgres
        };
        let clear = if section == "AMQP" {
            &env.servers.amqp
        } else {
            &env.servers.database
        };
        let clear = url::Url::parse(clear).expect("a URL");
        let server = format!("127.0.0.1:{}", clear.port().expect("a port"));
        let proxy = TlsProxy::to(&server, negotiation, &shown).await;
        env.set(&key, &with(&url, ("", None), Some(proxy.port()), None));
        let log = refused(&env).await;
        assert!(log.contains(said), "{section}, {said}: {log}");
        let at = format!("127.0.0.1:{}", proxy.port());
        assert!(log.contains(&at), "{log}");
        env.teardown().await;
    }
}

#[tokio::test]
async fn a_proxy_with_a_valid_certificate_is_accepted() {
    let shown = Authority::of_the_servers().server(&["localhost"]);
    let mut env = encrypted().await;
    let clear = url::Url::parse(&env.servers.amqp).expect("a URL");
    let server = format!("127.0.0.1:{}", clear.port().expect("a port"));
    let proxy = TlsProxy::to(&server, TlsNegotiation::Immediate, &shown).await;
    let url = with(&amqps_url(), ("", None), Some(proxy.port()), None);
    env.set("AMQP__URL", &url.replace("127.0.0.1", "localhost"));
    env.start_worker().await.stop().await;
    env.teardown().await;
}

#[tokio::test]
async fn nothing_is_sent_unencrypted_when_tls_is_required() {
    let shown = Authority::of_the_servers().server(&["127.0.0.1"]);
    let mut env = encrypted().await;
    let plain = url::Url::parse(&env.servers.amqp).expect("a URL").port();
    env.set("AMQP__URL", &with(&amqps_url(), ("", None), plain, None));
    let log = refused(&env).await;
    assert!(log.contains("does not speak TLS"), "{log}");

    let encrypting = url::Url::parse(&amqps_url()).expect("a URL").port();
    let mut clear = TestEnv::new().await;
    clear.set(
        "AMQP__URL",
        &with(&clear.servers.amqp, ("", None), encrypting, None),
    );
    let log = refused(&clear).await;
    assert!(
        log.contains("something else than AMQP") && log.contains("amqps://"),
        "{log}"
    );
    clear.teardown().await;

    env.set("AMQP__URL", &amqps_url());
    let proxy = TlsProxy::to("127.0.0.1:1", TlsNegotiation::PostgresDeclines, &shown).await;
    let url = env.setting("DATABASE__URL").expect("set").to_owned();
    env.set(
        "DATABASE__URL",
        &with(&url, ("", None), Some(proxy.port()), None),
    );
    let log = refused(&env).await;
    assert!(
        log.contains("does not encrypt") && log.contains("ssl = on"),
        "{log}"
    );
    env.teardown().await;
}

#[tokio::test]
async fn an_unencrypted_network_connection_is_warned_about() {
    let mut env = TestEnv::new().await;
    env.set("DATABASE__URL", "postgres://me@nowhere.invalid/x");
    let migrated = env.command(&["migrate"]).output().expect("runs");
    let stderr = String::from_utf8_lossy(&migrated.stderr);
    assert!(
        stderr.contains("not encrypted") && stderr.contains("nowhere.invalid"),
        "{stderr}"
    );
    assert_eq!(stderr.matches("sslmode=verify-full").count(), 1, "{stderr}");
    env.set("DATABASE__URL", &database_url(&env));
    env.set("AMQP__URL", "amqp://me@nowhere.invalid/%2f");
    let mut worker = env.spawn_worker();
    worker.logged("paused").await;
    let log = worker.log();
    assert_eq!(log.matches("is not encrypted").count(), 1, "{log}");
    assert!(log.contains("use amqps://"), "{log}");
    worker.stop().await;
    env.teardown().await;
}

#[tokio::test]
async fn a_restart_reads_new_passwords_from_files() {
    let mut env = TestEnv::new().await;
    let (instance, user) = (instance(), env.database.clone());
    let ctl =
        |arguments: &[&str]| manage(&[&["ctl", instance.as_str(), "rabbit"], arguments].concat());
    ctl(&["add_user", &user, "thyme"]);
    ctl(&["set_permissions", &user, ".*", ".*", ".*"]);
    env
        .sql(&format!(
            "CREATE ROLE r_{user} LOGIN PASSWORD 'thyme%41 /@'; GRANT USAGE ON SCHEMA public, revertd TO r_{user}; \
             GRANT ALL ON ALL TABLES IN SCHEMA public, revertd TO r_{user}"
        ))
        .await;
    let folder = tempfile::tempdir().expect("a folder");
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).expect("written");
        path.display().to_string()
    };
    let url = with(&env.servers.amqp, (&user, None), None, None);
    env.set("AMQP__URL", &url);
    env.set("AMQP__PASSWORD_FILE", &file("amqp", "thyme\n"));
    let role = format!("r_{user}");
    let url = with(&database_url(&env), (&role, None), None, None);
    env.set("DATABASE__URL", &url);
    env.set("DATABASE__PASSWORD_FILE", &file("database", "thyme%41 /@"));
    env.set("DATABASE__MIGRATE_ON_START", "false");

    let mut worker = env.start_worker().await;
    let mut events = env.events().await;
    let mut requests = publish(&env, 20).await;
    // The servers change while it works; what is connected stays so, and what waits is not lost.
    ctl(&["change_password", &user, "sesame%41 /@"]);
    env.sql(&format!("ALTER ROLE {role} PASSWORD 'sesame'"))
        .await;
    requests.extend(publish(&env, 20).await);
    // Where it needs one more connection by now, what it has in hand goes back.
    worker.stop().await;
    requests.extend(publish(&env, 20).await);

    for (name, right, said) in [
        ("database", "sesame\r\n", "database.password_file"),
        ("amqp", "sesame%41 /@\n", "amqp.password_file"),
    ] {
        let log = refused(&env).await;
        assert!(
            log.contains("refuses the login") && log.contains(said),
            "{log}"
        );
        assert!(!log.contains("thyme"), "{log}");
        file(name, right);
    }
    let mut worker = env.start_worker().await;
    answered(&mut events, &requests).await;
    assert!(worker.stop().await.success());
    assert!(!worker.log().contains("sesame"), "{}", worker.log());
    env.assert_ledger_is_sound().await;
    assert_eq!(
        env.count("SELECT count(*) FROM revertd.outcomes").await,
        i64::try_from(requests.len()).expect("few"),
    );

    std::fs::remove_file(folder.path().join("amqp")).expect("removed");
    let log = refused(&env).await;
    assert!(log.contains("amqp.password_file: cannot read"), "{log}");
    env.sql(&format!("DROP OWNED BY {role}; DROP ROLE {role}"))
        .await;
    ctl(&["delete_user", &user]);
    env.teardown().await;
}

#[tokio::test]
async fn an_invalid_key_or_password_file_ends_the_start() {
    let shown = Authority::of_the_servers().client("x");
    let other = Authority::of_the_servers().client("y");
    for (key, file, said) in [
        ("AMQP__CA_FILE", shown.key(), "amqp.ca_file"),
        ("DATABASE__CA_FILE", shown.key(), "database.ca_file"),
        ("AMQP__KEY_FILE", shown.cert(), "amqp.key_file"),
        ("DATABASE__KEY_FILE", other.key(), "don't do together"),
    ] {
        let mut env = encrypted().await;
        for section in ["AMQP", "DATABASE"] {
            env.set(&format!("{section}__CERT_FILE"), &shown.cert());
            env.set(&format!("{section}__KEY_FILE"), &shown.key());
        }
        env.set(key, &file);
        let log = refused(&env).await;
        assert!(log.contains(said) && log.contains(&file), "{key}: {log}");
        let secret = std::fs::read_to_string(shown.key()).expect("PEM");
        let lines = secret.lines().filter(|line| !line.starts_with("-----"));
        assert!(lines.into_iter().all(|line| !log.contains(line)), "{log}");
        env.teardown().await;
    }
}
