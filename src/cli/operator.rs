//! The name of the operator, for the record.

/// Environment variables that may name the user. `SUDO_USER` comes first, because under sudo the
/// others name root.
const WHO: [&str; 3] = ["SUDO_USER", "USER", "LOGNAME"];

/// The given name, or else the shell's user; `None` if no variable is set.
pub fn by(given: Option<String>) -> Option<String> {
    let known = WHO.iter().filter_map(|name| std::env::var(name).ok());
    given.into_iter().chain(known).find(|name| !name.is_empty())
}

/// Parses an operator's name, which a terminal must be able to show on one line.
pub fn name(text: &str) -> Result<String, String> {
    let fits = !text.trim().is_empty() && text.chars().count() <= 128;
    if !fits || text.chars().any(char::is_control) {
        return Err("must be 1 to 128 characters, none of them a control character".into());
    }
    Ok(text.to_owned())
}
