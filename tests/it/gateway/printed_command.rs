//! The curl command as the API page prints it.

use std::process::Command;

use crate::support::*;

/// Word for word; the values are its placeholders.
const PRINTED: &str = r#"curl -L -X POST 'http://127.0.0.1:7400/v1beta1/organizations/billing/usages/revert' \
-H 'Content-Type: application/json' \
-H 'Accept: application/json' \
--data-raw '{
"org_id": "string",
"project_id": "string",
"billing_id": "string",
"usage_id": "string",
"amount": "string"
}'"#;

fn shell(command: &str) -> (i32, String) {
    let output = Command::new("sh")
        .args(["-c", command])
        .output()
        .expect("a shell");
    let stdout = String::from_utf8(output.stdout).expect("UTF-8");
    (output.status.code().expect("no signal"), stdout)
}

#[tokio::test]
async fn the_documented_curl_command_works() {
    let (env, _worker) = TestEnv::with_worker().await;
    let customer = env.customer().await;
    let usage = env.usage(customer.account, 20).await;
    let gateway = env.start_gateway().await;
    // Only the port differs, since tests share the machine.
    let address = gateway.address.to_string();
    let command = PRINTED.replace("127.0.0.1:7400", &address);
    let command = format!("{command} -sS -u 'publisher:pH3%8sNd+6yB/e1Kc' -w ' %{{http_code}}'");

    let (status, stdout) = shell(&command);
    assert_eq!(status, 0);
    assert!(
        stdout.ends_with(" 400") && stdout.contains("INVALID_FIELD"),
        "{stdout}"
    );

    let filled = command
        .replace(
            "\"org_id\": \"string\"",
            &format!("\"org_id\": \"{}\"", customer.org),
        )
        .replace("\"project_id\": \"string\"", "\"project_id\": \"\"")
        .replace(
            "\"billing_id\": \"string\"",
            &format!("\"billing_id\": \"{}\"", customer.account),
        )
        .replace(
            "\"usage_id\": \"string\"",
            &format!("\"usage_id\": \"{usage}\""),
        )
        .replace("\"amount\": \"string\"", "\"amount\": \"15\"");
    assert_eq!(shell(&filled), (0, "{} 200".into()));
    assert_eq!(env.entries(usage).await, 1);

    let (_, stdout) = shell(&filled.replace("-u 'publisher:pH3%8sNd+6yB/e1Kc'", ""));
    assert!(
        stdout.ends_with(" 401") && stdout.contains("CLIENT_UNKNOWN"),
        "{stdout}"
    );
    env.teardown().await;
}

#[tokio::test]
async fn the_default_address_is_that_of_the_curl_command() {
    let env = TestEnv::new().await;
    let output = env.command(&["config", "--output", "json"]).output();
    let stdout: serde_json::Value =
        serde_json::from_slice(&output.expect("runs").stdout).expect("JSON");
    assert_eq!(stdout["gateway"]["listen"], "127.0.0.1:7400");
    assert!(PRINTED.contains("http://127.0.0.1:7400/"));
    env.teardown().await;
}
