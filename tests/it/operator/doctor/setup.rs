//! A queue declared with other arguments than revertd declares.

use lapin::options::QueueDeclareOptions;
use lapin::types::FieldTable;

use crate::support::*;

pub async fn declare(env: &TestEnv, queue: &str, arguments: FieldTable) {
    let options = QueueDeclareOptions {
        durable: true,
        ..Default::default()
    };
    let declared = env.channel.queue_declare(queue.into(), options, arguments);
    declared.await.expect("declared");
}
