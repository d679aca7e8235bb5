//! Wrong secrets at full speed: how many logins reach the broker, and which clients must wait.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use crate::support::gateway::GatewayProcess;
use crate::support::http::*;
use crate::support::scrape::{LISTEN, Telemetry};
use crate::support::*;
use regex::Regex;

/// Duration of the guessing, and the guesses of an id that may reach the broker meanwhile: four at
/// once, and two after waits of one and two seconds.
const GUESSING: Duration = Duration::from_secs(3);
const MOST: u32 = 6;

/// Guesses over connections of its own until the time is over. The last status and `Retry-After`.
async fn guess(
    gateway: &GatewayProcess,
    until: Instant,
    guesser: usize,
) -> (u32, Option<HttpResponse>) {
    let mut count = 0;
    let mut put_off = None;
    let mut connection = gateway.connect().await;
    while Instant::now() < until {
        let secret = format!("guess-{guesser}-{count}");
        let request = HttpRequest::post("{}").by((PUBLISHER.0, &secret));
        connection.write(&request.bytes()).await;
        let response = connection.response().await;
        assert!([401, 429].contains(&response.status), "{response:?}");
        put_off = Some(response)
            .filter(|response| response.status == 429)
            .or(put_off);
        count += 1;
    }
    (count, put_off)
}

#[tokio::test]
async fn a_guessing_address_waits_and_blocks_no_other() {
    let mut env = TestEnv::new().await;
    env.set(LISTEN.0, LISTEN.1);
    let mut gateway = env.start_gateway().await;
    let telemetry = Telemetry::of(&mut gateway.process).await;
    let until = Instant::now() + GUESSING;
    let guessers = (0..16).map(|guesser| guess(&gateway, until, guesser));
    let guessed = futures_util::future::join_all(guessers).await;
    let tried: u32 = guessed.iter().map(|(count, _)| count).sum();
    // The right secret, from another address.
    let other = Ipv4Addr::new(127, 0, 0, 2);
    assert_eq!(
        gateway
            .send_from(other, &HttpRequest::post("{}"))
            .await
            .status,
        400
    );
    let page = telemetry.metrics().await;
    assert_eq!(gateway.stop().await, 0);
    let log = gateway.process.log();
    let asked = Regex::new(r"logins_refused=(\d+)").expect("a pattern");
    let asked: u32 = asked.captures(&log).expect("the last line")[1]
        .parse()
        .expect("a number");
    println!("of {tried} guesses in {GUESSING:?}, {asked} reached the broker");
    assert!((4..=MOST).contains(&asked), "{asked} of {tried}: {log}");
    let put_off = guessed.into_iter().find_map(|(_, response)| response);
    let put_off = put_off.expect("some are put off");
    assert_eq!(put_off.verdict(), (429, "TOO_MANY_GUESSES".into()));
    let wait: u32 = put_off
        .header("retry-after")
        .expect("it says")
        .parse()
        .expect("seconds");
    assert!((1..=9).contains(&wait), "{wait}");
    let refused = |reason| page.count("revertd_logins_refused_total", &[("reason", reason)]);
    assert_eq!(refused("wrong_secret"), i64::from(asked), "{}", page.text);
    assert_eq!(
        refused("back_off"),
        i64::from(tried - asked),
        "{}",
        page.text
    );
    let warning =
        Regex::new(r#"WARN.*event="logins_refused" refused=\d+ addresses="127.0.0.1 \(\d+\)""#)
            .expect("a pattern");
    assert_eq!(warning.find_iter(&log).count(), 1, "{log}");
    assert!(!log.contains("guess-"), "{log}");
    env.teardown().await;
}
