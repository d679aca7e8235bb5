//! An HTTP client that sends any bytes, also invalid ones, and checks each response against
//! openapi.yaml.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::time::timeout;
use uuid::Uuid;

use super::{TIMEOUT, documents};

/// Where the operations are.
pub const PATH: &str = "/v1beta1/organizations/billing/usages/revert";
pub const BATCH_PATH: &str = "/v1beta1/organizations/billing/usages/revert:batch";

/// A client that may publish, as the header `Authorization` has it.
pub const PUBLISHER: (&str, &str) = ("publisher", "pH3%8sNd+6yB/e1Kc");

/// A request to be sent.
#[derive(Clone)]
pub struct HttpRequest {
    pub method: String,
    pub path: String,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl HttpRequest {
    /// A sound one by [`PUBLISHER`], with that body.
    pub fn post(body: impl Into<Vec<u8>>) -> Self {
        let request = Self {
            method: "POST".into(),
            path: PATH.into(),
            headers: vec![("Host".into(), "test".into())],
            body: body.into(),
        };
        request
            .header("Content-Type", "application/json")
            .by(PUBLISHER)
    }

    /// The plainest that can succeed.
    pub fn revert(account: Uuid, usage: Uuid, amount: i64) -> Self {
        let body = serde_json::json!({"billing_id": account, "usage_id": usage, "amount": amount});
        Self::post(body.to_string())
    }

    /// The same for a group.
    pub fn group(body: impl Into<Vec<u8>>) -> Self {
        Self {
            path: BATCH_PATH.into(),
            ..Self::post(body)
        }
    }

    /// With another client.
    pub fn by(self, (id, secret): (&str, &str)) -> Self {
        self.without("Authorization")
            .header("Authorization", &basic(format!("{id}:{secret}")))
    }

    pub fn key(self, key: &str) -> Self {
        self.without("Idempotency-Key")
            .header("Idempotency-Key", key)
    }

    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    pub fn without(mut self, name: &str) -> Self {
        self.headers
            .retain(|(given, _)| !given.eq_ignore_ascii_case(name));
        self
    }

    /// The head, without its end.
    pub fn head(&self) -> Vec<u8> {
        let mut bytes = format!("{} {} HTTP/1.1\r\n", self.method, self.path).into_bytes();
        for (name, value) in &self.headers {
            bytes.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
        }
        bytes.extend_from_slice(format!("Content-Length: {}\r\n", self.body.len()).as_bytes());
        bytes
    }

    pub fn bytes(&self) -> Vec<u8> {
        [&self.head()[..], b"\r\n", &self.body].concat()
    }
}

/// The header's value.
pub fn basic(text: impl AsRef<[u8]>) -> String {
    format!("Basic {}", STANDARD.encode(text))
}

/// An answer, checked against openapi.yaml.
#[derive(Clone, Debug, PartialEq)]
pub struct HttpResponse {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: String,
}

impl HttpResponse {
    pub fn header(&self, name: &str) -> Option<&str> {
        let fits = |(given, _): &&(String, String)| given.eq_ignore_ascii_case(name);
        self.headers
            .iter()
            .find(fits)
            .map(|(_, value)| value.as_str())
    }

    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).expect("JSON")
    }

    /// The `ErrorInfo` reason.
    pub fn reason(&self) -> String {
        let json = self.json();
        let info = &json["details"][0];
        assert_eq!(
            info["@type"], "type.googleapis.com/google.rpc.ErrorInfo",
            "{json}"
        );
        assert_eq!(info["domain"], "revertd");
        info["reason"].as_str().expect("a reason").to_owned()
    }

    /// Status and reason.
    pub fn verdict(&self) -> (u16, String) {
        (self.status, self.reason())
    }

    /// The id under which the request was published.
    pub fn request_id(&self) -> String {
        let json = self.json();
        let id = &json["details"][0]["metadata"]["request_id"];
        id.as_str()
            .unwrap_or_else(|| panic!("no request_id: {json}"))
            .to_owned()
    }
}

/// A connection to the gateway.
pub struct HttpConnection<S> {
    stream: BufReader<S>,
    /// The path of the operation that was asked last.
    path: &'static str,
}

impl<S: AsyncRead + AsyncWrite + Unpin> HttpConnection<S> {
    pub fn over(stream: S) -> Self {
        Self {
            stream: BufReader::new(stream),
            path: PATH,
        }
    }

    pub async fn write(&mut self, bytes: &[u8]) {
        let line = bytes.split(|byte| *byte == b'\n').next();
        let line = String::from_utf8_lossy(line.unwrap_or_default());
        if let Some(path) = line.split(' ').nth(1) {
            self.path = if path == BATCH_PATH { BATCH_PATH } else { PATH };
        }
        self.stream.write_all(bytes).await.expect("written");
        self.stream.flush().await.expect("written");
    }

    /// Whether it could be written.
    pub async fn try_write(&mut self, bytes: &[u8]) -> bool {
        self.stream.write_all(bytes).await.is_ok() && self.stream.flush().await.is_ok()
    }

    /// The next answer.
    pub async fn response(&mut self) -> HttpResponse {
        let response = timeout(TIMEOUT, self.read_reply(true)).await;
        response.expect("an answer in time")
    }

    /// The next answer, to a request that is answered without a body.
    pub async fn reply_without_body(&mut self) -> HttpResponse {
        let response = timeout(TIMEOUT, self.read_reply(false)).await;
        response.expect("an answer in time")
    }

    /// Waits until the server closes the connection, and returns the bytes until then.
    pub async fn ended(&mut self) -> String {
        let mut rest = Vec::new();
        let read = timeout(TIMEOUT, self.stream.read_to_end(&mut rest)).await;
        // A reset is an end too.
        let _ = read.expect("the end in time");
        String::from_utf8_lossy(&rest).into_owned()
    }

    /// Whether nothing comes for so long.
    pub async fn is_silent(&mut self, limit: Duration) -> bool {
        timeout(limit, self.stream.fill_buf()).await.is_err()
    }

    async fn read_reply(&mut self, with_body: bool) -> HttpResponse {
        let status = self.read_line().await;
        let status = status
            .split(' ')
            .nth(1)
            .and_then(|status| status.parse().ok());
        let mut headers = Vec::new();
        loop {
            let line = self.read_line().await;
            let Some((name, value)) = line.split_once(": ") else {
                break;
            };
            headers.push((name.to_owned(), value.to_owned()));
        }
        let mut response = HttpResponse {
            status: status.expect("a status"),
            headers,
            body: String::new(),
        };
        let length = response
            .header("content-length")
            .map_or(0, |text| text.parse().expect("a number"));
        let mut body = vec![0; if with_body { length } else { 0 }];
        self.stream
            .read_exact(&mut body)
            .await
            .expect("the whole body");
        response.body = String::from_utf8(body).expect("UTF-8");
        let body = with_body.then_some(response.body.as_str());
        documents::answers::check(self.path, response.status, &response.headers, body);
        response
    }

    async fn read_line(&mut self) -> String {
        let mut line = String::new();
        self.stream.read_line(&mut line).await.expect("a line");
        assert!(line.ends_with("\r\n"), "the response ends: {line:?}");
        line.trim_end().to_owned()
    }
}
