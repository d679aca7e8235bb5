//! A connection to the broker that reads frames as bytes.
//!
//! Methods are written and parsed by amq-protocol. Only the frames around them are handled here,
//! since lapin can't return a frame that it does not parse.

use amq_protocol::auth::Credentials;
use amq_protocol::frame::{AMQPFrame, ProtocolVersion, gen_frame, parse_frame};
use amq_protocol::protocol::{AMQPClass, AMQPError, channel, connection, constants};
use amq_protocol::types::{AMQPValue, FieldTable};
use amq_protocol::uri::AMQPUri;
use lapin::ErrorKind;
use tokio::io::{
    AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader, copy_buf, sink,
};

use crate::broker::connection::socket;
use crate::broker::connection::socket::Socket;
use crate::broker::raw::wire::frame::{ENVELOPE_BYTES, Frame, FrameKind};
use crate::config::AmqpUrl;

pub mod frame;

type Result<T> = std::result::Result<T, lapin::Error>;

/// The largest frame before the negotiation, in bytes: the value that RabbitMQ offers.
const FIRST_FRAME_MAX: usize = 131_072;

/// The largest part of a method or header that is kept, in bytes. The broker adds headers to
/// messages that it dead-letters, so the header frame of such a message may exceed the frame limit.
const FIRST_BYTES: u64 = 1 << 20;

/// The only channel, besides channel 0 of the connection.
const CHANNEL: u16 = 1;

const CONNECTION_CLOSE: (u16, u16) = (10, 50);
const CONNECTION_CLOSE_OK: (u16, u16) = (10, 51);
const CHANNEL_CLOSE: (u16, u16) = (20, 40);

/// The error of an unexpected frame.
pub fn unexpected() -> lapin::Error {
    std::io::Error::other("the broker sent a frame out of turn").into()
}

/// Connects and opens a channel. The broker shows `name` to its operators. The login is parsed as
/// lapin parses it.
pub async fn connect(url: &AmqpUrl, name: &str) -> Result<Wire<Socket>> {
    let uri: AMQPUri = url.secret().parse().map_err(std::io::Error::other)?;
    let mut wire = Wire::new(socket::open(url).await?, FIRST_FRAME_MAX);
    wire.open(uri, name).await?;
    Ok(wire)
}

/// A connection.
pub struct Wire<S> {
    stream: BufReader<S>,
    frame_max: usize,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Wire<S> {
    pub fn new(stream: S, frame_max: usize) -> Self {
        let stream = BufReader::new(stream);
        Self { stream, frame_max }
    }

    async fn open(&mut self, uri: AMQPUri, name: &str) -> Result<()> {
        let version = AMQPFrame::ProtocolHeader(ProtocolVersion::amqp_0_9_1());
        self.write(version).await?;
        let AMQPClass::Connection(connection::AMQPMethod::Start(_)) = self.answer().await? else {
            return Err(unexpected());
        };
        let mechanism = uri.query.auth_mechanism.unwrap_or_default();
        let credentials = Credentials::from(uri.authority.userinfo);
        self.on_connection(connection::AMQPMethod::StartOk(connection::StartOk {
            client_properties: client_properties(name),
            mechanism: mechanism.name().into(),
            response: credentials.sasl_auth_string(mechanism),
            locale: "en_US".into(),
        }))
        .await?;
        let AMQPClass::Connection(connection::AMQPMethod::Tune(tune)) = self.answer().await? else {
            return Err(unexpected());
        };
        // The smaller of both values, as in lapin; 0 means no limit.
        let wishes = [uri.query.frame_max.unwrap_or(0), tune.frame_max];
        let smallest = wishes.into_iter().filter(|wish| *wish > 0).min();
        let frame_max = smallest.unwrap_or(u32::MAX).max(constants::FRAME_MIN_SIZE);
        self.frame_max = frame_max as usize;
        self.on_connection(connection::AMQPMethod::TuneOk(connection::TuneOk {
            channel_max: tune.channel_max,
            frame_max,
            // No heartbeats: every wait on this connection is short.
            heartbeat: 0,
        }))
        .await?;
        let virtual_host = uri.vhost.as_str().into();
        self.on_connection(connection::AMQPMethod::Open(connection::Open {
            virtual_host,
        }))
        .await?;
        let AMQPClass::Connection(connection::AMQPMethod::OpenOk(_)) = self.answer().await? else {
            return Err(unexpected());
        };
        let open = channel::AMQPMethod::Open(channel::Open {});
        self.send(AMQPClass::Channel(open)).await?;
        let AMQPClass::Channel(channel::AMQPMethod::OpenOk(_)) = self.answer().await? else {
            return Err(unexpected());
        };
        Ok(())
    }

    /// Sends a method on the channel.
    pub async fn send(&mut self, method: AMQPClass) -> Result<()> {
        self.send_all([method]).await
    }

    /// Sends several methods at once.
    pub async fn send_all(&mut self, methods: impl IntoIterator<Item = AMQPClass>) -> Result<()> {
        let frames = methods
            .into_iter()
            .map(|method| AMQPFrame::Method(CHANNEL, method));
        let bytes: Vec<u8> = frames.flat_map(|frame| bytes_of(&frame)).collect();
        self.stream.write_all(&bytes).await?;
        Ok(self.stream.flush().await?)
    }

    /// Waits until bytes can be read. Cancel-safe.
    pub async fn ready(&mut self) -> Result<()> {
        self.stream.fill_buf().await?;
        Ok(())
    }

    /// The next frame other than a heartbeat; of a body only its size. If it closes the channel or
    /// the connection, the broker's reason is the error.
    pub async fn frame(&mut self) -> Result<Frame> {
        self.frame_keeping(0).await
    }

    /// The next frame, with up to `body_bytes` of a body.
    pub async fn frame_keeping(&mut self, body_bytes: u64) -> Result<Frame> {
        loop {
            let mut bytes = vec![0; ENVELOPE_BYTES - 1];
            self.stream.read_exact(&mut bytes).await?;
            let size = u32::from_be_bytes([bytes[3], bytes[4], bytes[5], bytes[6]]);
            let kind = match bytes[0] {
                constants::FRAME_METHOD => Some(FrameKind::Method),
                constants::FRAME_HEADER => Some(FrameKind::Header),
                constants::FRAME_BODY => Some(FrameKind::Body),
                constants::FRAME_HEARTBEAT => None,
                _ => return Err(unexpected()),
            };
            let left = u64::from(size) + 1;
            let whole = size as usize + ENVELOPE_BYTES <= self.frame_max;
            let kept = match kind {
                Some(FrameKind::Method | FrameKind::Header) if whole => left,
                Some(FrameKind::Method | FrameKind::Header) => left.min(FIRST_BYTES),
                Some(FrameKind::Body) => body_bytes.min(size.into()),
                None => 0,
            };
            (&mut self.stream)
                .take(kept)
                .read_to_end(&mut bytes)
                .await?;
            let mut rest = (&mut self.stream).take(left - kept);
            let dropped = copy_buf(&mut rest, &mut sink()).await?;
            let read = bytes.len() as u64 - (ENVELOPE_BYTES as u64 - 1) + dropped;
            if read < left {
                return Err(std::io::Error::from(std::io::ErrorKind::UnexpectedEof).into());
            }
            let Some(kind) = kind else { continue };
            let frame = Frame {
                kind,
                payload_bytes: size.into(),
                bytes,
                whole: whole && kind != FrameKind::Body,
            };
            return match frame.method() {
                Some(CONNECTION_CLOSE | CHANNEL_CLOSE) => Err(closed(&frame)),
                _ => Ok(frame),
            };
        }
    }

    /// Closes the connection, and waits for the broker's answer.
    pub async fn close(&mut self) -> Result<()> {
        self.on_connection(connection::AMQPMethod::Close(connection::Close {
            reply_code: constants::REPLY_SUCCESS,
            reply_text: "bye".into(),
            ..connection::Close::default()
        }))
        .await?;
        while self.frame().await?.method() != Some(CONNECTION_CLOSE_OK) {}
        Ok(())
    }

    async fn answer(&mut self) -> Result<AMQPClass> {
        parsed(&self.frame().await?)
    }

    async fn on_connection(&mut self, method: connection::AMQPMethod) -> Result<()> {
        let method = AMQPClass::Connection(method);
        self.write(AMQPFrame::Method(0, method)).await
    }

    async fn write(&mut self, frame: AMQPFrame) -> Result<()> {
        self.stream.write_all(&bytes_of(&frame)).await?;
        Ok(self.stream.flush().await?)
    }
}

fn bytes_of(frame: &AMQPFrame) -> Vec<u8> {
    let written = gen_frame(frame)(Vec::new().into());
    let (bytes, _) = written.expect("a vector takes every frame").into_inner();
    bytes
}

/// The method that a frame carries.
pub fn parsed(frame: &Frame) -> Result<AMQPClass> {
    match frame.whole().map(parse_frame) {
        Some(Ok((_, AMQPFrame::Method(_, method)))) => Ok(method),
        _ => Err(unexpected()),
    }
}

/// The broker's reason for a close.
fn closed(frame: &Frame) -> lapin::Error {
    let (code, text) = match parsed(frame) {
        Ok(AMQPClass::Connection(connection::AMQPMethod::Close(close))) => {
            (close.reply_code, close.reply_text)
        }
        Ok(AMQPClass::Channel(channel::AMQPMethod::Close(close))) => {
            (close.reply_code, close.reply_text)
        }
        Ok(_) => return unexpected(),
        Err(error) => return error,
    };
    AMQPError::from_id(code, text)
        .map_or_else(unexpected, |error| ErrorKind::ProtocolError(error).into())
}

fn client_properties(name: &str) -> FieldTable {
    let mut capabilities = FieldTable::default();
    // Otherwise the broker answers a refused login by closing the socket.
    capabilities.insert(
        "authentication_failure_close".into(),
        AMQPValue::Boolean(true),
    );
    let mut properties = FieldTable::default();
    properties.insert("capabilities".into(), AMQPValue::FieldTable(capabilities));
    properties.insert("connection_name".into(), AMQPValue::LongString(name.into()));
    properties
}
