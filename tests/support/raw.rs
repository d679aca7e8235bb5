//! AMQP frames by hand, for what no client library would send.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::Stage;

const METHOD: u8 = 1;
const HEADER: u8 = 2;
const BODY: u8 = 3;

/// Publishes `{}` with those bytes as its message id, confirmed.
pub async fn publish_with_message_id(stage: &Stage, message_id: &[u8]) {
    let mut properties = 0x0080u16.to_be_bytes().to_vec();
    short(&mut properties, message_id);
    publish(stage, &properties).await;
}

/// Publishes `{}` with a header of arrays within arrays, confirmed.
pub async fn publish_with_nested_header(stage: &Stage, depth: u32) {
    let mut table = Vec::new();
    short(&mut table, b"deep");
    for level in 0..depth {
        table.push(b'A');
        table.extend((5 * (depth - level - 1)).to_be_bytes());
    }
    let mut properties = 0x2000u16.to_be_bytes().to_vec();
    properties.extend(u32::try_from(table.len()).expect("small").to_be_bytes());
    properties.extend(table);
    publish(stage, &properties).await;
}

/// Publishes `{}` with those property flags and values, confirmed.
async fn publish(stage: &Stage, properties: &[u8]) {
    let url = url::Url::parse(&stage.servers.amqp).expect("a URL");
    let address = (url.host_str().expect("a host"), url.port().unwrap_or(5672));
    let mut socket = TcpStream::connect(address)
        .await
        .expect("the broker listens");
    socket
        .write_all(b"AMQP\x00\x00\x09\x01")
        .await
        .expect("written");
    expect(&mut socket, (10, 10)).await;
    let mut start_ok = method((10, 11));
    start_ok.extend([0, 0, 0, 0]);
    short(&mut start_ok, b"PLAIN");
    let password = url.password().unwrap_or("guest");
    let response = format!("\0{}\0{password}", url.username());
    start_ok.extend(u32::try_from(response.len()).expect("short").to_be_bytes());
    start_ok.extend(response.as_bytes());
    short(&mut start_ok, b"en_US");
    frame(&mut socket, 0, METHOD, &start_ok).await;
    let tune = expect(&mut socket, (10, 30)).await;
    let mut tune_ok = method((10, 31));
    tune_ok.extend(&tune[4..10]);
    tune_ok.extend([0, 0]);
    frame(&mut socket, 0, METHOD, &tune_ok).await;
    let mut open = method((10, 40));
    short(&mut open, b"/");
    open.extend([0, 0]);
    frame(&mut socket, 0, METHOD, &open).await;
    expect(&mut socket, (10, 41)).await;
    let mut channel = method((20, 10));
    channel.push(0);
    frame(&mut socket, 1, METHOD, &channel).await;
    expect(&mut socket, (20, 11)).await;
    let mut confirm = method((85, 10));
    confirm.push(0);
    frame(&mut socket, 1, METHOD, &confirm).await;
    expect(&mut socket, (85, 11)).await;

    let mut publish = method((60, 40));
    publish.extend([0, 0]);
    short(&mut publish, stage.name("requests").as_bytes());
    short(&mut publish, b"revert");
    publish.push(0);
    frame(&mut socket, 1, METHOD, &publish).await;
    let body = b"{}";
    let mut header = vec![0, 60, 0, 0];
    header.extend((body.len() as u64).to_be_bytes());
    header.extend(properties);
    frame(&mut socket, 1, HEADER, &header).await;
    frame(&mut socket, 1, BODY, body).await;
    expect(&mut socket, (60, 80)).await;
}

fn method((class, id): (u16, u16)) -> Vec<u8> {
    [class.to_be_bytes(), id.to_be_bytes()].concat()
}

fn short(to: &mut Vec<u8>, text: &[u8]) {
    to.push(u8::try_from(text.len()).expect("a short string"));
    to.extend(text);
}

async fn frame(socket: &mut TcpStream, channel: u16, kind: u8, payload: &[u8]) {
    let mut bytes = vec![kind];
    bytes.extend(channel.to_be_bytes());
    bytes.extend(u32::try_from(payload.len()).expect("small").to_be_bytes());
    bytes.extend(payload);
    bytes.push(0xce);
    socket.write_all(&bytes).await.expect("written");
}

/// Reads a method frame, which must be that one.
async fn expect(socket: &mut TcpStream, wanted: (u16, u16)) -> Vec<u8> {
    let mut head = [0; 7];
    socket.read_exact(&mut head).await.expect("a frame");
    let length = u32::from_be_bytes([head[3], head[4], head[5], head[6]]) as usize;
    let mut payload = vec![0; length + 1];
    socket.read_exact(&mut payload).await.expect("a frame");
    assert_eq!(head[0], METHOD);
    assert_eq!(payload[..4], method(wanted)[..]);
    payload
}
