//! Checks a file of requests before anything is sent.

use std::collections::{HashMap, HashSet};

use super::lines::{LineError, RequestLine, RequestSource};

/// The number of invalid lines that are reported one by one.
const WRONG_TOLD: u64 = 50;

/// The result of the check.
pub struct Looked {
    pub good: u64,
    /// Invalid lines.
    pub error: u64,
    /// Of them, lines with the id of an earlier line and other content.
    clashing: HashSet<u64>,
    /// The last checked line. Lines that were added later are not sent.
    last: u64,
}

impl Looked {
    /// The next valid line.
    pub fn next(
        &self,
        lines: &mut impl Iterator<Item = std::io::Result<Result<RequestLine, LineError>>>,
    ) -> std::io::Result<Option<RequestLine>> {
        for line in lines {
            // Invalid lines were reported by the check.
            if let Ok(line) = line?
                && line.number <= self.last
                && !self.clashing.contains(&line.number)
            {
                return Ok(Some(line));
            }
        }
        Ok(None)
    }
}

/// Checks every line, and reports invalid lines.
pub fn look_through(source: &RequestSource) -> anyhow::Result<Looked> {
    let mut looked = Looked {
        good: 0,
        error: 0,
        clashing: HashSet::new(),
        last: 0,
    };
    let mut repeated = 0u64;
    // The content of each id, and the first line with it.
    let mut asked: HashMap<String, (uuid::Uuid, u64)> = HashMap::new();
    let tell = |number: u64, why: &str, looked: &mut Looked| {
        looked.error += 1;
        if looked.error <= WRONG_TOLD {
            say!("revertd: line {number}: {why}");
        } else if looked.error == WRONG_TOLD + 1 {
            say!("revertd: further invalid lines are not shown");
        }
    };
    for line in source.lines()? {
        match line? {
            Ok(line) => {
                looked.last = looked.last.max(line.number);
                let content = line.content();
                let first = asked.entry(line.message_id);
                let (first, at) = *first.or_insert((content, line.number));
                if first != content {
                    let why = format!("has the id of line {at}, and other content");
                    tell(line.number, &why, &mut looked);
                    looked.clashing.insert(line.number);
                    continue;
                }
                looked.good += 1;
                repeated += u64::from(at != line.number);
            }
            Err(line) => {
                looked.last = looked.last.max(line.number);
                tell(line.number, &line.why, &mut looked);
            }
        }
    }
    if repeated > 0 {
        say!(
            "revertd: {repeated} lines repeat an earlier line, id and content, and get the same \
            answer; give each its own message_id to make it a separate request"
        );
    }
    Ok(looked)
}
