//! Requests, well-formed or not, each on a connection of its own.

use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use sealpost_wire::problem::Problem;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// What to send.
#[derive(Clone, Debug)]
pub struct Call {
    /// The method.
    pub method: Method,
    /// Path and query.
    pub path: String,
    /// The headers; a name may be there twice.
    pub headers: Vec<(&'static str, String)>,
    /// The body.
    pub body: Vec<u8>,
    /// Whether the client goes away in the middle of it.
    pub is_cut_off: bool,
}

/// What came back.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The status.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
}

impl Call {
    /// A request without a body.
    #[must_use]
    pub fn new(method: Method, path: &str) -> Self {
        Self { method, path: path.to_owned(), headers: Vec::new(), body: Vec::new(), is_cut_off: false }
    }

    /// With this body.
    #[must_use]
    pub fn body(mut self, media: &str, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self.header("content-type", media)
    }

    /// With one more header.
    #[must_use]
    pub fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// Without a header.
    #[must_use]
    pub fn without(mut self, name: &str) -> Self {
        self.headers.retain(|(known, _)| *known != name);
        self
    }

    /// The value of a header.
    ///
    /// # Panics
    /// It is not there.
    #[must_use]
    pub fn value(&self, name: &str) -> &str {
        let found = self.headers.iter().find(|(known, _)| *known == name);
        found.map(|(_, value)| value.as_str()).unwrap_or_else(|| panic!("no {name}"))
    }

    /// Without saying before how long the body is.
    #[must_use]
    pub fn chunked(self) -> Self {
        self.header("transfer-encoding", "chunked")
    }

    /// With the end of the connection in the middle of the body.
    #[must_use]
    pub fn cut_off(self) -> Self {
        Self { is_cut_off: true, ..self }
    }

    /// With an access token.
    #[must_use]
    pub fn bearer(self, token: &str) -> Self {
        self.header("authorization", format!("Bearer {token}"))
    }

    /// The answer of the server at `base`.
    ///
    /// # Panics
    /// There is none.
    pub async fn send(self, base: &str) -> Answer {
        self.try_send(base).await.expect("an answer")
    }

    /// The answer of the server at `base`; nothing when the connection ends before it.
    ///
    /// # Panics
    /// Nobody listens there.
    pub async fn try_send(self, base: &str) -> Option<Answer> {
        let authority = base.trim_start_matches("http://");
        let stream = TcpStream::connect(authority).await.expect("the server listens");
        if self.is_cut_off {
            return self.send_half(authority, stream).await;
        }
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.expect("a connection");
        let connection = tokio::spawn(connection);
        let mut request = Request::builder().method(self.method).uri(&self.path).header("host", authority);
        for (name, value) in &self.headers {
            request = request.header(*name, value);
        }
        let request = request.body(Full::new(Bytes::from(self.body))).expect("a request");
        let (parts, body) = sender.send_request(request).await.ok()?.into_parts();
        let body = body.collect().await.ok()?.to_bytes();
        connection.abort();
        Some(Answer { status: parts.status, headers: parts.headers, body })
    }

    /// Half of the body under the headers of the whole, and nothing more.
    async fn send_half(self, authority: &str, mut stream: TcpStream) -> Option<Answer> {
        let mut bytes = format!("{} {} HTTP/1.1\r\nhost: {authority}\r\n", self.method, self.path);
        for (name, value) in &self.headers {
            bytes.push_str(&format!("{name}: {value}\r\n"));
        }
        bytes.push_str(&format!("content-length: {}\r\n\r\n", self.body.len()));
        let sent = [bytes.as_bytes(), &self.body[..self.body.len() / 2]].concat();
        stream.write_all(&sent).await.ok()?;
        stream.shutdown().await.ok()?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.ok()?;
        Answer::parse(&answer)
    }
}

impl Answer {
    /// An answer as it came; the end of the bytes is the end of its body.
    fn parse(bytes: &[u8]) -> Option<Self> {
        let end = bytes.windows(4).position(|four| four == b"\r\n\r\n")?;
        let head = std::str::from_utf8(&bytes[..end]).ok()?;
        let mut lines = head.split("\r\n");
        let status = lines.next()?.split(' ').nth(1)?.parse().ok()?;
        let fields = lines.filter_map(|line| line.split_once(": "));
        let headers = fields.map(|(name, value)| Some((name.parse().ok()?, value.parse().ok()?)));
        let headers: Option<HeaderMap> = headers.collect();
        Some(Self { status, headers: headers?, body: Bytes::copy_from_slice(&bytes[end + 4..]) })
    }

    /// Its body as JSON.
    ///
    /// # Panics
    /// It is something else.
    #[must_use]
    pub fn json<T: serde::de::DeserializeOwned>(&self) -> T {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error}: {} {:?}", self.status, self.body))
    }

    /// The code of its problem.
    ///
    /// # Panics
    /// It is no problem document.
    #[must_use]
    pub fn code(&self) -> String {
        self.json::<Problem>().code
    }

    /// Itself, with this status.
    ///
    /// # Panics
    /// It has another one.
    #[must_use]
    #[track_caller]
    pub fn expect(self, status: u16) -> Self {
        assert_eq!(self.status.as_u16(), status, "{:?}", self.body);
        self
    }
}
