//! A request, row, lock or queue that fails must not delay unrelated requests.

mod queues;
mod setup;
mod silent_queues;
mod statements;
