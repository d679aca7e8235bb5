//! Throughput of other loads, compared with the plain case of the same round.

use anyhow::Result;

use crate::load::{GROUP, Kind, Load};
use crate::report::Section;
use crate::rounds::{Case, Runs, interleave};
use crate::run::Bench;
use crate::table::{COSTS, Table, costs, number, rate, ratio};

pub async fn measure(bench: &Bench) -> Result<Section> {
    let plain = Load::good(bench.requests);
    let hot = Load {
        accounts: 1,
        ..plain
    };
    let in_rows = Load {
        in_a_row: GROUP,
        ..plain
    };
    let kind = |kind| Load::of(kind, bench.requests);
    let twice = Load::of(Kind::Twice, bench.requests / 2);
    let one = [("REVERTD_WORKER__CONCURRENCY", "1".to_owned())];
    let case = |name: &str, load| Case::new(name, move || bench.revertd(load, &[]));
    let cases = [
        case("plain: 1,000 accounts, 4 workers, 1 process", plain),
        case("every request on one account", hot),
        case("100 requests in a row on one account", in_rows),
        case("half of the deliveries duplicates", twice),
        case("every request rejected: no such usage", kind(Kind::Unknown)),
        case(
            "every request rejected: more than its usage",
            kind(Kind::Excessive),
        ),
        case("every request malformed", kind(Kind::Malformed)),
        Case::new("1 worker", || bench.revertd(plain, &one)),
    ];
    let runs = interleave(bench.rounds, &cases).await?;
    let mut section = Section::new("shapes", "Other loads", compare(&runs, 0));
    section.notes.push(format!(
        "{} messages each; medians over the rounds ({}), ratios too: each is of two runs of one \
        round.",
        number(f64::from(plain.messages())),
        bench.rounds
    ));
    let percent = 100.0 * runs[1].ratio_to(&runs[0]);
    section.headlines.push((
        "every request on one account, to spread over 1,000",
        format!("{percent:.0} %"),
    ));
    Ok(section)
}

/// A table that compares all runs with one of them.
pub fn compare(runs: &[Runs], plain: usize) -> Table {
    let header = ["", "messages/s", "from, to", "to the plain case"];
    let mut table = Table::new(header.into_iter().chain(COSTS));
    for of in runs {
        let ratio = ratio(of.ratio_to(&runs[plain]));
        let cells = [of.name.clone()].into_iter().chain(rate(of));
        table.row(cells.chain([ratio]).chain(costs(of)));
    }
    table
}
