//! The gauges: the status of the process at the moment of a scrape.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeGaugeValue, EncodeLabelSet};
use prometheus_client::metrics::MetricType;

use super::status::{ANSWER_HOLDS, DatabaseAnswer, Pause, ProcessStatus, QueueDepth};

impl Collector for ProcessStatus {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        // Call it before the lock is taken: it is the caller's code.
        let connections = (self.0.connections)();
        let now = self.now();
        let mut page = Page(&mut encoder);
        page.one(
            "revertd_consuming",
            "1 if the process consumes the work queue, otherwise 0",
            &i64::from(now.consuming),
        )?;
        let pauses = Pause::ALL.map(|pause| {
            let paused = i64::from(now.is_paused(pause));
            ([("reason", pause.label())], paused)
        });
        page.several(
            "revertd_paused",
            "1 if the process is paused for this reason, otherwise 0",
            &pauses,
        )?;
        let database = matches!(&now.database,
            Some(DatabaseAnswer::Given(when)) if when.elapsed() <= ANSWER_HOLDS);
        let up = [
            ([("server", "broker")], i64::from(now.broker_is_up())),
            ([("server", "database")], i64::from(database)),
        ];
        page.several(
            "revertd_connection_up",
            "1 if the server's connections are open or it answered in the last 20 seconds, \
            otherwise 0",
            &up,
        )?;
        let in_flight: usize = now.in_flight.values().map(|(_, messages)| messages).sum();
        page.one(
            "revertd_in_flight_messages",
            "Messages in flight: delivered to a worker and not settled",
            &whole(in_flight),
        )?;
        page.one(
            "revertd_oldest_unsettled_seconds",
            "Age of the oldest request that was delivered and not settled; it keeps growing \
            while the pool is paused",
            &now.oldest().as_secs_f64(),
        )?;
        let pool = |state| [POOL, ("db_client_connection_state", state)];
        let counts = [
            (pool("used"), whole(connections.used)),
            (pool("idle"), whole(connections.idle)),
        ];
        page.several(
            "db_client_connection_count",
            "Connections to the database, by state",
            &counts,
        )?;
        page.several(
            "db_client_connection_max",
            "Maximum number of connections to the database",
            &[([POOL], whole(connections.max))],
        )?;
        page.several(
            "db_client_connection_pending_requests",
            "Workers that wait for a connection to the database",
            &[([POOL], whole(connections.waiting))],
        )?;
        let labels = |queue: &QueueDepth| {
            [
                ("kind", queue.kind.label().to_owned()),
                ("queue", queue.queue.clone()),
            ]
        };
        let depths = now.queues.iter().filter_map(|queue| {
            let messages = queue.messages?;
            Some((labels(queue), i64::from(messages)))
        });
        page.several(
            "revertd_queue_messages",
            "Messages ready in a queue, polled every ten seconds; absent if the poll failed",
            &depths.collect::<Vec<_>>(),
        )?;
        let bounds = now.queues.iter().map(|queue| {
            let bytes = i64::try_from(queue.max_bytes).unwrap_or(i64::MAX);
            (labels(queue), bytes)
        });
        page.several(
            "revertd_queue_max_bytes",
            "Configured bound of a queue, in bytes of bodies",
            &bounds.collect::<Vec<_>>(),
        )
    }
}

const POOL: (&str, &str) = ("db_client_connection_pool_name", "revertd");

fn whole(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// Writes gauges one after another.
struct Page<'a, 'b>(&'a mut DescriptorEncoder<'b>);

impl Page<'_, '_> {
    fn one(&mut self, name: &str, help: &str, value: &impl EncodeGaugeValue) -> fmt::Result {
        let mut gauge = self
            .0
            .encode_descriptor(name, help, None, MetricType::Gauge)?;
        gauge.encode_gauge(value)
    }

    fn several<Labels: EncodeLabelSet>(
        &mut self,
        name: &str,
        help: &str,
        values: &[(Labels, i64)],
    ) -> fmt::Result {
        let mut gauge = self
            .0
            .encode_descriptor(name, help, None, MetricType::Gauge)?;
        for (labels, value) in values {
            gauge.encode_family(labels)?.encode_gauge(value)?;
        }
        Ok(())
    }
}
