//! Logins by client certificate.

use super::super::startup::refused;
use super::setup::*;
use crate::support::tls::{Authority, amqps_url};
use crate::support::*;

#[tokio::test]
async fn client_certificates_replace_passwords() {
    let (env, role, _files) = certified().await;
    let mut worker = env.start_worker().await;
    let mut events = env.events().await;
    answered(&mut events, &publish(&env, 3).await).await;
    // A retry bears the worker's own user, which the broker knows from the certificate.
    let unknown = Request::revert(env.customer().await.account, uuid::Uuid::new_v4(), 20);
    env.publish(&unknown).await;
    assert_eq!(events.answer(&unknown).await.verdict(), "USAGE_NOT_FOUND");
    assert!(worker.stop().await.success());
    teardown_with_role(env, &role).await;
}

#[tokio::test]
async fn a_user_other_than_the_certificates_ends_the_start() {
    let (mut env, role, _files) = certified().await;
    let external = Some("auth_mechanism=external");
    env.set(
        "AMQP__URL",
        &with(&amqps_url(), ("revertd", None), None, external),
    );
    let log = refused(&env).await;
    for said in [
        "'revertd'",
        "'certified'",
        "amqp.url must name the user",
        "certificate",
    ] {
        assert!(log.contains(said), "{said}: {log}");
    }
    teardown_with_role(env, &role).await;
}

#[tokio::test]
async fn a_refused_client_certificate_ends_the_start() {
    let stranger = Authority::stranger();
    for section in ["AMQP", "DATABASE"] {
        let (mut env, role, _files) = certified().await;
        let name = if section == "AMQP" {
            "certified"
        } else {
            &role
        };
        let unknown = stranger.client(name);
        env.set(&format!("{section}__CERT_FILE"), &unknown.cert());
        env.set(&format!("{section}__KEY_FILE"), &unknown.key());
        let log = refused(&env).await;
        assert!(
            log.contains("refuses the client certificate"),
            "{section}: {log}"
        );
        let key = format!("{}.cert_file", section.to_lowercase());
        assert!(log.contains(&key), "{log}");
        teardown_with_role(env, &role).await;
    }
}
