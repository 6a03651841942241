//! A thin layer between TLS and the HTTP/2 library that watches frame boundaries.
//!
//! The library's server can neither change its SETTINGS during a connection, nor put debug data into GOAWAY,
//! nor say a last-stream-id of the caller's choice, and all three are things APNs is known for. So this layer
//! reads the nine-byte frame headers that pass in both directions (RFC 9113, section 4.1), adds SETTINGS and
//! GOAWAY frames of its own between the library's frames, swallows the acknowledgements of the former, and
//! keeps count of the open streams:
//!
//! ```text
//! +-----------------------------------------------+
//! |                 Length (24)                   |
//! +---------------+---------------+---------------+
//! |   Type (8)    |   Flags (8)   |
//! +-+-------------+---------------+-------------------------------+
//! |R|                 Stream Identifier (31)                      |
//! +=+=============================================================+
//! |                   Frame Payload (0...)                      ...
//! +---------------------------------------------------------------+
//! ```
//!
//! It also gathers what the library writes while it is corked, so that the answers to many requests leave in
//! one TLS record.

use std::collections::{HashSet, VecDeque};
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::outcome::GoAway;
use crate::world::lock;

/// The byte stream that the HTTP/2 library sees.
pub(crate) struct Wire<S> {
    io: S,
    state: Arc<Mutex<State>>,
    /// Bytes read from `io`; those between `start` and `end` were not handed on yet.
    chunk: Box<[u8]>,
    start: usize,
    end: usize,
    /// Bytes of the current frame (or of the preface) that may go to the library unseen.
    pass: usize,
}

/// The handle by which the connection's task steers its wire.
pub(crate) struct WireHandle {
    state: Arc<Mutex<State>>,
}

/// Puts a wire on a stream. The peer is told `max_streams` in the first SETTINGS frame.
pub(crate) fn wrap<S>(io: S, max_streams: u32) -> (Wire<S>, WireHandle) {
    let announcements = VecDeque::from([max_streams]);
    let state = Arc::new(Mutex::new(State { max_streams, announcements, ..State::default() }));
    let wire = Wire {
        io,
        state: Arc::clone(&state),
        chunk: vec![0; READ_CHUNK].into_boxed_slice(),
        start: 0,
        end: 0,
        pass: PREFACE_LEN,
    };
    (wire, WireHandle { state })
}

impl WireHandle {
    /// Holds back what the library writes until `uncork`.
    pub(crate) fn cork(&self) {
        lock(&self.state).corked = true;
    }

    /// The library's next flush goes through.
    pub(crate) fn uncork(&self) {
        lock(&self.state).corked = false;
    }

    /// Tells the peer a new MAX_CONCURRENT_STREAMS. A higher value holds at once, a lower one when the peer
    /// has acknowledged it (RFC 9113, section 6.5.3). Sent with the library's next flush.
    pub(crate) fn set_max_streams(&self, max_streams: u32) {
        let mut state = lock(&self.state);
        state.max_streams = state.max_streams.max(max_streams);
        state.announcements.push_back(max_streams);
    }

    /// Debug data for the GOAWAY frames that the library writes from now on.
    pub(crate) fn set_goaway_debug_data(&self, debug_data: Bytes) {
        lock(&self.state).goaway_debug_data = debug_data;
    }

    /// Tells the peer that the connection ends, and which stream is the last one that is processed. Sent with
    /// the library's next flush; the library does not know of it.
    pub(crate) fn send_goaway(&self, goaway: &GoAway, debug_data: &[u8], last_stream: u32) {
        lock(&self.state).goaways.extend(goaway_frames(goaway, debug_data, last_stream));
    }

    /// Whether all that was written has left, and no stream up to this one is open.
    pub(crate) fn is_done_up_to(&self, last_stream: u32) -> bool {
        let state = lock(&self.state);
        state.out.is_empty() && state.goaways.is_empty() && state.open.iter().all(|id| *id > last_stream)
    }

    /// Whether the stream was opened beyond the limit and must be refused; true once per stream.
    pub(crate) fn take_refused(&self, stream: u32) -> bool {
        let mut state = lock(&self.state);
        !state.refused.is_empty() && state.refused.remove(&stream)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Wire<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        loop {
            if this.hand_on(buf) {
                return Poll::Ready(Ok(()));
            }
            // Nothing to hand on: at most part of a frame header is left. Keep it at the front and read more.
            this.chunk.copy_within(this.start..this.end, 0);
            this.end -= this.start;
            this.start = 0;
            let mut space = ReadBuf::new(&mut this.chunk[this.end..]);
            ready!(Pin::new(&mut this.io).poll_read(cx, &mut space))?;
            let read = space.filled().len();
            if read == 0 {
                // End of stream; part of a header is of no use to anybody.
                return Poll::Ready(Ok(()));
            }
            this.end += read;
        }
    }
}

impl<S> Wire<S> {
    /// Copies what may pass into `buf`; false when there was nothing.
    fn hand_on(&mut self, buf: &mut ReadBuf<'_>) -> bool {
        let before = buf.filled().len();
        while buf.remaining() > 0 {
            let available = &self.chunk[self.start..self.end];
            if self.pass == 0 {
                let Some(header) = available.first_chunk::<HEADER_LEN>() else { break };
                let head = Head::parse(header);
                if lock(&self.state).incoming(head) == Verdict::Swallow {
                    self.start += HEADER_LEN;
                } else {
                    self.pass = HEADER_LEN + head.length;
                }
                continue;
            }
            let count = self.pass.min(available.len()).min(buf.remaining());
            if count == 0 {
                break;
            }
            buf.put_slice(&available[..count]);
            self.start += count;
            self.pass -= count;
        }
        buf.filled().len() > before
    }
}

impl<S: AsyncWrite + Unpin> Wire<S> {
    fn drain(io: &mut S, out: &mut BytesMut, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !out.is_empty() {
            let written = ready!(Pin::new(&mut *io).poll_write(cx, out))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            out.advance(written);
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Wire<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let mut state = lock(&this.state);
        if state.out.len() >= WRITE_BUFFER_MAX {
            ready!(Self::drain(&mut this.io, &mut state.out, cx))?;
        }
        state.outgoing(buf);
        Poll::Ready(Ok(buf.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let mut state = lock(&this.state);
        if state.corked && state.out.len() < WRITE_BUFFER_MAX {
            return Poll::Ready(Ok(()));
        }
        state.insert_own_frames();
        ready!(Self::drain(&mut this.io, &mut state.out, cx))?;
        Pin::new(&mut this.io).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let mut state = lock(&this.state);
        ready!(Self::drain(&mut this.io, &mut state.out, cx))?;
        Pin::new(&mut this.io).poll_shutdown(cx)
    }
}

/// What both directions must know of each other.
#[derive(Default)]
struct State {
    out: BytesMut,
    corked: bool,
    /// MAX_CONCURRENT_STREAMS values to announce at the next frame boundary.
    announcements: VecDeque<u32>,
    /// GOAWAY frames of our own, to be sent at the next frame boundary.
    goaways: VecDeque<Bytes>,
    /// SETTINGS frames the peer has not acknowledged yet, in the order they were written.
    unacknowledged: VecDeque<Settings>,
    /// The part of an outgoing frame header that has been seen.
    header: Vec<u8>,
    /// Bytes of the outgoing frame's payload that are still to come.
    payload_left: usize,
    /// The frame being written is a GOAWAY that gets debug data.
    extending_goaway: bool,
    goaway_debug_data: Bytes,
    max_streams: u32,
    /// Streams that the peer opened and that are not closed.
    open: HashSet<u32>,
    /// Streams that were opened beyond the limit, until the connection's task asks.
    refused: HashSet<u32>,
    highest_stream: u32,
}

#[derive(Clone, Copy)]
enum Settings {
    /// Ours, with the MAX_CONCURRENT_STREAMS it announced.
    Own(u32),
    Library,
}

#[derive(PartialEq, Eq)]
enum Verdict {
    Pass,
    Swallow,
}

impl State {
    /// Takes note of a frame that comes in.
    fn incoming(&mut self, head: Head) -> Verdict {
        match head.kind {
            frame::HEADERS if head.stream > self.highest_stream => {
                self.highest_stream = head.stream;
                if self.open.len() >= self.max_streams as usize {
                    self.refused.insert(head.stream);
                }
                self.open.insert(head.stream);
            }
            frame::RST_STREAM => {
                self.open.remove(&head.stream);
                self.refused.remove(&head.stream);
            }
            frame::SETTINGS if head.flags & frame::ACK != 0 => {
                if let Some(Settings::Own(max_streams)) = self.unacknowledged.pop_front() {
                    // A higher limit on its way to the peer holds already.
                    let sent = self.unacknowledged.iter().filter_map(|settings| match settings {
                        Settings::Own(max_streams) => Some(*max_streams),
                        Settings::Library => None,
                    });
                    let later = sent.chain(self.announcements.iter().copied()).max();
                    self.max_streams = max_streams.max(later.unwrap_or(0));
                    return Verdict::Swallow;
                }
            }
            _ => {}
        }
        Verdict::Pass
    }

    /// Takes bytes that the library writes: any number of frames, cut anywhere.
    fn outgoing(&mut self, mut bytes: &[u8]) {
        self.insert_own_frames();
        while !bytes.is_empty() {
            if self.payload_left > 0 {
                let (payload, rest) = bytes.split_at(self.payload_left.min(bytes.len()));
                self.out.extend_from_slice(payload);
                self.payload_left -= payload.len();
                bytes = rest;
            } else {
                let missing = HEADER_LEN - self.header.len();
                let (part, rest) = bytes.split_at(missing.min(bytes.len()));
                self.header.extend_from_slice(part);
                bytes = rest;
                if let Some(header) = self.header.first_chunk::<HEADER_LEN>() {
                    let head = Head::parse(header);
                    self.header.clear();
                    self.outgoing_head(head);
                }
            }
            if self.payload_left == 0 && self.header.is_empty() {
                if std::mem::take(&mut self.extending_goaway) {
                    self.out.extend_from_slice(&self.goaway_debug_data);
                }
                self.insert_own_frames();
            }
        }
    }

    fn outgoing_head(&mut self, mut head: Head) {
        self.payload_left = head.length;
        match head.kind {
            frame::DATA | frame::HEADERS if head.flags & frame::END_STREAM != 0 => {
                self.open.remove(&head.stream);
            }
            frame::RST_STREAM => {
                self.open.remove(&head.stream);
            }
            frame::SETTINGS if head.flags & frame::ACK == 0 => {
                self.unacknowledged.push_back(Settings::Library);
            }
            frame::GOAWAY if !self.goaway_debug_data.is_empty() => {
                head.length += self.goaway_debug_data.len();
                self.extending_goaway = true;
            }
            _ => {}
        }
        self.out.extend_from_slice(&head.encode());
    }

    /// Writes our own frames, if the library is between two of its own.
    fn insert_own_frames(&mut self) {
        if self.payload_left > 0 || !self.header.is_empty() {
            return;
        }
        for max_streams in self.announcements.drain(..) {
            let head =
                Head { length: SETTING_LEN, kind: frame::SETTINGS, flags: 0, stream: frame::CONNECTION };
            self.out.extend_from_slice(&head.encode());
            self.out.extend_from_slice(&frame::MAX_CONCURRENT_STREAMS.to_be_bytes());
            self.out.extend_from_slice(&max_streams.to_be_bytes());
            self.unacknowledged.push_back(Settings::Own(max_streams));
        }
        for goaway in self.goaways.drain(..) {
            self.out.extend_from_slice(&goaway);
        }
    }
}

/// GOAWAY frames as the order wishes them: all but the last one promise nothing yet, as a server does that
/// ends a connection in good order (RFC 9113, section 6.8).
pub(crate) fn goaway_frames(
    goaway: &GoAway,
    debug_data: &[u8],
    last_stream: u32,
) -> impl Iterator<Item = Bytes> {
    let ids = std::iter::repeat_n(MAX_STREAM_ID, usize::from(goaway.frames.saturating_sub(1)));
    ids.chain([last_stream]).map(move |id| {
        let head = Head {
            length: 2 * size_of::<u32>() + debug_data.len(),
            kind: frame::GOAWAY,
            flags: 0,
            stream: frame::CONNECTION,
        };
        let numbers = [id.to_be_bytes(), goaway.error_code.to_be_bytes()].concat();
        Bytes::from([&head.encode()[..], &numbers, debug_data].concat())
    })
}

/// A frame header (RFC 9113, section 4.1).
#[derive(Clone, Copy)]
struct Head {
    length: usize,
    kind: u8,
    flags: u8,
    stream: u32,
}

impl Head {
    fn parse(bytes: &[u8; HEADER_LEN]) -> Self {
        let [l0, l1, l2, kind, flags, s0, s1, s2, s3] = *bytes;
        Self {
            length: u32::from_be_bytes([0, l0, l1, l2]) as usize,
            kind,
            flags,
            stream: u32::from_be_bytes([s0, s1, s2, s3]) & 0x7fff_ffff,
        }
    }

    fn encode(self) -> [u8; HEADER_LEN] {
        let [.., l0, l1, l2] = self.length.to_be_bytes();
        let [s0, s1, s2, s3] = self.stream.to_be_bytes();
        [l0, l1, l2, self.kind, self.flags, s0, s1, s2, s3]
    }
}

/// Frame types, flags and settings (RFC 9113, sections 6 and 11.3).
mod frame {
    pub(super) const DATA: u8 = 0x0;
    pub(super) const HEADERS: u8 = 0x1;
    pub(super) const RST_STREAM: u8 = 0x3;
    pub(super) const SETTINGS: u8 = 0x4;
    pub(super) const GOAWAY: u8 = 0x7;
    pub(super) const ACK: u8 = 0x1;
    pub(super) const END_STREAM: u8 = 0x1;
    pub(super) const MAX_CONCURRENT_STREAMS: u16 = 0x3;
    pub(super) const CONNECTION: u32 = 0;
}

const HEADER_LEN: usize = 9;
/// One setting in a SETTINGS frame: identifier (2 bytes), value (4 bytes).
const SETTING_LEN: usize = 6;
const MAX_STREAM_ID: u32 = (1 << 31) - 1;
/// `PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n`, which comes before the client's first frame.
const PREFACE_LEN: usize = 24;
/// Two full TLS records.
const READ_CHUNK: usize = 32 * 1024;
/// Above this much unsent output the wire pushes back.
const WRITE_BUFFER_MAX: usize = 256 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
        let head = Head { length: payload.len(), kind, flags, stream };
        [&head.encode()[..], payload].concat()
    }

    /// What arrives does not depend on where the library's writes are cut.
    #[test]
    fn own_frames_go_between_frames_wherever_writes_are_cut() {
        let frames = [
            frame(frame::SETTINGS, 0, 0, &[0; 6]),
            frame(frame::HEADERS, 0, 1, b"headers"),
            frame(frame::DATA, frame::END_STREAM, 1, b""),
        ]
        .concat();
        let first = [&frame(frame::SETTINGS, 0, 0, &[0, 3, 0, 0, 0, 1])[..], &frames].concat();
        let second = frame(frame::SETTINGS, 0, 0, &[0, 3, 0, 0, 3, 232]);
        for cut in 0..frames.len() {
            let mut state = State { max_streams: 1, ..State::default() };
            state.announcements.push_back(1);
            state.outgoing(&frames[..cut]);
            state.outgoing(&frames[cut..]);
            assert_eq!(state.out, first);
            state.announcements.push_back(1000);
            state.insert_own_frames();
            assert_eq!(state.out[first.len()..], second[..]);
        }
    }

    #[test]
    fn goaway_gets_the_debug_data_and_its_length() {
        let mut state = State { goaway_debug_data: Bytes::from_static(b"why"), ..State::default() };
        let goaway = frame(frame::GOAWAY, 0, 0, &[1; 8]);
        state.outgoing(&goaway[..11]);
        state.outgoing(&goaway[11..]);
        assert_eq!(state.out, frame(frame::GOAWAY, 0, 0, b"\x01\x01\x01\x01\x01\x01\x01\x01why"));
    }

    #[test]
    fn a_lower_limit_holds_from_its_acknowledgement_on() {
        let open = |state: &mut State, stream| {
            let verdict =
                state.incoming(Head::parse(frame(frame::HEADERS, 0, stream, b"").first_chunk().unwrap()));
            assert!(verdict == Verdict::Pass);
            state.refused.remove(&stream)
        };
        let ack = Head { length: 0, kind: frame::SETTINGS, flags: frame::ACK, stream: 0 };
        let mut state = State { max_streams: 2, ..State::default() };
        assert!(!open(&mut state, 1));
        state.announcements.push_back(1);
        state.insert_own_frames();
        assert!(!open(&mut state, 3));
        assert!(state.incoming(ack) == Verdict::Swallow);
        assert!(open(&mut state, 5));
        // Two answers and the refusal close the streams; one may be open again.
        state.outgoing(&frame(frame::HEADERS, frame::END_STREAM, 1, b""));
        state.outgoing(&frame(frame::RST_STREAM, 0, 5, b""));
        assert!(open(&mut state, 7));
        state.outgoing(&frame(frame::HEADERS, frame::END_STREAM, 3, b""));
        state.outgoing(&frame(frame::RST_STREAM, 0, 7, b""));
        assert!(!open(&mut state, 9));
    }
}
