//! Metrics and readiness of the gateway on `telemetry.listen`.

use crate::support::http::*;
use crate::support::proxy::Ending;
use crate::support::scrape::{LISTEN, Telemetry};
use crate::support::*;

#[tokio::test]
async fn responses_are_timed_and_readiness_needs_replies() {
    let (mut env, _worker) = TestEnv::with_worker().await;
    env.set(LISTEN.0, LISTEN.1);
    let proxy = env.proxy_amqp();
    let customer = env.customer().await;
    let usage = env.usage(customer.account, 20).await;
    let mut gateway = env.start_gateway().await;
    let telemetry = Telemetry::of(&mut gateway.process).await;
    telemetry.ready().await;
    assert_eq!(telemetry.get("/healthz").await.0, 200);
    let request = HttpRequest::revert(customer.account, usage, 5);
    assert_eq!(gateway.send(&request).await.status, 200);
    assert_eq!(gateway.send(&request).await.status, 409);
    let count = "http_server_request_duration_seconds_count";
    let page = telemetry.metrics().await;
    for status in ["200", "409"] {
        let labels = [
            ("http_request_method", "POST"),
            ("http_response_status_code", status),
        ];
        assert_eq!(page.count(count, &labels), 1, "{}", page.text);
    }
    assert_eq!(page.count("http_server_active_requests", &[]), 0);
    // Without the broker it can answer no request.
    proxy.refuse(true);
    proxy.end(Ending::Reset);
    telemetry.not_ready("the broker: ").await;
    proxy.refuse(false);
    telemetry.ready().await;
    env.teardown().await;
}
