//! Keeps the output of processes. `tests/support/no-secrets` searches it after the suite:
//! `*.log` is standard error, `*.out` standard output. Two more files list the texts that must not
//! appear.
//!
//! Nothing is kept unless `REVERTD_TEST_LOGS` names a folder.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::PathBuf;

use uuid::Uuid;

fn folder() -> Option<PathBuf> {
    std::env::var_os("REVERTD_TEST_LOGS").map(PathBuf::from)
}

/// A secret, which the program must show nowhere.
pub fn secret(text: &str) {
    note("secrets", text);
}

/// A text within the body of a request, which the program must not log.
pub fn payload(text: &str) {
    note("payloads", text);
}

/// The password in an address, as it stands there and as it is, alone and with its user.
pub fn password_of(address: &str) {
    for address in address.split(',') {
        let url = url::Url::parse(address).ok();
        // One of several hosts is no URL, but all have the login of the first.
        let Some((url, encoded)) = url.as_ref().and_then(|url| Some((url, url.password()?))) else {
            continue;
        };
        let password = decoded(encoded);
        if password == url.username() {
            continue; // a password of a shared test server would be found everywhere
        }
        for text in [
            encoded,
            &password,
            &format!("{}:{password}", url.username()),
        ] {
            secret(text);
        }
    }
}

/// A text with percent-encoded characters decoded.
pub fn decoded(text: &str) -> String {
    let plus = text.replace('+', "%2B"); // which a form would read as a space
    let pair = url::form_urlencoded::parse(plus.as_bytes()).next();
    pair.map(|(name, _)| name.into_owned()).unwrap_or_default()
}

/// Keeps the output of a process in a file with this ending.
pub fn keep(ending: &str, written: &[u8]) {
    if !written.is_empty()
        && let Some(mut file) = file(ending)
    {
        file.write_all(written).expect("the folder takes it");
    }
}

/// A new file for the output of a process.
pub fn file(ending: &str) -> Option<File> {
    let path = folder()?.join(format!("{}.{ending}", Uuid::new_v4()));
    Some(File::create(path).expect("the folder is there"))
}

/// A line more, whole, though other tests write to the same file.
fn note(name: &str, text: &str) {
    let Some(folder) = folder() else {
        return;
    };
    let file = OpenOptions::new()
        .create(true)
        .append(true)
        .open(folder.join(name));
    let line = format!("{text}\n");
    file.and_then(|mut file| file.write_all(line.as_bytes()))
        .expect("the folder takes it");
}
