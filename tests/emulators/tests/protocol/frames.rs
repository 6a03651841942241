//! An HTTP/2 connection without a library in between: what is on the wire, frame by frame (RFC 9113).

use std::time::Duration;

use bytes::Bytes;
use http::Request;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::client::TlsStream;

use crate::client::{Fixture, tls};

pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PING: u8 = 6;
pub(crate) const GOAWAY: u8 = 7;
pub(crate) const WINDOW_UPDATE: u8 = 8;

pub(crate) const END_STREAM: u8 = 1;
const ACK: u8 = 1;
const END_HEADERS: u8 = 4;
/// The first byte of a header block that says `:status: 200` (RFC 7541, appendix A, index 8).
const STATUS_200: u8 = 0x88;
/// Long enough for anything that happens at all.
const SOON: Duration = Duration::from_secs(20);

/// One frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) stream: u32,
    pub(crate) payload: Vec<u8>,
}

/// What a GOAWAY frame says.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct GoAwaySeen {
    pub(crate) last_stream: u32,
    pub(crate) error_code: u32,
    pub(crate) debug_data: String,
}

impl Frame {
    pub(crate) fn is_200(&self) -> bool {
        self.kind == HEADERS && self.payload.first() == Some(&STATUS_200)
    }

    /// MAX_CONCURRENT_STREAMS, if the frame is SETTINGS with nothing else in it.
    pub(crate) fn max_streams(&self) -> Option<u32> {
        match self.payload[..] {
            [0, 3, a, b, c, d] if self.kind == SETTINGS => Some(u32::from_be_bytes([a, b, c, d])),
            _ => None,
        }
    }

    pub(crate) fn goaway(&self) -> Option<GoAwaySeen> {
        if self.kind != GOAWAY {
            return None;
        }
        Some(GoAwaySeen {
            last_stream: u32::from_be_bytes(self.payload[..4].try_into().unwrap()),
            error_code: u32::from_be_bytes(self.payload[4..8].try_into().unwrap()),
            debug_data: String::from_utf8(self.payload[8..].to_vec()).unwrap(),
        })
    }
}

/// A connection that sends and reads frames.
pub(crate) struct Frames {
    pub(crate) io: TlsStream<TcpStream>,
}

impl Frames {
    /// Connects to APNs and sends the preface with an empty SETTINGS frame.
    pub(crate) async fn connect(fixture: &Fixture) -> Self {
        let mut io = tls(fixture.emulator.apns_addr(), fixture.manifest(), &[b"h2"]).await.unwrap();
        io.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
        let mut frames = Self { io };
        frames.write(SETTINGS, 0, 0, &[]).await;
        frames
    }

    /// Connects, reads the server's SETTINGS, and has one push accepted on stream 1.
    pub(crate) async fn with_one_push(fixture: &Fixture, push: Request<Bytes>) -> Self {
        let mut frames = Self::connect(fixture).await;
        frames.request(1, push).await;
        frames.read_to(|frame| frame.is_200() && frame.stream == 1).await;
        frames
    }

    pub(crate) async fn write(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        self.io.write_all(&frame(kind, flags, stream, payload)).await.unwrap();
        self.io.flush().await.unwrap();
    }

    /// Sends a request, headers and body in one write.
    pub(crate) async fn request(&mut self, stream: u32, request: Request<Bytes>) {
        let bytes = encode(stream, &request);
        self.io.write_all(&bytes).await.unwrap();
        self.io.flush().await.unwrap();
    }

    pub(crate) async fn acknowledge_settings(&mut self) {
        self.write(SETTINGS, ACK, 0, &[]).await;
    }

    /// The next frame; `None` when the server has closed the connection.
    pub(crate) async fn next(&mut self) -> Option<Frame> {
        timeout(SOON, self.read()).await.expect("a frame, or the end")
    }

    /// The frames up to one that fits, which is the last.
    pub(crate) async fn read_to(&mut self, fits: impl Fn(&Frame) -> bool) -> Vec<Frame> {
        let mut seen = Vec::new();
        loop {
            let Some(frame) = self.next().await else { panic!("the connection ended after {seen:?}") };
            seen.push(frame);
            if seen.last().is_some_and(&fits) {
                return seen;
            }
        }
    }

    /// The frames up to the end of the connection.
    pub(crate) async fn read_to_end(&mut self) -> Vec<Frame> {
        let mut seen = Vec::new();
        while let Some(frame) = self.next().await {
            seen.push(frame);
        }
        seen
    }

    async fn read(&mut self) -> Option<Frame> {
        let mut head = [0; 9];
        self.io.read_exact(&mut head).await.ok()?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut payload = vec![0; length as usize];
        self.io.read_exact(&mut payload).await.ok()?;
        let stream = u32::from_be_bytes(head[5..].try_into().unwrap());
        Some(Frame { kind: head[3], flags: head[4], stream, payload })
    }
}

/// HEADERS and DATA of a request.
pub(crate) fn encode(stream: u32, request: &Request<Bytes>) -> Vec<u8> {
    let mut block = Vec::new();
    let mut field = |name: &str, value: &[u8]| {
        // A literal field without indexing and with a new name (RFC 7541, section 6.2.2).
        block.push(0);
        string(&mut block, name.as_bytes());
        string(&mut block, value);
    };
    field(":method", request.method().as_str().as_bytes());
    field(":scheme", b"https");
    field(":authority", b"localhost");
    field(":path", request.uri().path().as_bytes());
    for (name, value) in request.headers() {
        field(name.as_str(), value.as_bytes());
    }
    let headers = frame(HEADERS, END_HEADERS, stream, &block);
    [headers, frame(DATA, END_STREAM, stream, request.body())].concat()
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// A string literal, not Huffman coded (RFC 7541, section 5.2); its length is an integer with a prefix of
/// seven bits (section 5.1).
fn string(out: &mut Vec<u8>, text: &[u8]) {
    let mut length = text.len();
    if length < 127 {
        out.push(u8::try_from(length).unwrap());
    } else {
        out.push(127);
        length -= 127;
        while length >= 128 {
            out.push(u8::try_from(length % 128 + 128).unwrap());
            length /= 128;
        }
        out.push(u8::try_from(length).unwrap());
    }
    out.extend_from_slice(text);
}
