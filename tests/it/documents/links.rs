//! Links, anchors and included files of the pages, the book's summary, and the length of lines.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::{Component, Path, PathBuf};

use pulldown_cmark::{Event, Options, Parser, Tag, TagEnd};
use regex::Regex;

use super::pages::{self, Page};

/// Columns of a line of prose.
const WIDTH: usize = 100;

/// The parts of a page that the tests need.
#[derive(Default)]
struct Parsed {
    links: Vec<String>,
    anchors: BTreeSet<String>,
    /// Code, tables and HTML: their lines may be long.
    unwrapped: Vec<Range<usize>>,
}

fn parsed(text: &str) -> Parsed {
    let mut found = Parsed::default();
    let mut heading = None::<String>;
    let mut seen = BTreeMap::<String, usize>::new();
    let events = Parser::new_ext(text, Options::ENABLE_TABLES).into_offset_iter();
    for (event, range) in events {
        match event {
            Event::Start(Tag::Link { dest_url, .. } | Tag::Image { dest_url, .. }) => {
                found.links.push(dest_url.into_string());
            }
            Event::Start(Tag::CodeBlock(_) | Tag::Table(_) | Tag::HtmlBlock) => {
                found.unwrapped.push(range);
            }
            Event::Start(Tag::Heading { .. }) => heading = Some(String::new()),
            Event::End(TagEnd::Heading(_)) => {
                let anchor = anchor(&heading.take().unwrap_or_default());
                let before = seen.entry(anchor.clone()).or_default();
                let numbered = format!("{anchor}-{before}");
                found
                    .anchors
                    .insert(if *before == 0 { anchor } else { numbered });
                *before += 1;
            }
            Event::Text(text) | Event::Code(text) => {
                if let Some(heading) = &mut heading {
                    heading.push_str(&text);
                }
            }
            _ => {}
        }
    }
    found
}

/// The anchor of a heading, as mdBook and code hosts make it.
fn anchor(heading: &str) -> String {
    heading
        .chars()
        .filter_map(|letter| match letter {
            ' ' => Some('-'),
            '-' | '_' => Some(letter),
            _ if letter.is_alphanumeric() => Some(letter.to_ascii_lowercase()),
            _ => None,
        })
        .collect()
}

/// The file that a link of a page names, from the repository's root; `None` for a link that leaves
/// the repository.
fn target(page: &str, file: &str) -> Option<String> {
    let mut path = PathBuf::from(page);
    if !file.is_empty() {
        path.pop();
    }
    for component in Path::new(file).components() {
        match component {
            Component::Normal(name) => path.push(name),
            Component::ParentDir if !path.pop() => return None,
            Component::ParentDir | Component::CurDir => {}
            Component::RootDir | Component::Prefix(_) => return None,
        }
    }
    path.to_str().map(str::to_owned)
}

/// The fault of a link, if it has one.
fn fault(page: &str, link: &str, anchors: &BTreeMap<String, BTreeSet<String>>) -> Option<String> {
    if link.contains("://") || link.starts_with("mailto:") {
        return None;
    }
    let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
    let Some(target) = target(page, file) else {
        return Some(format!("{page}: {link} leaves the repository"));
    };
    if !pages::root().join(&target).is_file() {
        return Some(format!("{page}: {link}: there is no file {target}"));
    }
    if page.starts_with("docs/") && !target.starts_with("docs/") {
        return Some(format!(
            "{page}: {link} leaves the book; name the file as code"
        ));
    }
    let known = anchors.get(&target);
    let there = anchor.is_empty() || known.is_some_and(|known| known.contains(anchor));
    (!there).then(|| format!("{page}: {link}: {target} has no heading #{anchor}"))
}

/// The faults of all links of these pages.
fn faults(pages: &[Page]) -> Vec<String> {
    let parsed = pages
        .iter()
        .map(|page| (page.path.clone(), parsed(&page.text)));
    let parsed: BTreeMap<String, Parsed> = parsed.collect();
    let anchors = parsed
        .iter()
        .map(|(path, page)| (path.clone(), page.anchors.clone()));
    let anchors = anchors.collect();
    let links = parsed
        .iter()
        .flat_map(|(path, page)| page.links.iter().map(move |link| (path, link)));
    links
        .filter_map(|(path, link)| fault(path, link, &anchors))
        .collect()
}

#[test]
fn every_link_and_anchor_leads_somewhere() {
    let mut all = pages::all();
    all.push(Page {
        path: "docs/SUMMARY.md".into(),
        text: pages::text("docs/SUMMARY.md"),
    });
    assert!(all.len() > 40);
    let links: usize = all.iter().map(|page| parsed(&page.text).links.len()).sum();
    assert!(links > 200, "{links}");
    assert_eq!(faults(&all), Vec::<String>::new());
}

#[test]
fn a_broken_link_is_noticed() {
    let page = |text: &str| Page {
        path: "docs/index.md".into(),
        text: text.into(),
    };
    let faults = |text: &str| faults(&[page(text)]).len();
    assert_eq!(
        faults("# One `a.b`\n[x](#one-ab) [y](index.md#one-ab) [z](https://example.org/#n)"),
        0
    );
    for broken in [
        "[x](#two)",
        "[x](missing.md)",
        "[x](index.md#two)",
        "![x](missing.svg)",
        "[x](../Cargo.toml)",
        "[x](../../outside.md)",
        "[x][y]\n\n[y]: missing.md",
    ] {
        assert_eq!(faults(&format!("# One\n\n{broken}\n")), 1, "{broken}");
    }
}

#[test]
fn every_page_is_in_the_summary() {
    let summary = parsed(&pages::text("docs/SUMMARY.md")).links;
    let listed: BTreeSet<String> = summary.iter().map(|link| format!("docs/{link}")).collect();
    assert_eq!(summary.len(), listed.len(), "a page is listed twice");
    let there: BTreeSet<String> = pages::book().into_iter().map(|page| page.path).collect();
    assert_eq!(listed, there);
}

#[test]
fn every_included_file_exists() {
    let include = Regex::new(r"\{\{#[a-z_]*include ([^}: ]+)").expect("an expression");
    let mut count = 0;
    for page in pages::book() {
        for found in include.captures_iter(&page.text) {
            let file = target(&page.path, &found[1]).expect("within the repository");
            assert!(pages::root().join(&file).is_file(), "{}: {file}", page.path);
            count += 1;
        }
    }
    assert!(count >= 3, "the clients' code: {count}");
}

#[test]
fn every_source_file_that_is_named_exists() {
    let named =
        Regex::new(r"`((?:src|tests|benches|config|api|migrations|examples|docs)(?:/[\w.-]+)+)`")
            .expect("an expression");
    let mut count = 0;
    for page in pages::all() {
        for found in named.captures_iter(&page.text) {
            // A recipe's place for a name.
            let exists = found[1].contains("NAME") || pages::root().join(&found[1]).exists();
            assert!(exists, "{}: {}", page.path, &found[1]);
            count += 1;
        }
    }
    assert!(count > 50, "{count}");
}

/// Numbers of the lines of prose that are too long. A line that cannot be broken, such as a URL,
/// may be.
fn too_long(text: &str) -> Vec<usize> {
    let unwrapped = parsed(text).unwrapped;
    let mut found = Vec::new();
    let mut at = 0;
    for (number, line) in text.split('\n').enumerate() {
        let free = unwrapped.iter().any(|range| range.contains(&at));
        let within: String = line.trim_start().chars().take(WIDTH).collect();
        let breakable = within
            .trim_start_matches(['-', '*', '#'])
            .trim_start()
            .contains(' ');
        if !free && line.chars().count() > WIDTH && breakable {
            found.push(number + 1);
        }
        at += line.len() + 1;
    }
    found
}

#[test]
fn no_line_of_prose_is_longer_than_100_columns() {
    for page in pages::all() {
        assert_eq!(too_long(&page.text), Vec::<usize>::new(), "{}", page.path);
    }
    let long = "a ".repeat(51);
    assert_eq!(too_long(&format!("# A\n\n{long}\n")), [3]);
    assert_eq!(
        too_long(&format!("```\n{long}\n```\n\n| a |\n| --- |\n| {long} |\n")),
        [0; 0]
    );
}

#[test]
fn every_diagram_is_drawn_from_its_source() {
    let folder = pages::root().join("docs/diagrams");
    let mut count = 0;
    for entry in std::fs::read_dir(folder).expect("readable") {
        let path = entry.expect("readable").path();
        if path.extension().is_some_and(|extension| extension == "dot") {
            let source = std::fs::read(&path).expect("readable");
            let digest = ring::digest::digest(&ring::digest::SHA256, &source);
            let hex = digest
                .as_ref()
                .iter()
                .fold(String::new(), |hex, byte| format!("{hex}{byte:02x}"));
            let drawn = std::fs::read_to_string(path.with_extension("svg")).expect("drawn");
            let mark = format!("<!-- SHA-256 of the source: {hex} -->");
            assert!(drawn.contains(&mark), "make diagrams: {}", path.display());
            count += 1;
        }
    }
    assert_eq!(count, 4);
}
