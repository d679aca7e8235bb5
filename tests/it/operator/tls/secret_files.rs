//! Passwords and keys in files.

use super::super::startup::refused;
use super::setup::*;
use crate::support::tls::{Authority, instance};
use crate::support::*;

#[tokio::test]
async fn a_restart_reads_new_passwords_from_files() {
    let mut env = TestEnv::new().await;
    let (instance, user) = (instance(), env.database.clone());
    let ctl =
        |arguments: &[&str]| manage(&[&["ctl", instance.as_str(), "rabbit"], arguments].concat());
    ctl(&["add_user", &user, "thyme"]);
    ctl(&["set_permissions", &user, ".*", ".*", ".*"]);
    env.sql(&format!(
        "CREATE ROLE r_{user} LOGIN PASSWORD 'thyme%41 /@'; GRANT USAGE ON SCHEMA public, \
                revertd TO r_{user}; \
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
    // The passwords change while it works. Open connections stay open, and no request is lost.
    ctl(&["change_password", &user, "sesame%41 /@"]);
    env.sql(&format!("ALTER ROLE {role} PASSWORD 'sesame'"))
        .await;
    requests.extend(publish(&env, 20).await);
    // If it needs another connection by now, its messages in flight are requeued.
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
        ("DATABASE__KEY_FILE", other.key(), "do not match"),
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
