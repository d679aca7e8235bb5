//! Whether the conditions that guard the outcomes are those of the migrations.
//!
//! The server shows a condition in words of its own, which are not those of every version. So it is asked to plan a
//! statement with both, which computes neither, and shows both in the same words.

use serde_json::Value;

use super::expected::EXPECTED;
use super::found::Found;

/// What is there and what is to be, under a name.
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
        // What is about other columns is told without that.
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

/// What to ask.
pub fn question(found: &[Found<'_>]) -> String {
    let pairs = pairs(found);
    let both = pairs
        .iter()
        .flat_map(|pair| [format!("({})", pair.there), format!("({})", pair.expected)]);
    let columns = both.collect::<Vec<_>>().join(", ");
    format!("EXPLAIN (VERBOSE, COSTS OFF, FORMAT JSON) SELECT {columns} FROM revertd.outcomes")
}

/// The constraints whose conditions are others, by the answer to that. None where it is not understood.
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
