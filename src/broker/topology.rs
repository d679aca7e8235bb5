//! The exchanges, queues and bindings of revertd.

mod declarations;
mod steps;

pub use declarations::{ANY_KEY, REPLY_KEYS, exchanges, queues};
pub use steps::{Alternate, Steps, ensure};
