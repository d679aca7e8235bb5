//! The faults of a connection.

use std::time::Duration;

/// One way through the proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    ToServer,
    ToClient,
}

/// The conditions of one direction.
#[derive(Clone, Copy, Debug, Default)]
pub struct Way {
    /// Nothing passes, not even the end of the connection. The bytes are held until the silence
    /// ends.
    pub silent: bool,
    /// Each piece arrives so much later, in its order.
    pub delay: Duration,
    pub bytes_per_second: Option<u32>,
}

/// The conditions of a connection. By default its bytes pass.
#[derive(Clone, Copy, Debug, Default)]
pub struct Conditions {
    pub to_server: Way,
    pub to_client: Way,
}

impl Conditions {
    /// The same in both directions.
    pub fn both(way: Way) -> Self {
        Self {
            to_server: way,
            to_client: way,
        }
    }

    /// No bytes in any of `directions`.
    pub fn silent(directions: &[Direction]) -> Self {
        let way = |direction| Way {
            silent: directions.contains(&direction),
            ..Way::default()
        };
        Self {
            to_server: way(Direction::ToServer),
            to_client: way(Direction::ToClient),
        }
    }

    pub fn of(&self, direction: Direction) -> Way {
        match direction {
            Direction::ToServer => self.to_server,
            Direction::ToClient => self.to_client,
        }
    }
}

/// How a connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// Both sides get an orderly end (FIN).
    Close,
    /// Both sides get a reset (RST).
    Reset,
    /// The client gets a reset. The server gets nothing at all, and no more bytes.
    ServerForgotten,
    /// The other way round.
    ClientForgotten,
}
