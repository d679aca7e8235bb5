//! The project's pages in Markdown, as files.

use std::fs;
use std::path::PathBuf;

pub use crate::support::sessions::{read as text, root};

/// Pages at the top of the repository.
const AT_THE_TOP: [&str; 4] = [
    "README.md",
    "SECURITY.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
];

/// A page: its path from the repository's root, with slashes, and its text.
pub struct Page {
    pub path: String,
    pub text: String,
}

/// Every page of the book, its summary excepted.
pub fn book() -> Vec<Page> {
    let mut found = Vec::new();
    let mut folders = vec![PathBuf::from("docs")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(root().join(&folder)).expect("readable") {
            let path = folder.join(entry.expect("readable").file_name());
            if root().join(&path).is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "md") {
                let path = path.to_str().expect("UTF-8").to_owned();
                if path != "docs/SUMMARY.md" {
                    let text = text(&path);
                    found.push(Page { path, text });
                }
            }
        }
    }
    found.sort_by(|one, other| one.path.cmp(&other.path));
    found
}

/// Every page: those of the book, and those at the top.
pub fn all() -> Vec<Page> {
    let at_the_top = AT_THE_TOP.map(|path| Page {
        path: path.to_owned(),
        text: text(path),
    });
    book().into_iter().chain(at_the_top).collect()
}

/// The text between two marks of a page.
pub fn between<'a>(page: &'a str, from: &str, to: &str) -> &'a str {
    let (_, rest) = page.split_once(from).unwrap_or_else(|| panic!("no {from}"));
    let (part, _) = rest.split_once(to).unwrap_or_else(|| panic!("no {to}"));
    part
}
