//! The sessions of docs/setup/quick-start.md, docs/clients/shell.md, docs/topics/authorization.md
//! and docs/operations/incident.md: each command prints the output below it.

use regex::Regex;
use tokio_postgres::SimpleQueryMessage;

use crate::support::sessions::{self, Block, PSQL, Shell};
use crate::support::*;

/// A text without times and ids of events, which differ between runs and clients.
pub fn foreseen(text: &str) -> String {
    let time = Regex::new(r"\d{4}-\d\d-\d\dT[0-9:.]+Z").expect("an expression");
    let id = Regex::new(r#""id": ?"[0-9a-f-]+""#).expect("an expression");
    let timeless = time.replace_all(text, "then");
    id.replace_all(&timeless, "").into_owned()
}

/// The commands of a page from a heading on, each with the output below it.
fn session(page: &str, heading: &str) -> Vec<(String, Option<String>)> {
    let (_, part) = page.split_once(heading).expect("the heading");
    let mut steps: Vec<(String, Option<String>)> = Vec::new();
    for Block { language, text } in sessions::blocks(part) {
        match language.as_str() {
            "sh" => steps.push((text, None)),
            "" => steps.last_mut().expect("a command").1 = Some(text),
            _ => {}
        }
    }
    steps
}

/// A shell that has the configuration of a env, on that database.
fn shell(env: &TestEnv, database: &str) -> Shell {
    let mut shell = Shell::new().stand_in("psql", PSQL);
    for (name, value) in env.environment() {
        shell = shell.variable(&name, &value);
    }
    shell.variable("REVERTD_DATABASE__URL", database)
}

/// The output of a command; `psql` passes its statements to the test instead.
fn printed(shell: &Shell, command: &str) -> String {
    let output = shell.run(command);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command}{said}");
    String::from_utf8(output.stdout).expect("UTF-8")
}

#[tokio::test]
async fn the_quick_start_goes_as_it_is_printed() {
    let mut env = TestEnv::new().await;
    env.set("AUTHORIZATION__MODE", "grants");
    let page = sessions::read("docs/setup/quick-start.md");
    let steps = session(&page, "## Quick start without Docker");
    let commands: Vec<_> = steps.iter().map(|(command, _)| command.as_str()).collect();
    let [build, create, worker, grant, submit, balance] = commands[..] else {
        panic!("{commands:#?}");
    };
    assert!(build.starts_with("make build\n"), "{build}");

    let name = format!("{}_q", env.database);
    env.sql(&format!("CREATE DATABASE {name}")).await;
    let url = with_database(&env.servers.database, &name);
    let db = connect_db(&url).await;
    let first = shell(&env, &url);
    assert_eq!(Some(printed(&first, create)), steps[1].1);
    let statements = first.record("psql");
    db.batch_execute(&statements).await.expect("the ledger");

    assert_eq!(worker, "revertd worker\n");
    let mut command = env.command(&["worker"]);
    command.env("REVERTD_DATABASE__URL", &url);
    let mut worker = WorkerProcess::spawn(command);
    worker.ready().await;

    let login = env.login();
    let own = |text: &str| text.replace("USER", &login);
    let expected = steps[3].1.as_deref().map(own);
    assert_eq!(Some(printed(&first, &own(grant))), expected);
    assert_eq!(Some(printed(&first, submit)), steps[4].1);

    let last = shell(&env, &url);
    printed(&last, balance);
    let answers = db.simple_query(&last.record("psql")).await;
    let sum = answers
        .expect("a query")
        .into_iter()
        .find_map(|answer| match answer {
            SimpleQueryMessage::Row(row) => row.get(0).map(|sum| format!("{sum}\n")),
            _ => None,
        });
    assert_eq!(sum, steps[5].1);

    assert!(worker.stop().await.success(), "{}", worker.log());
    drop(db);
    env.sql(&format!("DROP DATABASE {name} WITH (FORCE)")).await;
    env.teardown().await;
}

/// The last command repeats the request of the quick start, so that comes first.
#[tokio::test]
async fn the_shells_session_goes_as_it_is_printed() {
    let (env, _worker) = TestEnv::with_worker().await;
    env.sql(&super::ledger_of_the_examples()).await;
    let url = env.setting("DATABASE__URL").expect("it is set").to_owned();
    let shell = shell(&env, &url);
    let start = sessions::read("docs/setup/quick-start.md");
    let start = session(&start, "**5. Revert").swap_remove(0);
    let page = sessions::read("docs/clients/shell.md");
    let steps = [vec![start], session(&page, "# Shell")].concat();
    assert_eq!(steps.len(), 2, "{steps:#?}");
    for (command, expected) in steps {
        // `submit` ends with 1 if a request is refused.
        let output = shell.run(&format!("set +e\n{command}"));
        let told = String::from_utf8_lossy(&output.stdout);
        assert_eq!(foreseen(&told), foreseen(&expected.expect("an output")));
    }
    env.teardown().await;
}

#[tokio::test]
async fn the_incident_goes_as_it_is_printed() {
    let (env, _worker) = TestEnv::with_worker().await;
    env.sql(&super::ledger_of_the_examples()).await;
    let url = env.setting("DATABASE__URL").expect("it is set").to_owned();
    let shell = shell(&env, &url);
    let folder = tempfile::tempdir().expect("a folder");
    let page = sessions::read("docs/operations/incident.md");
    let steps = session(&page, "# Incident");
    assert_eq!(steps.len(), 5, "{steps:#?}");
    for (command, expected) in steps {
        let told = printed(
            &shell,
            &format!("cd {}\n{command}", folder.path().display()),
        );
        assert_eq!(foreseen(&told), foreseen(&expected.expect("an output")));
    }
    env.teardown().await;
}

#[tokio::test]
async fn the_session_of_grants_goes_as_it_is_printed() {
    let env = TestEnv::new().await;
    env.sql(&super::ledger_of_the_examples()).await;
    let url = env.setting("DATABASE__URL").expect("it is set").to_owned();
    let shell = shell(&env, &url).variable("USER", "alice");
    let page = sessions::read("docs/topics/authorization.md");
    let steps = session(&page, "## Grants");
    assert_eq!(steps.len(), 2, "{steps:#?}");
    for (command, expected) in steps {
        let told = printed(&shell, &command);
        assert_eq!(foreseen(&told), foreseen(&expected.expect("an output")));
    }
    env.teardown().await;
}
