//! Requests that share an id within one batch: the first of them that is decided for good is the request.

use revertd::config::Settings;
use revertd::domain::outcome::{Decision, Verdict};
use revertd::domain::refusal::reason_label;
use revertd::domain::request::{Amount, Envelope, Fields, RevertRequest};
use revertd::ledger::Ledger;
use uuid::Uuid;

use super::support::*;

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

/// What became of each: `APPLIED`, or why not.
pub async fn decide(stage: &Stage, requests: &[RevertRequest]) -> Vec<&'static str> {
    let settings = Settings::load_from(None, stage.environment()).expect("valid");
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
async fn of_several_contents_of_an_id_one_is_applied_also_where_the_first_is_not_remembered() {
    let stage = Stage::new().await;
    let customer = stage.customer().await;
    let (nobody, account) = (Uuid::from_u128(404), customer.account);
    let (one, two) = (
        stage.usage(account, 20).await,
        stage.usage(account, 20).await,
    );
    let requests = [
        request("x", one, nobody, 5),
        request("x", one, account, 5),
        request("x", two, account, 5),
        request("x", two, account, 6),
    ];
    let verdicts = decide(&stage, &requests).await;
    let reused = "REQUEST_ID_REUSED";
    assert_eq!(
        verdicts,
        ["BILLING_ACCOUNT_NOT_FOUND", "APPLIED", reused, reused]
    );
    assert_eq!(stage.reverts(one).await.len(), 2, "both legs");
    assert_eq!(
        stage.reverts(two).await.len(),
        0,
        "no outcome, so no entries"
    );
    stage.assert_ledger_is_sound().await;
    stage.strike().await;
}

#[tokio::test]
async fn contents_that_are_not_stored_are_decided_at_once() {
    let mut stage = Stage::new().await;
    stage.set("AUTHORIZATION__MODE", "grants");
    let account = stage.customer().await.account;
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
    let verdicts = decide(&stage, &requests).await;
    assert_eq!(verdicts, ["ORG_NOT_GRANTED"; 500]);
    stage.strike().await;
}

#[tokio::test]
async fn requests_of_an_id_and_of_a_usage_are_decided_in_the_order_of_delivery() {
    for swap in [false, true] {
        let stage = Stage::new().await;
        let account = stage.customer().await.account;
        let usage = stage.usage(account, 20).await;
        // The id that sorts first, or last, is that of a usage that is not there.
        let unknown = if swap { Uuid::nil() } else { Uuid::max() };
        let mut overtaken = request("x", unknown, account, 5);
        overtaken.last_attempt = false;
        let requests = [
            overtaken,
            request("x", usage, account, 5),
            request("y", usage, account, 5),
        ];
        let verdicts = decide(&stage, &requests).await;
        assert_eq!(
            verdicts,
            ["UNDECIDED", "APPLIED", "ALREADY_REVERTED"],
            "the first may still find its usage, and then has the id of another request"
        );
        stage.assert_ledger_is_sound().await;
        stage.strike().await;
    }
}

#[tokio::test]
async fn the_first_of_an_id_is_decided_before_another_however_their_usages_sort() {
    let stage = Stage::new().await;
    let account = stage.customer().await.account;
    let mut usages = [
        stage.usage(account, 20).await,
        stage.usage(account, 20).await,
    ];
    usages.sort();
    let [lower, higher] = usages;
    let requests = [
        request("a", higher, account, 5),
        request("x", higher, account, 5),
        request("x", lower, account, 5),
    ];
    let verdicts = decide(&stage, &requests).await;
    assert_eq!(
        verdicts,
        ["APPLIED", "ALREADY_REVERTED", "REQUEST_ID_REUSED"]
    );
    assert_eq!(stage.reverts(lower).await.len(), 0);
    stage.assert_ledger_is_sound().await;
    stage.strike().await;
}
