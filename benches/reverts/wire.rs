//! AMQP frames over a blocking socket, without a client library. The load generator of the latency
//! measurement shares the machine with the measured processes: a message takes it a few
//! microseconds of CPU, a tenth of a client library's time.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use lapin::uri::AMQPUri;

const METHOD: u8 = 1;
const HEADER: u8 = 2;
const BODY: u8 = 3;
const FRAME_END: u8 = 0xce;

/// Longest silence of the broker.
const SILENCE: Duration = Duration::from_mins(1);

/// A connection with one channel.
pub struct Wire {
    socket: BufReader<TcpStream>,
    /// The broker's server properties, as received.
    properties: Vec<u8>,
    payload: Vec<u8>,
}

impl Wire {
    pub fn open(url: &str) -> Result<Self> {
        let uri: AMQPUri = url
            .parse()
            .map_err(|error| anyhow!("REVERTD_AMQP__URL: {error}"))?;
        let socket = TcpStream::connect((uri.authority.host.as_str(), uri.authority.port))
            .context("RabbitMQ")?;
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(SILENCE))?;
        socket.set_write_timeout(Some(SILENCE))?;
        let mut wire = Self {
            socket: BufReader::with_capacity(256 * 1024, socket),
            properties: Vec::new(),
            payload: Vec::new(),
        };
        wire.write(b"AMQP\x00\x00\x09\x01")?;
        wire.properties = wire.expect((10, 10))?.to_vec();
        let mut start_ok = method((10, 11));
        start_ok.extend([0; 4]);
        short(&mut start_ok, "PLAIN");
        let user = &uri.authority.userinfo;
        long(
            &mut start_ok,
            format!("\0{}\0{}", user.username, user.password).as_bytes(),
        );
        short(&mut start_ok, "en_US");
        wire.send(0, &start_ok)?;
        let tune = wire.expect((10, 30))?.to_vec();
        let mut tune_ok = method((10, 31));
        // Accept the broker's proposal, but without heartbeats: a connection lives for a minute.
        tune_ok.extend(&tune[4..10]);
        tune_ok.extend([0, 0]);
        wire.send(0, &tune_ok)?;
        let mut open = method((10, 40));
        short(&mut open, &uri.vhost);
        open.extend([0, 0]);
        wire.send(0, &open)?;
        wire.expect((10, 41))?;
        let mut channel = method((20, 10));
        channel.push(0);
        wire.send(1, &channel)?;
        wire.expect((20, 11))?;
        Ok(wire)
    }

    /// A text of the server properties.
    pub fn property(&self, name: &str) -> String {
        let mut key = Vec::new();
        short(&mut key, name);
        key.push(b'S');
        let found = self.properties.windows(key.len()).position(|at| at == key);
        let value = found.and_then(|at| {
            let (length, text) = self.properties[at + key.len()..].split_at_checked(4)?;
            let length = u32::from_be_bytes(length.try_into().ok()?) as usize;
            Some(String::from_utf8_lossy(text.get(..length)?).into_owned())
        });
        value.unwrap_or_else(|| "unknown".to_owned())
    }

    /// Writes frames that [`publish`] made.
    pub fn write(&mut self, frames: &[u8]) -> Result<()> {
        Ok(self.socket.get_mut().write_all(frames)?)
    }

    /// Starts to consume a queue without acknowledgements.
    pub fn consume(&mut self, queue: &str) -> Result<()> {
        let mut consume = method((60, 20));
        consume.extend([0, 0]);
        short(&mut consume, queue);
        short(&mut consume, "wire");
        consume.push(1 << 1);
        consume.extend([0; 4]);
        self.send(1, &consume)?;
        self.expect((60, 21))?;
        Ok(())
    }

    /// Waits for the next message, and returns the frame of its properties.
    pub fn next_properties(&mut self) -> Result<&[u8]> {
        loop {
            let kind = self.read()?;
            match kind {
                HEADER => return Ok(&self.payload),
                BODY => {}
                _ => ensure!(
                    self.payload.starts_with(&method((60, 60))),
                    "the broker says {}",
                    String::from_utf8_lossy(&self.payload)
                ),
            }
        }
    }

    fn send(&mut self, channel: u16, payload: &[u8]) -> Result<()> {
        let mut bytes = Vec::new();
        frame(&mut bytes, channel, METHOD, payload);
        self.write(&bytes)
    }

    fn expect(&mut self, wanted: (u16, u16)) -> Result<&[u8]> {
        let kind = self.read()?;
        ensure!(
            kind == METHOD && self.payload.starts_with(&method(wanted)),
            "the broker says {}",
            String::from_utf8_lossy(&self.payload)
        );
        Ok(&self.payload)
    }

    /// Reads a frame, and returns its type.
    fn read(&mut self) -> Result<u8> {
        ensure!(
            !self.socket.fill_buf()?.is_empty(),
            "the broker closed the connection"
        );
        let mut head = [0; 7];
        self.socket.read_exact(&mut head)?;
        let length = u32::from_be_bytes([head[3], head[4], head[5], head[6]]) as usize;
        self.payload.resize(length + 1, 0);
        self.socket.read_exact(&mut self.payload)?;
        ensure!(self.payload.pop() == Some(FRAME_END), "this is not AMQP");
        Ok(head[0])
    }
}

/// Appends the frames of a persistent message.
pub fn publish(to: &mut Vec<u8>, exchange: &str, key: &str, message_id: &str, body: &[u8]) {
    let mut publish = method((60, 40));
    publish.extend([0, 0]);
    short(&mut publish, exchange);
    short(&mut publish, key);
    publish.push(0);
    frame(to, 1, METHOD, &publish);
    let mut header = vec![0, 60, 0, 0];
    header.extend((body.len() as u64).to_be_bytes());
    // The flags for delivery mode and message id, then their values.
    header.extend(0x1080_u16.to_be_bytes());
    header.push(2);
    short(&mut header, message_id);
    frame(to, 1, HEADER, &header);
    frame(to, 1, BODY, body);
}

fn frame(to: &mut Vec<u8>, channel: u16, kind: u8, payload: &[u8]) {
    to.push(kind);
    to.extend(channel.to_be_bytes());
    long(to, payload);
    to.push(FRAME_END);
}

fn method((class, id): (u16, u16)) -> Vec<u8> {
    [class.to_be_bytes(), id.to_be_bytes()].concat()
}

/// Appends a short string: a name of less than 256 bytes.
fn short(to: &mut Vec<u8>, text: &str) {
    let bytes = &text.as_bytes()[..text.len().min(255)];
    to.push(u8::try_from(bytes.len()).unwrap_or(u8::MAX));
    to.extend(bytes);
}

/// Appends a long string: a body or a frame of a few hundred bytes.
fn long(to: &mut Vec<u8>, bytes: &[u8]) {
    to.extend(u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_be_bytes());
    to.extend(bytes);
}
