//! The bytes of a connection's deliveries in flight: read and not settled.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use super::arrival::Arrival;

/// The state that a connection's reader and its consumers share.
#[derive(Debug)]
pub struct Flow {
    /// The number of bytes in flight at which no further frame is read.
    max: u64,
    /// The largest part of a body that is passed on, in bytes.
    body_max: u64,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// The largest frame that lapin accepts, in bytes.
    frame_max: usize,
    bytes: u64,
    /// The number of complete messages that are not settled. If it is zero, reading goes on:
    /// otherwise a message larger than the bound would never be complete.
    messages: usize,
    /// The complete messages that no consumer took yet, by channel.
    arrived: BTreeMap<u16, VecDeque<Arrival>>,
    reader: Option<Waker>,
}

impl Flow {
    pub fn new(max: u64, body_max: u64) -> Arc<Self> {
        Arc::new(Self {
            max,
            body_max,
            state: Mutex::default(),
        })
    }

    pub fn body_max(&self) -> u64 {
        self.body_max
    }

    /// Sets the largest frame, which is negotiated before the first delivery.
    pub fn set_frame_max(&self, bytes: usize) {
        self.state().frame_max = bytes;
    }

    pub fn frame_max(&self) -> usize {
        self.state().frame_max
    }

    /// Begins to count the deliveries of a channel.
    pub fn open(&self, channel: u16) {
        self.close(channel);
        self.state().arrived.insert(channel, VecDeque::new());
    }

    /// Ends the count of a channel.
    pub fn close(&self, channel: u16) {
        let mut state = self.state();
        for arrival in state.arrived.remove(&channel).unwrap_or_default() {
            self.release(&mut state, arrival.bytes, 1);
        }
    }

    /// Whether a frame may be read. If not, the reader is woken once it may.
    pub fn poll_open(&self, cx: &Context<'_>) -> Poll<()> {
        let mut state = self.state();
        if self.has_too_much(&state) {
            state.reader = Some(cx.waker().clone());
            return Poll::Pending;
        }
        Poll::Ready(())
    }

    /// Counts bytes of a message that is being read.
    pub fn arriving(&self, bytes: u64) {
        self.state().bytes += bytes;
    }

    /// Adds a complete message.
    pub fn arrived(&self, arrival: Arrival) {
        let mut state = self.state();
        state.messages += 1;
        match state.arrived.get_mut(&arrival.channel) {
            Some(arrived) => arrived.push_back(arrival),
            None => self.release(&mut state, arrival.bytes, 1),
        }
    }

    /// Takes the facts about a delivery, and its share of the bytes. Earlier entries of the channel
    /// are dropped: their deliveries were lost.
    pub fn take(self: &Arc<Self>, channel: u16, tag: u64) -> Option<(Arrival, Held)> {
        let mut state = self.state();
        loop {
            let arrival = state.arrived.get_mut(&channel)?.pop_front()?;
            if arrival.tag == tag {
                let (flow, bytes) = (self.clone(), arrival.bytes);
                return Some((arrival, Held { flow, bytes }));
            }
            self.release(&mut state, arrival.bytes, 1);
        }
    }

    /// The number of complete messages that are not settled.
    #[cfg(test)]
    pub fn messages(&self) -> usize {
        self.state().messages
    }

    /// Whether no further frame may be read.
    pub fn is_full(&self) -> bool {
        self.has_too_much(&self.state())
    }

    fn has_too_much(&self, state: &State) -> bool {
        state.bytes >= self.max && state.messages > 0
    }

    fn release(&self, state: &mut State, bytes: u64, messages: usize) {
        state.bytes = state.bytes.saturating_sub(bytes);
        state.messages = state.messages.saturating_sub(messages);
        if !self.has_too_much(state)
            && let Some(reader) = state.reader.take()
        {
            reader.wake();
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // No code panics while it holds the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A delivery's share of the bytes in flight, until it is dropped.
#[derive(Debug)]
pub struct Held {
    flow: Arc<Flow>,
    bytes: u64,
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut state = self.flow.state();
        self.flow.release(&mut state, self.bytes, 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arrival(tag: u64, bytes: u64) -> Arrival {
        Arrival {
            channel: 1,
            tag,
            bytes,
            readable: true,
            cut: None,
        }
    }

    fn is_open(flow: &Flow) -> bool {
        let context = Context::from_waker(Waker::noop());
        flow.poll_open(&context).is_ready()
    }

    #[test]
    fn reading_stops_while_too_many_bytes_are_in_flight() {
        let flow = Flow::new(100, 1000);
        flow.open(1);
        for tag in 1..=2 {
            flow.arriving(60);
            flow.arrived(arrival(tag, 60));
        }
        assert!(!is_open(&flow));
        let (_, first) = flow.take(1, 1).expect("it came");
        assert!(!is_open(&flow), "it is not settled");
        drop(first);
        assert!(is_open(&flow));
    }

    #[test]
    fn a_message_above_the_bound_is_in_flight_alone() {
        let flow = Flow::new(100, 1000);
        flow.open(1);
        flow.arriving(300);
        assert!(is_open(&flow), "it could not come otherwise");
        flow.arrived(arrival(1, 300));
        assert!(!is_open(&flow));
        drop(flow.take(1, 1));
        assert!(is_open(&flow));
    }

    #[test]
    fn a_dropped_delivery_is_not_in_flight() {
        let flow = Flow::new(100, 1000);
        flow.open(1);
        for tag in 1..=3 {
            flow.arriving(60);
            flow.arrived(arrival(tag, 60));
        }
        let (_, third) = flow.take(1, 3).expect("it came");
        assert!(is_open(&flow), "those before it are lost");
        drop(third);
        flow.arriving(200);
        flow.arrived(arrival(4, 200));
        assert!(!is_open(&flow));
        flow.close(1);
        assert!(is_open(&flow), "the channel is gone");
        flow.arriving(200);
        flow.arrived(arrival(5, 200));
        assert!(is_open(&flow), "the channel has no consumer");
    }
}
