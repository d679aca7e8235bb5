//! Lines of code, comments, messages and SQL have at most 100 columns.

use std::fs;
use std::path::{Path, PathBuf};

const COLUMNS: usize = 100;

/// Files with raw strings whose line breaks would count.
const EXCEPTIONS: [&str; 6] = [
    "src/domain/request/fields/tests.rs",
    "src/gateway/answer.rs",
    "src/ledger/schema/objects/expected.rs",
    "tests/it/documents/shapes.rs",
    "tests/it/gateway/printed_command.rs",
    "tests/it/operator/submit_file/mistakes.rs",
];

#[test]
fn lines_have_at_most_100_columns() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut folders: Vec<PathBuf> = ["src", "tests", "benches", "examples", "config"]
        .iter()
        .map(|folder| root.join(folder))
        .collect();
    let mut long = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("readable") {
            let path = entry.expect("readable").path();
            if path.is_dir() {
                if !path.ends_with("node_modules") {
                    folders.push(path);
                }
                continue;
            }
            let ending = path.extension().and_then(|ending| ending.to_str());
            let below = path.strip_prefix(root).expect("below the root");
            if !matches!(ending, Some("rs" | "sql"))
                || EXCEPTIONS.iter().any(|e| below == Path::new(e))
            {
                continue;
            }
            let text = fs::read_to_string(&path).expect("UTF-8");
            for (number, line) in text.lines().enumerate() {
                if line.chars().count() > COLUMNS {
                    long.push(format!("{}:{}", below.display(), number + 1));
                }
            }
        }
    }
    assert!(long.is_empty(), "longer than {COLUMNS} columns: {long:#?}");
}
