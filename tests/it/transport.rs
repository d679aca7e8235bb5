//! TLS and secrets: who is trusted, who is refused, and what a restart takes up. Against the
//! servers' encrypted ports.

use super::starts::refused;
use super::support::raw::{RawConnection, short};
use super::support::tls::{Asked, Authority, Issued, TlsProxy, amqps_url, ca_file, instance};
use super::support::*;

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

fn database_url(stage: &Stage) -> String {
    with_database(&stage.servers.database, &stage.database)
}

/// A stage whose worker speaks TLS to both servers, whose authority it is told.
async fn encrypted() -> Stage {
    let mut stage = Stage::new().await;
    stage.set("AMQP__URL", &amqps_url());
    stage.set("AMQP__CA_FILE", &ca_file());
    let url = with(
        &database_url(&stage),
        ("", None),
        None,
        Some("sslmode=verify-full"),
    );
    stage.set("DATABASE__URL", &url);
    stage.set("DATABASE__CA_FILE", &ca_file());
    stage
}

/// Sessions of the worker, encrypted or not.
async fn sessions(stage: &Stage, encrypted: bool) -> i64 {
    stage
        .count(&format!(
            "SELECT count(*) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE ssl = {encrypted} \
             AND datname = current_database() AND application_name = 'revertd'"
        ))
        .await
}

/// Publishes `count` requests, each of which can be reverted.
async fn publish(stage: &Stage, count: usize) -> Vec<Request> {
    let customer = stage.customer().await;
    let mut requests = Vec::new();
    for _ in 0..count {
        let usage = stage.usage(customer.account, 20).await;
        let request = Request::revert(customer.account, usage, 20);
        stage.publish(&request).await;
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
async fn a_request_is_reverted_and_answered_over_tls_on_both_sides() {
    let stage = encrypted().await;
    let mut worker = stage.start_worker().await;
    let mut events = stage.events().await;
    let requests = publish(&stage, 20).await;
    answered(&mut events, &requests).await;
    assert!(sessions(&stage, true).await > 0);
    assert_eq!(sessions(&stage, false).await, 0);
    assert!(!worker.log().contains("not encrypted"), "{}", worker.log());

    let body = String::from_utf8(requests[0].body.clone()).expect("JSON");
    let asked = stage.command(&["submit", "--body", &body]).output();
    let told = String::from_utf8(asked.expect("runs").stdout).expect("UTF-8");
    assert!(told.contains("ALREADY_REVERTED"), "{told}");
    assert!(worker.stop().await.success());
    stage.assert_ledger_is_sound().await;
    stage.strike().await;
}

#[tokio::test]
async fn several_hosts_and_pairs_of_libpq_do_for_tls_too() {
    let mut stage = encrypted().await;
    let url = url::Url::parse(&database_url(&stage)).expect("a URL");
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let vacant = listener.local_addr().expect("bound").port();
    drop(listener);
    let pairs = format!(
        "host=127.0.0.1,localhost port={vacant},{} user={} password='{}' dbname={} sslmode=require \
         sslrootcert='{}' channel_binding=require",
        url.port().expect("a port"),
        url.username(),
        url.password().expect("a password"),
        stage.database,
        ca_file(),
    );
    stage.set("DATABASE__URL", &pairs);
    let mut worker = stage.start_worker().await;
    let mut events = stage.events().await;
    answered(&mut events, &publish(&stage, 3).await).await;
    assert_eq!(sessions(&stage, false).await, 0);
    assert!(worker.stop().await.success());
    stage.strike().await;
}

#[tokio::test]
async fn the_authorities_of_the_system_are_trusted_where_none_is_named_and_only_there() {
    let mut stage = Stage::new().await;
    let query = Some("sslmode=verify-full");
    let url = with(&database_url(&stage), ("", None), None, query);
    stage.set("DATABASE__URL", &url);
    let stranger = Authority::stranger().client("x");
    for (system, named, trusted) in [
        (ca_file(), None, true),
        (stranger.ca(), None, false),
        (stranger.ca(), Some(ca_file()), true),
        (ca_file(), Some(stranger.ca()), false),
    ] {
        let mut command = stage.command(&["migrate"]);
        command.env("SSL_CERT_FILE", system);
        if let Some(named) = named {
            command.env("REVERTD_DATABASE__CA_FILE", named);
        }
        let migrated = command.output().expect("runs");
        let said = String::from_utf8_lossy(&migrated.stderr);
        assert_eq!(migrated.status.success(), trusted, "{said}");
        let why = "no trusted authority signed";
        assert!(trusted || said.contains(why), "{said}");
    }
    stage.strike().await;
}

/// A stage whose worker shows certificates at both servers, and the role that it has at the
/// database.
async fn certified() -> (Stage, String, [Issued; 2]) {
    let mut stage = encrypted().await;
    let role = format!("c_{}", &stage.database[2..]);
    stage
        .sql(&format!(
            "CREATE ROLE {role} LOGIN IN ROLE certified; GRANT USAGE ON SCHEMA public, revertd TO {role}; \
             GRANT ALL ON ALL TABLES IN SCHEMA public, revertd TO {role}"
        ))
        .await;
    let authority = Authority::of_the_servers();
    let [at_broker, at_database] = [authority.client("certified"), authority.client(&role)];
    let external = Some("auth_mechanism=external");
    stage.set(
        "AMQP__URL",
        &with(&amqps_url(), ("certified", None), None, external),
    );
    stage.set("AMQP__CERT_FILE", &at_broker.cert());
    stage.set("AMQP__KEY_FILE", &at_broker.key());
    let query = Some("sslmode=verify-full");
    let url = with(&database_url(&stage), (&role, None), None, query);
    stage.set("DATABASE__URL", &url);
    stage.set("DATABASE__CERT_FILE", &at_database.cert());
    stage.set("DATABASE__KEY_FILE", &at_database.key());
    stage.set("DATABASE__MIGRATE_ON_START", "false");
    (stage, role, [at_broker, at_database])
}

async fn strike_certified(stage: Stage, role: &str) {
    let drop = format!("DROP OWNED BY {role}; DROP ROLE {role}");
    stage.sql(&drop).await;
    stage.strike().await;
}

#[tokio::test]
async fn certificates_log_in_at_both_servers_without_any_password() {
    let (stage, role, _files) = certified().await;
    let mut worker = stage.start_worker().await;
    let mut events = stage.events().await;
    answered(&mut events, &publish(&stage, 3).await).await;
    // A retry bears the worker's own user, which the broker knows from the certificate.
    let unknown = Request::revert(stage.customer().await.account, uuid::Uuid::new_v4(), 20);
    stage.publish(&unknown).await;
    assert_eq!(events.answer(&unknown).await.verdict(), "USAGE_NOT_FOUND");
    assert!(worker.stop().await.success());
    strike_certified(stage, &role).await;
}

#[tokio::test]
async fn a_user_that_is_not_the_certificates_is_said_at_the_start() {
    let (mut stage, role, _files) = certified().await;
    let external = Some("auth_mechanism=external");
    stage.set(
        "AMQP__URL",
        &with(&amqps_url(), ("revertd", None), None, external),
    );
    let log = refused(&stage).await;
    for said in [
        "'revertd'",
        "'certified'",
        "amqp.url must name the user",
        "certificate",
    ] {
        assert!(log.contains(said), "{said}: {log}");
    }
    strike_certified(stage, &role).await;
}

#[tokio::test]
async fn a_certificate_that_a_server_does_not_accept_ends_the_start() {
    let stranger = Authority::stranger();
    for section in ["AMQP", "DATABASE"] {
        let (mut stage, role, _files) = certified().await;
        let name = if section == "AMQP" {
            "certified"
        } else {
            &role
        };
        let unknown = stranger.client(name);
        stage.set(&format!("{section}__CERT_FILE"), &unknown.cert());
        stage.set(&format!("{section}__KEY_FILE"), &unknown.key());
        let log = refused(&stage).await;
        assert!(
            log.contains("refuses the client certificate"),
            "{section}: {log}"
        );
        let key = format!("{}.cert_file", section.to_lowercase());
        assert!(log.contains(&key), "{log}");
        strike_certified(stage, &role).await;
    }
}

#[tokio::test]
async fn unreadable_messages_are_rejected_over_tls() {
    let (stage, role, _files) = certified().await;
    stage.start_worker().await.stop().await;
    let mut raw = RawConnection::open(&stage.servers.amqp).await;
    let mut properties = 0x0080u16.to_be_bytes().to_vec();
    short(&mut properties, b"\xff\xfe");
    raw.publish(&stage.name("requests"), b"revert", &properties, b"{}")
        .await;
    raw.confirmed().await;
    raw.publish(&stage.name("requests"), b"revert", &properties, b"{}")
        .await;
    raw.confirmed().await;
    let requests = publish(&stage, 3).await;
    let mut worker = stage.start_worker().await;
    answered(&mut stage.events().await, &requests).await;
    eventually("both are dead letters", async || {
        stage.depth(&stage.name("dead")).await == 2
    })
    .await;
    assert!(worker.stop().await.success());
    strike_certified(stage, &role).await;
}

#[tokio::test]
async fn a_server_that_can_not_be_verified_ends_the_start() {
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
        let mut stage = encrypted().await;
        let key = format!("{section}__URL");
        let url = stage.setting(&key).expect("set").to_owned();
        let asked = if section == "AMQP" {
            Asked::AtOnce
        } else {
            Asked::Postgres
        };
        let clear = if section == "AMQP" {
            &stage.servers.amqp
        } else {
            &stage.servers.database
        };
        let clear = url::Url::parse(clear).expect("a URL");
        let server = format!("127.0.0.1:{}", clear.port().expect("a port"));
        let proxy = TlsProxy::to(&server, asked, &shown).await;
        stage.set(&key, &with(&url, ("", None), Some(proxy.port()), None));
        let log = refused(&stage).await;
        assert!(log.contains(said), "{section}, {said}: {log}");
        let at = format!("127.0.0.1:{}", proxy.port());
        assert!(log.contains(&at), "{log}");
        stage.strike().await;
    }
}

#[tokio::test]
async fn a_proxy_with_a_good_certificate_is_as_good_as_the_server() {
    let shown = Authority::of_the_servers().server(&["localhost"]);
    let mut stage = encrypted().await;
    let clear = url::Url::parse(&stage.servers.amqp).expect("a URL");
    let server = format!("127.0.0.1:{}", clear.port().expect("a port"));
    let proxy = TlsProxy::to(&server, Asked::AtOnce, &shown).await;
    let url = with(&amqps_url(), ("", None), Some(proxy.port()), None);
    stage.set("AMQP__URL", &url.replace("127.0.0.1", "localhost"));
    stage.start_worker().await.stop().await;
    stage.strike().await;
}

#[tokio::test]
async fn nothing_is_sent_in_the_clear_to_a_server_that_does_not_encrypt() {
    let shown = Authority::of_the_servers().server(&["127.0.0.1"]);
    let mut stage = encrypted().await;
    let plain = url::Url::parse(&stage.servers.amqp).expect("a URL").port();
    stage.set("AMQP__URL", &with(&amqps_url(), ("", None), plain, None));
    let log = refused(&stage).await;
    assert!(log.contains("does not speak TLS"), "{log}");

    let encrypting = url::Url::parse(&amqps_url()).expect("a URL").port();
    let mut clear = Stage::new().await;
    clear.set(
        "AMQP__URL",
        &with(&clear.servers.amqp, ("", None), encrypting, None),
    );
    let log = refused(&clear).await;
    assert!(
        log.contains("does not answer in AMQP") && log.contains("amqps://"),
        "{log}"
    );
    clear.strike().await;

    stage.set("AMQP__URL", &amqps_url());
    let proxy = TlsProxy::to("127.0.0.1:1", Asked::PostgresDeclines, &shown).await;
    let url = stage.setting("DATABASE__URL").expect("set").to_owned();
    stage.set(
        "DATABASE__URL",
        &with(&url, ("", None), Some(proxy.port()), None),
    );
    let log = refused(&stage).await;
    assert!(
        log.contains("does not encrypt") && log.contains("ssl = on"),
        "{log}"
    );
    stage.strike().await;
}

#[tokio::test]
async fn what_goes_over_a_network_in_the_clear_is_warned_of() {
    let mut stage = Stage::new().await;
    stage.set("DATABASE__URL", "postgres://me@nowhere.invalid/x");
    let migrated = stage.command(&["migrate"]).output().expect("runs");
    let said = String::from_utf8_lossy(&migrated.stderr);
    assert!(
        said.contains("not encrypted") && said.contains("nowhere.invalid"),
        "{said}"
    );
    assert_eq!(said.matches("sslmode=verify-full").count(), 1, "{said}");
    stage.set("DATABASE__URL", &database_url(&stage));
    stage.set("AMQP__URL", "amqp://me@nowhere.invalid/%2f");
    let mut worker = stage.spawn_worker();
    worker.logged("paused").await;
    let log = worker.log();
    assert_eq!(log.matches("is not encrypted").count(), 1, "{log}");
    assert!(log.contains("use amqps://"), "{log}");
    worker.stop().await;
    stage.strike().await;
}

#[tokio::test]
async fn passwords_come_from_files_and_a_restart_takes_up_new_ones() {
    let mut stage = Stage::new().await;
    let (instance, user) = (instance(), stage.database.clone());
    let ctl =
        |arguments: &[&str]| manage(&[&["ctl", instance.as_str(), "rabbit"], arguments].concat());
    ctl(&["add_user", &user, "thyme"]);
    ctl(&["set_permissions", &user, ".*", ".*", ".*"]);
    stage
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
    let url = with(&stage.servers.amqp, (&user, None), None, None);
    stage.set("AMQP__URL", &url);
    stage.set("AMQP__PASSWORD_FILE", &file("amqp", "thyme\n"));
    let role = format!("r_{user}");
    let url = with(&database_url(&stage), (&role, None), None, None);
    stage.set("DATABASE__URL", &url);
    stage.set("DATABASE__PASSWORD_FILE", &file("database", "thyme%41 /@"));
    stage.set("DATABASE__MIGRATE_ON_START", "false");

    let mut worker = stage.start_worker().await;
    let mut events = stage.events().await;
    let mut requests = publish(&stage, 20).await;
    // The servers change while it works; what is connected stays so, and what waits is not lost.
    ctl(&["change_password", &user, "sesame%41 /@"]);
    stage
        .sql(&format!("ALTER ROLE {role} PASSWORD 'sesame'"))
        .await;
    requests.extend(publish(&stage, 20).await);
    // Where it needs one more connection by now, what it has in hand goes back.
    worker.stop().await;
    requests.extend(publish(&stage, 20).await);

    for (name, right, said) in [
        ("database", "sesame\r\n", "database.password_file"),
        ("amqp", "sesame%41 /@\n", "amqp.password_file"),
    ] {
        let log = refused(&stage).await;
        assert!(
            log.contains("refuses the login") && log.contains(said),
            "{log}"
        );
        assert!(!log.contains("thyme"), "{log}");
        file(name, right);
    }
    let mut worker = stage.start_worker().await;
    answered(&mut events, &requests).await;
    assert!(worker.stop().await.success());
    assert!(!worker.log().contains("sesame"), "{}", worker.log());
    stage.assert_ledger_is_sound().await;
    assert_eq!(
        stage.count("SELECT count(*) FROM revertd.outcomes").await,
        i64::try_from(requests.len()).expect("few"),
    );

    std::fs::remove_file(folder.path().join("amqp")).expect("removed");
    let log = refused(&stage).await;
    assert!(log.contains("amqp.password_file: cannot read"), "{log}");
    stage
        .sql(&format!("DROP OWNED BY {role}; DROP ROLE {role}"))
        .await;
    ctl(&["delete_user", &user]);
    stage.strike().await;
}

#[tokio::test]
async fn a_file_that_does_not_hold_what_it_should_ends_the_start() {
    let shown = Authority::of_the_servers().client("x");
    let other = Authority::of_the_servers().client("y");
    for (key, file, said) in [
        ("AMQP__CA_FILE", shown.key(), "amqp.ca_file"),
        ("DATABASE__CA_FILE", shown.key(), "database.ca_file"),
        ("AMQP__KEY_FILE", shown.cert(), "amqp.key_file"),
        ("DATABASE__KEY_FILE", other.key(), "do not match"),
    ] {
        let mut stage = encrypted().await;
        for section in ["AMQP", "DATABASE"] {
            stage.set(&format!("{section}__CERT_FILE"), &shown.cert());
            stage.set(&format!("{section}__KEY_FILE"), &shown.key());
        }
        stage.set(key, &file);
        let log = refused(&stage).await;
        assert!(log.contains(said) && log.contains(&file), "{key}: {log}");
        let secret = std::fs::read_to_string(shown.key()).expect("PEM");
        let lines = secret.lines().filter(|line| !line.starts_with("-----"));
        assert!(lines.into_iter().all(|line| !log.contains(line)), "{log}");
        stage.strike().await;
    }
}
