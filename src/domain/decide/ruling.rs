//! A decision, and the rows that store it.

use crate::domain::outcome::Decision;

/// The decision on a request, and the rows that store it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ruling {
    /// The answer.
    pub decision: Decision,
    /// The rows to write.
    pub write: Write,
}

/// The rows that a ruling needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Write {
    /// None, and the answer rests on no row that revertd or another writer added.
    Nothing,
    /// None, but the answer rests on rows that were found. It may be given once these rows are
    /// durable.
    Found,
    /// The outcome of a refusal.
    Refusal,
    /// The outcome of a success and both legs of its entry.
    Revert(NewRevert),
}

/// The numbers of a revert beyond those of its [`Entry`], which the constraints check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NewRevert {
    /// The amount that was reverted before, by any writer.
    pub reverted_before: i64,
    /// The part of it that other writers reverted; never 0.
    pub reverted_by_others: Option<i64>,
    /// Its number among revertd's own reverts of the usage, from 0.
    pub revert_no: i32,
}
