//! Operators' reads and changes: the pause, grants, stored outcomes, interventions and usages.

pub mod control;
pub mod grants;
pub mod history;
pub mod interventions;
pub mod stored;
pub mod usages;
