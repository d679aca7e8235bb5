//! Links of the pages lead to files that are there, and to headings that these have.

use regex::Regex;

use super::names::{OPERATIONS, README};

/// The name that a heading has in links.
fn anchor(heading: &str) -> String {
    let named = |letter: &char| letter.is_alphanumeric() || " -_".contains(*letter);
    let kept: String = heading.chars().filter(named).collect();
    kept.trim().to_lowercase().replace(' ', "-")
}

#[test]
fn every_link_between_pages_has_a_target() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let link = Regex::new(r"\]\(([^)#:]*)(?:#([^):]*))?\)").expect("an expression");
    for (page, text) in [("README.md", README), ("OPERATIONS.md", OPERATIONS)] {
        for found in link.captures_iter(text) {
            let file = if found[1].is_empty() { page } else { &found[1] };
            assert!(root.join(file).exists(), "{page}: {file}");
            let Some(named) = found.get(2) else { continue };
            let target = std::fs::read_to_string(root.join(file)).expect("a page");
            let mut headings = target.lines().filter(|line| line.starts_with('#'));
            let there = headings.any(|line| anchor(line.trim_start_matches('#')) == named.as_str());
            assert!(there, "{page}: {file}#{}", named.as_str());
        }
    }
}
