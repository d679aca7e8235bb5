//! The requests of the demo: every kind, each with its expected event.

use anyhow::Result;
use serde_json::{Value, json};
use uuid::Uuid;

use super::desk::{Desk, Expected, Request};
use super::ledger::Cast;

/// Publishes the requests in an order in which each one finds the state that it needs.
pub async fn tell(desk: &mut Desk, cast: &Cast) -> Result<()> {
    let first = what_succeeds(desk, cast).await?;
    what_was_reverted_before(desk, cast, &first).await?;
    what_is_no_usage_of_the_account(desk, cast, &first.event).await?;
    what_was_not_granted(desk, cast).await?;
    what_is_no_valid_request(desk, cast, &first).await
}

/// A request that was reverted, and its event.
struct Reverted {
    request: Request,
    event: Value,
}

/// The variants of the body on the API page.
async fn what_succeeds(desk: &mut Desk, cast: &Cast) -> Result<Reverted> {
    let (account, org, project) = (cast.acme.account, cast.acme.org, cast.project);
    let [twenty, thirty, forty, fifty, sixty, part, _] = cast.usages;

    let body = json!({"billing_id": account, "usage_id": twenty, "amount": 20});
    let request = Request::new("by billing_id, amount 20", &body);
    let event = desk.ask(&request, Expected::Reverted(20, 20)).await?;

    let body = json!({"org_id": org, "usage_id": thirty, "amount": "30"});
    let by_org = Request::new("by org_id, amount \"30\"", &body);
    desk.ask(&by_org, Expected::Reverted(30, 30)).await?;

    let body = json!({"project_id": project, "usage_id": forty, "amount": 40});
    let by_project = Request::new("by project_id, amount 40", &body);
    desk.ask(&by_project, Expected::Reverted(40, 40)).await?;

    let body = json!({"orgId": org, "usageId": fifty, "amount": "50"});
    let camel_case = Request::new("camelCase: orgId, usageId", &body);
    desk.ask(&camel_case, Expected::Reverted(50, 50)).await?;

    let body = json!({"org_id": org, "project_id": "", "billing_id": account, "usage_id": sixty,
        "amount": "60"});
    let all_fields = Request::new("every field, project_id \"\"", &body);
    desk.ask(&all_fields, Expected::Reverted(60, 60)).await?;

    let body = json!({"billing_id": account, "usage_id": part, "amount": "5"});
    let partial = Request::new("a part of it: 5 of 70", &body);
    desk.ask(&partial, Expected::Reverted(5, 70)).await?;
    Ok(Reverted { request, event })
}

async fn what_was_reverted_before(desk: &mut Desk, cast: &Cast, first: &Reverted) -> Result<()> {
    let account = cast.acme.account;
    let [twenty, _, _, _, _, part, untouched] = cast.usages;

    let again = first.request.clone().titled("request 1, delivered twice");
    let same = Expected::Same(first.event.clone());
    desk.ask(&again, same).await?;

    let body = json!({"billing_id": account, "usage_id": twenty, "amount": 20});
    let second = Request::new("a second one for its usage", &body);
    let already = Expected::Rejected("ALREADY_REVERTED");
    desk.ask(&second, already.clone()).await?;

    let body = json!({"billing_id": account, "usage_id": part, "amount": 65});
    let rest = Request::new("the rest of request 6's usage", &body);
    desk.ask(&rest, already).await?;

    let body = json!({"billing_id": account, "usage_id": untouched, "amount": 81});
    let too_much = Request::new("too much: 81 of 80", &body);
    let exceeds = Expected::Rejected("AMOUNT_EXCEEDS_USAGE");
    desk.ask(&too_much, exceeds).await?;
    Ok(())
}

async fn what_is_no_usage_of_the_account(
    desk: &mut Desk,
    cast: &Cast,
    revert: &Value,
) -> Result<()> {
    let account = cast.acme.account;
    let names = |usage: &Value| json!({"billing_id": account, "usage_id": usage, "amount": 20});

    let unknown = Request::new("an unknown usage", &names(&json!(Uuid::new_v4())));
    let after_retries = Expected::RejectedAfterRetries("USAGE_NOT_FOUND");
    desk.ask(&unknown, after_retries).await?;

    // Without retries: the ladder has been shown.
    let foreign = Request::new(
        "another account's usage",
        &names(&json!(cast.foreign_usage)),
    )
    .once();
    let not_found = Expected::Rejected("USAGE_NOT_FOUND");
    desk.ask(&foreign, not_found).await?;

    let revert_id = &revert["data"]["transaction_id"];
    let of_revert = Request::new("the revert of request 1", &names(revert_id));
    let refused = Expected::Rejected("REVERT_OF_REVERT");
    desk.ask(&of_revert, refused).await?;

    let purchase = Request::new("a purchase of credits", &names(&json!(cast.purchase)));
    let no_usage = Expected::Rejected("NOT_A_USAGE");
    desk.ask(&purchase, no_usage).await?;
    Ok(())
}

/// The answer does not reveal whether the org exists.
async fn what_was_not_granted(desk: &mut Desk, cast: &Cast) -> Result<()> {
    let usage = cast.foreign_usage;
    let not_granted = Expected::Rejected("ORG_NOT_GRANTED");

    let body = json!({"org_id": cast.globex.org, "usage_id": usage, "amount": 20});
    let foreign = Request::new("an org without a grant", &body);
    desk.ask(&foreign, not_granted.clone()).await?;

    let body = json!({"org_id": Uuid::new_v4(), "usage_id": usage, "amount": 20});
    let nobody = Request::new("an org that does not exist", &body);
    desk.ask(&nobody, not_granted).await?;

    let body = json!({"billing_id": cast.acme.account, "usage_id": cast.usages[6], "amount": 80});
    let anonymous = Request::new("without user_id", &body).anonymous();
    desk.ask(&anonymous, Expected::Rejected("CLIENT_UNKNOWN"))
        .await?;
    Ok(())
}

async fn what_is_no_valid_request(desk: &mut Desk, cast: &Cast, first: &Reverted) -> Result<()> {
    let usage = cast.usages[6];

    let body = json!({"org_id": cast.acme.org, "billing_id": Uuid::new_v4(), "usage_id": usage,
        "amount": 80});
    let unknown = Request::new("an unknown account of the org", &body);
    let not_found = Expected::Rejected("BILLING_ACCOUNT_NOT_FOUND");
    desk.ask(&unknown, not_found).await?;

    let body = json!({"billing_id": cast.acme.account, "usage_id": usage, "amount": 80});
    let other = Request::new("request 1's id, other content", &body).with_id_of(&first.request);
    let reused = Expected::Rejected("REQUEST_ID_REUSED");
    desk.ask(&other, reused).await?;

    let body = json!({"usage_id": usage, "amount": -80});
    let invalid = Request::new("amount -80, of no account", &body);
    let violations = Expected::Rejected("INVALID_FIELD");
    desk.ask(&invalid, violations).await?;

    let rubbish = Request::raw("rubbish: {\"usage_id\": 20", "{\"usage_id\": 20");
    let failed = Expected::Failed("MALFORMED_REQUEST");
    desk.ask(&rubbish, failed).await?;
    Ok(())
}
