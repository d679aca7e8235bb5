//! The worker: consumes requests, decides them in batches, publishes the events, acknowledges.
//!
//! The supervisor runs the process's workers in generations. A generation connects, consumes, and
//! ends as a whole: at a stop or a pause, when a server fails, or when a worker panics. Deliveries
//! that it did not settle are delivered again; only the crash journal remembers anything of them.

mod batch;
mod batch_recorder;
mod copies;
mod crash_journal;
mod generation;
mod items;
mod logs;
mod messages;
mod operator_pause;
mod publish;
mod shared;
mod state;
mod supervisor;
mod telemetry;

pub use state::WorkerError;
pub use supervisor::run;
