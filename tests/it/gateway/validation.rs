//! Invalid paths, headers and bodies, each with its response.

use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::http::*;
use crate::support::*;

#[tokio::test]
async fn a_wrong_path_method_or_media_type_is_refused() {
    let env = TestEnv::new().await;
    let gateway = env.start_gateway().await;
    let sound = HttpRequest::post("{}");
    let to = |method: &str, path: &str| HttpRequest {
        method: method.into(),
        path: path.into(),
        ..sound.clone()
    };
    for (request, status, reason) in [
        (to("POST", "/"), 404, "PATH_NOT_FOUND"),
        (to("GET", "/v1beta1"), 404, "PATH_NOT_FOUND"),
        (to("POST", &format!("{PATH}/")), 404, "PATH_NOT_FOUND"),
        (to("GET", PATH), 405, "METHOD_NOT_ALLOWED"),
        (to("PUT", PATH), 405, "METHOD_NOT_ALLOWED"),
        (to("DELETE", PATH), 405, "METHOD_NOT_ALLOWED"),
        (to("OPTIONS", PATH), 405, "METHOD_NOT_ALLOWED"),
        (to("NONSENSE", PATH), 405, "METHOD_NOT_ALLOWED"),
        (
            sound.clone().without("Content-Type"),
            415,
            "UNSUPPORTED_MEDIA_TYPE",
        ),
        (
            sound
                .clone()
                .without("Content-Type")
                .header("Content-Type", "text/plain"),
            415,
            "UNSUPPORTED_MEDIA_TYPE",
        ),
        (
            sound.clone().header("Content-Encoding", "gzip"),
            415,
            "UNSUPPORTED_MEDIA_TYPE",
        ),
        (sound.clone().without("Host"), 400, "MALFORMED_REQUEST"),
        (sound.clone().header("Host", "x"), 400, "MALFORMED_REQUEST"),
        (
            sound.clone().header("Expect", "200-ok"),
            417,
            "UNKNOWN_EXPECTATION",
        ),
        (
            HttpRequest::post(vec![b' '; 64 * 1024 + 1]),
            413,
            "BODY_TOO_LARGE",
        ),
    ] {
        let response = gateway.send(&request).await;
        assert_eq!(response.verdict(), (status, reason.into()));
        assert_eq!(response.header("allow"), (status == 405).then_some("POST"));
        assert!(
            response.header("x-request-id").is_some() && response.header("cache-control").is_some()
        );
    }
    let mut connection = gateway.connect().await;
    connection.write(&to("HEAD", PATH).bytes()).await;
    assert_eq!(connection.reply_without_body().await.status, 405);
    // A body without a declared length is bounded as well.
    let head = format!(
        "POST {PATH} HTTP/1.1\r\nHost: x\r\nAuthorization: {}\r\nContent-Type: application/json\r\n\
         Transfer-Encoding: chunked\r\n\r\n",
        basic("publisher:pH3%8sNd+6yB/e1Kc")
    );
    let chunk = format!("{:x}\r\n{}\r\n", 32 * 1024, " ".repeat(32 * 1024));
    let mut connection = gateway.connect().await;
    connection
        .write(format!("{head}{chunk}{chunk}1\r\n \r\n0\r\n\r\n").as_bytes())
        .await;
    assert_eq!(
        connection.response().await.verdict(),
        (413, "BODY_TOO_LARGE".into())
    );
    let mut connection = gateway.connect().await;
    connection
        .write(format!("{head}1\r\n{{\r\n1\r\n}}\r\n0\r\n\r\n").as_bytes())
        .await;
    assert_eq!(
        connection.response().await.verdict(),
        (400, "INVALID_FIELD".into())
    );
    env.teardown().await;
}

#[tokio::test]
async fn every_violation_is_listed_and_nothing_published() {
    let (env, _worker) = TestEnv::with_worker().await;
    let gateway = env.start_gateway().await;
    let response = gateway
        .send(&HttpRequest::post(r#"{"usage_id": "x", "amount": 0}"#))
        .await;
    assert_eq!(response.verdict(), (400, "INVALID_FIELD".into()));
    let json = response.json();
    let violations = json["details"][1]["fieldViolations"]
        .as_array()
        .expect("a list");
    let fields: Vec<_> = violations.iter().map(|one| one["field"].clone()).collect();
    assert_eq!(fields, ["usage_id", "amount", "billing_id"]);
    assert_eq!(
        json["details"][1]["@type"],
        "type.googleapis.com/google.rpc.BadRequest"
    );

    let id = Uuid::new_v4();
    let sound = |amount: &str, more: &str| {
        format!(r#"{{"usage_id":"{id}","billing_id":"{id}","amount":{amount}{more}}}"#)
    };
    let deep = format!("{}{}", "[".repeat(30_000), "]".repeat(30_000));
    for (body, reason) in [
        (deep.clone(), "MALFORMED_REQUEST"),
        (r#"{"a":"#.repeat(10_000), "MALFORMED_REQUEST"),
        (sound(&"9".repeat(60_000), ""), "INVALID_FIELD"),
        (sound("1e400", ""), "INVALID_FIELD"),
        (sound("5", r#","amount":5"#), "INVALID_FIELD"),
        (sound("5", r#","usageId":"x""#), "INVALID_FIELD"),
        (
            sound("5", &format!(r#","reason":"{}""#, "r".repeat(10_000))),
            "INVALID_FIELD",
        ),
        (sound("5", r#","reason":"a\u0000b""#), "INVALID_FIELD"),
        ("[]".into(), "MALFORMED_REQUEST"),
        ("null".into(), "MALFORMED_REQUEST"),
        (String::new(), "MALFORMED_REQUEST"),
    ] {
        let response = gateway.send(&HttpRequest::post(body.clone())).await;
        let start: String = body.chars().take(60).collect();
        assert_eq!(response.verdict().0, 400, "{start}");
        assert!(
            [reason, "MALFORMED_REQUEST"].contains(&response.reason().as_str()),
            "{start}: {}",
            response.reason()
        );
    }
    let not_utf_8 = gateway.send(&HttpRequest::post(&b"{\"\xff\":1}"[..])).await;
    assert_eq!(not_utf_8.verdict(), (400, "MALFORMED_REQUEST".into()));
    assert_eq!(env.depth(&env.name("dead")).await, 0);
    assert_eq!(env.depth(&env.name("replies")).await, 0);
    // An unknown field is ignored at any depth, by the worker as well.
    let ignored = sound("5", &format!(r#","x":{deep}"#));
    let response = gateway.send(&HttpRequest::post(ignored)).await;
    assert_eq!(
        response.verdict(),
        (404, "BILLING_ACCOUNT_NOT_FOUND".into())
    );
    env.teardown().await;
}

#[tokio::test]
async fn a_huge_number_and_a_lone_surrogate_are_json() {
    let (env, _worker) = TestEnv::with_worker().await;
    let gateway = env.start_gateway().await;
    let (mut events, customer) = (env.events().await, env.customer().await);
    let usage = env.usage(customer.account, 20).await;
    let body = |more: &str| {
        let account = customer.account;
        format!(r#"{{"billing_id":"{account}","usage_id":"{usage}",{more}}}"#)
    };
    for wrong in [r#""amount":1e400"#, r#""amount":5,"reason":"\ud800""#] {
        let response = gateway.send(&HttpRequest::post(body(wrong))).await;
        assert_eq!(response.verdict(), (400, "INVALID_FIELD".into()), "{wrong}");
        let request = Request::raw(body(wrong)).id(wrong);
        env.publish(&request).await;
        assert_eq!(events.answer(&request).await.verdict(), "INVALID_FIELD");
    }
    assert_eq!(env.depth(&env.name("dead")).await, 0);
    let sound = body(r#""amount":5,"x":[1e400,"\ud800"],"\udfff":-1e-400"#);
    let request = Request::raw(sound).id("sound");
    env.publish(&request).await;
    assert_eq!(
        events.correlated(&request.correlation()).await.verdict(),
        "usage.reverted"
    );
    env.teardown().await;
}

#[tokio::test]
async fn an_invalid_key_is_refused_an_invalid_id_ignored() {
    let env = TestEnv::new().await;
    let gateway = env.start_gateway().await;
    let field = |response: &HttpResponse| -> Value {
        response.json()["details"][1]["fieldViolations"][0]["field"].clone()
    };
    for key in ["", "é", "a\tb", &"k".repeat(256), &"k".repeat(10_000)] {
        let response = gateway.send(&HttpRequest::post("{}").key(key)).await;
        assert_eq!(response.verdict(), (400, "INVALID_FIELD".into()), "{key}");
        assert_eq!(field(&response), json!("Idempotency-Key"));
    }
    let response = gateway
        .send(
            &HttpRequest::post("{}")
                .key("a")
                .header("Idempotency-Key", "a"),
        )
        .await;
    assert_eq!(field(&response), json!("Idempotency-Key"));
    let request = HttpRequest::post("{}")
        .key("key")
        .header("X-Request-Id", "mine");
    assert_eq!(
        gateway.send(&request).await.header("x-request-id"),
        Some("mine")
    );
    let request = HttpRequest::post("{}")
        .key("key")
        .header("X-Request-Id", &"x".repeat(256));
    assert_eq!(
        gateway.send(&request).await.header("x-request-id"),
        Some("key")
    );
    let request = HttpRequest::post("{}").header("traceparent", "00-rubbish");
    assert_eq!(gateway.send(&request).await.header("traceparent"), None);
    // A header that ends early begins another one, which changes nothing: it is no header of the
    // answer.
    let response = gateway
        .send(&HttpRequest::post("{}").key("a\r\nX-Injected: 1"))
        .await;
    assert_eq!(
        (
            response.header("x-request-id"),
            response.header("x-injected")
        ),
        (Some("a"), None)
    );
    env.teardown().await;
}
