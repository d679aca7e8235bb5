//! The response to a valid request: one status for each outcome.

use uuid::Uuid;

use crate::support::http::*;
use crate::support::*;

#[tokio::test]
async fn a_revert_is_answered_200_and_written_once() {
    let (env, _worker) = TestEnv::with_worker().await;
    let customer = env.customer().await;
    let usage = env.usage(customer.account, 20).await;
    let gateway = env.start_gateway().await;
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let request = HttpRequest::revert(customer.account, usage, 15)
        .key("job 1")
        .header("traceparent", trace);
    let mut events = env.events().await;
    for _ in 0..3 {
        let response = gateway.send(&request).await;
        assert_eq!((response.status, response.body.as_str()), (200, "{}"));
        for (name, value) in [
            ("content-type", "application/json"),
            ("cache-control", "no-store"),
            ("x-request-id", "job 1"),
            ("traceparent", trace),
        ] {
            assert_eq!(response.header(name), Some(value), "{name}");
        }
        let event = events.next().await;
        assert_eq!(event.text_header("traceparent").as_deref(), Some(trace));
        assert_eq!(event.json()["data"]["request_id"], "job 1");
    }
    assert_eq!(env.entries(usage).await, 1);

    let other = HttpRequest::revert(customer.account, usage, 14).key("job 1");
    let response = gateway.send(&other).await;
    assert_eq!(response.verdict(), (400, "REQUEST_ID_REUSED".into()));
    // Without a key each is a request of its own.
    let fresh = HttpRequest::revert(customer.account, usage, 15);
    let response = gateway.send(&fresh).await;
    assert_eq!(response.verdict(), (409, "ALREADY_REVERTED".into()));
    assert_eq!(response.json()["details"][0]["metadata"]["amount"], "15");
    let id = response.header("x-request-id").expect("it has one");
    assert!(Uuid::try_parse(id).is_ok(), "{id}");
    env.assert_ledger_is_sound().await;
    env.teardown().await;
}

#[tokio::test]
async fn each_refusal_has_its_http_status() {
    let (env, mut worker) = TestEnv::with_worker_set(&[("REVERT__MAX_AGE", "24h")]).await;
    let customer = env.customer().await;
    let usage = env.usage(customer.account, 20).await;
    let purchase = env.purchase(customer.account, 20).await;
    let old = env.usage(customer.account, 20).await;
    env.sql(&format!(
        "UPDATE billing_transactions SET created_at = now() - interval '2 days' WHERE id = '{old}'"
    ))
    .await;
    let done = env.usage(customer.account, 20).await;
    let gateway = env.start_gateway().await;
    let revert = |usage, amount| HttpRequest::revert(customer.account, usage, amount);
    assert_eq!(gateway.send(&revert(done, 20)).await.status, 200);
    let reverted = env.reverts(done).await;
    let entry: Uuid = reverted[0].id;
    let (nobody, unknown) = (Uuid::new_v4(), Uuid::new_v4());
    for (request, status, reason) in [
        (HttpRequest::post("rubbish"), 400, "MALFORMED_REQUEST"),
        (HttpRequest::post("{}"), 400, "INVALID_FIELD"),
        (
            HttpRequest::revert(nobody, usage, 5),
            404,
            "BILLING_ACCOUNT_NOT_FOUND",
        ),
        (revert(unknown, 5), 404, "USAGE_NOT_FOUND"),
        (revert(entry, 5), 400, "REVERT_OF_REVERT"),
        (revert(purchase, 5), 400, "NOT_A_USAGE"),
        (revert(old, 5), 400, "REVERT_WINDOW_CLOSED"),
        (revert(done, 5), 409, "ALREADY_REVERTED"),
        (revert(usage, 21), 400, "AMOUNT_EXCEEDS_USAGE"),
    ] {
        let response = gateway.send(&request).await;
        assert_eq!(response.verdict(), (status, reason.into()));
        assert!(response.json()["message"].is_string() && response.json()["code"].is_i64());
    }
    // An unknown usage was refused at once: nothing was put on the ladder.
    assert!(worker.stop().await.success());
    assert!(worker.log().contains("retried=0"), "{}", worker.log());
    env.teardown().await;
}

#[tokio::test]
async fn a_request_that_exhausts_retries_is_answered_500() {
    let (env, _worker) = TestEnv::with_worker().await;
    let customer = env.customer().await;
    let usage = env.usage(customer.account, 20).await;
    env.sql(
        "CREATE FUNCTION fails() RETURNS trigger LANGUAGE plpgsql AS \
             $$ BEGIN RAISE EXCEPTION USING ERRCODE = '22000'; END $$; \
             CREATE TRIGGER fails BEFORE INSERT ON billing_transactions FOR EACH ROW EXECUTE \
             FUNCTION fails()",
    )
    .await;
    let gateway = env.start_gateway().await;
    let response = gateway
        .send(&HttpRequest::revert(customer.account, usage, 5))
        .await;
    assert_eq!(response.verdict(), (500, "RETRIES_EXHAUSTED".into()));
    env.teardown().await;
}

#[tokio::test]
async fn cumulative_needs_an_idempotency_key() {
    let (mut env, _worker) = TestEnv::with_worker_set(&[("REVERT__POLICY", "cumulative")]).await;
    env.set("GATEWAY__TIMEOUT", "1ms");
    let impatient = env.start_gateway().await;
    env.set("GATEWAY__TIMEOUT", "10s");
    let gateway = env.start_gateway().await;
    let customer = env.customer().await;
    let usage = env.usage(customer.account, 20).await;
    let request = HttpRequest::revert(customer.account, usage, 5);
    for gateway in [&impatient, &gateway] {
        let response = gateway.send(&request).await;
        assert_eq!(response.verdict(), (400, "INVALID_FIELD".into()));
        let violation = &response.json()["details"][1]["fieldViolations"][0];
        assert_eq!(violation["field"], "Idempotency-Key");
        let why = violation["description"].to_string();
        assert!(why.contains("cumulative"), "{why}");
    }
    let keyed = request.key("job-1");
    let late = impatient.send(&keyed).await;
    assert_eq!(late.verdict(), (504, "NO_ANSWER_IN_TIME".into()));
    assert_eq!(gateway.send(&keyed).await.status, 200);
    assert_eq!(env.entries(usage).await, 1);
    env.teardown().await;
}
