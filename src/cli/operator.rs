//! Who is at the keyboard, for the record.

/// Where the shell says so, whoever the process is.
const WHO: [&str; 3] = ["SUDO_USER", "USER", "LOGNAME"];

/// The name that was given, or else the shell's user; `None` where nothing tells.
pub fn by(given: Option<String>) -> Option<String> {
    let known = WHO.iter().filter_map(|name| std::env::var(name).ok());
    given.into_iter().chain(known).find(|name| !name.is_empty())
}

/// A name for the record: a line that a terminal can show.
pub fn name(text: &str) -> Result<String, String> {
    let fits = !text.trim().is_empty() && text.chars().count() <= 128;
    if !fits || text.chars().any(char::is_control) {
        return Err("must be 1 to 128 characters, none of them a control character".into());
    }
    Ok(text.to_owned())
}
