//! A peer that writes HTTP/2 frames itself (RFC 9113 section 4), for what an HTTP/2 library does not do: a GOAWAY
//! in the middle, stream limits that change, silence.
//!
//! ```text
//! frame = length (3 bytes) | type (1) | flags (1) | stream id (4) | payload
//! ```

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// A listener of raw connections.
pub(crate) struct Frames {
    pub(crate) url: String,
    listener: TcpListener,
}

impl Frames {
    pub(crate) async fn bind() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Self { url: format!("http://{}", listener.local_addr().unwrap()), listener }
    }

    /// The next connection, after its preface.
    pub(crate) async fn accept(&self) -> RawConnection {
        let (mut stream, _) = self.listener.accept().await.unwrap();
        stream.set_nodelay(true).unwrap();
        let mut preface = [0; PREFACE.len()];
        stream.read_exact(&mut preface).await.unwrap();
        assert_eq!(&preface, PREFACE);
        RawConnection { stream, pings: 0, settings_pending: 0 }
    }
}

pub(crate) struct RawConnection {
    stream: TcpStream,
    /// PING frames that came.
    pub(crate) pings: usize,
    /// SETTINGS frames of ours that the client has not acknowledged.
    settings_pending: usize,
}

impl RawConnection {
    /// Our SETTINGS with MAX_CONCURRENT_STREAMS.
    pub(crate) async fn settings(&mut self, streams_max: u32) {
        self.settings_pending += 1;
        let [a, b, c, d] = streams_max.to_be_bytes();
        self.write(SETTINGS, 0, 0, &[0, MAX_CONCURRENT_STREAMS, a, b, c, d]).await;
    }

    /// GOAWAY: streams above `last_stream` were not processed.
    pub(crate) async fn goaway(&mut self, last_stream: u32) {
        let mut payload = last_stream.to_be_bytes().to_vec();
        payload.extend(0u32.to_be_bytes());
        payload.extend(br#"{"reason":"Shutdown"}"#);
        self.write(GOAWAY, 0, 0, &payload).await;
    }

    /// `:status: 200` and nothing else.
    pub(crate) async fn accept_push(&mut self, stream: u32) {
        self.write(HEADERS, END_STREAM | END_HEADERS, stream, &[STATUS_200]).await;
    }

    /// The stream of the next complete request; `None` when the client has closed the connection. SETTINGS are
    /// acknowledged, a PING is only counted.
    pub(crate) async fn request(&mut self) -> Option<u32> {
        loop {
            match self.frame().await? {
                (DATA | HEADERS, flags, stream) if flags & END_STREAM != 0 => return Some(stream),
                (GOAWAY, ..) => return None,
                _ => {}
            }
        }
    }

    /// Waits until the client has taken over all our SETTINGS.
    pub(crate) async fn settings_acknowledged(&mut self) {
        while self.settings_pending > 0 {
            self.frame().await.expect("the client is there");
        }
    }

    /// Type, flags and stream of the next frame.
    async fn frame(&mut self) -> Option<(u8, u8, u32)> {
        let mut head = [0; 9];
        self.stream.read_exact(&mut head).await.ok()?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut payload = vec![0; usize::try_from(length).unwrap()];
        self.stream.read_exact(&mut payload).await.ok()?;
        let (kind, flags) = (head[3], head[4]);
        match kind {
            SETTINGS if flags & ACK == 0 => self.write(SETTINGS, ACK, 0, &[]).await,
            SETTINGS => self.settings_pending -= 1,
            PING => self.pings += 1,
            _ => {}
        }
        Some((kind, flags, u32::from_be_bytes([head[5], head[6], head[7], head[8]])))
    }

    /// Reads `count` complete requests.
    pub(crate) async fn requests(&mut self, count: usize) -> Vec<u32> {
        let mut streams = Vec::new();
        while streams.len() < count {
            streams.push(self.request().await.expect("a request"));
        }
        streams
    }

    /// Accepts every push until the client closes the connection; how many there were.
    pub(crate) async fn accept_all(mut self) -> usize {
        let mut count = 0;
        while let Some(stream) = self.request().await {
            self.accept_push(stream).await;
            count += 1;
        }
        count
    }

    async fn write(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        let mut frame = vec![length[1], length[2], length[3], kind, flags];
        frame.extend(stream.to_be_bytes());
        frame.extend(payload);
        // The client may have gone away; the test sees that elsewhere.
        let _gone = self.stream.write_all(&frame).await;
    }
}

const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const END_STREAM: u8 = 1;
const ACK: u8 = 1;
const END_HEADERS: u8 = 4;
const MAX_CONCURRENT_STREAMS: u8 = 3;
/// HPACK: the indexed field `:status: 200` (RFC 7541 appendix A).
const STATUS_200: u8 = 0x88;
