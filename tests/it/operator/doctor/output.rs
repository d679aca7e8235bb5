//! Which checks are skipped, and how the report is printed.

use std::process::Command;

use super::report::doctor;
use crate::support::*;

#[tokio::test]
async fn checks_that_depend_on_a_failed_one_are_skipped() {
    let env = TestEnv::new().await;
    logs::secret("sesame");
    let vacant = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = vacant.local_addr().expect("bound").port();
    drop(vacant);
    let with = |url: &str, change: &dyn Fn(&mut url::Url)| {
        let mut url = url::Url::parse(url).expect("a URL");
        change(&mut url);
        url.to_string()
    };
    let stranger = |url: &mut url::Url| {
        url.set_username("nobody").expect("a user");
        url.set_password(Some("sesame")).expect("a password");
    };
    let nowhere = |url: &mut url::Url| url.set_host(Some("nowhere.invalid")).expect("a host");
    let closed = |url: &mut url::Url| url.set_port(Some(port)).expect("a port");
    let encrypted = |url: &mut url::Url| url.set_query(Some("sslmode=verify-full"));
    let (database, amqp) = (env.setting("DATABASE__URL"), &env.servers.amqp);
    let database = database.expect("set by every environment");
    let amqps = amqp.replacen("amqp://", "amqps://", 1);
    for (key, url, id, seen) in [
        (
            "DATABASE__URL",
            with(database, &nowhere),
            "database-dns",
            "nowhere.invalid has no address",
        ),
        (
            "DATABASE__URL",
            with(database, &closed),
            "database-tcp",
            "refused",
        ),
        (
            "DATABASE__URL",
            with(database, &encrypted),
            "database-tls",
            "",
        ),
        (
            "DATABASE__URL",
            with(database, &stranger),
            "database-login",
            "refuses the login",
        ),
        (
            "AMQP__URL",
            with(amqp, &nowhere),
            "amqp-dns",
            "nowhere.invalid has no address",
        ),
        ("AMQP__URL", with(amqp, &closed), "amqp-tcp", "refused"),
        ("AMQP__URL", amqps, "amqp-tls", ""),
        (
            "AMQP__URL",
            with(amqp, &stranger),
            "amqp-login",
            "refuses the login",
        ),
        (
            "AMQP__URL",
            with(amqp, &|url| url.set_path("nowhere")),
            "amqp-login",
            "refuses the virtual host",
        ),
    ] {
        let report = doctor(&env, &[(key, &url)]);
        assert_eq!(report.status, 1, "{report:?}");
        report.says(id, "error", seen, " ");
        assert_eq!(report.count("errors"), 1, "{id}: {report:?}");
        assert!(
            !id.ends_with("-dns") || report.has(&id.replace("-dns", "-tcp"), "skipped"),
            "{report:?}"
        );
        let (this, other) = match key {
            "AMQP__URL" => ("amqp-topology", "database-permissions"),
            _ => ("database-state", "amqp-login"),
        };
        assert!(report.has(this, "skipped"), "{id}: {report:?}");
        assert!(report.has(other, "ok"), "{id}: {report:?}");
        assert!(!format!("{report:?}").contains("sesame"), "{report:?}");
    }
    let report = doctor(&env, &[("WORKER__BATCHMAX", "1")]);
    assert_eq!(report.status, 1);
    report.says("configuration", "error", "batchmax", "");
    assert!(report.has("database-state", "skipped"));
    env.teardown().await;
}

#[tokio::test]
async fn doctor_prints_one_line_per_check() {
    let env = TestEnv::new().await;
    let output = env.command(&["doctor"]).output().expect("runs");
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    assert!(output.status.success(), "{text}");
    for line in text.lines() {
        let known = [
            "ok ",
            "warning ",
            "ERROR ",
            "skipped ",
            "         -> ",
            "0 errors, ",
        ];
        assert!(known.iter().any(|start| line.starts_with(start)), "{line}");
    }
    let script = format!(
        "{} doctor | true; echo ${{PIPESTATUS[0]}}",
        program::binary().display()
    );
    let piped = Command::new("bash")
        .args(["-c", &script])
        .env_clear()
        .envs(env.environment())
        .output()
        .expect("bash is there");
    assert_eq!(String::from_utf8_lossy(&piped.stdout), "0\n");
    assert_eq!(String::from_utf8_lossy(&piped.stderr), "");
    env.teardown().await;
}
