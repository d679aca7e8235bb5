//! Each role runs with the rights that docs/setup/permissions.md gives it, and with no others.

use std::process::Output;

use lapin::options::{BasicConsumeOptions, BasicPublishOptions, ConfirmSelectOptions};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Connection, ConnectionProperties};
use serde_json::{Value, json};
use tempfile::NamedTempFile;
use tokio_postgres::error::SqlState;
use uuid::Uuid;

use crate::support::sessions::{self, Shell};
use crate::support::*;

mod letters;
pub mod page;
mod topics;

/// The grants of a role in the database, as the block of the page has them, a statement each.
pub fn documented(role: &str) -> Vec<String> {
    page::Run::of(role).grants
}

/// The org of the documents' examples.
const DOCUMENTED_ORG: &str = "0a000000-0000-4000-8000-000000000001";

/// A role of the database, with a password and nothing else.
pub struct Role {
    pub name: String,
    pub url: String,
}

impl Role {
    pub async fn new(env: &TestEnv, kind: &str, database: &str) -> Self {
        let name = format!("{}_{kind}", env.database);
        let password = Uuid::new_v4();
        env.sql(&format!("CREATE ROLE {name} LOGIN PASSWORD '{password}'"))
            .await;
        let mut url = url::Url::parse(&env.servers.database).expect("a URL");
        url.set_username(&name).expect("a user");
        url.set_password(Some(&password.to_string()))
            .expect("a password");
        url.set_path(database);
        Self {
            name,
            url: url.to_string(),
        }
    }

    /// A role with the documented privileges of the worker.
    pub async fn worker(env: &TestEnv) -> Self {
        let role = Self::new(env, "worker", &env.database).await;
        for statement in documented("worker") {
            let statement = role.own(&statement, "worker", &env.database);
            env.sql(&statement).await;
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

fn run(env: &TestEnv, role: &Role, arguments: &[&str]) -> Output {
    let mut command = env.command(arguments);
    command.env("REVERTD_DATABASE__URL", &role.url);
    command.output().expect("runs")
}

pub async fn drop_role(env: &TestEnv, role: &Role) {
    let name = &role.name;
    env.sql(&format!("DROP OWNED BY {name}; DROP ROLE {name}"))
        .await;
}

#[tokio::test]
async fn the_migrator_needs_the_documented_grants() {
    let env = TestEnv::new().await;
    let database = format!("{}_m", env.database);
    env.sql(&format!("CREATE DATABASE {database}")).await;
    let role = Role::new(&env, "migrator", &database).await;
    let output = run(&env, &role, &["migrate"]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        !output.status.success() && said.contains("GRANT "),
        "{said}"
    );
    let admin = connect_db(&with_database(&env.servers.database, &database)).await;
    for statement in documented("migrator") {
        let statement = role.own(&statement, "migrator", &database);
        admin.batch_execute(&statement).await.expect("granted");
    }
    for _ in 0..2 {
        let output = run(&env, &role, &["migrate"]);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{said}");
    }
    drop(admin);
    env.sql(&format!("DROP DATABASE {database} WITH (FORCE)"))
        .await;
    drop_role(&env, &role).await;
    env.teardown().await;
}

#[tokio::test]
async fn a_worker_needs_every_one_of_its_grants() {
    let mut env = TestEnv::new().await;
    env.set("DATABASE__MIGRATE_ON_START", "false");
    let all = documented("worker");
    assert!(all.len() > 5, "{all:?}");
    for missing in &all {
        let role = Role::new(&env, "worker", &env.database).await;
        for statement in all.iter().filter(|statement| *statement != missing) {
            env.sql(&role.own(statement, "worker", &env.database)).await;
        }
        let output = run(&env, &role, &["worker"]);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "without {missing}: {said}");
        assert!(said.contains("GRANT "), "without {missing}: {said}");
        drop_role(&env, &role).await;
    }
    env.teardown().await;
}

/// Reverts that a policy hides would be given once more.
#[tokio::test]
async fn a_worker_under_row_security_does_not_start() {
    let mut env = TestEnv::new().await;
    env.set("DATABASE__MIGRATE_ON_START", "false");
    let role = Role::worker(&env).await;
    env.sql(
        "ALTER TABLE billing_transactions ENABLE ROW LEVEL SECURITY;
             CREATE POLICY seen ON billing_transactions FOR SELECT
                 USING (NOT metadata ? 'revert_request_using');
             CREATE POLICY added ON billing_transactions FOR INSERT WITH CHECK (true)",
    )
    .await;
    for command in ["worker", "doctor"] {
        let output = run(&env, &role, &[command]);
        let text = [output.stdout, output.stderr].concat();
        let text = String::from_utf8_lossy(&text);
        assert_eq!(output.status.code(), Some(1), "{text}");
        assert!(text.contains("row-level security"), "{text}");
    }
    drop_role(&env, &role).await;
    env.teardown().await;
}

#[tokio::test]
async fn an_operator_can_grant_and_nothing_else() {
    let env = TestEnv::new().await;
    let role = Role::new(&env, "operator", &env.database).await;
    for statement in documented("operator") {
        env.sql(&role.own(&statement, "operator", &env.database))
            .await;
    }
    let org = env.org().await.to_string();
    for arguments in [
        &["grants", "add", "render", &org][..],
        &["grants", "add", "render", "*"],
        &["grants", "remove", "render", "*"],
        &["pause", "--why", "a look at the ledger"],
        &["resume"],
    ] {
        let output = run(&env, &role, arguments);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {said}");
        assert!(!said.contains("no such org"), "{arguments:?}: {said}");
    }
    let listed = run(&env, &role, &["grants", "list", "--output", "json"]);
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
    drop_role(&env, &role).await;
    env.teardown().await;
}

#[tokio::test]
async fn an_auditor_needs_its_grants_and_can_only_read() {
    let env = TestEnv::new().await;
    let all = documented("auditor");
    assert!(all.len() > 3, "{all:?}");
    let org = env.org().await.to_string();
    for missing in all.iter().map(Some).chain([None]) {
        let role = Role::new(&env, "auditor", &env.database).await;
        for statement in all.iter().filter(|statement| Some(*statement) != missing) {
            env.sql(&role.own(statement, "auditor", &env.database))
                .await;
        }
        let outputs = [&["verify"][..], &["usages", "--org", &org]].map(|command| {
            let output = run(&env, &role, command);
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert_eq!(
                output.status.success(),
                !said.contains("GRANT "),
                "without {missing:?}: {said}"
            );
            output.status.success()
        });
        let all_succeed = outputs.iter().all(|success| *success);
        assert_eq!(all_succeed, missing.is_none(), "without {missing:?}");
        let db = connect_db(&role.url).await;
        for statement in [
            "UPDATE revertd.outcomes SET amount = 1",
            "DELETE FROM billing_transactions",
            "INSERT INTO billing_transactions (amount) VALUES (1)",
            "SELECT FROM revertd.grants",
            "SELECT email FROM billing_customers",
            "SELECT title FROM organizations",
        ] {
            assert!(is_forbidden(&db, statement).await, "{statement}");
        }
        drop(db);
        drop_role(&env, &role).await;
    }
    env.teardown().await;
}

async fn is_forbidden(db: &tokio_postgres::Client, statement: &str) -> bool {
    let done = db.batch_execute(statement).await;
    done.is_err_and(|error| error.code() == Some(&SqlState::INSUFFICIENT_PRIVILEGE))
}

/// A virtual host of its own, with default names and the documented logins.
pub struct Host {
    instance: String,
    name: String,
    users: Vec<(String, String)>,
}

impl Host {
    pub fn new() -> Self {
        Self::confined_to(Uuid::nil())
    }

    /// The same; the login that is documented to see the events of one org sees those of this one.
    fn confined_to(org: Uuid) -> Self {
        let instance = std::env::var("REVERTD_TEST_INSTANCE").unwrap_or_else(|_| "dev".into());
        let name = format!("t-{}", Uuid::new_v4().simple());
        let mut host = Self {
            instance,
            name,
            users: Vec::new(),
        };
        let (mut users, mut permissions) = (Vec::new(), Vec::new());
        for (set, [configure, write, read]) in page::sets() {
            let (user, password) = (host.user(&set), Uuid::new_v4().to_string());
            permissions.push(json!({"vhost": host.name, "user": user,
                "configure": configure, "write": write, "read": read}));
            users.push((user, password));
        }
        host.define(&users, &json!(permissions), &json!(topics(&host.name, org)));
        host
    }

    /// The user that stands for a documented login. Users are common to all virtual hosts.
    pub fn user(&self, login: &str) -> String {
        format!("{}-{login}", self.name)
    }

    /// Carries out the commands of `rabbitmqctl` that the stand-in recorded.
    pub fn import(&mut self, record: &str) {
        let (mut users, mut permissions) = (Vec::new(), Vec::new());
        for command in record.lines() {
            let words: Vec<_> = command.split_terminator('\t').collect();
            match words[..] {
                ["add_user", user, password] => users.push((user.to_owned(), password.to_owned())),
                ["set_permissions", "-p", "/", user, configure, write, read] => {
                    permissions.push(json!({"vhost": self.name, "user": user,
                        "configure": configure, "write": write, "read": read}));
                }
                _ => panic!("{command}"),
            }
        }
        self.define(&users, &json!(permissions), &json!([]));
    }

    fn define(&mut self, users: &[(String, String)], permissions: &Value, topics: &Value) {
        let logins: Vec<_> = users
            .iter()
            .map(|(name, password)| json!({"name": name, "password": password, "tags": ""}))
            .collect();
        let file = NamedTempFile::with_suffix(".json").expect("a file");
        let definitions = json!({"vhosts": [{"name": self.name}], "users": logins,
            "permissions": permissions, "topic_permissions": topics});
        std::fs::write(file.path(), definitions.to_string()).expect("written");
        let readable = std::os::unix::fs::PermissionsExt::from_mode(0o644);
        std::fs::set_permissions(file.path(), readable).expect("shown");
        let path = file.path().to_str().expect("UTF-8");
        manage(&["ctl", &self.instance, "import_definitions", path]);
        self.users.extend_from_slice(users);
    }

    pub fn url(&self, env: &TestEnv, user: &str) -> String {
        let name = self.user(user);
        let found = self.users.iter().find(|(user, _)| *user == name);
        let (_, password) = found.expect("a documented login");
        let mut url = url::Url::parse(&env.servers.amqp).expect("a URL");
        url.set_username(&name).expect("a user");
        url.set_password(Some(password)).expect("a password");
        url.set_path(&self.name);
        url.to_string()
    }

    pub fn remove(&self) {
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
    let page = sessions::read(page::PATH);
    let shell = Shell::new().stand_in("rabbitmqctl", sessions::RABBITMQCTL);
    let block = sessions::marked(&page, "permissions: rabbitmq topics");
    assert!(shell.run(&block).status.success(), "{block}");
    let record = shell.record("rabbitmqctl");
    let topic = |command: &str| {
        let rest = command.strip_prefix("set_topic_permissions\t-p\t/\t");
        let words: Vec<_> = rest.expect("a command").split_terminator('\t').collect();
        let [user, exchange, write, read] = words[..] else {
            panic!("{command}");
        };
        let pattern = |text: &str| text.replace(DOCUMENTED_ORG, &org.to_string());
        json!({"vhost": host, "user": format!("{host}-{user}"), "exchange": exchange,
            "write": pattern(write), "read": pattern(read)})
    };
    record.lines().map(topic).collect()
}

/// The program with default names, in that host, as those two roles.
pub fn program(env: &TestEnv, database: &str, amqp: &str, arguments: &[&str]) -> Program {
    let mut command = env.command(arguments);
    for (name, _) in env.environment() {
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
async fn worker_and_submitter_need_the_documented_grants() {
    let env = TestEnv::new().await;
    let host = Host::new();
    let role = Role::worker(&env).await;
    let customer = env.customer().await;
    let usage = env.usage(customer.account, 20).await;
    let submitter = host.url(&env, "submitter");
    let login = format!("{}-submitter", host.name);
    env.sql(&format!(
        "INSERT INTO revertd.grants (client, org_id, granted_by) VALUES ('{login}', '{}', 'test')",
        customer.org
    ))
    .await;
    let mut worker = WorkerProcess::spawn(program(
        &env,
        &role.url,
        &host.url(&env, "worker"),
        &["worker"],
    ));
    worker.ready().await;
    let submit = |usage: Uuid| {
        let body = json!({"billing_id": customer.account, "usage_id": usage, "amount": 20});
        let arguments = ["submit", "--body", &body.to_string()];
        program(&env, "postgres://nobody@nowhere/x", &submitter, &arguments)
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
    let output = program(&env, &role.url, &submitter, &rubbish)
        .output()
        .expect("runs");
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(told.contains("MALFORMED_REQUEST"), "{told}");
    assert!(worker.stop().await.success(), "{}", worker.log());
    // Without declaring anything.
    let mut command = program(
        &env,
        &role.url,
        &host.url(&env, "worker-nodeclare"),
        &["worker"],
    );
    command.env("REVERTD_TOPOLOGY__DECLARE", "false");
    let mut worker = WorkerProcess::spawn(command);
    worker.ready().await;
    let usage = env.usage(customer.account, 20).await;
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

    a_republisher_only_tells_again(&env, &host).await;
    only_what_is_granted(&env, &host).await;
    drop_role(&env, &role).await;
    host.remove();
    env.teardown().await;
}

async fn a_republisher_only_tells_again(env: &TestEnv, host: &Host) {
    let teller = Role::new(env, "republisher", &env.database).await;
    for statement in documented("republisher") {
        let statement = teller.own(&statement, "republisher", &env.database);
        env.sql(&statement).await;
    }
    let republish = ["events", "republish", "--yes"];
    let amqp = host.url(env, "republisher");
    let output = program(env, &teller.url, &amqp, &republish).output();
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
    drop_role(env, &teller).await;
}

/// A client can publish requests, and neither read nor write anything else; a consumer can only
/// read the events.
async fn only_what_is_granted(env: &TestEnv, host: &Host) {
    for (user, exchange, may) in [
        ("client", "usage.reverts", true),
        ("client", "usage.reverts.replies", false),
        ("client", "usage.reverts.dead", false),
        ("client", "", false),
        ("consumer", "usage.reverts", false),
        ("gateway", "usage.reverts", false),
        ("republisher", "usage.reverts", false),
    ] {
        let connection = login(&host.url(env, user)).await;
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
        let connection = login(&host.url(env, user)).await;
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
