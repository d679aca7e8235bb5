//! The body of a request: whole, within a size, a time and a least rate.

use std::time::Duration;

use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use hyper::HeaderMap;
use hyper::header::CONTENT_LENGTH;
use tokio::time::{Instant, timeout_at};

/// What a body may be.
#[derive(Clone, Copy, Debug)]
pub struct BodyLimits {
    /// Largest body.
    pub max_bytes: u64,
    /// Longest wait for a body as a whole.
    pub timeout: Duration,
    /// How long it may take beyond what its bytes allow it: a lost packet is sent again within it.
    pub grace: Duration,
    /// Least rate: each so many bytes allow another second.
    pub bytes_per_second: u64,
}

/// Why there is no whole body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyError {
    /// It has more bytes than it may have.
    TooLarge,
    /// It did not come in time, or at the least rate.
    Slow,
    /// The connection ended before it did.
    CutOff,
}

impl BodyLimits {
    /// So many bytes, within 10 s, at 1 KiB a second after the first 3 s.
    #[must_use]
    pub const fn of(max_bytes: u64) -> Self {
        Self {
            max_bytes,
            timeout: Duration::from_secs(10),
            grace: Duration::from_secs(3),
            bytes_per_second: 1024,
        }
    }

    /// Reads the whole body.
    ///
    /// # Errors
    /// It is not within the limits, or is cut off.
    pub async fn read<E>(
        &self,
        headers: &HeaderMap,
        body: &mut (impl Stream<Item = Result<Bytes, E>> + Unpin),
    ) -> Result<Bytes, BodyError> {
        let began = Instant::now();
        if content_length(headers).unwrap_or(0) > self.max_bytes {
            return Err(BodyError::TooLarge);
        }
        let mut whole = Bytes::new();
        let mut parts = Vec::new();
        loop {
            let read = (whole.len() + parts.len()) as u64;
            let next = timeout_at(began + self.time_for(read), body.next()).await;
            let Some(chunk) = next.map_err(|_| BodyError::Slow)? else {
                break;
            };
            let chunk = chunk.map_err(|_| BodyError::CutOff)?;
            if read + chunk.len() as u64 > self.max_bytes {
                return Err(BodyError::TooLarge);
            }
            // Most bodies come as one piece, which is taken as it is.
            if whole.is_empty() && parts.is_empty() {
                whole = chunk;
            } else {
                parts.extend_from_slice(&std::mem::take(&mut whole));
                parts.extend_from_slice(&chunk);
            }
        }
        Ok(if parts.is_empty() {
            whole
        } else {
            parts.into()
        })
    }

    /// How long after its begin a body of which so much was read may take to go on.
    fn time_for(&self, read: u64) -> Duration {
        let earned = Duration::from_secs(read / self.bytes_per_second);
        self.timeout.min(self.grace + earned)
    }
}

/// The bytes of the body, if the headers name them.
#[must_use]
pub fn content_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn received_bytes_extend_the_body_deadline() {
        let limits = BodyLimits::of(65_536);
        for (read, seconds) in [(0, 3), (1, 3), (1024, 4), (4096, 7), (60_000, 10)] {
            assert_eq!(
                limits.time_for(read),
                Duration::from_secs(seconds),
                "{read}"
            );
        }
    }
}
