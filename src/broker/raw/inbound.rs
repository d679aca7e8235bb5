//! Inspects the bytes of the consuming connection before lapin reads them.
//!
//! lapin bounds its buffered deliveries only by number, and closes the connection on properties
//! that it can't parse. revertd gives it the socket, and does three things in between. Messages
//! that lapin could not parse get plain properties and are marked as unreadable. Bodies that are
//! too large for a request are cut, and their digest is computed. No frame is read while too many
//! bytes are in flight.

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

/// The size of one read, in bytes.
const READ_BYTES: usize = 64 * 1024;

/// The interval of small reads while too many bytes are in flight. Without them lapin would miss
/// the broker's heartbeats and close the connection, and messages in flight may wait long for the
/// database.
const HEARTBEAT: Duration = Duration::from_secs(5);

/// The size of such a read, in bytes.
const HEARTBEAT_BYTES: usize = 4096;

/// A socket with or without inspection.
pub struct Inbound {
    socket: Socket,
    inspected: Option<Inspected>,
}

struct Inspected {
    flow: Arc<Flow>,
    frames: Frames,
    /// Bytes that were read and not passed on.
    input: BytesMut,
    read: Box<[u8]>,
    runtime: Handle,
    heartbeat: Option<Pin<Box<Sleep>>>,
}

impl Inbound {
    /// A socket without inspection, for a connection that only publishes.
    pub fn plain(socket: Socket) -> Self {
        Self {
            socket,
            inspected: None,
        }
    }

    /// A socket with inspection, for a connection that consumes. Called within the runtime.
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
    /// Whether bytes may be read. `true`: only for a heartbeat, since too many bytes are in flight.
    fn poll_open(&mut self, cx: &mut Context<'_>) -> Poll<bool> {
        if !self.frames.between_frames() || self.flow.poll_open(cx).is_ready() {
            self.heartbeat = None;
            return Poll::Ready(false);
        }
        let heartbeat = self.heartbeat.get_or_insert_with(|| {
            // lapin polls on a thread of its own.
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
