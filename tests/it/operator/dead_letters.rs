//! `revertd dead-letters`: list, show, replay and discard, also killed and with large bodies.

mod discard;
mod killed;
mod large;
mod list;
mod replay;
pub mod setup;
mod show;
mod slow_replay;
