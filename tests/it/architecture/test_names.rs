//! The names of tests, and the page `tests/README.md` that places them.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use regex::Regex;

/// Longest name of a test, in characters.
const LONGEST: usize = 50;

/// The tests of one source file.
struct Module {
    /// `contract::policies` in tests/it, `faults::crashes` in tests/faults, none in `src`.
    path: Option<String>,
    tests: Vec<String>,
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Rust files below a folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).expect("readable") {
        let path = entry.expect("readable").path();
        if path.is_dir() {
            files.extend(self::files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files
}

/// Names of the functions with a test attribute, those of `proptest!` included.
fn tests(text: &str) -> Vec<String> {
    let attribute = Regex::new(
        r"(?m)^ *#\[(?:tokio::)?test(?:\(.*\))?\]\n(?: *(?://|#).*\n)* *(?:async )?fn (\w+)",
    );
    let attribute = attribute.expect("a pattern");
    attribute
        .captures_iter(text)
        .map(|found| found[1].to_owned())
        .collect()
}

/// Every file of `src` and `tests` that has tests.
fn modules() -> Vec<Module> {
    let mut modules = Vec::new();
    for (folder, prefix) in [
        ("src", None),
        ("tests/it", Some("")),
        ("tests/faults", Some("faults::")),
    ] {
        let folder = root().join(folder);
        for file in files(&folder) {
            let tests = tests(&fs::read_to_string(&file).expect("UTF-8"));
            if tests.is_empty() {
                continue;
            }
            let below = file.strip_prefix(&folder).expect("below the folder");
            let parts = below.with_extension("");
            let parts: Vec<_> = parts.iter().map(|part| part.to_string_lossy()).collect();
            let path = prefix.map(|prefix| format!("{prefix}{}", parts.join("::")));
            modules.push(Module { path, tests });
        }
    }
    modules
}

/// The paths of modules and names of tests that tests/README.md has in backticks.
fn named() -> BTreeSet<String> {
    let page = fs::read_to_string(root().join("tests/README.md")).expect("UTF-8");
    let listed = Regex::new(r"(?m)^(?:\|.*|Modules: [^.]*)").expect("a pattern");
    let name = Regex::new(r"`([a-z0-9_:]+)`").expect("a pattern");
    let listed = listed.find_iter(&page).map(|found| found.as_str());
    let names = listed.flat_map(|text| name.captures_iter(text).map(|found| found[1].to_owned()));
    names.collect()
}

#[test]
fn a_test_name_has_at_most_50_characters() {
    let modules = modules();
    let names: Vec<_> = modules.iter().flat_map(|module| &module.tests).collect();
    assert!(names.len() > 400, "{} tests are found", names.len());
    let long: Vec<_> = names.iter().filter(|name| name.len() > LONGEST).collect();
    assert!(long.is_empty(), "more than {LONGEST} characters: {long:?}");
}

#[test]
fn the_tests_readme_names_existing_tests() {
    let modules = modules();
    let known: BTreeSet<_> = modules
        .iter()
        .flat_map(|module| module.path.iter().chain(&module.tests))
        .collect();
    let unknown: Vec<_> = named()
        .into_iter()
        .filter(|name| name.contains("::") || name.matches('_').count() > 2)
        .filter(|name| !known.contains(name))
        .collect();
    assert!(unknown.is_empty(), "tests/README.md: no test {unknown:?}");
}

#[test]
fn the_tests_readme_names_every_module() {
    let (modules, named) = (modules(), named());
    let missing: Vec<_> = modules
        .iter()
        .filter_map(|module| module.path.as_ref())
        .filter(|path| !named.contains(*path))
        .collect();
    assert!(missing.is_empty(), "tests/README.md lacks {missing:?}");
}
