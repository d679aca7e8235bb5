//! The source files below `src`: their tokens, the paths that they name and the items that they
//! define.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// A path of Rust, such as `["crate", "domain", "event"]`.
pub type RustPath = Vec<String>;

/// One source file.
pub struct Source {
    /// Its path below `src`, such as `broker/publish.rs`.
    pub name: String,
    /// Its module, such as `["broker", "publish"]`; empty for `lib.rs`.
    pub module: RustPath,
    /// Its text without comments, strings and inline modules of tests.
    pub tokens: Vec<String>,
    /// The imports of its `use` declarations: the name in this file, and the path.
    pub imports: BTreeMap<String, RustPath>,
    /// The modules whose items a `use path::*` brings in.
    pub globs: Vec<RustPath>,
    /// The paths of two or more segments that it names outside of `use` declarations.
    pub paths: Vec<RustPath>,
    /// The items that it defines at its top level.
    pub items: BTreeSet<String>,
    /// The child modules that it declares.
    pub children: BTreeSet<String>,
}

impl Source {
    /// Whether the file holds tests alone.
    pub fn is_test(&self) -> bool {
        self.module.iter().any(|segment| segment == "tests")
    }

    /// Whether it uses the crate `name`.
    pub fn names_crate(&self, name: &str) -> bool {
        let is_local = |name: &str| self.imports.contains_key(name) || self.children.contains(name);
        let imported = self.imports.values().chain(&self.globs);
        let mut inline = self.paths.iter().filter(|path| !is_local(&path[0]));
        imported.clone().any(|path| path[0] == name) || inline.any(|path| path[0] == name)
    }

    /// Whether it names a path that contains `part`, such as `["std", "fs"]`.
    pub fn names_path(&self, part: &[&str]) -> bool {
        let mut all = self.imports.values().chain(&self.globs).chain(&self.paths);
        all.any(|path| path.windows(part.len()).any(|window| window == part))
    }
}

/// Reads every file below `src`, ordered by name.
pub fn all() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut folders = vec![root.clone()];
    let mut sources = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("a readable folder") {
            let path = entry.expect("a readable entry").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).expect("UTF-8");
                sources.push(parse(path.strip_prefix(&root).expect("below src"), &text));
            }
        }
    }
    sources.sort_by(|a, b| a.name.cmp(&b.name));
    sources
}

/// The code of a file: its text without the lines that are comments.
pub fn code(source: &Source) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let text = fs::read_to_string(root.join(&source.name)).expect("UTF-8");
    let lines = text.lines();
    let code: Vec<&str> = lines
        .filter(|line| !line.trim_start().starts_with("//"))
        .collect();
    code.join("\n")
}

fn parse(below: &Path, text: &str) -> Source {
    let mut source = Source {
        name: below.display().to_string(),
        module: module(below),
        tokens: without_tests(&tokens(text)),
        imports: BTreeMap::new(),
        globs: Vec::new(),
        paths: Vec::new(),
        items: BTreeSet::new(),
        children: BTreeSet::new(),
    };
    let tokens = source.tokens.clone();
    let mut depth = 0;
    let mut at = 0;
    while at < tokens.len() {
        match tokens[at].as_str() {
            "use" if tokens[at + 1] != "<" => {
                at = read_use(&tokens, at + 1, &Vec::new(), &mut source);
                continue;
            }
            "{" => depth += 1,
            "}" => depth -= 1,
            "mod" if depth == 0 => drop(source.children.insert(tokens[at + 1].clone())),
            "fn" | "struct" | "enum" | "union" | "trait" | "type" | "const" | "static"
                if depth == 0 && tokens.get(at + 1).is_some_and(|token| is_name(token)) =>
            {
                source.items.insert(tokens[at + 1].clone());
            }
            token if is_name(token) && tokens.get(at + 1).is_some_and(|next| next == "::") => {
                let path = read_path(&tokens, &mut at);
                source.paths.push(path);
                continue;
            }
            _ => {}
        }
        at += 1;
    }
    source
}

fn module(below: &Path) -> RustPath {
    let path: PathBuf = below.with_extension("");
    let segments = path.components();
    let names = segments.map(|segment| segment.as_os_str().to_string_lossy().into_owned());
    names.filter(|name| name != "lib").collect()
}

fn is_name(token: &str) -> bool {
    token.starts_with(|first: char| first.is_alphabetic() || first == '_')
}

fn read_path(tokens: &[String], at: &mut usize) -> RustPath {
    let mut path = vec![tokens[*at].clone()];
    *at += 1;
    while *at + 1 < tokens.len() && tokens[*at] == "::" && is_name(&tokens[*at + 1]) {
        path.push(tokens[*at + 1].clone());
        *at += 2;
    }
    path
}

/// Reads one tree of a `use` declaration; returns the position behind it.
fn read_use(tokens: &[String], mut at: usize, prefix: &RustPath, source: &mut Source) -> usize {
    let mut path = prefix.clone();
    loop {
        match tokens[at].as_str() {
            "::" => {}
            "*" => {
                source.globs.push(path);
                return at + 1;
            }
            "{" => {
                at += 1;
                while tokens[at] != "}" {
                    at = read_use(tokens, at, &path, source);
                    at += usize::from(tokens[at] == ",");
                }
                return at + 1;
            }
            "as" => {
                source.imports.insert(tokens[at + 1].clone(), path);
                return at + 2;
            }
            "self" if !path.is_empty() => {}
            token if is_name(token) => path.push(token.to_owned()),
            _ => {
                let name = path.last().expect("a use declaration names a path");
                source.imports.insert(name.clone(), path);
                return at;
            }
        }
        at += 1;
    }
}

/// Leaves out inline modules that exist for tests alone.
fn without_tests(tokens: &[String]) -> Vec<String> {
    let start = ["#", "[", "cfg", "(", "test", ")", "]", "mod"];
    let mut kept = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        let is_inline = tokens
            .get(at + start.len() + 1)
            .is_some_and(|token| token == "{");
        if !is_inline || tokens[at..at + start.len()] != start {
            kept.push(tokens[at].clone());
            at += 1;
            continue;
        }
        let mut depth = 0;
        while depth != 1 || tokens[at] != "}" {
            depth += i32::from(tokens[at] == "{") - i32::from(tokens[at] == "}");
            at += 1;
        }
        at += 1;
    }
    kept
}

/// Words, `::` and single other characters; without comments, strings and characters.
fn tokens(text: &str) -> Vec<String> {
    let mut tokens = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let length = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if let Some(length) = literal(rest) {
            length
        } else if is_name(rest) {
            let end = |character: char| !character.is_alphanumeric() && character != '_';
            rest.find(end).unwrap_or(rest.len())
        } else if rest.starts_with("::") {
            2
        } else {
            first.len_utf8()
        };
        let token = &rest[..length];
        let is_text = token.starts_with("//") || literal(rest).is_some();
        if !is_text && !first.is_whitespace() {
            tokens.push(token.to_owned());
        }
        rest = &rest[length..];
    }
    tokens
}

/// The length of the string or character that `text` begins with.
fn literal(text: &str) -> Option<usize> {
    let body = text.trim_start_matches(['b', 'c']);
    let prefix = text.len() - body.len();
    if let Some(raw) = body.strip_prefix('r') {
        let hashes = raw.len() - raw.trim_start_matches('#').len();
        let inner = raw[hashes..].strip_prefix('"')?;
        let end = format!("\"{}", "#".repeat(hashes));
        let length = inner.find(&end).expect("a closed string");
        return Some(prefix + 1 + hashes + 1 + length + end.len());
    }
    let quote = body
        .chars()
        .next()
        .filter(|first| ['"', '\''].contains(first))?;
    let mut characters = body.char_indices().skip(1);
    if quote == '\'' {
        let second = body.chars().nth(1)?;
        let is_lifetime = second != '\\' && body.chars().nth(2) != Some('\'');
        if is_lifetime {
            return None;
        }
    }
    while let Some((at, character)) = characters.next() {
        if character == '\\' {
            characters.next();
        } else if character == quote {
            return Some(prefix + at + 1);
        }
    }
    None
}
