//! HTTP/2 clients that do what no client should, frame by frame (RFC 9113).

use super::*;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

const REFUSED_STREAM: u32 = 7;
const ENHANCE_YOUR_CALM: u32 = 11;
const MAX_CONCURRENT_STREAMS: u16 = 3;

/// Kind, stream and payload.
type Frame = (u8, u32, Vec<u8>);

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = u32::try_from(payload.len()).unwrap().to_be_bytes()[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// `GET path` (RFC 7541: two indexed fields, two literal ones).
fn get(path: &str) -> Vec<u8> {
    let mut block = vec![0x82, 0x86];
    for (name, value) in [(0x04, path), (0x01, "test")] {
        block.extend([name, u8::try_from(value.len()).unwrap()]);
        block.extend(value.bytes());
    }
    block
}

async fn open(server: &TestServer) -> TcpStream {
    let mut stream = server.connect().await;
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
    stream.write_all(&frame(SETTINGS, 0, 0, b"")).await.unwrap();
    stream
}

/// The next frame; nothing at the end of the connection.
async fn next(stream: &mut TcpStream) -> Option<Frame> {
    let mut head = [0; 9];
    stream.read_exact(&mut head).await.ok()?;
    let mut payload = vec![0; usize::try_from(u32::from_be_bytes([0, head[0], head[1], head[2]])).unwrap()];
    stream.read_exact(&mut payload).await.ok()?;
    let id = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
    Some((head[3], id, payload))
}

async fn frames_until(stream: &mut TcpStream, last: impl Fn(&Frame) -> bool) -> Vec<Frame> {
    let mut frames = Vec::new();
    while let Some(frame) = next(stream).await {
        frames.push(frame);
        if frames.last().is_some_and(&last) {
            return frames;
        }
    }
    panic!("the connection ended after {frames:?}");
}

/// The error code in the end of a frame.
fn code(frame: &Frame) -> u32 {
    let place = if frame.0 == GOAWAY { 4 } else { 0 };
    u32::from_be_bytes(frame.2[place..place + 4].try_into().unwrap())
}

#[tokio::test]
async fn a_connection_has_so_many_streams_and_no_more() {
    let server = TestServer::start(HttpOptions { streams_per_connection_max: 2, ..quick() }).await;
    let mut stream = open(&server).await;
    let settings = frames_until(&mut stream, |frame| frame.0 == SETTINGS).await.pop().unwrap().2;
    let said = settings.chunks(6).find(|one| one[..2] == MAX_CONCURRENT_STREAMS.to_be_bytes()).unwrap();
    assert_eq!(said[2..], 2_u32.to_be_bytes());
    for id in [1, 3, 5] {
        let ask = frame(HEADERS, END_STREAM | END_HEADERS, id, &get("/never"));
        stream.write_all(&ask).await.unwrap();
    }
    let refused = frames_until(&mut stream, |frame| frame.0 == RST_STREAM).await.pop().unwrap();
    assert_eq!((refused.1, code(&refused)), (5, REFUSED_STREAM));
}

#[tokio::test]
async fn streams_that_are_reset_again_and_again_end_the_connection() {
    let server = TestServer::start(quick()).await;
    let mut stream = open(&server).await;
    let mut flood = Vec::new();
    for id in (1..1000).step_by(2) {
        flood.extend(frame(HEADERS, END_STREAM | END_HEADERS, id, &get("/never")));
        flood.extend(frame(RST_STREAM, 0, id, &8_u32.to_be_bytes()));
    }
    // The server may be gone before all of it is written.
    let _ = stream.write_all(&flood).await;
    let end = frames_until(&mut stream, |frame| frame.0 == GOAWAY && code(frame) != 0).await.pop().unwrap();
    assert_eq!(code(&end), ENHANCE_YOUR_CALM);
    assert!(server.ask(&close("/healthz")).await.starts_with("HTTP/1.1 200"), "others are served");
}

#[tokio::test]
async fn headers_that_never_end_end_the_connection() {
    let server = TestServer::start(quick()).await;
    let mut stream = open(&server).await;
    stream.write_all(&frame(HEADERS, END_STREAM, 1, &get("/healthz"))).await.unwrap();
    // A field without indexing: "x" with a value of 100 bytes.
    let field = [&[0x00, 0x01, b'x', 100][..], &[b'y'; 100]].concat().repeat(100);
    let mut written = 0;
    while stream.write_all(&frame(CONTINUATION, 0, 1, &field)).await.is_ok() {
        written += field.len();
        assert!(written < 64 * 1024 * 1024, "it goes on reading");
    }
    assert!(server.ask(&close("/healthz")).await.starts_with("HTTP/1.1 200"), "others are served");
}

#[tokio::test]
async fn headers_are_bounded_in_size_and_number() {
    let server = TestServer::start(quick()).await;
    let mut stream = open(&server).await;
    let small = [0x00, 0x01, b'x', 0x01, b'y'].repeat(100);
    let many = [get("/healthz"), small].concat();
    stream.write_all(&frame(HEADERS, END_STREAM | END_HEADERS, 1, &many)).await.unwrap();
    let answer = frames_until(&mut stream, |frame| frame.0 == DATA && frame.1 == 1).await.pop().unwrap();
    assert!(String::from_utf8_lossy(&answer.2).contains("headers_too_large"), "{answer:?}");

    let large = [&[0x00, 0x01, b'x', 100][..], &[b'y'; 100]].concat().repeat(150);
    let large = [get("/healthz"), large].concat();
    stream.write_all(&frame(HEADERS, END_STREAM | END_HEADERS, 3, &large)).await.unwrap();
    let answered = |frame: &Frame| (frame.0 == HEADERS || frame.0 == RST_STREAM) && frame.1 == 3;
    let answer = frames_until(&mut stream, answered).await.pop().unwrap();
    // The static table has no 431: its three digits are a literal, in Huffman code.
    let is_431 = answer.0 == HEADERS && !answer.2.is_empty() && answer.2[0] != 0x88;
    assert!(is_431 || answer.0 == RST_STREAM, "{answer:?}");
}

#[tokio::test]
async fn a_quiet_connection_is_told_that_it_ends_and_then_cut() {
    let server = TestServer::start(HttpOptions { idle_seconds_max: 1, ..quick() }).await;
    let mut stream = open(&server).await;
    let ask = frame(HEADERS, END_STREAM | END_HEADERS, 1, &get("/healthz"));
    stream.write_all(&ask).await.unwrap();
    frames_until(&mut stream, |frame| frame.0 == GOAWAY && code(frame) == 0).await;
    // Nobody answers the PING that a polite end waits for.
    while next(&mut stream).await.is_some() {}
}
