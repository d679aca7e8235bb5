//! Which file uses an item of which other file, and the circles among them.

use std::collections::{BTreeMap, BTreeSet};

use super::source::{RustPath, Source};

/// A use of an item: the file that defines it, and the item's name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Use {
    pub file: String,
    pub item: String,
}

/// The uses of each file, re-exports followed to the file that defines the item.
pub struct Graph {
    pub uses: BTreeMap<String, BTreeSet<Use>>,
}

impl Graph {
    /// Reads the uses of all files, except those that hold tests alone.
    pub fn new(sources: &[Source]) -> Self {
        let modules = Modules(
            sources
                .iter()
                .map(|source| (&source.module, source))
                .collect(),
        );
        let tested = sources.iter().filter(|source| !source.is_test());
        let uses = tested.map(|source| (source.name.clone(), modules.uses(source)));
        Self {
            uses: uses.collect(),
        }
    }

    /// The groups of files that use each other in a circle.
    pub fn circles(&self) -> Vec<BTreeSet<&str>> {
        let reached: BTreeMap<&str, BTreeSet<&str>> = self
            .uses
            .keys()
            .map(|file| (file.as_str(), self.reached(file)))
            .collect();
        let mut circles: Vec<BTreeSet<&str>> = Vec::new();
        for (file, files) in &reached {
            let is_known = circles.iter().any(|circle| circle.contains(file));
            if files.contains(file) && !is_known {
                let back = |other: &&&str| reached[**other].contains(file);
                circles.push(files.iter().filter(back).copied().collect());
            }
        }
        circles
    }

    /// The files that `file` uses, directly or through others.
    fn reached<'a>(&'a self, file: &'a str) -> BTreeSet<&'a str> {
        let mut reached = BTreeSet::new();
        let mut open = vec![file];
        while let Some(file) = open.pop() {
            let uses = self.uses.get(file).into_iter().flatten();
            open.extend(
                uses.map(|used| used.file.as_str())
                    .filter(|used| reached.insert(*used)),
            );
        }
        reached
    }
}

struct Modules<'a>(BTreeMap<&'a RustPath, &'a Source>);

impl Modules<'_> {
    fn uses(&self, source: &Source) -> BTreeSet<Use> {
        let mut uses = BTreeSet::new();
        for path in source.imports.values().chain(&source.paths) {
            uses.extend(self.resolve(source, path, 0));
        }
        for path in &source.globs {
            if let Some(module) = absolute(source, path).and_then(|path| self.0.get(&path)) {
                let items = module.items.iter().cloned();
                uses.extend(items.map(|item| Use {
                    file: module.name.clone(),
                    item,
                }));
            }
        }
        uses.retain(|used| used.file != source.name);
        uses
    }

    /// The file that defines the item of `path`, as seen from `source`; `None` for other crates.
    fn resolve(&self, source: &Source, path: &RustPath, depth: usize) -> Option<Use> {
        assert!(
            depth < 20,
            "{} names {path:?}, which re-exports itself",
            source.name
        );
        let path = absolute(source, path)?;
        let length = (0..=path.len())
            .rev()
            .find(|end| self.0.contains_key(&path[..*end].to_vec()))?;
        let module = self.0[&path[..length].to_vec()];
        let item = path.get(length)?;
        if module.items.contains(item) {
            return Some(Use {
                file: module.name.clone(),
                item: item.clone(),
            });
        }
        let imported = module.imports.get(item)?;
        let rest = path[length + 1..].iter();
        let path: RustPath = imported.iter().chain(rest).cloned().collect();
        self.resolve(module, &path, depth + 1)
    }
}

/// The path from the crate's root; `None` for one of another crate or of a local name.
fn absolute(source: &Source, path: &RustPath) -> Option<RustPath> {
    let mut base = source.module.clone();
    let mut rest = path.as_slice();
    match rest[0].as_str() {
        "crate" => base.clear(),
        "self" => {}
        "super" => {
            while rest.get(1).is_some_and(|next| next == "super") {
                base.pop();
                rest = &rest[1..];
            }
            base.pop();
        }
        "revertd" if source.name == "main.rs" => base.clear(),
        first if source.children.contains(first) => {
            return Some([base, rest.to_vec()].concat());
        }
        first => {
            let imported = source
                .imports
                .get(first)
                .filter(|imported| imported[0] != *first)?;
            let path: RustPath = imported.iter().chain(&rest[1..]).cloned().collect();
            return absolute(source, &path);
        }
    }
    base.extend_from_slice(&rest[1..]);
    Some(base)
}
