//! Messages to the broker, each confirmed, and the replies to requests.

pub(super) mod client_connection;
pub(super) mod confirm_channel;
pub(super) mod login;
pub(super) mod message;
pub(super) mod publisher;
pub(super) mod reply_queue;
pub(super) mod reply_router;
pub(super) mod request_client;
mod window;
