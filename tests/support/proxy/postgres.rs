//! The messages of one PostgreSQL connection, read on their way through the proxy.
//!
//! Each message is a type byte and a length, except the startup message, which has no type. A
//! client that asks for TLS is not understood.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use super::{Direction, Ending, Losses, Shared, lock};

/// The statement that applies a batch has more parameters than any other of the worker: an array
/// for each column of a request.
const PARAMETERS_OF_APPLY: u16 = 12;

/// The action of the proxy for a piece that it read.
pub enum PieceAction {
    Pass,
    Lose,
    LoseAndEnd(Ending),
}

#[derive(Default)]
pub struct PostgresSession {
    parses: AtomicU64,
    state: Mutex<SessionState>,
}

struct SessionState {
    client: Messages,
    server: Messages,
    in_transaction: bool,
    /// The answer that comes now is lost, and then the connection ends.
    losing: Option<Losses>,
    succeeded: bool,
}

impl Default for SessionState {
    fn default() -> Self {
        Self {
            client: Messages {
                typed: false,
                bytes: Vec::new(),
            },
            server: Messages {
                typed: true,
                bytes: Vec::new(),
            },
            in_transaction: false,
            losing: None,
            succeeded: false,
        }
    }
}

impl PostgresSession {
    pub fn parses(&self) -> u64 {
        self.parses.load(Ordering::SeqCst)
    }

    /// Reads a piece before it is passed on.
    pub fn read_piece(&self, direction: Direction, piece: &[u8], shared: &Shared) -> PieceAction {
        let mut state = lock(&self.state);
        match direction {
            Direction::ToServer => {
                self.read_client(&mut state, piece, shared);
                PieceAction::Pass
            }
            Direction::ToClient => state.read_server(piece, shared),
        }
    }

    fn read_client(&self, state: &mut SessionState, piece: &[u8], shared: &Shared) {
        state.client.bytes.extend_from_slice(piece);
        while let Some((kind, payload)) = state.client.next() {
            match kind {
                b'P' => {
                    self.parses.fetch_add(1, Ordering::SeqCst);
                }
                b'B' if parameters(&payload) >= Some(PARAMETERS_OF_APPLY) => {
                    let losses = *lock(&shared.losses);
                    let Some(losses) = losses.filter(|_| !state.in_transaction) else {
                        continue;
                    };
                    let count = shared.applied.fetch_add(1, Ordering::SeqCst) + 1;
                    if count.is_multiple_of(losses.every) {
                        state.losing = Some(losses);
                        state.succeeded = false;
                    }
                }
                _ => {}
            }
        }
    }
}

impl SessionState {
    /// The worker waits for each answer before it sends more, so all that comes while an answer is
    /// being lost is that answer.
    fn read_server(&mut self, piece: &[u8], shared: &Shared) -> PieceAction {
        self.server.bytes.extend_from_slice(piece);
        let losing = self.losing;
        while let Some((kind, payload)) = self.server.next() {
            match kind {
                b'C' => self.succeeded = true,
                b'Z' => {
                    // Ready for the next statement: outside of a transaction, or within one.
                    self.in_transaction = payload.first() != Some(&b'I');
                    if let Some(losses) = losing {
                        if self.succeeded {
                            shared.lost.fetch_add(1, Ordering::SeqCst);
                        }
                        return PieceAction::LoseAndEnd(losses.ending);
                    }
                }
                _ => {}
            }
        }
        match losing {
            Some(_) => PieceAction::Lose,
            None => PieceAction::Pass,
        }
    }
}

/// How many parameters a Bind message brings.
fn parameters(bind: &[u8]) -> Option<u16> {
    let after_text = |bytes: &'_ [u8]| bytes.iter().position(|byte| *byte == 0).map(|at| at + 1);
    let statement = after_text(bind)?;
    let formats = statement + after_text(bind.get(statement..)?)?;
    let number = |at: usize| {
        let bytes = bind.get(at..at + 2)?;
        Some(u16::from_be_bytes(bytes.try_into().ok()?))
    };
    number(formats + 2 + 2 * usize::from(number(formats)?))
}

/// A stream of bytes, taken apart into messages.
struct Messages {
    typed: bool,
    bytes: Vec<u8>,
}

impl Messages {
    /// The next whole message: its type, and its content after the length.
    fn next(&mut self) -> Option<(u8, Vec<u8>)> {
        let head = usize::from(self.typed);
        let length = self.bytes.get(head..head + 4)?;
        let length = u32::from_be_bytes(length.try_into().ok()?) as usize;
        let end = head + length;
        if self.bytes.len() < end {
            return None;
        }
        let message: Vec<u8> = self.bytes.drain(..end).collect();
        let kind = if self.typed { message[0] } else { 0 };
        // The client's first message is the start of the session; all that follow have a type.
        self.typed = true;
        Some((kind, message[head + 4..].to_vec()))
    }
}
