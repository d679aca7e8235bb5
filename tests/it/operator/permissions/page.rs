//! Runs the blocks of docs/setup/permissions.md that create logins.

use std::collections::BTreeMap;

use crate::support::sessions::{self, PSQL, RABBITMQCTL, Shell};

pub const PATH: &str = "docs/setup/permissions.md";

/// Roles with a block, and whether it creates a role of PostgreSQL and a login of RabbitMQ.
const ROLES: [(&str, bool, bool); 11] = [
    ("migrator", true, false),
    ("worker", true, true),
    ("gateway", false, true),
    ("client", false, true),
    ("submitter", false, true),
    ("consumer", false, true),
    ("subscriber", false, true),
    ("operator", true, false),
    ("clerk", true, true),
    ("auditor", true, false),
    ("republisher", true, true),
];

/// A password that is none of the easy ones.
const PASSWORD: &str = "p/+ %:@\u{e9}";

/// The effects of one block.
pub struct Run {
    /// Statements before the grants.
    created: Vec<String>,
    /// Statements that grant.
    pub grants: Vec<String>,
    /// Commands of `rabbitmqctl`, each a list of words.
    commands: Vec<Vec<String>>,
}

impl Run {
    /// Runs the block of that role, with stand-ins for the servers' programs.
    pub fn of(role: &str) -> Self {
        let block = sessions::marked(&sessions::read(PATH), &format!("permissions: {role}"));
        let shell = Shell::new()
            .stand_in("rabbitmqctl", RABBITMQCTL)
            .stand_in("psql", PSQL)
            .variable("OWNER_URL", "postgres:///billing")
            .variable("password", PASSWORD);
        let output = shell.run(&block);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{role}: {said}");
        let statements = sessions::statements(&shell.record("psql"));
        let (grants, created) = statements
            .into_iter()
            .partition(|statement| statement.starts_with("GRANT "));
        let words = |line: &str| line.split_terminator('\t').map(str::to_owned).collect();
        let commands = shell.record("rabbitmqctl").lines().map(words).collect();
        Self {
            created,
            grants,
            commands,
        }
    }
}

/// The permissions to configure, write and read that each role of config/grants/rabbitmq.sh has.
pub fn sets() -> BTreeMap<String, [String; 3]> {
    let script = sessions::read("config/grants/rabbitmq.sh");
    let label = regex::Regex::new(r"(?m)^  ([a-z-]+)\)").expect("an expression");
    let names = label
        .captures_iter(&script)
        .map(|found| found[1].to_owned());
    names.map(|name| (name.clone(), patterns(&name))).collect()
}

fn patterns(set: &str) -> [String; 3] {
    let shell = Shell::new().stand_in("rabbitmqctl", RABBITMQCTL);
    let output = shell.run(&format!("config/grants/rabbitmq.sh {set} login"));
    assert!(output.status.success(), "{set}");
    let record = shell.record("rabbitmqctl");
    let patterns = record.strip_prefix("set_permissions\t-p\t/\tlogin\t");
    let patterns = patterns.and_then(|rest| rest.strip_suffix("\t\n"));
    let patterns: Vec<_> = patterns.expect("one command").split('\t').collect();
    let patterns: [&str; 3] = patterns.try_into().expect("three patterns");
    patterns.map(str::to_owned)
}

#[test]
fn each_block_creates_its_login_in_either_server() {
    for (role, in_database, in_broker) in ROLES {
        let run = Run::of(role);
        let create = format!("CREATE ROLE {role} LOGIN PASSWORD '{PASSWORD}';");
        let created: Vec<_> = in_database.then_some(create).into_iter().collect();
        assert_eq!(run.created, created, "{role}");
        assert_eq!(!run.grants.is_empty(), in_database, "{role}");
        let whom = format!(" TO {role};");
        let foreign = run.grants.iter().find(|grant| !grant.ends_with(&whom));
        assert_eq!(foreign, None, "{role}");
        let commands: Vec<Vec<String>> = if in_broker {
            let set = &sets()[role];
            let add = ["add_user", role, PASSWORD].map(str::to_owned).to_vec();
            let permit = ["set_permissions", "-p", "/", role].map(str::to_owned);
            vec![add, [&permit[..], &set[..]].concat()]
        } else {
            Vec::new()
        };
        assert_eq!(run.commands, commands, "{role}");
    }
}

#[test]
fn passwords_are_percent_encoded_for_urls() {
    let page = sessions::read(PATH);
    let (_, rest) = page.split_once("## Before you start").expect("the section");
    let blocks = sessions::blocks(rest);
    let script = format!(
        "{}{}printf '%s\\n' \"$REVERTD_AMQP__URL\" \"$REVERTD_DATABASE__URL\"",
        blocks[0].text, blocks[1].text
    );
    // In place of random bytes: characters that mean something in a URL.
    let shell = Shell::new().stand_in("openssl", &format!("echo '{PASSWORD}'"));
    let output = shell.run(&script);
    assert!(output.status.success());
    let printed = String::from_utf8(output.stdout).expect("UTF-8");
    let urls: Vec<_> = printed.lines().collect();
    assert_eq!(urls.len(), 2, "{printed}");
    for url in urls {
        let url = url::Url::parse(url).expect("a URL");
        let password = url.password().expect("a password");
        let password = percent_encoding::percent_decode_str(password).decode_utf8();
        assert_eq!(password.expect("UTF-8"), PASSWORD);
        assert_eq!(url.username(), "worker");
    }
}

#[test]
fn the_page_names_and_shows_every_file_of_rights() {
    let page = sessions::read(PATH);
    let folder = sessions::root().join("config/grants");
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let name = entry.expect("an entry").file_name();
        let name = name.to_str().expect("UTF-8");
        let shown = format!("{{{{#include ../../config/grants/{name}:");
        let (_, rest) = page.split_once(&shown).expect("the file is shown");
        let (first, _) = rest.split_once(":}}").expect("from a line on");
        let first: usize = first.parse().expect("the number of a line");
        let text = sessions::read(&format!("config/grants/{name}"));
        let is_comment = |line: &str| line.starts_with('#') || line.starts_with("--");
        let hidden = text.lines().take(first - 1);
        let hidden: Vec<_> = hidden.filter(|line| !is_comment(line)).collect();
        // Of the script: where its arguments come from.
        let expected = if name == "rabbitmq.sh" { 2 } else { 0 };
        assert_eq!(hidden.len(), expected, "{name} is not shown whole");
        assert!(
            page.contains(&format!("config/grants/{name} ")),
            "{name} is not run"
        );
    }
    for (role, in_database, in_broker) in ROLES {
        let in_server = |is_there: bool| if is_there { "| yes " } else { "| " };
        let row = page
            .lines()
            .find(|line| line.starts_with(&format!("| [`{role}`](")));
        let expected = format!("{}{}|", in_server(in_database), in_server(in_broker));
        assert!(row.is_some_and(|row| row.ends_with(&expected)), "{role}");
    }
    for set in sets().keys() {
        assert!(page.contains(&format!("`{set}`")), "{set} is not named");
    }
}
