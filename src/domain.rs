//! The meaning of requests, outcomes and events: pure code, without I/O, clock or log.

pub mod decide;
pub mod disposition;
pub mod event;
pub mod event_batch;
pub mod outcome;
pub mod refusal;
pub mod request;
pub mod retry;
pub mod rpc_code;
