//! What a hospital's systems send: HL7 v2 messages, and the MLLP frames around them.

use sealpost_connector::alert::{Alert, AlertOptions};
use sealpost_connector::hl7::{Hl7Error, Message, ReadOptions};
use sealpost_connector::mllp::{Decoder, FrameError, encode};
use sealpost_connector::oru::Oru;
use sealpost_wire::limits::{BODY_BYTES_MAX, PART_BYTES_MAX, TITLE_BYTES_MAX};

use crate::world::RECIPIENT;

/// Bytes of a frame here: small, so that the limit is met.
const FRAME_BYTES_MAX: usize = 64;

/// Input: an HL7 v2 message, read, written, and turned into alerts.
pub(crate) fn hl7(bytes: &[u8]) {
    let Ok(mut message) = Message::parse(bytes, &ReadOptions::default()) else { return };
    assert_eq!(message.header().name(), "MSH");
    assert!(!format!("{message:?}").contains('|'), "names and counts only");
    let written = message.encode().expect("every character came out of the character set");
    let again = parse_any_size(&written).expect("what was written is read");
    assert_eq!(again.encode().as_ref(), Ok(&written));
    let mut texts = 0;
    for segment in message.segments() {
        for field in segment.fields() {
            for component in field.repetitions().flat_map(|repetition| repetition.components()) {
                texts += component.text().len();
            }
        }
    }
    assert!(texts <= 16 * written.len(), "escapes blow up: {texts} from {}", written.len());
    let before: Vec<String> =
        message.segments().map(|segment| segment.field(1).text().into_owned()).collect();
    message.map_texts(|_, _| None).expect("nothing is changed");
    let after: Vec<String> = message.segments().map(|segment| segment.field(1).text().into_owned()).collect();
    assert_eq!(before, after);
    alerts(&message);
}

fn alerts(message: &Message) {
    let Ok(oru) = Oru::from_message(message) else { return };
    let alerts = Alert::from_oru(&oru, RECIPIENT, &AlertOptions::default()).expect("a result has an alert");
    assert!(!alerts.is_empty());
    for alert in alerts {
        for text in alert.texts.values() {
            assert!(!text.title.is_empty() && text.title.len() <= TITLE_BYTES_MAX);
            assert!(!text.body.is_empty() && text.body.len() <= BODY_BYTES_MAX);
        }
        if let Some(part) = alert.part {
            assert!(part.bytes.len() <= PART_BYTES_MAX);
            serde_json::from_slice::<serde_json::Value>(&part.bytes).expect("FHIR in JSON");
        }
    }
}

fn parse_any_size(bytes: &[u8]) -> Result<Message, Hl7Error> {
    Message::parse(bytes, &ReadOptions { message_bytes_max: usize::MAX, ..ReadOptions::default() })
}

/// Input: how many bytes come at once, and the bytes of a connection.
pub(crate) fn mllp(input: &[u8]) {
    let Some((piece, stream)) = input.split_first() else { return };
    let whole = frames(std::iter::once(stream));
    assert_eq!(frames(stream.chunks(usize::from(*piece).max(1))), whole, "pieces make no difference");
    let (events, _) = whole;
    for payload in events.into_iter().flatten() {
        assert!(payload.len() <= FRAME_BYTES_MAX);
        if let Some(framed) = encode(&payload) {
            assert_eq!(frames(std::iter::once(&framed[..])), (vec![Ok(payload)], Ok(())));
        }
    }
}

type Event = Result<Vec<u8>, FrameError>;

fn frames<'b>(pieces: impl Iterator<Item = &'b [u8]>) -> (Vec<Event>, Result<(), FrameError>) {
    let mut decoder = Decoder::new(FRAME_BYTES_MAX);
    let mut events = Vec::new();
    for mut piece in pieces {
        events.extend(std::iter::from_fn(|| decoder.next_frame(&mut piece)));
        assert!(piece.is_empty());
    }
    (events, decoder.end())
}
