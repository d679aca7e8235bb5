//! The server certificates that are accepted, and the bytes that are sent without TLS.

use super::super::startup::refused;
use super::setup::*;
use crate::support::raw::{RawConnection, short};
use crate::support::tls::{Authority, TlsNegotiation, TlsProxy, amqps_url, ca_file};
use crate::support::*;

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
        log.contains("does not answer in AMQP") && log.contains("amqps://"),
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
