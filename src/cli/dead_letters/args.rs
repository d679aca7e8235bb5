//! The arguments of `replay` and `discard`.

use std::path::PathBuf;

use clap::Args;

use super::filter::{self, LetterFilter};
use crate::cli::operator;
use crate::cli::output::Output;

/// Wrong usage.
pub const WRONG_USAGE: u8 = 2;

/// Which letters, and who is to answer for it.
#[derive(Debug, Args)]
pub struct Chosen {
    /// Letters by their id: the message id, the id of a request of a group, or at least 6 digits of
    /// the id that `list` prints.
    #[arg(value_name = "ID", value_parser = filter::id)]
    pub ids: Vec<String>,
    /// Every letter.
    #[arg(long, conflicts_with = "ids")]
    pub all: bool,
    #[command(flatten)]
    pub filter: LetterFilter,
    /// Say what would be done, and do nothing.
    #[arg(long)]
    pub dry_run: bool,
    /// Don't ask.
    #[arg(long, short)]
    pub yes: bool,
    /// Who does it, for the record. Without: the user of this shell.
    #[arg(long, value_name = "NAME", value_parser = operator::name)]
    pub by: Option<String>,
    /// How the result is printed.
    #[arg(long, value_enum, default_value_t = Output::Text)]
    pub output: Output,
}

#[derive(Debug, Args)]
pub struct Replay {
    #[command(flatten)]
    pub chosen: Chosen,
    /// At most so many letters a second.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub rate: Option<u32>,
    /// Also those that were no requests (reason `MALFORMED_REQUEST`): they only come back, unless
    /// the program has learned to read them.
    #[arg(long)]
    pub include_malformed: bool,
    /// Why, for the record.
    #[arg(long, value_name = "TEXT", value_parser = filter::why)]
    pub why: Option<String>,
}

#[derive(Debug, Args)]
pub struct Discard {
    #[command(flatten)]
    pub chosen: Chosen,
    /// Why, for the record.
    #[arg(long, value_name = "TEXT", required_unless_present = "dry_run")]
    #[arg(value_parser = filter::why)]
    pub why: Option<String>,
    /// Save the letters there first, whole, an object a line; the file must not exist.
    #[arg(long, value_name = "FILE")]
    pub save: Option<PathBuf>,
}
