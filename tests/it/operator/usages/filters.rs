//! Which usages each filter selects, and which accounts have none.

use serde_json::json;
use uuid::Uuid;

use super::setup::*;
use crate::support::*;

#[tokio::test]
async fn each_filter_selects_its_usages() {
    let env = TestEnv::new().await;
    let ledger::Customer { org, account } = env.customer().await;
    let disabled = env.account(org).await;
    let deleted = env.account(org).await;
    let other = env.customer().await.account;
    env.sql(&format!(
        "UPDATE billing_customers SET state = 'disabled' WHERE id = '{disabled}';
         UPDATE billing_customers SET deleted_at = now() WHERE id = '{deleted}';
         UPDATE organizations SET name = 'acme' WHERE id = '{org}'"
    ))
    .await;
    let source = Some("api.usage");
    let job = json!({"job": "render-7", "n": 5, "ok": true});
    let same_job = json!({"job": "render-7", "of": {"a": [1]}});
    let other_job = json!({"job": "render-8", "n": "5", "empty": ""});
    let mut all = Vec::new();
    for (account, minute, source, metadata) in [
        (account, 0, source, &job),
        (account, 1, Some(""), &same_job),
        (account, 2, None, &json!(["job"])),
        (disabled, 3, source, &other_job),
    ] {
        all.push(entry(&env, account, ("debit", 5, minute), source, metadata).await);
    }
    for (account, what) in [
        (deleted, ("debit", 5, 0)),
        (other, ("debit", 5, 0)),
        (ledger::PLATFORM, ("debit", 5, 0)),
        (account, ("credit", 5, 0)),
        (account, ("debit", 0, 0)),
        (account, ("debit", -5, 0)),
    ] {
        entry(&env, account, what, source, &job).await;
    }
    let (org, account) = (org.to_string(), account.to_string());
    let upper = org.to_uppercase();
    let disabled = disabled.to_string();
    let of_org = |more: &[&'static str]| [&["--org", "acme"][..], more].concat();
    for (arguments, expected) in [
        (vec!["--org", &org], &[0, 1, 2, 3][..]),
        (vec!["--org", &upper], &[0, 1, 2, 3]),
        (of_org(&[]), &[0, 1, 2, 3]),
        (vec!["--account", &account], &[0, 1, 2]),
        (vec!["--account", &disabled], &[3]),
        (of_org(&["--since", "2024-11-01T08:01:00Z"]), &[1, 2, 3]),
        (of_org(&["--until", "2024-11-01T08:01:00Z"]), &[0]),
        (
            of_org(&[
                "--since",
                "2024-11-01T08:00:01Z",
                "--until",
                "2024-11-01T10:02:01+02:00",
            ]),
            &[1, 2],
        ),
        (of_org(&["--until", "100000d"]), &[]),
        (of_org(&["--source", "api.usage"]), &[0, 3]),
        (of_org(&["--source", "API.usage"]), &[]),
        (of_org(&["--source", ""]), &[1, 2]),
        (of_org(&["--metadata", "job=render-7"]), &[0, 1]),
        (of_org(&["--metadata", "n=5"]), &[0, 3]),
        (
            of_org(&["--metadata", "n=5", "--metadata", "job=render-7"]),
            &[0],
        ),
        (of_org(&["--metadata", "ok=true"]), &[0]),
        (of_org(&["--metadata", "empty="]), &[3]),
        (of_org(&["--metadata", "none="]), &[]),
        (of_org(&["--metadata", "job=' OR ''='"]), &[]),
        (of_org(&["--limit", "2"]), &[0, 1]),
        (of_org(&["--limit", "1", "--source", ""]), &[1]),
    ] {
        let (status, lines, stderr) = usages(&env, &arguments);
        let expected: Vec<_> = expected.iter().map(|index| all[*index]).collect();
        assert_eq!(
            (status, ids(&lines)),
            (0, expected.clone()),
            "{arguments:?}"
        );
        let counted = match expected.len() {
            1 => "1 usage of 1 account, ".to_owned(),
            number => format!("{number} usages of "),
        };
        assert!(stderr.starts_with(&counted), "{arguments:?}: {stderr}");
        for secret in ["render-7", "api.usage"] {
            let text = format!("{lines:?}{stderr}");
            assert!(!text.contains(secret), "{arguments:?}: {text}");
        }
    }
    env.teardown().await;
}

#[tokio::test]
async fn the_counts_come_before_the_requests() {
    let env = TestEnv::new().await;
    let ledger::Customer { org, account } = env.customer().await;
    let second = env.account(org).await;
    for (account, amount, minutes) in [(account, i64::MAX, 0), (account, 20, 90), (second, 1, 5)] {
        entry(&env, account, ("debit", amount, minutes), None, &json!({})).await;
    }
    // A time that a program cannot read counts, but is no first and no last time.
    let endless = entry(&env, second, ("debit", 7, 0), None, &json!({})).await;
    env.sql(&format!(
        "UPDATE billing_transactions SET created_at = 'infinity' WHERE id = '{endless}'"
    ))
    .await;
    let org = org.to_string();
    let text = "4 usages of 2 accounts, 9223372036854775835 in all, written from \
        2024-11-01T08:00:00Z to 2024-11-01T09:30:00Z\n";
    let (status, lines, stderr) = usages(&env, &["--org", &org]);
    assert_eq!((status, lines.len(), stderr.as_str()), (0, 4, text));
    let (status, stdout, stderr) = told(&env, &["--org", &org, "--dry-run"]);
    assert_eq!((status, stdout.as_str(), stderr.as_str()), (0, text, ""));
    let object = json!({"usages": 4, "accounts": 2, "sum": "9223372036854775835",
        "first": "2024-11-01T08:00:00Z", "last": "2024-11-01T09:30:00Z"});
    let (_, objects, _) = usages(&env, &["--org", &org, "--dry-run", "--output", "json"]);
    assert_eq!(objects, std::slice::from_ref(&object));
    let (_, _, stderr) = usages(&env, &["--org", &org, "--output", "json"]);
    assert_eq!(
        serde_json::from_str::<serde_json::Value>(&stderr).expect("JSON"),
        object
    );

    let none = ["--org", &org, "--source", "other", "--dry-run"];
    let (status, stdout, _) = told(&env, &none);
    assert_eq!(
        (status, stdout.as_str()),
        (0, "0 usages of 0 accounts, 0 in all\n")
    );
    env.teardown().await;
}

#[tokio::test]
async fn unknown_orgs_and_accounts_are_refused() {
    let env = TestEnv::new().await;
    let gone = env.customer().await;
    let closed = env.customer().await;
    env.sql(&format!(
        "UPDATE organizations SET deleted_at = now() WHERE id = '{}';
         UPDATE billing_customers SET deleted_at = now() WHERE id = '{}'",
        gone.org, closed.account
    ))
    .await;
    let platform_org = env.org().await;
    env.sql(&format!(
        "INSERT INTO billing_customers (id, org_id, name, email) \
         VALUES ('{}', '{platform_org}', 'platform', 'mail@example.com')",
        ledger::PLATFORM
    ))
    .await;
    for account in [gone.account, closed.account, ledger::PLATFORM] {
        entry(&env, account, ("debit", 5, 0), None, &json!({})).await;
    }
    for (scope, name) in [
        ("--org", "nowhere\u{202e}".to_owned()),
        ("--org", Uuid::new_v4().to_string()),
        ("--org", gone.org.to_string()),
        ("--account", Uuid::new_v4().to_string()),
        ("--account", gone.account.to_string()),
        ("--account", closed.account.to_string()),
        ("--account", ledger::PLATFORM.to_string()),
    ] {
        let (status, stdout, stderr) = told(&env, &[scope, &name]);
        assert_eq!((status, stdout.as_str()), (1, ""), "{name}: {stderr}");
        let said = stderr.starts_with(&format!("revertd: no {} ", &scope[2..]));
        assert!(said && stderr.contains("give "), "{name}: {stderr}");
        assert!(!stderr.contains('\u{202e}'), "{stderr}");
    }
    // These orgs have no account with usages.
    for org in [closed.org, platform_org] {
        let (status, stdout, stderr) = told(&env, &["--org", &org.to_string()]);
        assert_eq!((status, stdout.as_str()), (0, ""), "{stderr}");
        assert!(stderr.starts_with("0 usages of 0 accounts"), "{stderr}");
    }
    env.teardown().await;
}
