//! The permissions for work on dead letters, and the record of interventions, which never changes.

use super::*;

/// The worker's own login replays; another one reads and discards.
#[allow(clippy::too_many_lines, reason = "one story, told in order")]
#[tokio::test]
async fn only_the_workers_login_replays_dead_letters() {
    let env = TestEnv::new().await;
    let host = Host::new();
    let role = Role::new(&env, "clerk", &env.database).await;
    let worker_role = Role::new(&env, "worker", &env.database).await;
    let replayer = host.url(&env, "worker-replay");
    let submitter = host.url(&env, "submitter");
    rubbish_is_dead_lettered(&env, &host, &worker_role).await;
    let clerk = host.url(&env, "clerk");
    let letters = |login: &str, arguments: &[&str]| {
        let output = program(&env, &role.url, login, arguments)
            .output()
            .expect("runs");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (
            output.status.code(),
            text(&output.stdout),
            text(&output.stderr),
        )
    };
    let replay = [
        "dead-letters",
        "replay",
        "--all",
        "--include-malformed",
        "--yes",
    ];
    let discard = [
        "dead-letters",
        "discard",
        "--all",
        "--yes",
        "--why",
        "rubbish",
    ];
    // The queue can be read without a grant in the database; nothing is done that can't be noted.
    let (status, told, said) = letters(&clerk, &["dead-letters", "list"]);
    assert!(
        status == Some(0) && told.contains("1 letter\n"),
        "{told}{said}"
    );
    for refused in [letters(&clerk, &discard), letters(&replayer, &replay)] {
        let (status, _, said) = refused;
        assert!(status == Some(1) && said.contains("GRANT "), "{said}");
    }
    // The readable part is shown, and the command names the parts that it may not read.
    let (status, told, said) = letters(&clerk, &["status", "--request", "rubbish"]);
    assert!(
        status == Some(0)
            && told.contains("among the dead letters")
            && said.contains("not read: outcomes")
            && said.contains("GRANT "),
        "{told}{said}"
    );
    for statement in documented("clerk") {
        env.sql(&role.own(&statement, "clerk", &env.database)).await;
    }
    let (status, told, said) = letters(&clerk, &["status", "--request", "rubbish"]);
    assert!(
        status == Some(0) && told.contains("among the dead letters"),
        "{told}{said}"
    );
    assert!(said.is_empty(), "{said}");
    let (_, told, said) = letters(&clerk, &["dead-letters", "show", "rubbish"]);
    let client = format!("{}-submitter", host.name);
    assert!(
        told.contains(&format!("client   {client}\n"))
            && told.contains("only source of the client's name"),
        "{told}{said}"
    );
    // For every reader it is that client's letter, with the same id.
    let list = [
        "dead-letters",
        "list",
        "--client",
        &client,
        "--output",
        "json",
    ];
    let (seen, by_worker) = (letters(&clerk, &list).1, letters(&replayer, &list).1);
    let id = |line: &str| {
        serde_json::from_str::<serde_json::Value>(line).expect("a letter")["id"].clone()
    };
    assert_eq!(id(&seen), id(&by_worker));
    // The error names the permission that a login lacks.
    let (status, _, said) = letters(&submitter, &["dead-letters", "list"]);
    assert!(
        status == Some(1) && said.contains("denied a permission while reading"),
        "{said}"
    );
    // Whose it is, only the login that wrote it may say.
    let (status, told, _) = letters(&clerk, &replay);
    assert!(
        status == Some(0) && told.contains("amqp.trusted_users"),
        "{told}"
    );
    let (status, told, said) = letters(&replayer, &replay);
    assert!(
        status == Some(0) && told.contains("replayed 1 letter"),
        "{told}{said}"
    );
    let mut command = program(&env, &worker_role.url, &replayer, &["worker"]);
    command.env("REVERTD_TOPOLOGY__DECLARE", "false");
    let mut worker = WorkerProcess::spawn(command);
    worker.logged("dead-lettered").await;
    worker.stop().await;
    let (status, told, said) = letters(&clerk, &discard);
    assert!(
        status == Some(0) && told.contains("discarded 1 letter"),
        "{told}{said}"
    );
    what_was_noted_stays(&role).await;
    let runs = format!(
        "SELECT count(*) FROM revertd.interventions WHERE done_as = '{}'",
        role.name
    );
    assert_eq!(env.count(&runs).await, 2, "a replay and a discard");
    drop_role(&env, &role).await;
    drop_role(&env, &worker_role).await;
    host.remove();
    env.teardown().await;
}

/// The clerk adds, and changes nothing.
async fn what_was_noted_stays(role: &Role) {
    let db = connect_db(&role.url).await;
    for statement in [
        "UPDATE revertd.interventions SET why = 'x'",
        "DELETE FROM revertd.interventions",
        "INSERT INTO revertd.interventions (action, done_by, chosen, done_as) VALUES ('replay', \
        'x', '{}', 'y')",
        "INSERT INTO revertd.interventions (action, done_by, chosen, began_at) VALUES ('replay', \
        'x', '{}', now())",
        "DELETE FROM revertd.intervention_letters",
        "UPDATE revertd.intervention_letters SET client = 'x'",
        "DELETE FROM revertd.intervention_parts",
        "INSERT INTO revertd.intervention_parts VALUES (1, 99, now())",
        "INSERT INTO revertd.grants (client, granted_by) VALUES ('x', 'y')",
        "DELETE FROM revertd.outcomes",
        "SELECT email FROM billing_customers",
    ] {
        assert!(is_forbidden(&db, statement).await, "{statement}");
    }
}

/// By a worker under the login that replays, after one that declares.
async fn rubbish_is_dead_lettered(env: &TestEnv, host: &Host, worker_role: &Role) {
    for statement in documented("worker") {
        let statement = worker_role.own(&statement, "worker", &env.database);
        env.sql(&statement).await;
    }
    let declaring = program(env, &worker_role.url, &host.url(env, "worker"), &["worker"]);
    let mut worker = WorkerProcess::spawn(declaring);
    worker.ready().await;
    worker.stop().await;
    let replayer = host.url(env, "worker-replay");
    let mut command = program(env, &worker_role.url, &replayer, &["worker"]);
    command.env("REVERTD_TOPOLOGY__DECLARE", "false");
    let mut worker = WorkerProcess::spawn(command);
    worker.ready().await;
    let rubbish = ["submit", "--body", "rubbish", "--message-id", "rubbish"];
    let submitter = host.url(env, "submitter");
    let told = program(env, &worker_role.url, &submitter, &rubbish)
        .output()
        .expect("runs");
    let told = String::from_utf8_lossy(&told.stdout).into_owned();
    assert!(told.contains("MALFORMED_REQUEST"), "{told}");
    worker.stop().await;
}
