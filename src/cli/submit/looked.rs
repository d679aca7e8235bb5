//! A file of requests looked through, before anything is sent.

use std::collections::{HashMap, HashSet};

use super::lines::{LineError, RequestLine, RequestSource};

/// The number of invalid lines that are reported one by one.
const WRONG_TOLD: u64 = 50;

/// What was found before anything is sent.
pub struct Looked {
    pub good: u64,
    /// Lines that are no requests.
    pub error: u64,
    /// Of them, those that only others show to be none: they have an id that another line has for
    /// something else.
    clashing: HashSet<u64>,
    /// The last line; what was added to the file since was not looked at.
    last: u64,
}

impl Looked {
    /// The next line that is a request.
    pub fn next(
        &self,
        lines: &mut impl Iterator<Item = std::io::Result<Result<RequestLine, LineError>>>,
    ) -> std::io::Result<Option<RequestLine>> {
        for line in lines {
            // The wrong ones were told before.
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

/// Looks at every line before anything is sent: how many are requests, and how many are not.
pub fn look_through(source: &RequestSource) -> anyhow::Result<Looked> {
    let mut looked = Looked {
        good: 0,
        error: 0,
        clashing: HashSet::new(),
        last: 0,
    };
    let mut repeated = 0u64;
    // What each id asks, and the line that has it first.
    let mut asked: HashMap<String, (uuid::Uuid, u64)> = HashMap::new();
    let tell = |number: u64, why: &str, looked: &mut Looked| {
        looked.error += 1;
        if looked.error <= WRONG_TOLD {
            say!("revertd: line {number}: {why}");
        } else if looked.error == WRONG_TOLD + 1 {
            say!("revertd: further lines are not shown");
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
                    let why = format!("has the id of line {at}, and asks for something else");
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
            "revertd: {repeated} lines ask the same as an earlier one under its id, and are \
            answered as that is; give them a message_id of their own if they are to be requests \
            of their own"
        );
    }
    Ok(looked)
}
