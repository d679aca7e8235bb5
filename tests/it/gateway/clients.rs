//! Which logins may publish, and with which permissions of the broker.

use crate::support::http::*;
use crate::support::*;

#[tokio::test]
async fn all_wrong_credentials_get_the_same_response() {
    let env = TestEnv::new().await;
    let mut gateway = env.start_gateway().await;
    let with = |value: &str| {
        HttpRequest::post("{}")
            .without("Authorization")
            .header("Authorization", value)
    };
    let expected = gateway
        .send(&HttpRequest::post("{}").without("Authorization"))
        .await;
    assert_eq!(expected.verdict(), (401, "CLIENT_UNKNOWN".into()));
    assert_eq!(expected.json()["code"], 16);
    let challenge = Some("Basic realm=\"revertd\", charset=\"UTF-8\"");
    assert_eq!(expected.header("www-authenticate"), challenge);
    for request in [
        with(""),
        with("Basic"),
        with("Bearer cHVibGlzaGVyOnBIMyU4c05kKzZ5Qi9lMUtj"),
        with("Basic publisher:pH3%8sNd+6yB/e1Kc"),
        with("Basic cHVibGlzaGVy*"),
        with(&basic("publisher")),
        with(&basic(":pH3%8sNd+6yB/e1Kc")),
        with(&basic("publisher:wrong")),
        with(&basic("publisher:pH3%8sNd+6yB/e1Kc\n")),
        with(&basic("publisher\0publisher:pH3%8sNd+6yB/e1Kc")),
        with(&basic("publisher\r\n:pH3%8sNd+6yB/e1Kc")),
        with(&basic("nobody:pH3%8sNd+6yB/e1Kc")),
        with(&basic(format!("{}:s", "i".repeat(256)))),
        with(&basic(format!("publisher:{}", "s".repeat(4097)))),
        HttpRequest::post("{}").header("Authorization", &basic("publisher:pH3%8sNd+6yB/e1Kc")),
    ] {
        for request in [
            request.clone(),
            HttpRequest {
                body: b"rubbish".to_vec(),
                ..request
            },
        ] {
            let response = gateway.send(&request).await;
            assert_eq!((response.status, &response.body), (401, &expected.body));
            assert_eq!(response.header("www-authenticate"), challenge);
        }
    }
    assert_eq!(
        gateway
            .send(&with("bAsIc   cHVibGlzaGVyOnBIMyU4c05kKzZ5Qi9lMUtj"))
            .await
            .status,
        400
    );
    assert_eq!(gateway.stop().await, 0);
    let log = gateway.process.log();
    // Each wrong secret was asked about once; malformed ones never.
    assert!(log.contains("logins_refused=2"), "{log}");
    assert!(!log.contains("nobody") && !log.contains("WARN"), "{log}");
    env.teardown().await;
}

#[tokio::test]
async fn a_client_has_its_permissions_of_the_broker() {
    let (env, _worker) = TestEnv::with_worker().await;
    let customer = env.customer().await;
    let usage = env.usage(customer.account, 20).await;
    let mut gateway = env.start_gateway().await;
    let request = HttpRequest::revert(customer.account, usage, 5);
    let (reader, stranger) = (("reader", "s:é 😀"), ("stranger", "yT5-nGf0_uJ3xRz8bW"));
    logs::secret(stranger.1);
    for _ in 0..2 {
        let response = gateway.send(&request.clone().by(reader)).await;
        assert_eq!(response.verdict(), (403, "PUBLISH_NOT_PERMITTED".into()));
        assert!(
            response.json()["message"]
                .as_str()
                .expect("text")
                .contains("set_permissions")
        );
        let response = gateway.send(&request.clone().by(stranger)).await;
        assert_eq!(
            response.verdict(),
            (403, "VIRTUAL_HOST_NOT_PERMITTED".into())
        );
    }
    let forbidden = request.clone().by(reader);
    let both = tokio::join!(gateway.send(&forbidden), gateway.send(&forbidden));
    assert_eq!((both.0.status, both.1.status), (403, 403));
    assert_eq!(env.entries(usage).await, 0);
    assert_eq!(gateway.send(&request).await.status, 200);
    // The request bears the client that the broker knows it by.
    assert_eq!(
        env.count("SELECT count(*) FROM revertd.outcomes WHERE client = 'publisher'")
            .await,
        1
    );
    assert_eq!(gateway.stop().await, 0);
    let log = gateway.process.log();
    assert_eq!(
        log.matches("may not write to the request exchange").count(),
        1,
        "{log}"
    );
    assert!(!log.contains("s:é") && !log.contains("s:\\u"), "{log}");
    env.teardown().await;
}

#[tokio::test]
async fn the_documented_minimal_permissions_suffice() {
    let (mut env, _worker) = TestEnv::with_worker().await;
    let customer = env.customer().await;
    let usage = env.usage(customer.account, 20).await;
    let mut url = url::Url::parse(&env.servers.amqp).expect("a URL");
    url.set_username("gateway").expect("a user");
    url.set_password(Some("eD9_mVq4-sLh7kPc2A"))
        .expect("a password");
    logs::password_of(url.as_str());
    env.set("AMQP__URL", url.as_str());
    let gateway = env.start_gateway().await;
    assert_eq!(
        gateway
            .send(&HttpRequest::revert(customer.account, usage, 5))
            .await
            .status,
        200
    );
    env.teardown().await;
}

#[tokio::test]
async fn a_forged_reply_is_dropped() {
    let (mut env, mut worker) = TestEnv::with_worker().await;
    let customer = env.customer().await;
    let usage = env.usage(customer.account, 20).await;
    assert!(worker.stop().await.success());
    env.set("GATEWAY__TIMEOUT", "60s");
    let gateway = env.start_gateway().await;
    let mut connection = gateway.connect().await;
    connection
        .write(
            &HttpRequest::revert(customer.account, usage, 5)
                .key("mine")
                .bytes(),
        )
        .await;
    // A reader of the request knows the queue; a client knows the key that it sent.
    let request = env.peek(&env.name("work")).await;
    let queue = request.properties.reply_to().clone().expect("it has one");
    let told = request.properties.message_id().clone().expect("it has one");
    assert_eq!(told.as_str(), "mine");
    let correlation = request
        .properties
        .correlation_id()
        .clone()
        .expect("it has one");
    assert_ne!(correlation, told);
    for forged in [
        Some("mine"),
        Some(""),
        Some("00000000-0000-4000-8000-000000000000"),
        None,
    ] {
        let mut answer = Request::raw(r#"{"type":"usage.reverted","data":{}}"#);
        answer.properties = match forged {
            Some(id) => answer.properties.with_correlation_id(id.into()),
            None => lapin::BasicProperties::default(),
        };
        env.publish_to(queue.as_str(), &answer).await;
    }
    assert!(
        connection
            .is_silent(std::time::Duration::from_millis(300))
            .await
    );
    let _worker = env.start_worker().await;
    assert_eq!(connection.response().await.status, 200);
    env.teardown().await;
}
