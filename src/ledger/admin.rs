//! What operators read and change: the pause, grants, stored outcomes, interventions.

pub mod control;
pub mod grants;
pub mod history;
pub mod interventions;
pub mod stored;
