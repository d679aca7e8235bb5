//! AMQP frames as bytes: publishes messages that no client library sends, and reads messages that
//! none can parse.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufStream};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::TestEnv;

mod message;

pub use message::RawMessage;

const METHOD: u8 = 1;
const HEADER: u8 = 2;
const BODY: u8 = 3;

/// Smaller than any frame that a broker may agree on.
const BODY_CHUNK: usize = 4096;

/// Silence after which the queue counts as empty.
const IDLE: Duration = Duration::from_millis(200);

/// Longest wait for the broker.
const ANSWER: Duration = Duration::from_secs(30);

/// Publishes `{}` with those bytes as its message id, confirmed.
pub async fn publish_with_message_id(env: &TestEnv, message_id: &[u8]) {
    let mut properties = 0x0080u16.to_be_bytes().to_vec();
    short(&mut properties, message_id);
    publish(env, &properties).await;
}

/// Publishes `{}` with a header of arrays within arrays, confirmed.
pub async fn publish_with_nested_header(env: &TestEnv, depth: u32) {
    let mut table = Vec::new();
    short(&mut table, b"deep");
    for level in 0..depth {
        table.push(b'A');
        table.extend((5 * (depth - level - 1)).to_be_bytes());
    }
    let mut properties = 0x2000u16.to_be_bytes().to_vec();
    long(&mut properties, &table);
    publish(env, &properties).await;
}

async fn publish(env: &TestEnv, properties: &[u8]) {
    let mut connection = RawConnection::open(&env.servers.amqp).await;
    let exchange = env.name("requests");
    connection
        .publish(&exchange, b"revert", properties, b"{}")
        .await;
    connection.confirmed().await;
}

/// A connection with one channel, in confirm mode.
pub struct RawConnection {
    socket: BufStream<TcpStream>,
    published: u64,
    unconfirmed: BTreeSet<u64>,
}

impl RawConnection {
    /// Opens one over the login of that URL.
    pub async fn open(url: &str) -> Self {
        let url = url::Url::parse(url).expect("a URL");
        let address = (url.host_str().expect("a host"), url.port().unwrap_or(5672));
        let socket = TcpStream::connect(address)
            .await
            .expect("the broker listens");
        socket.set_nodelay(true).expect("a socket");
        let mut raw = Self {
            socket: BufStream::new(socket),
            published: 0,
            unconfirmed: BTreeSet::new(),
        };
        raw.write(b"AMQP\x00\x00\x09\x01").await;
        raw.expect((10, 10)).await;
        let mut start_ok = method((10, 11));
        start_ok.extend([0, 0, 0, 0]);
        short(&mut start_ok, b"PLAIN");
        let password = super::logs::decoded(url.password().unwrap_or("guest"));
        let response = format!("\0{}\0{password}", url.username());
        long(&mut start_ok, response.as_bytes());
        short(&mut start_ok, b"en_US");
        raw.frame(0, METHOD, &start_ok).await;
        let tune = raw.expect((10, 30)).await;
        let mut tune_ok = method((10, 31));
        tune_ok.extend(&tune[4..10]);
        tune_ok.extend([0, 0]);
        raw.frame(0, METHOD, &tune_ok).await;
        let mut open = method((10, 40));
        short(&mut open, b"/");
        open.extend([0, 0]);
        raw.frame(0, METHOD, &open).await;
        raw.expect((10, 41)).await;
        let mut channel = method((20, 10));
        channel.push(0);
        raw.frame(1, METHOD, &channel).await;
        raw.expect((20, 11)).await;
        let mut confirm = method((85, 10));
        confirm.push(0);
        raw.frame(1, METHOD, &confirm).await;
        raw.expect((85, 11)).await;
        raw
    }

    /// Publishes a message; [`RawConnection::confirmed`] tells when the broker has it.
    pub async fn publish(
        &mut self,
        exchange: &str,
        routing_key: &[u8],
        properties: &[u8],
        body: &[u8],
    ) {
        let mut publish = method((60, 40));
        publish.extend([0, 0]);
        short(&mut publish, exchange.as_bytes());
        short(&mut publish, routing_key);
        publish.push(0);
        self.frame(1, METHOD, &publish).await;
        let mut header = vec![0, 60, 0, 0];
        header.extend((body.len() as u64).to_be_bytes());
        header.extend(properties);
        self.frame(1, HEADER, &header).await;
        for chunk in body.chunks(BODY_CHUNK) {
            self.frame(1, BODY, chunk).await;
        }
        self.published += 1;
        self.unconfirmed.insert(self.published);
    }

    /// Waits until everything published is confirmed.
    pub async fn confirmed(&mut self) {
        while !self.unconfirmed.is_empty() {
            let ack = self.expect((60, 80)).await;
            let tag = u64::from_be_bytes(ack[4..12].try_into().expect("eight"));
            let multiple = ack[12] & 1 == 1;
            self.unconfirmed
                .retain(|left| if multiple { *left > tag } else { *left != tag });
        }
    }

    /// Takes all that is in a queue, until nothing comes any more.
    pub async fn take_all(&mut self, queue: &str) -> Vec<RawMessage> {
        let mut consume = method((60, 20));
        consume.extend([0, 0]);
        short(&mut consume, queue.as_bytes());
        short(&mut consume, b"raw");
        // Without acknowledgement, and without further arguments.
        consume.push(1 << 1);
        consume.extend([0; 4]);
        self.frame(1, METHOD, &consume).await;
        self.expect((60, 21)).await;
        let mut taken = Vec::new();
        while timeout(IDLE, self.socket.fill_buf()).await.is_ok() {
            let (kind, deliver) = self.read().await;
            taken.push(self.delivered(kind, &deliver).await);
        }
        let mut cancel = method((60, 30));
        short(&mut cancel, b"raw");
        cancel.push(0);
        self.frame(1, METHOD, &cancel).await;
        loop {
            let (kind, answer) = self.read().await;
            if kind == METHOD && answer[..4] == method((60, 31)) {
                return taken;
            }
            taken.push(self.delivered(kind, &answer).await);
        }
    }

    /// Reads the frames after a `basic.deliver`.
    async fn delivered(&mut self, kind: u8, deliver: &[u8]) -> RawMessage {
        let text = String::from_utf8_lossy(deliver);
        assert_eq!(
            (kind, &deliver[..4]),
            (METHOD, &method((60, 60))[..]),
            "{text}"
        );
        // The consumer's tag, a delivery tag and a flag, the exchange, the routing key.
        let exchange = 5 + usize::from(deliver[4]) + 9;
        let key = exchange + 1 + usize::from(deliver[exchange]);
        let routing_key = deliver[key + 1..][..usize::from(deliver[key])].to_vec();
        let (kind, header) = self.read().await;
        assert_eq!(kind, HEADER);
        let size = u64::from_be_bytes(header[4..12].try_into().expect("eight"));
        let mut body = Vec::new();
        while (body.len() as u64) < size {
            let (kind, part) = self.read().await;
            assert_eq!(kind, BODY);
            body.extend(part);
        }
        RawMessage {
            routing_key,
            properties: header[12..].to_vec(),
            body,
        }
    }

    async fn write(&mut self, bytes: &[u8]) {
        self.socket.write_all(bytes).await.expect("written");
    }

    async fn frame(&mut self, channel: u16, kind: u8, payload: &[u8]) {
        let mut bytes = vec![kind];
        bytes.extend(channel.to_be_bytes());
        long(&mut bytes, payload);
        bytes.push(0xce);
        self.write(&bytes).await;
    }

    async fn read(&mut self) -> (u8, Vec<u8>) {
        let reading = async {
            self.socket.flush().await.expect("written");
            let mut head = [0; 7];
            self.socket.read_exact(&mut head).await.expect("a frame");
            let length = u32::from_be_bytes([head[3], head[4], head[5], head[6]]) as usize;
            let mut payload = vec![0; length + 1];
            self.socket.read_exact(&mut payload).await.expect("a frame");
            payload.pop();
            (head[0], payload)
        };
        timeout(ANSWER, reading).await.expect("the broker answers")
    }

    /// Reads a method frame, which must be that one.
    async fn expect(&mut self, wanted: (u16, u16)) -> Vec<u8> {
        let (kind, payload) = self.read().await;
        let wanted = (METHOD, method(wanted));
        let came = (kind, payload[..4].to_vec());
        assert_eq!(came, wanted, "{}", String::from_utf8_lossy(&payload));
        payload
    }
}

fn method((class, id): (u16, u16)) -> Vec<u8> {
    [class.to_be_bytes(), id.to_be_bytes()].concat()
}

/// Appends a short string: its length in a byte, then its bytes.
pub fn short(to: &mut Vec<u8>, text: &[u8]) {
    to.push(u8::try_from(text.len()).expect("a short string"));
    to.extend(text);
}

/// Appends a long string, a table or an array: its length in four bytes, then its bytes.
pub fn long(to: &mut Vec<u8>, bytes: &[u8]) {
    to.extend(u32::try_from(bytes.len()).expect("small").to_be_bytes());
    to.extend(bytes);
}
