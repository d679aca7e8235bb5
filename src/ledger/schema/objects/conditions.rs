//! Compares the conditions of the outcomes' constraints with the migrations.
//!
//! The server prints a condition in its own form, which differs between versions. So it plans a
//! statement with both conditions as columns: the plan computes neither, and prints both in the
//! same form.

use serde_json::Value;

use super::expected::EXPECTED;
use super::found::Found;

/// The existing and the expected condition of a constraint.
struct Pair<'a> {
    name: &'a str,
    there: &'a str,
    expected: &'a str,
}

fn pairs<'a>(found: &'a [Found<'a>]) -> Vec<Pair<'a>> {
    let mut pairs = Vec::new();
    for (key, definition) in EXPECTED.iter().filter(|(key, _)| key.table == "outcomes") {
        let Some(expected) = definition.condition.as_deref() else {
            continue;
        };
        let there = found.iter().find(|found| {
            found.kind == key.kind && found.table == key.table && found.name == key.name
        });
        // If the columns differ, that is reported already.
        if let Some(there) = there.filter(|there| there.is_as(definition)) {
            pairs.push(Pair {
                name: &key.name,
                there: there.definition,
                expected,
            });
        }
    }
    pairs
}

/// The statement to plan.
pub fn question(found: &[Found<'_>]) -> String {
    let pairs = pairs(found);
    let both = pairs
        .iter()
        .flat_map(|pair| [format!("({})", pair.there), format!("({})", pair.expected)]);
    let columns = both.collect::<Vec<_>>().join(", ");
    format!("EXPLAIN (VERBOSE, COSTS OFF, FORMAT JSON) SELECT {columns} FROM revertd.outcomes")
}

/// The constraints whose conditions differ in the plan. Empty if the plan is missing or not
/// understood.
pub fn unlike<'a>(found: &'a [Found<'a>], plan: Option<&Value>) -> Vec<&'a str> {
    let pairs = pairs(found);
    let output = plan.and_then(|plan| plan[0]["Plan"]["Output"].as_array());
    let Some(output) = output.filter(|output| output.len() == 2 * pairs.len()) else {
        return Vec::new();
    };
    let unlike = pairs.iter().zip(output.chunks(2));
    unlike
        .filter(|(_, both)| both[0] != both[1])
        .map(|(pair, _)| pair.name)
        .collect()
}
