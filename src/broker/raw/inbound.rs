//! What comes in on the consuming connection, looked at before the client sees it.
//!
//! The client buffers deliveries without a bound but their number, and gives up its connection over properties that it
//! can't parse. It gets its socket from us, so three things are done here, on the way of the bytes: messages that it
//! could not parse get plain properties in place of theirs, and are known as unreadable; bodies that are too large for
//! any request are cut, and their digest is taken; and nothing is read while too many bytes are in flight.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::runtime::Handle;
use tokio::time::{Sleep, sleep};

use crate::broker::connection::socket::Socket;
use crate::broker::raw::inbound::frames::Frames;

mod arrival;
mod flow;
mod frames;
mod parse_check;

pub use arrival::{Arrival, Cut};
pub use flow::{Flow, Held};
pub use parse_check::STACK_BYTES;

/// Room for what is read at once.
const READ_BYTES: usize = 64 * 1024;

/// How often a little is read all the same while too much is in flight: the client takes a broker for dead that sends
/// no heartbeat, and what is in flight may wait for the database for a while.
const HEARTBEAT: Duration = Duration::from_secs(5);

/// How much that is.
const HEARTBEAT_BYTES: usize = 4096;

/// A socket whose deliveries are looked at, or one that is left alone.
pub struct Inbound {
    socket: Socket,
    inspected: Option<Inspected>,
}

struct Inspected {
    flow: Arc<Flow>,
    frames: Frames,
    /// Read, and not passed on.
    input: BytesMut,
    read: Box<[u8]>,
    runtime: Handle,
    heartbeat: Option<Pin<Box<Sleep>>>,
}

impl Inbound {
    /// A socket that only publishes.
    pub fn plain(socket: Socket) -> Self {
        Self {
            socket,
            inspected: None,
        }
    }

    /// A socket that consumes. To be called within the runtime.
    pub fn inspected(socket: Socket, flow: Arc<Flow>) -> Self {
        let inspected = Inspected {
            frames: Frames::new(flow.body_max()),
            flow,
            input: BytesMut::new(),
            read: vec![0; READ_BYTES].into(),
            runtime: Handle::current(),
            heartbeat: None,
        };
        Self {
            socket,
            inspected: Some(inspected),
        }
    }
}

impl Inspected {
    /// Whether something may be read: `true` where it is time for a heartbeat, although too much is
    /// in flight.
    fn poll_open(&mut self, cx: &mut Context<'_>) -> Poll<bool> {
        if !self.frames.between_frames() || self.flow.poll_open(cx).is_ready() {
            self.heartbeat = None;
            return Poll::Ready(false);
        }
        let heartbeat = self.heartbeat.get_or_insert_with(|| {
            // The client polls on a thread of its own.
            let _runtime = self.runtime.enter();
            Box::pin(sleep(HEARTBEAT))
        });
        ready!(heartbeat.as_mut().poll(cx));
        self.heartbeat = None;
        Poll::Ready(true)
    }

    fn poll_read(
        &mut self,
        socket: &mut Socket,
        cx: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            let heartbeat = ready!(self.poll_open(cx));
            let most = if heartbeat {
                HEARTBEAT_BYTES
            } else {
                usize::MAX
            };
            let to = out.initialize_unfilled_to(most.min(out.remaining()));
            let (frames, input) = (&mut self.frames, &mut self.input);
            let passed = frames.pass_on(input, to, &self.flow, heartbeat);
            if passed > 0 {
                out.advance(passed);
                return Poll::Ready(Ok(()));
            }
            if !heartbeat && frames.between_frames() && self.flow.is_full() {
                continue;
            }
            let mut read = ReadBuf::new(&mut self.read);
            ready!(Pin::new(&mut *socket).poll_read(cx, &mut read))?;
            if read.filled().is_empty() {
                return Poll::Ready(Ok(()));
            }
            self.input.extend_from_slice(read.filled());
        }
    }
}

impl AsyncRead for Inbound {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let Self { socket, inspected } = self.get_mut();
        match inspected {
            Some(inspected) => inspected.poll_read(socket, cx, out),
            None => Pin::new(socket).poll_read(cx, out),
        }
    }
}

impl AsyncWrite for Inbound {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().socket).poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().socket).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().socket).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().socket).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }
}
