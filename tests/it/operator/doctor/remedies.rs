//! Remedies that are statements are run on the server unchanged.

use uuid::Uuid;

use super::report::doctor;
use crate::support::*;

#[tokio::test]
async fn remedies_quote_the_name_of_a_role() {
    let env = TestEnv::new().await;
    let name = format!("{}-Worker", env.database);
    let password = Uuid::new_v4();
    env.sql(&format!(
        "CREATE ROLE \"{name}\" LOGIN PASSWORD '{password}'"
    ))
    .await;
    let mut url = url::Url::parse(&env.servers.database).expect("a URL");
    url.set_username(&name).expect("a user");
    url.set_password(Some(&password.to_string()))
        .expect("a password");
    url.set_path(&env.database);
    let as_role = [("DATABASE__URL", url.as_str())];
    for status in ["error", "skipped"] {
        let report = doctor(&env, &as_role);
        let grants = report.remedies(status);
        let grants: Vec<_> = grants
            .iter()
            .filter(|remedy| remedy.starts_with("GRANT "))
            .collect();
        assert!(!grants.is_empty(), "{report:#?}");
        for grant in grants {
            env.sql(grant).await;
        }
    }
    let report = doctor(&env, &as_role);
    assert_eq!(report.count("errors"), 0, "{report:#?}");
    assert!(report.has("database-transactions", "ok"), "{report:#?}");
    env.sql(&format!("ALTER ROLE \"{name}\" CONNECTION LIMIT 3"))
        .await;
    let statement = format!("ALTER ROLE \"{name}\" CONNECTION LIMIT");
    doctor(&env, &as_role).says("database-connections", "error", "limit of 3", &statement);
    env.sql(&format!("DROP OWNED BY \"{name}\"; DROP ROLE \"{name}\""))
        .await;
    env.teardown().await;
}
