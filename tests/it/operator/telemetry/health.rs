//! `revertd health` asks the process of this machine whether it is ready.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::support::proxy::Ending;
use crate::support::scrape::{LISTEN, Telemetry};
use crate::support::*;

/// Exit status and output of `revertd health` with `telemetry.listen` set to `listen`.
async fn health(env: &TestEnv, listen: &str, output: &str) -> (Option<i32>, String) {
    let mut command = env.command(&["health", "--output", output]);
    command.env("REVERTD_TELEMETRY__LISTEN", listen);
    let run = tokio::task::spawn_blocking(move || command.output());
    let run = run.await.expect("no panic").expect("runs");
    let text = [run.stdout, run.stderr].concat();
    (run.status.code(), String::from_utf8(text).expect("UTF-8"))
}

#[tokio::test]
async fn health_is_0_while_the_process_is_ready() {
    let mut env = TestEnv::new().await;
    env.set(LISTEN.0, LISTEN.1);
    let proxy = env.proxy_amqp();
    let mut worker = env.start_worker().await;
    let mut gateway = env.start_gateway().await;
    let worker = Telemetry::of(&mut worker).await;
    let gateway = Telemetry::of(&mut gateway.process).await;
    for telemetry in [&worker, &gateway] {
        telemetry.ready().await;
        let at = telemetry.address();
        assert_eq!(health(&env, at, "text").await, (Some(0), "ready\n".into()));
        let json = (Some(0), "{\"ready\":true}\n".into());
        assert_eq!(health(&env, at, "json").await, json);
        // As in a container, the process listens on every address.
        let everywhere = at.replace("127.0.0.1", "0.0.0.0");
        assert_eq!(health(&env, &everywhere, "text").await.0, Some(0));
    }
    proxy.refuse(true);
    proxy.end(Ending::Reset);
    for (telemetry, why) in [
        (&worker, "paused: the broker: "),
        (&gateway, "the broker: "),
    ] {
        telemetry.not_ready(why).await;
        let (status, stderr) = health(&env, telemetry.address(), "text").await;
        assert_eq!(status, Some(1));
        assert!(stderr.starts_with(&format!("not ready: {why}")), "{stderr}");
    }
    env.teardown().await;
}

#[tokio::test]
async fn health_is_1_where_no_revertd_answers() {
    let env = TestEnv::new().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let other = listener.local_addr().expect("an address").to_string();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut head = [0; 512];
            let _ = stream.read(&mut head).await;
            let page = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi";
            let _ = stream.write_all(page).await;
        }
    });
    for (listen, why) in [
        (other.as_str(), "not an answer of revertd"),
        ("127.0.0.1:1", "no process serves telemetry on 127.0.0.1:1"),
        ("127.0.0.1:0", "has port 0"),
    ] {
        let (status, stderr) = health(&env, listen, "text").await;
        assert_eq!(status, Some(1), "{stderr}");
        assert!(
            stderr.starts_with("not ready: ") && stderr.contains(why),
            "{stderr}"
        );
    }
    let unset = env.command(&["health"]).output().expect("runs");
    assert_eq!(unset.status.code(), Some(1));
    let stderr = String::from_utf8(unset.stderr).expect("UTF-8");
    assert!(stderr.contains("telemetry.listen is not set"), "{stderr}");
    env.teardown().await;
}
