//! The cost of authorization: the same requests with and without grants.

use anyhow::Result;

use crate::load::Load;
use crate::report::Section;
use crate::rounds::{Case, interleave};
use crate::run::{Bench, Figures};
use crate::shapes::compare;
use crate::table::number;

/// Rows in the table of grants.
const GRANTS: u32 = 100_000;

/// The grants of the client that publishes the requests.
#[derive(Clone, Copy)]
enum Granted {
    /// No grants, in mode `broker`.
    Unasked,
    /// One grant for each org.
    EachOrg,
    /// One grant for every org.
    EveryOrg,
}

pub async fn measure(bench: &Bench) -> Result<Section> {
    let load = Load {
        named: true,
        ..Load::good(bench.requests)
    };
    let case = |name: &str, granted| Case::new(name, move || run(bench, load, granted));
    let cases = [
        case("mode broker", Granted::Unasked),
        case("mode grants, one for each org", Granted::EachOrg),
        case("mode grants, one for every org", Granted::EveryOrg),
    ];
    let runs = interleave(bench.rounds, &cases).await?;
    let mut section = Section::new("grants", "Authorization", compare(&runs, 0));
    section.notes.push(format!(
        "{} requests of one client on {} orgs; with grants, {} rows of 100 clients in the table. \
        Medians over the rounds ({}), ratios too: each is of two runs of one round.",
        number(bench.requests.into()),
        number(load.accounts.into()),
        number(GRANTS.into()),
        bench.rounds
    ));
    let percent = 100.0 * runs[1].ratio_to(&runs[0]);
    section.headlines.push((
        "authorized by 100,000 grants, to none asked for",
        format!("{percent:.0} %"),
    ));
    Ok(section)
}

async fn run(bench: &Bench, load: Load, granted: Granted) -> Result<Figures> {
    let mode = match granted {
        Granted::Unasked => "broker",
        Granted::EachOrg | Granted::EveryOrg => "grants",
    };
    let settings = [("REVERTD_AUTHORIZATION__MODE", mode.to_owned())];
    let stage = bench.stage(&settings).await?;
    stage.seed_accounts(load.accounts).await?;
    let login = stage.login().to_owned();
    match granted {
        Granted::Unasked => {}
        Granted::EachOrg => seed(&stage, &login, load.accounts).await?,
        Granted::EveryOrg => {
            seed(&stage, "another", load.accounts).await?;
            stage
                .long(&format!(
                    "INSERT INTO revertd.grants (client, granted_by) VALUES ('{login}', 'bench')"
                ))
                .await?;
        }
    }
    stage.seed_usages(load).await?;
    let figures = bench.work_off(&stage, load, 1).await?;
    stage.clean().await?;
    Ok(figures)
}

/// Grants every org to each of a hundred clients; `client` is one of them.
async fn seed(stage: &crate::stage::Stage, client: &str, orgs: u32) -> Result<()> {
    let others = GRANTS / orgs - 1;
    stage
        .long(&format!(
            "INSERT INTO revertd.grants (client, org_id, granted_by)
             SELECT CASE c WHEN 0 THEN '{client}' ELSE 'client' || c END,
                 uuid_generate_v5(uuid_nil(), 'org' || i), 'bench'
             FROM generate_series(0, {others}) c, generate_series(0, {orgs} - 1) i"
        ))
        .await
}
