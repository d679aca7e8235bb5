//! Publishes what follows from a batch. If a queue refuses a message or does not answer, only that
//! request waits.

use super::batch_recorder::{BatchRecorder, StepTimer};
use super::messages::{Outgoing, messages};
use super::state::Exit;
use crate::broker::{BrokerError, Delivery};
use crate::domain::disposition::Disposition;
use hold::PublishHold;
use rerouted::Rerouted;

mod hold;
mod probe;
mod reroute;
mod rerouted;
mod send;
mod silent_queues;
mod unconfirmed;

pub use send::Sender;
pub use silent_queues::SilentQueues;

/// Publishes the messages of a batch. If some are not confirmed, `dispositions` is changed to what
/// became of their requests instead. Returns an error if messages are back in the work queue: the
/// pool pauses once the batch is settled.
pub async fn publish(
    sender: &mut Sender,
    batch: &[Delivery],
    dispositions: &mut [Disposition],
    recorder: &mut BatchRecorder,
) -> Result<Option<BrokerError>, Exit> {
    let timer = StepTimer::start();
    let shared = sender.shared.clone();
    let mut rerouted = Rerouted::new(&shared, batch, dispositions);
    let (count, published) = publish_all(sender, &mut rerouted, recorder).await;
    let elsewhere = rerouted.into_elsewhere();
    let error = published.as_ref().err().map(ToString::to_string);
    recorder.published(timer, count, error.as_deref());
    for (index, disposition) in elsewhere {
        dispositions[index] = disposition;
    }
    published.map_err(Exit::Broker)
}

/// The number of messages, and the error of [`publish`].
async fn publish_all(
    sender: &mut Sender,
    rerouted: &mut Rerouted<'_>,
    recorder: &BatchRecorder,
) -> (usize, Result<Option<BrokerError>, BrokerError>) {
    let shared = sender.shared.clone();
    let mut outgoing = messages(&shared, rerouted.batch, rerouted.dispositions);
    let count = outgoing.len();
    let mut hold = PublishHold::new();
    let publishing = async {
        loop {
            let sending = sender.send_twice(outgoing, rerouted, recorder, &mut hold);
            let unconfirmed = sending.await?;
            let Some(first) = unconfirmed.first() else {
                return Ok(None);
            };
            let error = first.message.undeliverable();
            shared.logs.refused(unconfirmed.count(), &first.message);
            let waiting = rerouted.resort(&unconfirmed, sender, recorder, &mut hold);
            let waiting = waiting.await?;
            let left = rerouted.wait_on_rungs(waiting, sender, recorder, &mut hold);
            let left = left.await?;
            if left.is_empty() {
                return Ok(None);
            }
            if hold.is_over() {
                let requeued = rerouted.requeue(left, sender, recorder, &mut hold);
                return requeued.await.map(Some);
            }
            hold.wait(&shared, &error).await;
            sender.reopen().await?;
            outgoing = unconfirmed.into_all();
            let waits =
                |outgoing: &Outgoing<'_>| outgoing.indexes.iter().any(|index| left.contains(index));
            outgoing.retain(waits);
        }
    };
    (count, publishing.await)
}
