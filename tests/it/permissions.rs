//! Each role runs with what the README grants it under Permissions, and with nothing more.

use std::process::Output;

use lapin::options::{BasicConsumeOptions, BasicPublishOptions, ConfirmSelectOptions};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Connection, ConnectionProperties};
use serde_json::{Value, json};
use tempfile::NamedTempFile;
use tokio_postgres::error::SqlState;
use uuid::Uuid;

use super::support::*;

mod letters;
mod topics;

/// The block of the README that stands under that marker, a statement or command a line.
pub fn documented(marker: &str) -> Vec<String> {
    let readme = include_str!("../../README.md");
    let marker = format!("<!-- permissions: {marker} -->\n");
    let (_, after) = readme.split_once(&marker).expect("the marker is there");
    let mut lines = after.lines();
    assert!(lines.next().is_some_and(|line| line.starts_with("```")));
    lines
        .take_while(|line| *line != "```")
        .map(str::to_owned)
        .collect()
}

/// The org of the README's examples.
const DOCUMENTED_ORG: &str = "0a000000-0000-4000-8000-000000000001";

/// A role of the database, with a password and nothing else.
pub struct Role {
    pub name: String,
    pub url: String,
}

impl Role {
    pub async fn new(stage: &Stage, kind: &str, database: &str) -> Self {
        let name = format!("{}_{kind}", stage.database);
        let password = Uuid::new_v4();
        stage
            .sql(&format!("CREATE ROLE {name} LOGIN PASSWORD '{password}'"))
            .await;
        let mut url = url::Url::parse(&stage.servers.database).expect("a URL");
        url.set_username(&name).expect("a user");
        url.set_password(Some(&password.to_string()))
            .expect("a password");
        url.set_path(database);
        Self {
            name,
            url: url.to_string(),
        }
    }

    /// One with what the worker is documented to need.
    pub async fn worker(stage: &Stage) -> Self {
        let role = Self::new(stage, "worker", &stage.database).await;
        for statement in documented("worker") {
            let statement = role.own(&statement, "worker", &stage.database);
            stage.sql(&statement).await;
        }
        role
    }

    /// A documented statement for this role, which is called `kind` there.
    pub fn own(&self, statement: &str, kind: &str, database: &str) -> String {
        statement
            .replace(&format!(" TO {kind};"), &format!(" TO {};", self.name))
            .replace("DATABASE billing", &format!("DATABASE {database}"))
    }
}

fn run(stage: &Stage, role: &Role, arguments: &[&str]) -> Output {
    let mut command = stage.command(arguments);
    command.env("REVERTD_DATABASE__URL", &role.url);
    command.output().expect("runs")
}

pub async fn drop_role(stage: &Stage, role: &Role) {
    let name = &role.name;
    stage
        .sql(&format!("DROP OWNED BY {name}; DROP ROLE {name}"))
        .await;
}

#[tokio::test]
async fn the_migrator_needs_what_the_readme_says() {
    let stage = Stage::new().await;
    let database = format!("{}_m", stage.database);
    stage.sql(&format!("CREATE DATABASE {database}")).await;
    let role = Role::new(&stage, "migrator", &database).await;
    let output = run(&stage, &role, &["migrate"]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        !output.status.success() && said.contains("GRANT "),
        "{said}"
    );
    let admin = connect_db(&with_database(&stage.servers.database, &database)).await;
    for statement in documented("migrator") {
        let statement = role.own(&statement, "migrator", &database);
        admin.batch_execute(&statement).await.expect("granted");
    }
    for _ in 0..2 {
        let output = run(&stage, &role, &["migrate"]);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{said}");
    }
    drop(admin);
    stage
        .sql(&format!("DROP DATABASE {database} WITH (FORCE)"))
        .await;
    drop_role(&stage, &role).await;
    stage.strike().await;
}

#[tokio::test]
async fn a_worker_needs_every_one_of_its_grants() {
    let mut stage = Stage::new().await;
    stage.set("DATABASE__MIGRATE_ON_START", "false");
    let all = documented("worker");
    assert!(all.len() > 5, "{all:?}");
    for missing in &all {
        let role = Role::new(&stage, "worker", &stage.database).await;
        for statement in all.iter().filter(|statement| *statement != missing) {
            stage
                .sql(&role.own(statement, "worker", &stage.database))
                .await;
        }
        let output = run(&stage, &role, &["worker"]);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "without {missing}: {said}");
        assert!(said.contains("GRANT "), "without {missing}: {said}");
        drop_role(&stage, &role).await;
    }
    stage.strike().await;
}

/// Reverts that a policy hides would be given once more.
#[tokio::test]
async fn a_worker_from_whom_rows_are_hidden_does_not_start() {
    let mut stage = Stage::new().await;
    stage.set("DATABASE__MIGRATE_ON_START", "false");
    let role = Role::worker(&stage).await;
    stage
        .sql(
            "ALTER TABLE billing_transactions ENABLE ROW LEVEL SECURITY;
             CREATE POLICY seen ON billing_transactions FOR SELECT USING (NOT metadata ? 'revert_request_using');
             CREATE POLICY added ON billing_transactions FOR INSERT WITH CHECK (true)",
        )
        .await;
    for command in ["worker", "doctor"] {
        let output = run(&stage, &role, &[command]);
        let text = [output.stdout, output.stderr].concat();
        let text = String::from_utf8_lossy(&text);
        assert_eq!(output.status.code(), Some(1), "{text}");
        assert!(text.contains("row-level security"), "{text}");
    }
    drop_role(&stage, &role).await;
    stage.strike().await;
}

#[tokio::test]
async fn an_operator_grants_and_can_do_nothing_else() {
    let stage = Stage::new().await;
    let role = Role::new(&stage, "operator", &stage.database).await;
    for statement in documented("operator") {
        let statement = statement.split("--").next().unwrap_or_default().trim();
        stage
            .sql(&role.own(statement, "operator", &stage.database))
            .await;
    }
    let org = stage.org().await.to_string();
    for arguments in [
        &["grants", "add", "render", &org][..],
        &["grants", "add", "render", "*"],
        &["grants", "remove", "render", "*"],
        &["pause", "--why", "a look at the ledger"],
        &["resume"],
    ] {
        let output = run(&stage, &role, arguments);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {said}");
        assert!(!said.contains("no such org"), "{arguments:?}: {said}");
    }
    let listed = run(&stage, &role, &["grants", "list", "--output", "json"]);
    let listed: serde_json::Value = serde_json::from_slice(&listed.stdout).expect("JSON");
    assert_eq!(listed[0]["org"], json!(org));
    assert_eq!(listed[0]["granted_as"], json!(role.name));
    let db = connect_db(&role.url).await;
    for statement in [
        "UPDATE revertd.grants SET granted_by = 'somebody else'",
        "INSERT INTO revertd.grants (client, granted_by, granted_as) VALUES ('x', 'y', 'z')",
        "INSERT INTO revertd.grants (client, granted_by, granted_at) VALUES ('x', 'y', now())",
        "INSERT INTO revertd.control (paused, changed_by, changed_as) VALUES (false, 'y', 'z')",
        "UPDATE revertd.control SET paused = true",
        "DELETE FROM revertd.control",
        "SELECT FROM revertd.outcomes",
        "SELECT FROM billing_transactions",
        "SELECT name FROM organizations",
    ] {
        assert!(is_forbidden(&db, statement).await, "{statement}");
    }
    drop(db);
    drop_role(&stage, &role).await;
    stage.strike().await;
}

#[tokio::test]
async fn an_auditor_needs_every_one_of_its_grants_and_can_only_read() {
    let stage = Stage::new().await;
    let all = documented("auditor");
    assert!(all.len() > 3, "{all:?}");
    for missing in all.iter().map(Some).chain([None]) {
        let role = Role::new(&stage, "auditor", &stage.database).await;
        for statement in all.iter().filter(|statement| Some(*statement) != missing) {
            stage
                .sql(&role.own(statement, "auditor", &stage.database))
                .await;
        }
        let output = run(&stage, &role, &["verify"]);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(
            output.status.success(),
            missing.is_none(),
            "without {missing:?}: {said}"
        );
        assert!(
            missing.is_none() || said.contains("GRANT "),
            "without {missing:?}: {said}"
        );
        let db = connect_db(&role.url).await;
        for statement in [
            "UPDATE revertd.outcomes SET amount = 1",
            "DELETE FROM billing_transactions",
            "INSERT INTO billing_transactions (amount) VALUES (1)",
            "SELECT FROM revertd.grants",
            "SELECT email FROM billing_customers",
        ] {
            assert!(is_forbidden(&db, statement).await, "{statement}");
        }
        drop(db);
        drop_role(&stage, &role).await;
    }
    stage.strike().await;
}

async fn is_forbidden(db: &tokio_postgres::Client, statement: &str) -> bool {
    let done = db.batch_execute(statement).await;
    done.is_err_and(|error| error.code() == Some(&SqlState::INSUFFICIENT_PRIVILEGE))
}

/// A virtual host of its own, where every name is the default one, with the documented logins.
struct Host {
    instance: String,
    name: String,
    users: Vec<(String, String)>,
}

impl Host {
    fn new() -> Self {
        Self::confined_to(Uuid::nil())
    }

    /// The same; the login that is documented to see the events of one org sees those of this one.
    fn confined_to(org: Uuid) -> Self {
        let instance = std::env::var("REVERTD_TEST_INSTANCE").unwrap_or_else(|_| "dev".into());
        let name = format!("t-{}", Uuid::new_v4().simple());
        let permissions: Vec<_> = documented("rabbitmq")
            .iter()
            .map(|command| {
                let rest = command.strip_prefix("rabbitmqctl set_permissions -p / ");
                let (user, patterns) = rest.and_then(|rest| rest.split_once(' ')).expect("a user");
                let patterns: Vec<_> = patterns
                    .split(' ')
                    .map(|text| text.trim_matches('\''))
                    .collect();
                json!({
                    "vhost": name, "user": format!("{name}-{user}"),
                    "configure": patterns[0], "write": patterns[1], "read": patterns[2],
                })
            })
            .collect();
        let users: Vec<_> = permissions
            .iter()
            .map(|user| {
                let user = user["user"].as_str().expect("text").to_owned();
                (user, Uuid::new_v4().to_string())
            })
            .collect();
        let logins: Vec<_> = users
            .iter()
            .map(|(name, password)| json!({"name": name, "password": password, "tags": ""}))
            .collect();
        let file = NamedTempFile::with_suffix(".json").expect("a file");
        let definitions = json!({"vhosts": [{"name": name}], "users": logins,
            "permissions": permissions, "topic_permissions": topics(&name, org)});
        std::fs::write(file.path(), definitions.to_string()).expect("written");
        let readable = std::os::unix::fs::PermissionsExt::from_mode(0o644);
        std::fs::set_permissions(file.path(), readable).expect("shown");
        let path = file.path().to_str().expect("UTF-8");
        manage(&["ctl", &instance, "import_definitions", path]);
        Self {
            instance,
            name,
            users,
        }
    }

    fn url(&self, stage: &Stage, user: &str) -> String {
        let name = format!("{}-{user}", self.name);
        let found = self.users.iter().find(|(user, _)| *user == name);
        let (_, password) = found.expect("a documented login");
        let mut url = url::Url::parse(&stage.servers.amqp).expect("a URL");
        url.set_username(&name).expect("a user");
        url.set_password(Some(password)).expect("a password");
        url.set_path(&self.name);
        url.to_string()
    }

    fn remove(&self) {
        let users: Vec<_> = self
            .users
            .iter()
            .map(|(user, _)| format!("<<\"{user}\">>"))
            .collect();
        let erlang = format!(
            "rabbit_vhost:delete(<<\"{}\">>, <<\"test\">>), \
             [rabbit_auth_backend_internal:delete_user(U, <<\"test\">>) || U <- [{}]], ok.",
            self.name,
            users.join(", ")
        );
        manage(&["ctl", &self.instance, "eval", &erlang]);
    }
}

/// The documented permissions on routing keys, of `org` instead of the documented one.
fn topics(host: &str, org: Uuid) -> Vec<Value> {
    let commands = documented("rabbitmq topics");
    let topic = |command: &String| {
        let rest = command.strip_prefix("rabbitmqctl set_topic_permissions -p / ");
        let words: Vec<_> = rest.expect("a command").split(' ').collect();
        let [user, exchange, write, read] = words[..] else {
            panic!("{command}");
        };
        let pattern = |text: &str| {
            text.trim_matches('\'')
                .replace(DOCUMENTED_ORG, &org.to_string())
        };
        json!({"vhost": host, "user": format!("{host}-{user}"), "exchange": exchange,
            "write": pattern(write), "read": pattern(read)})
    };
    commands.iter().map(topic).collect()
}

/// The program with default names, in that host, as those two roles.
fn program(stage: &Stage, database: &str, amqp: &str, arguments: &[&str]) -> Program {
    let mut command = stage.command(arguments);
    for (name, _) in stage.environment() {
        if name.starts_with("REVERTD_TOPOLOGY__") || name == "REVERTD_AUTHORIZATION__MODE" {
            command.env_remove(name);
        }
    }
    command
        .env("REVERTD_DATABASE__URL", database)
        .env("REVERTD_DATABASE__MIGRATE_ON_START", "false")
        .env("REVERTD_AMQP__URL", amqp);
    command
}

#[tokio::test]
async fn worker_and_submitter_need_what_the_readme_says_and_the_worker_can_only_add() {
    let stage = Stage::new().await;
    let host = Host::new();
    let role = Role::worker(&stage).await;
    let customer = stage.customer().await;
    let usage = stage.usage(customer.account, 20).await;
    let submitter = host.url(&stage, "submitter");
    let login = format!("{}-submitter", host.name);
    stage
        .sql(&format!(
            "INSERT INTO revertd.grants (client, org_id, granted_by) VALUES ('{login}', '{}', 'test')",
            customer.org
        ))
        .await;
    let mut worker = WorkerProcess::spawn(program(
        &stage,
        &role.url,
        &host.url(&stage, "worker"),
        &["worker"],
    ));
    worker.ready().await;
    let submit = |usage: Uuid| {
        let body = json!({"billing_id": customer.account, "usage_id": usage, "amount": 20});
        let arguments = ["submit", "--body", &body.to_string()];
        program(
            &stage,
            "postgres://nobody@nowhere/x",
            &submitter,
            &arguments,
        )
        .output()
        .expect("runs")
    };
    let output = submit(usage);
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "{told}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    // A rung and a dead letter are within the permissions too.
    let output = submit(Uuid::new_v4());
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(told.contains("USAGE_NOT_FOUND"), "{told}");
    let rubbish = ["submit", "--body", "rubbish"];
    let output = program(&stage, &role.url, &submitter, &rubbish)
        .output()
        .expect("runs");
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(told.contains("MALFORMED_REQUEST"), "{told}");
    assert!(worker.stop().await.success(), "{}", worker.log());
    // Without declaring anything.
    let mut command = program(
        &stage,
        &role.url,
        &host.url(&stage, "worker-nodeclare"),
        &["worker"],
    );
    command.env("REVERTD_TOPOLOGY__DECLARE", "false");
    let mut worker = WorkerProcess::spawn(command);
    worker.ready().await;
    let usage = stage.usage(customer.account, 20).await;
    assert!(submit(usage).status.success(), "{}", worker.log());
    assert!(worker.stop().await.success(), "{}", worker.log());

    let db = connect_db(&role.url).await;
    for statement in [
        "UPDATE revertd.outcomes SET amount = 1",
        "DELETE FROM revertd.outcomes",
        "TRUNCATE revertd.outcomes",
        "UPDATE billing_transactions SET amount = 1",
        "DELETE FROM billing_transactions",
        "TRUNCATE billing_transactions",
        "INSERT INTO revertd.grants (client, granted_by) VALUES ('x', 'y')",
        "UPDATE revertd.grants SET client = 'x'",
        "DELETE FROM revertd.grants",
        "INSERT INTO revertd.control (paused, changed_by) VALUES (false, 'y')",
        "DELETE FROM revertd.control",
        "SELECT granted_by FROM revertd.grants",
        "UPDATE organizations SET name = 'x'",
        "SELECT email FROM billing_customers",
        "ALTER TABLE revertd.outcomes DISABLE TRIGGER ALL",
        "CREATE TABLE revertd.x ()",
    ] {
        let done = db.batch_execute(statement).await;
        let code = done.expect_err(statement).code().cloned();
        assert_eq!(code, Some(SqlState::INSUFFICIENT_PRIVILEGE), "{statement}");
    }
    drop(db);

    a_republisher_only_tells_again(&stage, &host).await;
    only_what_is_granted(&stage, &host).await;
    drop_role(&stage, &role).await;
    host.remove();
    stage.strike().await;
}

async fn a_republisher_only_tells_again(stage: &Stage, host: &Host) {
    let teller = Role::new(stage, "republisher", &stage.database).await;
    for statement in documented("republisher") {
        let statement = teller.own(&statement, "republisher", &stage.database);
        stage.sql(&statement).await;
    }
    let republish = ["events", "republish", "--yes"];
    let amqp = host.url(stage, "republisher");
    let output = program(stage, &teller.url, &amqp, &republish).output();
    let output = output.expect("runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let db = connect_db(&teller.url).await;
    for statement in [
        "SELECT FROM billing_transactions",
        "DELETE FROM revertd.outcomes",
    ] {
        assert!(is_forbidden(&db, statement).await, "{statement}");
    }
    drop(db);
    drop_role(stage, &teller).await;
}

/// A client can publish requests, and neither read nor write anything else; a consumer can only
/// read the events.
async fn only_what_is_granted(stage: &Stage, host: &Host) {
    for (user, exchange, may) in [
        ("client", "usage.reverts", true),
        ("client", "usage.reverts.replies", false),
        ("client", "usage.reverts.dead", false),
        ("client", "", false),
        ("consumer", "usage.reverts", false),
        ("gateway", "usage.reverts", false),
        ("republisher", "usage.reverts", false),
    ] {
        let connection = login(&host.url(stage, user)).await;
        let channel = connection.create_channel().await.expect("a channel");
        let confirm = ConfirmSelectOptions { nowait: false };
        channel.confirm_select(confirm).await.expect("confirms");
        let publishing = channel.basic_publish(
            exchange.into(),
            "usage.reverts".into(),
            BasicPublishOptions::default(),
            b"{}",
            BasicProperties::default(),
        );
        let confirmed = publishing.await.expect("written").await;
        assert_eq!(confirmed.is_ok(), may, "{user} to {exchange:?}");
    }
    for (user, queue, may) in [
        ("consumer", "usage.reverts.events", true),
        ("subscriber", "usage.reverts.events", false),
        ("consumer", "usage.reverts", false),
        ("consumer", "usage.reverts.denied", false),
        ("client", "usage.reverts.events", false),
        ("client", "usage.reverts.dead", false),
        ("gateway", "usage.reverts.events", false),
    ] {
        let connection = login(&host.url(stage, user)).await;
        let channel = connection.create_channel().await.expect("a channel");
        let options = BasicConsumeOptions::default();
        let consuming =
            channel.basic_consume(queue.into(), "".into(), options, FieldTable::default());
        assert_eq!(consuming.await.is_ok(), may, "{user} of {queue}");
    }
}

async fn login(url: &str) -> Connection {
    let properties = ConnectionProperties::default().with_connection_name("revertd test".into());
    Connection::connect(url, properties)
        .await
        .expect("RabbitMQ")
}
