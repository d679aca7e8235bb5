//! The session of docs/setup/deployment.md that installs the units, run below a folder of its own.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::host::{GATEWAY, WORKER, values};
use crate::support::sessions::{self, Shell};
use crate::support::{TestEnv, program};

const PAGE: &str = "docs/setup/deployment.md";

/// An editor that acts as an administrator: it inserts the addresses of the servers, and moves the
/// password files below the folder.
fn editor(env: &TestEnv, folder: &str) -> String {
    let servers = &env.servers;
    let own = |url: &str, database: Option<&str>| {
        let mut url = url::Url::parse(url).expect("a URL");
        url.set_password(None).expect("a URL that may have one");
        if let Some(database) = database {
            url.set_path(database);
        }
        url.to_string()
    };
    let (amqp, database) = (
        own(&servers.amqp, None),
        own(&servers.database, Some(&env.database)),
    );
    format!(
        "sed -i -e 's#\"amqps:[^\"]*\"#\"{amqp}\"#' -e 's#\"postgres:[^\"]*\"#\"{database}\"#' \
         -e 's#/etc/revertd/#{folder}/etc/revertd/#' \"$@\""
    )
}

/// Asks for a password, and gets that of the server it names.
fn ask(env: &TestEnv) -> String {
    let password = |url: &str| {
        let url = url::Url::parse(url).expect("a URL");
        let password = percent_encoding::percent_decode_str(url.password().expect("a password"));
        password.decode_utf8().expect("UTF-8").into_owned()
    };
    format!(
        "case $2 in RabbitMQ,*) echo '{}' ;; PostgreSQL,*) echo '{}' ;; *) exit 1 ;; esac",
        password(&env.servers.amqp),
        password(&env.servers.database)
    )
}

fn mode(path: &Path) -> u32 {
    let metadata = std::fs::metadata(path);
    let metadata = metadata.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    metadata.permissions().mode() & 0o7777
}

/// systemd and curl are stand-ins: nothing is enabled, and no unit runs.
#[tokio::test]
async fn the_systemd_session_installs_what_the_page_says() {
    let mut env = TestEnv::new().await;
    env.set("AUTHORIZATION__MODE", "grants");
    let page = sessions::read(PAGE);
    let target = tempfile::tempdir().expect("a folder");
    let folder = target.path().to_str().expect("UTF-8");
    let etc = target.path().join("etc");
    for below in ["usr/bin", "etc/systemd/system"] {
        std::fs::create_dir_all(target.path().join(below)).expect("made");
    }
    let binary = program::binary();
    let block = sessions::marked(&page, "session: systemd")
        .replace("target/release/revertd", binary.to_str().expect("UTF-8"))
        .replace("/usr/bin/revertd", &format!("{folder}/usr/bin/revertd"))
        .replace("/etc/", &format!("{folder}/etc/"));
    let record = "echo \"$@\" >>\"$RECORDS/${0##*/}\"";
    let mut shell = Shell::new()
        .stand_in("systemctl", record)
        .stand_in("curl", record)
        .stand_in("editor", &editor(&env, folder))
        .stand_in("systemd-ask-password", &ask(&env));
    // Names of this env alone, on servers that other tests use, too.
    for (name, value) in env.environment() {
        if name.starts_with("REVERTD_TOPOLOGY__") {
            shell = shell.variable(&name, &value);
        }
    }
    let output = shell.run(&block);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{printed}{said}");
    assert!(
        printed.contains(", 0 errors") || !printed.contains("ERROR"),
        "{printed}"
    );

    // The table below the session says which files there are, and their modes.
    let rows = page.lines().filter_map(|line| {
        let cells: Vec<_> = line.strip_prefix("| `")?.split(" | ").collect();
        Some((
            cells[0].to_owned(),
            u32::from_str_radix(cells.get(1)?, 8).ok()?,
        ))
    });
    let mut files = 0;
    for (names, expected) in rows {
        for name in names.split(", ").map(|name| name.trim_matches('`')) {
            assert_eq!(mode(&etc.join("revertd").join(name)), expected, "{name}");
            files += 1;
        }
    }
    assert_eq!(files, 7, "three configurations and four passwords");
    for role in ["worker", "gateway", "migrator"] {
        assert_eq!(mode(&etc.join("revertd").join(role)), 0o700, "{role}");
    }

    let enabled = shell.record("systemctl");
    assert!(
        enabled.ends_with("enable --now revertd-worker revertd-gateway\n"),
        "{enabled}"
    );
    for (name, unit) in [("revertd-worker", WORKER), ("revertd-gateway", GATEWAY)] {
        let installed = etc.join("systemd/system").join(format!("{name}.service"));
        assert_eq!(
            std::fs::read_to_string(installed).expect("it is there"),
            unit
        );
        assert_eq!(values(unit, "WantedBy"), ["multi-user.target"]);
        let set = values(unit, "Environment");
        let listen = set
            .iter()
            .find_map(|set| set.strip_prefix("REVERTD_TELEMETRY__LISTEN="));
        let asked = format!("http://{}/readyz", listen.expect("an address"));
        assert!(shell.record("curl").contains(&asked), "{asked}");
    }
    env.teardown().await;
}
