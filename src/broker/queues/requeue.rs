//! Letters go back to their queue, and the queue is asked until it has them.

use std::time::Duration;

use amq_protocol::protocol::{AMQPClass, basic, queue};
use amq_protocol::types::FieldTable;
use tokio::time::{Instant, sleep};

use super::queue_reader::{GET_EMPTY, GET_OK, QueueReader};
use crate::broker::error::BrokerError;
use crate::broker::raw::wire;

/// Longest wait for the queue to have letters back, and between two looks: the broker does not say
/// so.
const BACK_TIMEOUT: Duration = Duration::from_secs(10);
const BACK_POLL: Duration = Duration::from_millis(20);

const DECLARE_OK: (u16, u16) = (50, 11);
const CANCEL_OK: (u16, u16) = (60, 31);

impl QueueReader {
    /// Lets the queue take note of what was settled, and take the rest back.
    pub(crate) async fn requeue(&mut self) -> Result<(), BrokerError> {
        for number in 1..=self.consumers {
            let cancel = basic::AMQPMethod::Cancel(basic::Cancel {
                consumer_tag: number.to_string().into(),
                nowait: false,
            });
            self.send([AMQPClass::Basic(cancel)]).await?;
            self.skip_to(&[CANCEL_OK]).await?;
        }
        if self.is_asking {
            self.skip_to(&[GET_OK, GET_EMPTY]).await?;
        }
        // The broker hands acknowledgements to the queue a few at a time, and forgets those that it
        // still has when the channel closes. Each of these questions is answered once what was
        // handed over before it is done.
        for _ in 0..if self.settled > 0 { 2 } else { 0 } {
            self.get().await?;
            self.skip_to(&[GET_OK, GET_EMPTY]).await?;
        }
        if self.consumers == 0 {
            return Ok(());
        }
        let all = basic::AMQPMethod::Nack(basic::Nack {
            delivery_tag: 0,
            multiple: true,
            requeue: true,
        });
        self.send([AMQPClass::Basic(all)]).await?;
        // The close alone would return them too, some time after it is answered: the next reader
        // would miss them.
        let (back, until) = (self.taken - self.settled, Instant::now() + BACK_TIMEOUT);
        while self.others == 0 && self.count().await?.0 < back && Instant::now() < until {
            sleep(BACK_POLL).await;
        }
        Ok(())
    }

    /// Asks for one more message. That there is none is told at once, even where deliveries to a
    /// consumer are on their way.
    pub(crate) async fn get(&mut self) -> Result<(), BrokerError> {
        let get = basic::AMQPMethod::Get(basic::Get {
            queue: self.queue.as_str().into(),
            no_ack: false,
        });
        self.send([AMQPClass::Basic(get)]).await
    }

    /// Messages that are ready, and consumers.
    pub(crate) async fn count(&mut self) -> Result<(u32, u32), BrokerError> {
        let declare = queue::AMQPMethod::Declare(queue::Declare {
            queue: self.queue.as_str().into(),
            passive: true,
            durable: true,
            exclusive: false,
            auto_delete: false,
            nowait: false,
            arguments: FieldTable::default(),
        });
        self.send([AMQPClass::Queue(declare)]).await?;
        let there = self.skip_to(&[DECLARE_OK]).await?;
        match wire::parsed(&there).map_err(|error| self.classify(&error))? {
            AMQPClass::Queue(queue::AMQPMethod::DeclareOk(there)) => {
                Ok((there.message_count, there.consumer_count))
            }
            _ => Err(self.classify(&wire::unexpected())),
        }
    }
}
