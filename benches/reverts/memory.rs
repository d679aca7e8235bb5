//! Memory of the worker with a great number of waiting requests.

use anyhow::Result;

use crate::load::{GROUP, Kind, Load};
use crate::report::Section;
use crate::rounds::{Case, interleave};
use crate::run::Bench;
use crate::table::{Table, number};

pub async fn measure(bench: &Bench, waiting: u32) -> Result<Section> {
    let case = |name: &str, load| Case::new(name, move || bench.revertd(load, &[]));
    let cases = [
        case("good requests", Load::good(waiting)),
        case("malformed requests", Load::of(Kind::Malformed, waiting)),
        case(
            &format!("good requests in groups of {GROUP}"),
            Load::groups(waiting),
        ),
    ];
    let header = ["", "requests at the start", "peak memory", "requests/s"];
    let mut table = Table::new(header);
    let all = interleave(1, &cases).await?;
    for runs in &all {
        table.row([
            runs.name.clone(),
            number(runs.messages().into()),
            format!("{:.1} MiB", runs.peak_mib()),
            number(runs.rate()),
        ]);
    }
    let mut section = Section::new("memory", "Memory", table);
    let note = "The largest resident set (VmHWM) of the worker process, from its start until all \
        are worked off.";
    section.notes.push(note.to_owned());
    let peak = format!("{:.1} MiB", all[0].peak_mib());
    section
        .headlines
        .push(("peak memory, a million requests waiting", peak));
    let peak = format!("{:.1} MiB", all[2].peak_mib());
    section.headlines.push(("the same in groups of 100", peak));
    Ok(section)
}
