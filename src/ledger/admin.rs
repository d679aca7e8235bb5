//! Operators' reads and changes: the pause, grants, stored outcomes and interventions.

pub mod control;
pub mod grants;
pub mod history;
pub mod interventions;
pub mod stored;
