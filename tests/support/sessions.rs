//! The blocks that the documents print, and a shell that runs them with stand-ins for programs that
//! a test cannot run.
//!
//! It must not know the effect of a block: each test checks the records of the stand-ins that it
//! names.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use tempfile::TempDir;

/// Writes its arguments into the file of its name, separated by tabs. A password from standard
/// input becomes the last of them.
pub const RABBITMQCTL: &str = r#"
if [ "$1" = add_user ] && [ $# = 2 ]; then read -r password; set -- "$@" "$password"; fi
{ printf '%s\t' "$@"; echo; } >>"$RECORDS/rabbitmqctl"
"#;

/// Writes the SQL that it is given by `-c`, `-f` or standard input into the file of its name. The
/// end of a script ends its last statement, as in `psql`.
pub const PSQL: &str = r#"
file=-
while [ $# -gt 0 ]; do
  case $1 in
    -c) printf '%s\n' "$2" >>"$RECORDS/psql"; file=/dev/null; shift ;;
    -f) file=$2; shift ;;
    -v) shift ;;
  esac
  shift
done
{ cat "$file"; echo ';'; } >>"$RECORDS/psql"
"#;

/// A file of the project.
pub fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// README.md, SECURITY.md and the pages of docs/, each with its path.
pub fn all() -> Vec<(String, String)> {
    let mut paths = vec!["README.md".to_owned(), "SECURITY.md".to_owned()];
    let mut folders = vec![root().join("docs")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "md") {
                let relative = path.strip_prefix(root()).expect("within the project");
                paths.push(relative.to_str().expect("UTF-8").to_owned());
            }
        }
    }
    paths.sort();
    paths
        .into_iter()
        .map(|path| (path.clone(), read(&path)))
        .collect()
}

/// A fenced block of a page.
#[derive(Debug)]
pub struct Block {
    /// Such as `sh`; empty for the output of a command.
    pub language: String,
    pub text: String,
}

/// The blocks of a page, or of a part of it, in their order.
pub fn blocks(page: &str) -> Vec<Block> {
    let mut found: Vec<Block> = Vec::new();
    let mut is_open = false;
    for line in page.lines() {
        match (line.strip_prefix("```"), is_open) {
            (Some(language), false) => found.push(Block {
                language: language.to_owned(),
                text: String::new(),
            }),
            (Some(_), true) => {}
            (None, true) => {
                let block = found.last_mut().expect("a block is open");
                block.text.push_str(line);
                block.text.push('\n');
                continue;
            }
            (None, false) => continue,
        }
        is_open = !is_open;
    }
    found
}

/// The page from a marker on: `<!-- MARKER -->`.
pub fn after<'a>(page: &'a str, marker: &str) -> &'a str {
    let marker = format!("<!-- {marker} -->\n");
    let (_, rest) = page
        .split_once(&marker)
        .unwrap_or_else(|| panic!("no {marker}"));
    rest
}

/// The block below a marker.
pub fn marked(page: &str, marker: &str) -> String {
    let rest = after(page, marker);
    assert!(rest.starts_with("```sh\n"), "no block below {marker}");
    blocks(rest).swap_remove(0).text
}

/// A shell in the project's folder, with stand-ins before all other programs.
pub struct Shell {
    folder: TempDir,
    variables: Vec<(String, String)>,
}

impl Shell {
    pub fn new() -> Self {
        Self {
            folder: tempfile::tempdir().expect("a folder"),
            variables: Vec::new(),
        }
    }

    /// Has that script take the place of a program.
    pub fn stand_in(self, name: &str, script: &str) -> Self {
        let file = self.folder.path().join(name);
        std::fs::write(&file, format!("#!/bin/sh\nset -e\n{script}\n")).expect("written");
        let may_run = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(file, may_run).expect("it may run");
        self
    }

    pub fn variable(mut self, name: &str, value: &str) -> Self {
        self.variables.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Runs a block, which ends at the first command that fails.
    pub fn run(&self, block: &str) -> Output {
        let folder = self.folder.path().to_str().expect("UTF-8");
        let binary = super::program::binary();
        let program = binary.parent().and_then(Path::to_str).expect("a folder");
        let output = Command::new("sh")
            .args(["-e", "-c", block])
            .current_dir(root())
            .env_clear()
            .env("PATH", format!("{folder}:{program}:/usr/bin:/bin"))
            .env("RECORDS", self.records())
            .envs(self.variables.iter().cloned())
            .stdin(std::process::Stdio::null())
            .output()
            .expect("a shell");
        super::logs::keep("log", &output.stderr);
        super::logs::keep("out", &output.stdout);
        output
    }

    /// The record of a stand-in.
    pub fn record(&self, name: &str) -> String {
        std::fs::read_to_string(self.records().join(name)).unwrap_or_default()
    }

    fn records(&self) -> PathBuf {
        let folder = self.folder.path().join("records");
        std::fs::create_dir_all(&folder).expect("a folder");
        folder
    }
}

/// The statements of a script: without comments, each on one line with its semicolon.
pub fn statements(sql: &str) -> Vec<String> {
    let lines = sql
        .lines()
        .filter(|line| !line.trim_start().starts_with("--"));
    let text = lines.collect::<Vec<_>>().join(" ");
    text.split(';')
        .map(|statement| statement.split_whitespace().collect::<Vec<_>>().join(" "))
        .filter(|statement| !statement.is_empty())
        .map(|statement| format!("{statement};"))
        .collect()
}
