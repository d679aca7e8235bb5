//! Requests that share an id within one batch: the first one that is decided for good is the
//! request.

use revertd::config::Settings;
use revertd::domain::outcome::{Decision, Verdict};
use revertd::domain::refusal::reason_label;
use revertd::domain::request::{Amount, Envelope, Fields, RevertRequest};
use revertd::ledger::Ledger;
use uuid::Uuid;

use crate::support::*;

pub fn request(message_id: &str, usage_id: Uuid, account: Uuid, amount: i64) -> RevertRequest {
    let envelope = Envelope {
        message_id: Some(message_id.into()),
        ..Envelope::default()
    };
    let fields = Fields {
        usage_id,
        amount: Amount::new(amount).expect("positive"),
        billing_id: Some(account),
        org_id: None,
        project_id: None,
        reason: None,
    };
    RevertRequest::new(&envelope, fields, true)
}

/// The result of each request: `APPLIED`, or the reason.
pub async fn decide(env: &TestEnv, requests: &[RevertRequest]) -> Vec<&'static str> {
    let settings = Settings::load_from(None, env.environment()).expect("valid");
    let ledger = Ledger::new(&settings).expect("an address");
    let decisions = ledger.apply(requests).await.expect("the database is there");
    let verdict = |decision: &Decision| match decision {
        Decision::Decided(outcome) | Decision::Repeated(outcome) => match &outcome.verdict {
            Verdict::Applied(_) => "APPLIED",
            Verdict::Refused(refusal) => reason_label(refusal.code().reason),
        },
        Decision::NotYet | Decision::Failed(_) | Decision::SetAside(..) => "UNDECIDED",
    };
    decisions.iter().map(verdict).collect()
}

#[tokio::test]
async fn one_content_of_an_id_is_applied_in_a_batch() {
    let env = TestEnv::new().await;
    let customer = env.customer().await;
    let (nobody, account) = (Uuid::from_u128(404), customer.account);
    let (one, two) = (env.usage(account, 20).await, env.usage(account, 20).await);
    let requests = [
        request("x", one, nobody, 5),
        request("x", one, account, 5),
        request("x", two, account, 5),
        request("x", two, account, 6),
    ];
    let verdicts = decide(&env, &requests).await;
    let reused = "REQUEST_ID_REUSED";
    assert_eq!(
        verdicts,
        ["BILLING_ACCOUNT_NOT_FOUND", "APPLIED", reused, reused]
    );
    assert_eq!(env.reverts(one).await.len(), 2, "both legs");
    assert_eq!(env.reverts(two).await.len(), 0, "no outcome, so no entries");
    env.assert_ledger_is_sound().await;
    env.teardown().await;
}

#[tokio::test]
async fn unstored_contents_of_an_id_are_decided_at_once() {
    let mut env = TestEnv::new().await;
    env.set("AUTHORIZATION__MODE", "grants");
    let account = env.customer().await.account;
    let stranger = Envelope {
        client: "stranger".into(),
        message_id: Some("x".into()),
        ..Envelope::default()
    };
    let requests: Vec<_> = (1..=500)
        .map(|usage| {
            let asked = request("x", Uuid::from_u128(usage), account, 5);
            RevertRequest::new(&stranger, asked.fields, false)
        })
        .collect();
    let verdicts = decide(&env, &requests).await;
    assert_eq!(verdicts, ["ORG_NOT_GRANTED"; 500]);
    env.teardown().await;
}

#[tokio::test]
async fn requests_of_an_id_are_decided_in_delivery_order() {
    for swap in [false, true] {
        let env = TestEnv::new().await;
        let account = env.customer().await.account;
        let usage = env.usage(account, 20).await;
        // The id that sorts first, or last, is that of a usage that is not there.
        let unknown = if swap { Uuid::nil() } else { Uuid::max() };
        let mut overtaken = request("x", unknown, account, 5);
        overtaken.last_attempt = false;
        let requests = [
            overtaken,
            request("x", usage, account, 5),
            request("y", usage, account, 5),
        ];
        let verdicts = decide(&env, &requests).await;
        assert_eq!(
            verdicts,
            ["UNDECIDED", "APPLIED", "ALREADY_REVERTED"],
            "the first may still find its usage, and then has the id of another request"
        );
        env.assert_ledger_is_sound().await;
        env.teardown().await;
    }
}

#[tokio::test]
async fn the_first_request_of_an_id_is_decided_first() {
    let env = TestEnv::new().await;
    let account = env.customer().await.account;
    let mut usages = [env.usage(account, 20).await, env.usage(account, 20).await];
    usages.sort();
    let [lower, higher] = usages;
    let requests = [
        request("a", higher, account, 5),
        request("x", higher, account, 5),
        request("x", lower, account, 5),
    ];
    let verdicts = decide(&env, &requests).await;
    assert_eq!(
        verdicts,
        ["APPLIED", "ALREADY_REVERTED", "REQUEST_ID_REUSED"]
    );
    assert_eq!(env.reverts(lower).await.len(), 0);
    env.assert_ledger_is_sound().await;
    env.teardown().await;
}
