//! `make demo`, as it is started on the tests' servers.

use std::path::Path;
use std::process::Command;

use crate::support::Servers;

#[test]
fn the_demo_shows_each_kind_of_request() {
    let servers = Servers::shared();
    let revertd = Path::new(env!("CARGO_BIN_EXE_revertd"));
    let demo = revertd.with_file_name("examples").join("demo");
    let shown = Command::new(demo)
        .env("REVERTD_DATABASE__URL", &servers.database)
        .env("REVERTD_AMQP__URL", &servers.amqp)
        .output()
        .expect("cargo builds the example with the tests");
    let text = String::from_utf8_lossy(&shown.stdout);
    let errors = String::from_utf8_lossy(&shown.stderr);
    assert!(shown.status.success(), "{text}\n{errors}");
    assert!(text.contains("21 requests: 7 reverted"), "{text}");
}
