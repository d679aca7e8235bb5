//! `revertd grants`: add, remove and list.

use serde_json::{Value, json};
use uuid::Uuid;

use super::setup::*;
use crate::support::*;

#[tokio::test]
async fn the_grants_command_prints_its_effect() {
    let env = TestEnv::new().await;
    let customer = env.customer().await;
    let org = customer.org.to_string();
    assert_eq!(
        grants(&env, &["list"]),
        (0, "no grants\n".into(), String::new())
    );
    let (status, stdout, stderr) = grants(&env, &["add", "render", &org]);
    assert_eq!((status, stderr.as_str()), (0, ""));
    assert_eq!(stdout, format!("render may revert usage of org {org}\n"));
    let (status, stdout, _) = grants(&env, &["add", "render", &org, "--by", "bob"]);
    assert_eq!(
        (status, stdout),
        (0, format!("render already may revert usage of org {org}\n"))
    );
    let (status, stdout, _) = grants(&env, &["add", "render", "*", "--output", "json"]);
    assert_eq!((status, stdout.as_str()), (0, "{\"added\":true}\n"));
    let unknown = Uuid::new_v4().to_string();
    let (status, _, stderr) = grants(&env, &["add", "other", &unknown, "--by", "bob"]);
    assert!(status == 0 && stderr.contains("no such org"), "{stderr}");

    let (_, stdout, _) = grants(&env, &["list"]);
    let lines: Vec<_> = stdout.lines().collect();
    assert_eq!(lines.len(), 4, "{stdout}");
    assert!(
        lines[1].starts_with(&unknown) && lines[1].ends_with("other (bob)"),
        "{stdout}"
    );
    assert!(
        lines[2].starts_with('*') && lines[2].ends_with("render (alice)"),
        "{stdout}"
    );
    let (_, stdout, _) = grants(&env, &["list", "--client", "render", "--output", "json"]);
    let listed: Value = serde_json::from_str(&stdout).expect("JSON");
    assert_eq!(listed[0]["org"], "*");
    assert_eq!(listed[1]["org"], json!(customer.org));
    assert_eq!(listed[1]["granted_by"], "alice");
    assert_eq!(listed[1]["granted_as"], "revertd");
    let (_, stdout, _) = grants(&env, &["list", "--org", &org, "--output", "json"]);
    let listed: Value = serde_json::from_str(&stdout).expect("JSON");
    assert_eq!(listed.as_array().map(Vec::len), Some(2), "{stdout}");

    let (status, _, stderr) = grants(&env, &["remove", "render", &org]);
    assert!(status == 0 && stderr.contains("every org"), "{stderr}");
    let (status, stdout, stderr) = grants(&env, &["remove", "render", &org]);
    assert_eq!((status, stdout.as_str()), (1, ""));
    assert!(stderr.contains("render has no grant for org"), "{stderr}");
    for wrong in [
        &["add", "render"][..],
        &["add", "render", "acme"],
        &["add", "render", &org.replace('-', "")],
        &["add", "", &org],
        &["add", &"x".repeat(256), &org],
        &["add", "a\nb", &org],
        &["list", "--org", "*"],
    ] {
        assert_eq!(grants(&env, wrong).0, 2, "{wrong:?}");
    }
    env.sql("DROP SCHEMA revertd CASCADE").await;
    let (status, _, stderr) = grants(&env, &["list"]);
    assert!(
        status == 1 && stderr.contains("revertd migrate"),
        "{stderr}"
    );
    env.teardown().await;
}
