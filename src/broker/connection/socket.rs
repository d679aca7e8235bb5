//! The socket to the broker, encrypted if the address begins with `amqps`.

use std::io;

use tokio::net::TcpStream;
use tokio_util::either::Either;

use crate::common::tls;
use crate::config::AmqpUrl;

/// A connection to the broker's port, on which nothing was said yet.
pub type Socket = Either<TcpStream, tls::Stream>;

/// Connects, and verifies the broker where the address says amqps.
pub async fn open(url: &AmqpUrl) -> io::Result<Socket> {
    let (host, port) = url.address();
    let stream = TcpStream::connect((host, port)).await?;
    stream.set_nodelay(true)?;
    let Some(files) = url.tls() else {
        return Ok(Either::Left(stream));
    };
    let encrypted = tls::connect(files, host, stream).await?;
    Ok(Either::Right(encrypted))
}
