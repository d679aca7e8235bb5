//! Who is at the keyboard, for the record.

/// Where the shell says so, whoever the process is.
const WHO: [&str; 3] = ["SUDO_USER", "USER", "LOGNAME"];

/// The name that was given, or else the shell's user; `None` where nothing tells.
pub fn by(given: Option<String>) -> Option<String> {
    let known = WHO.iter().filter_map(|name| std::env::var(name).ok());
    given.into_iter().chain(known).find(|name| !name.is_empty())
}
