//! Load at a fixed rate, independent of the answers. Each request has a due time, and its latency
//! counts from then to the arrival of the event at a consumer. A request that is sent late, because
//! the broker did not accept it or this program had no processor, is counted with its delay. So a
//! slow phase does not reduce the number of measurements.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use hdrhistogram::Histogram;

use crate::load::{Load, message_id};
use crate::trend::Trend;
use crate::wire::{Wire, publish};

/// Shortest sleep of the sender: it writes all requests due within it together, and leaves the
/// processor to other processes.
const TICK: Duration = Duration::from_micros(250);

/// Connections that send, in turn. In production, requests have many publishers; and RabbitMQ reads
/// from a connection only while few of its messages (32, in a quorum queue) are on their way to the
/// disk.
const SENDERS: usize = 16;

/// Largest latency that the histogram holds, in microseconds.
const LONGEST: u64 = 600_000_000;

pub struct Plan {
    pub amqp: String,
    pub exchange: String,
    pub reply_queue: String,
    pub load: Load,
    /// Requests a second.
    pub rate: f64,
    /// Requests at the start whose latencies are left out.
    pub warm_up: u32,
}

pub struct Measured {
    /// From the due time to the event's arrival, in microseconds.
    pub latency: Histogram<u64>,
    /// From the due time to the write on the socket, in microseconds.
    pub lag: Histogram<u64>,
    /// Events a second.
    pub rate: f64,
    /// Seconds by which the latency grows in each second of due times. It is 0 while the queue does
    /// not grow.
    pub growth: f64,
}

/// The measurements of the consumer.
struct Received {
    latency: Histogram<u64>,
    rate: f64,
    growth: f64,
}

impl Plan {
    /// Blocks until every request has its event.
    pub fn run(&self) -> Result<Measured> {
        let (frames, ends) = self.frames();
        let mut receiving = Wire::open(&self.amqp)?;
        receiving.consume(&self.reply_queue)?;
        let senders = (0..SENDERS).map(|_| Wire::open(&self.amqp));
        let mut senders: Vec<_> = senders.collect::<Result<_>>()?;
        let start = Instant::now() + Duration::from_millis(20);
        thread::scope(|scope| {
            let sender = scope.spawn(|| self.send(&mut senders, &frames, &ends, start));
            let received = self.receive(&mut receiving, start);
            let lag = sender.join().map_err(|_| anyhow!("the sender panicked"))?;
            let received = received?;
            Ok(Measured {
                latency: received.latency,
                lag: lag?,
                rate: received.rate,
                growth: received.growth,
            })
        })
    }

    /// The frames of all requests, and the end of each request in them.
    fn frames(&self) -> (Vec<u8>, Vec<usize>) {
        let (mut frames, mut ends) = (Vec::new(), Vec::new());
        for number in self.load.numbers() {
            let (id, body) = (message_id(number), self.load.body(number));
            publish(&mut frames, &self.exchange, "revert", &id, body.as_bytes());
            ends.push(frames.len());
        }
        (frames, ends)
    }

    fn send(
        &self,
        senders: &mut [Wire],
        frames: &[u8],
        ends: &[usize],
        start: Instant,
    ) -> Result<Histogram<u64>> {
        let mut lag = histogram()?;
        let (mut sent, mut written, mut turn) = (0, 0, 0);
        while sent < ends.len() {
            let now = Instant::now();
            let mut due = sent;
            while due < ends.len() && self.due(start, due) <= now {
                due += 1;
            }
            if due == sent {
                thread::sleep(self.due(start, sent).duration_since(now).max(TICK));
                continue;
            }
            turn = (turn + 1) % senders.len();
            senders[turn]
                .write(&frames[written..ends[due - 1]])
                .context("writing requests")?;
            let now = Instant::now();
            for index in sent..due {
                if index >= self.warm_up as usize {
                    record(&mut lag, now.duration_since(self.due(start, index)));
                }
            }
            (sent, written) = (due, ends[due - 1]);
        }
        Ok(lag)
    }

    fn receive(&self, wire: &mut Wire, start: Instant) -> Result<Received> {
        let (mut latency, mut trend) = (histogram()?, Trend::default());
        let mut seen = vec![false; self.load.requests as usize];
        let (mut left, mut last) = (seen.len(), start);
        while left > 0 {
            let properties = wire
                .next_properties()
                .with_context(|| format!("{left} requests have no event"))?;
            let now = Instant::now();
            let number = number(properties).context("an event of another run")?;
            // The broker redelivers unacknowledged events of an earlier load's consumer.
            let Some(index) = number.checked_sub(self.load.first) else {
                continue;
            };
            let index = index as usize;
            let seen = seen.get_mut(index).context("an event of another run")?;
            // A redelivered event may arrive twice; the first arrival counts.
            if std::mem::replace(seen, true) {
                continue;
            }
            left -= 1;
            last = now;
            if index >= self.warm_up as usize {
                let due = self.due(start, index);
                let time = now.duration_since(due);
                record(&mut latency, time);
                trend.add(due.duration_since(start).as_secs_f64(), time.as_secs_f64());
            }
        }
        let time = last.duration_since(self.due(start, self.warm_up as usize));
        ensure!(!time.is_zero(), "there was nothing to measure");
        let rate = f64::from(self.load.requests - self.warm_up) / time.as_secs_f64();
        Ok(Received {
            latency,
            rate,
            growth: trend.slope(),
        })
    }

    /// The due time of the request at that index.
    fn due(&self, start: Instant, index: usize) -> Instant {
        let index = u32::try_from(index).unwrap_or(u32::MAX);
        start + Duration::from_secs_f64(f64::from(index) / self.rate)
    }
}

fn histogram() -> Result<Histogram<u64>> {
    Ok(Histogram::new_with_bounds(1, LONGEST, 3)?)
}

fn record(histogram: &mut Histogram<u64>, time: Duration) {
    histogram.saturating_record(u64::try_from(time.as_micros()).unwrap_or(LONGEST));
}

/// The number of a request, from the correlation id of its event.
pub fn number(properties: &[u8]) -> Option<u32> {
    const NAME: &[u8] = b"request-";
    let at = properties.windows(NAME.len()).position(|at| at == NAME)?;
    let digits = properties[at + NAME.len()..].iter();
    let digits = digits.map_while(|byte| char::from(*byte).to_digit(10));
    Some(digits.fold(0, |number, digit| number * 10 + digit))
}
