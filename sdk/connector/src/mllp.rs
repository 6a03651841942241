//! MLLP frames: where one HL7 message ends and the next begins on a byte stream (HL7 Minimal Lower Layer
//! Protocol, Release 1).
//!
//! ```text
//! stream = *( rubbish / frame )
//! frame  = VT payload FS CR               0x0B … 0x1C 0x0D
//! ```
//! The standard leaves no VT and no FS to a payload. A VT comes nevertheless, pasted out of word processors,
//! and is content here, unless a message or batch header follows it: then the frame before was cut off, and a
//! reader that went on would put one patient's message behind another's. An FS is always taken for an end.
//!
//! The [`Decoder`] does no input or output: bytes go in as they come, split and joined at any place, and frames
//! come out. It holds one payload at most, and never one longer than its limit.

use crate::hl7::MESSAGE_BYTES_MAX;

const VT: u8 = 0x0B;
const FS: u8 = 0x1C;
const CR: u8 = 0x0D;
/// What a frame begins with, its VT included: a message, a file, a batch.
const STARTS: [&[u8; START_BYTES]; 3] = [b"\x0bMSH", b"\x0bFHS", b"\x0bBHS"];
const START_BYTES: usize = 4;

/// Bytes between two frames that are dropped in silence: line ends, keep-alives, the rest of a broken frame.
/// More is another protocol, or a sender that has lost its place.
pub const RUBBISH_BYTES_MAX: usize = 64 * 1024;

/// Why there is no frame. Each is told once; the decoder then goes on at the next frame.
///
/// No acknowledgement can be written for what was lost, since the message that it would name was not read: a
/// sender that gets none sends again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The payload is longer than the limit. Sent again, it still is.
    #[error("a frame has more than {limit} bytes")]
    TooLarge {
        /// The limit.
        limit: usize,
    },
    /// FS without the CR that must follow it. Sent again, it may be whole.
    #[error("a frame's end is not whole: 0x1C without 0x0D")]
    BadEnd,
    /// Another frame began, or the stream ended, before this one did. Sent again, it may be whole.
    #[error("a frame was cut off")]
    CutOff,
    /// So many bytes without a frame. The sender's configuration must change.
    #[error("more than {limit} bytes came without a frame")]
    NotMllp {
        /// The limit.
        limit: usize,
    },
}

impl FrameError {
    /// A stable name for logs and metrics.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::TooLarge { .. } => "frame_too_large",
            Self::BadEnd => "frame_bad_end",
            Self::CutOff => "frame_cut_off",
            Self::NotMllp { .. } => "not_mllp",
        }
    }
}

/// Takes frames out of the bytes of one connection.
///
/// ```
/// use sealpost_connector::mllp::Decoder;
///
/// let mut decoder = Decoder::default();
/// let mut first: &[u8] = b"\x0bMSH|one";
/// assert_eq!(decoder.next_frame(&mut first), None); // more is needed
/// let mut second: &[u8] = b"\x1c\x0d\x0bMSH|two\x1c\x0d";
/// assert_eq!(decoder.next_frame(&mut second), Some(Ok(b"MSH|one".to_vec())));
/// assert_eq!(decoder.next_frame(&mut second), Some(Ok(b"MSH|two".to_vec())));
/// assert_eq!(decoder.next_frame(&mut second), None);
/// assert_eq!(decoder.end(), Ok(()));
/// ```
pub struct Decoder {
    payload_bytes_max: usize,
    place: Place,
    /// What has come of the frame's payload; in [`Place::Passing`], what may be the start of another.
    payload: Vec<u8>,
    /// Bytes since the last frame ended, its own left aside.
    rubbish: usize,
}

/// Where the last byte stood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Between,
    Inside,
    /// Inside a frame that was too large: its bytes are passed over.
    Passing,
    /// Behind FS; whether its payload is wanted.
    Ending {
        whole: bool,
    },
}

debug_without_content!(Decoder);

impl Default for Decoder {
    /// A decoder of frames as large as [`MESSAGE_BYTES_MAX`].
    fn default() -> Self {
        Self::new(MESSAGE_BYTES_MAX)
    }
}

impl Decoder {
    /// A decoder of frames whose payload has at most this many bytes.
    #[must_use]
    pub const fn new(payload_bytes_max: usize) -> Self {
        Self { payload_bytes_max, place: Place::Between, payload: Vec::new(), rubbish: 0 }
    }

    /// The next payload that ends in `bytes`, or what is wrong with them; nothing once all of them are taken.
    /// What was looked at is taken off the front of `bytes`: call it until there is nothing.
    ///
    /// A payload may be empty: some senders keep a connection alive by such frames.
    pub fn next_frame(&mut self, bytes: &mut &[u8]) -> Option<Result<Vec<u8>, FrameError>> {
        while let Some((&byte, rest)) = bytes.split_first() {
            *bytes = rest;
            let event = match self.place {
                Place::Between => self.between(byte),
                Place::Inside => self.inside(byte),
                Place::Passing => self.passing(byte),
                Place::Ending { whole } => self.ending(byte, whole),
            };
            if event.is_some() {
                return event;
            }
        }
        None
    }

    /// The stream is over.
    ///
    /// # Errors
    /// [`FrameError::CutOff`] when it ended inside a frame.
    pub fn end(self) -> Result<(), FrameError> {
        match self.place {
            // A frame that is passed over was told as too large.
            Place::Between | Place::Passing | Place::Ending { whole: false } => Ok(()),
            Place::Inside | Place::Ending { whole: true } => Err(FrameError::CutOff),
        }
    }

    fn between(&mut self, byte: u8) -> Option<Result<Vec<u8>, FrameError>> {
        if byte == VT {
            self.place = Place::Inside;
            self.rubbish = 0;
            return None;
        }
        self.rubbish += 1;
        if self.rubbish <= RUBBISH_BYTES_MAX {
            return None;
        }
        self.rubbish = 0;
        Some(Err(FrameError::NotMllp { limit: RUBBISH_BYTES_MAX }))
    }

    fn inside(&mut self, byte: u8) -> Option<Result<Vec<u8>, FrameError>> {
        if byte == FS {
            self.place = Place::Ending { whole: true };
            return None;
        }
        self.payload.push(byte);
        if let Some(start) = started(&self.payload) {
            self.payload = start.to_vec();
            return Some(Err(FrameError::CutOff));
        }
        if self.payload.len() > self.payload_bytes_max {
            // As much is kept as the start of another frame may need, and the memory is given back.
            let passed = self.payload.len().saturating_sub(START_BYTES - 1);
            self.payload = self.payload.split_off(passed);
            self.place = Place::Passing;
            return Some(Err(FrameError::TooLarge { limit: self.payload_bytes_max }));
        }
        None
    }

    /// The frame was told as too large: the one that cuts it off begins without a word.
    fn passing(&mut self, byte: u8) -> Option<Result<Vec<u8>, FrameError>> {
        if byte == FS {
            self.payload.clear();
            self.place = Place::Ending { whole: false };
            return None;
        }
        self.payload.push(byte);
        if started(&self.payload).is_some() {
            self.place = Place::Inside;
        }
        // In place: this runs for every byte of a frame that may have no end.
        let passed = self.payload.len().saturating_sub(START_BYTES - 1);
        self.payload.drain(..passed);
        None
    }

    fn ending(&mut self, byte: u8, whole: bool) -> Option<Result<Vec<u8>, FrameError>> {
        let payload = std::mem::take(&mut self.payload);
        self.place = if byte == VT { Place::Inside } else { Place::Between };
        match (byte, whole) {
            (CR, true) => Some(Ok(payload)),
            (_, true) => Some(Err(FrameError::BadEnd)),
            (_, false) => None,
        }
    }
}

/// The payload in a frame, in one piece: common senders read an acknowledgement by one call, so it is to be
/// written by one. Nothing when the payload holds a VT or FS, which a frame cannot carry.
#[must_use]
pub fn encode(payload: &[u8]) -> Option<Vec<u8>> {
    let is_free = payload.iter().all(|byte| *byte != VT && *byte != FS);
    is_free.then(|| [&[VT], payload, &[FS, CR]].concat())
}

/// The start of another frame that `payload` ends with, its VT left aside.
fn started(payload: &[u8]) -> Option<&[u8]> {
    STARTS.into_iter().find(|start| payload.ends_with(*start)).and_then(|start| start.get(1..))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    type Event = Result<Vec<u8>, FrameError>;
    type End = Result<(), FrameError>;
    /// A name, a stream, what comes out of it, how it ends.
    type Row = (&'static str, &'static [u8], Vec<Event>, End);

    /// Every event of a stream that comes in these pieces, and how it ends.
    fn decode_pieces<'b>(limit: usize, pieces: impl IntoIterator<Item = &'b [u8]>) -> (Vec<Event>, End) {
        let mut decoder = Decoder::new(limit);
        let mut events = Vec::new();
        for mut piece in pieces {
            while let Some(event) = decoder.next_frame(&mut piece) {
                events.push(event);
                // A byte above the limit is held for as long as it takes to say so.
                assert!(decoder.payload.len() <= limit.max(3));
            }
            assert!(piece.is_empty());
        }
        (events, decoder.end())
    }

    fn decode(bytes: &[u8]) -> (Vec<Event>, End) {
        decode_pieces(16, [bytes])
    }

    fn frame(payload: &[u8]) -> Event {
        Ok(payload.to_vec())
    }

    #[test]
    fn streams_and_their_frames() {
        let too_large = || Err(FrameError::TooLarge { limit: 16 });
        let bad_end = || Err(FrameError::BadEnd);
        let cut_off = || Err(FrameError::CutOff);
        #[rustfmt::skip]
        let table: &[Row] = &[
            ("nothing",                b"",                                vec![], Ok(())),
            ("a frame",                b"\x0bMSH|1\x1c\r",                 vec![frame(b"MSH|1")], Ok(())),
            ("two run together",       b"\x0bMSH|1\x1c\r\x0bMSH|2\x1c\r",  vec![frame(b"MSH|1"), frame(b"MSH|2")], Ok(())),
            ("an empty one",           b"\x0b\x1c\r",                      vec![frame(b"")], Ok(())),
            ("rubbish around it",      b"\xef\xbb\xbf\r\n\x0bMSH\x1c\r\n", vec![frame(b"MSH")], Ok(())),
            ("an end outside",         b"\x1c\r\x0bMSH\x1c\r",             vec![frame(b"MSH")], Ok(())),
            ("no CR, then a frame",    b"\x0bMSH|1\x1c\x0bMSH|2\x1c\r",    vec![bad_end(), frame(b"MSH|2")], Ok(())),
            ("no CR, LF instead",      b"\x0bMSH|1\x1c\n\x0bMSH|2\x1c\r",  vec![bad_end(), frame(b"MSH|2")], Ok(())),
            ("two FS",                 b"\x0bMSH|1\x1c\x1c\r\x0bB\x1c\r",  vec![bad_end(), frame(b"B")], Ok(())),
            ("FS in a text",           b"\x0bMSH\x1c|1\x1c\r\x0bB\x1c\r",  vec![bad_end(), frame(b"B")], Ok(())),
            ("VT in a text",           b"\x0bMSH|a\x0bb\x0b\x1c\r",        vec![frame(b"MSH|a\x0bb\x0b")], Ok(())),
            ("two VT before it",       b"\x0b\x0bMSH|1\x1c\r",             vec![cut_off(), frame(b"MSH|1")], Ok(())),
            ("cut off by a message",   b"\x0bMSH|1\r\x0bMSH|2\x1c\r",      vec![cut_off(), frame(b"MSH|2")], Ok(())),
            ("cut off by a batch",     b"\x0bMSH|1\x0bBHS|2\x1c\r",        vec![cut_off(), frame(b"BHS|2")], Ok(())),
            ("cut off by a file",      b"\x0bMSH|1\x0bFHS|2\x1c\r",        vec![cut_off(), frame(b"FHS|2")], Ok(())),
            ("as long as may be",      b"\x0b0123456789abcdef\x1c\r",      vec![frame(b"0123456789abcdef")], Ok(())),
            ("too long",               b"\x0b0123456789abcdefg\x1c\r",     vec![too_large()], Ok(())),
            ("too long, then another", b"\x0b0123456789abcdefgh\x1c\r\x0bB\x1c\r",  vec![too_large(), frame(b"B")], Ok(())),
            ("too long and cut off",   b"\x0b0123456789abcdefgh\x0bMSH\x1c\r",      vec![too_large(), frame(b"MSH")], Ok(())),
            ("too long by the next",   b"\x0b0123456789abcde\x0bMSH\x1c\r",         vec![too_large(), frame(b"MSH")], Ok(())),
            ("too long without CR",    b"\x0b0123456789abcdefgh\x1c\x0bB\x1c\r",    vec![too_large(), frame(b"B")], Ok(())),
            ("ends in a frame",        b"\x0bMSH|1",                       vec![], Err(FrameError::CutOff)),
            ("ends before CR",         b"\x0bMSH|1\x1c",                   vec![], Err(FrameError::CutOff)),
            ("ends in one too long",   b"\x0b0123456789abcdefg",           vec![too_large()], Ok(())),
        ];
        for (name, bytes, events, end) in table {
            assert_eq!(decode(bytes), (events.clone(), *end), "{name}");
            let one_by_one = decode_pieces(16, bytes.chunks(1));
            assert_eq!(one_by_one, (events.clone(), *end), "{name}, byte by byte");
        }
    }

    #[test]
    fn another_protocol_is_told_and_costs_no_memory() {
        let mut decoder = Decoder::default();
        let mut told = 0;
        for _ in 0..3 * RUBBISH_BYTES_MAX / 16 + 16 {
            let mut piece: &[u8] = b"GET / HTTP/1.1\r\n";
            while let Some(event) = decoder.next_frame(&mut piece) {
                assert_eq!(event, Err(FrameError::NotMllp { limit: RUBBISH_BYTES_MAX }));
                told += 1;
            }
        }
        assert_eq!(told, 3);
        assert_eq!(decoder.payload.capacity(), 0);
        let mut frame: &[u8] = b"\x0bMSH|1\x1c\r";
        assert_eq!(decoder.next_frame(&mut frame), Some(Ok(b"MSH|1".to_vec())), "it is never too late");
    }

    #[test]
    fn an_endless_frame_costs_no_memory() {
        let mut decoder = Decoder::new(1000);
        let mut start: &[u8] = b"\x0b";
        assert_eq!(decoder.next_frame(&mut start), None);
        let mut events = Vec::new();
        for _ in 0..1000 {
            let mut piece: &[u8] = &[b'x'; 999];
            events.extend(std::iter::from_fn(|| decoder.next_frame(&mut piece)));
            assert!(decoder.payload.capacity() <= 2048);
        }
        assert_eq!(events, [Err(FrameError::TooLarge { limit: 1000 })]);
    }

    #[test]
    fn nothing_of_a_message_is_shown() {
        let mut decoder = Decoder::default();
        let mut bytes: &[u8] = b"\x0bMSH|secret";
        assert_eq!(decoder.next_frame(&mut bytes), None);
        assert!(!format!("{decoder:?}").contains("secret"));
        for error in [
            FrameError::TooLarge { limit: 1 },
            FrameError::BadEnd,
            FrameError::CutOff,
            FrameError::NotMllp { limit: 1 },
        ] {
            assert!(error.code().bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'));
        }
    }

    proptest! {
        #[test]
        fn payloads_come_out_as_they_went_in(
            payloads in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..16), 0..6),
            piece in 1..20_usize,
        ) {
            let whole: Vec<_> = payloads.iter().filter(|payload| encode(payload).is_some()).collect();
            let stream: Vec<u8> = whole.iter().filter_map(|payload| encode(payload)).flatten().collect();
            let (events, end) = decode_pieces(16, stream.chunks(piece));
            prop_assert_eq!(end, Ok(()));
            prop_assert_eq!(events, whole.into_iter().cloned().map(Ok).collect::<Vec<_>>());
        }

        #[test]
        fn pieces_make_no_difference(
            bytes in prop::collection::vec(
                prop_oneof![Just(VT), Just(FS), Just(CR), Just(b'M'), Just(b'S'), Just(b'H'), any::<u8>()],
                0..200,
            ),
            piece in 1..20_usize,
        ) {
            prop_assert_eq!(decode(&bytes), decode_pieces(16, bytes.chunks(piece)));
        }
    }
}
