//! Results: ORU^R01 (HL7 v2.9 section 7.3.1), `{[PID [PV1]] {[ORC] OBR {NTE} {OBX {NTE}}}}`.
//!
//! Segments that the structure has beside these (SPM, TQ1, PRT ...) are passed over. An OBX that stands
//! before the first OBR, or between an ORC and its OBR, describes the patient or the order; it is no result
//! and is counted only.

mod datatype;
mod status;
mod value;

use std::fmt;

use sealpost_wire::id::Digest;

pub use datatype::{
    AssigningAuthority, Coded, EntityIdentifier, PatientIdentifier, PatientIdentifiers, PersonName, Provider,
};
pub use status::{AbnormalFlag, OrderStatus, ProcessingId, ResultStatus};
pub use value::{Comparator, Decimal, Value};

use crate::hl7::{Field, Location, Message, Segment, Timestamp};

/// Orders (OBR) of a message.
pub const ORDERS_MAX: usize = 64;
/// Observations (OBX) of a message.
pub const OBSERVATIONS_MAX: usize = 1024;
/// Notes (NTE) of an order or an observation.
pub const NOTES_MAX: usize = 128;

/// Why a message is no result that this crate takes. The same message fails again: a retry cannot help.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OruError {
    /// MSH-9 is not ORU^R01.
    #[error("messages of type {message_type} are not supported")]
    UnsupportedMessageType {
        /// MSH-9.1 and MSH-9.2, or `?` where they are no codes.
        message_type: String,
    },
    /// MSH-12 is no version 2.
    #[error("the version in MSH-12 is not supported")]
    UnsupportedVersion,
    /// MSH-11 is neither P, T nor D.
    #[error("the processing id in MSH-11 is not supported")]
    UnsupportedProcessingId,
    /// A segment that the structure requires is missing.
    #[error("{segment} is missing")]
    MissingSegment {
        /// The segment's name.
        segment: &'static str,
    },
    /// A field that must have a value has none.
    #[error("{field} is missing")]
    MissingField {
        /// The field: `MSH-10`.
        field: &'static str,
    },
    /// A second PID: the message speaks of several patients, and must not reach one of them with the other's
    /// results.
    #[error("the message has more than one PID")]
    MultiplePatients,
    /// More of something than its limit.
    #[error("the message has more than {limit} {segment}")]
    TooMany {
        /// The segment's name.
        segment: &'static str,
        /// The limit.
        limit: usize,
    },
}

impl OruError {
    /// A stable name for logs, metrics and acknowledgements.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::UnsupportedMessageType { .. } => "unsupported_message_type",
            Self::UnsupportedVersion => "unsupported_version",
            Self::UnsupportedProcessingId => "unsupported_processing_id",
            Self::MissingSegment { .. } => "missing_segment",
            Self::MissingField { .. } => "missing_field",
            Self::MultiplePatients => "multiple_patients",
            Self::TooMany { .. } => "too_many_segments",
        }
    }
}

/// A result message: one patient, one or more orders.
pub struct Oru {
    /// Who sent it.
    pub source: SourceEvent,
    /// Whom it is about.
    pub patient: PatientIdentifiers,
    /// The orders and their results, in the message's order; never empty.
    pub orders: Vec<Order>,
    /// OBX segments that belong to no order, and are not read.
    pub unattached_observations: usize,
}

/// What names a message: the fields of its header, and a digest of its content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceEvent {
    /// MSH-3, its components joined by `^`.
    pub sending_application: String,
    /// MSH-4, its components joined by `^`.
    pub sending_facility: String,
    /// MSH-7. Its offset from UTC counts for every time of the message that has none.
    pub sent_at: Option<Timestamp>,
    /// MSH-10, the message control id.
    pub control_id: String,
    /// MSH-11.
    pub processing: ProcessingId,
    /// MSH-12.
    pub version: String,
    /// SHA-256 over message type, processing id and every segment behind MSH. The rest of the header is left
    /// out: a resend may carry a new time or sequence number.
    pub body_digest: Digest,
}

/// What tells a resend from a new message.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SourceKey {
    /// MSH-3, MSH-4 and MSH-10, joined by `|`; a `|` or `\` within one is escaped by `\`.
    pub key: String,
    /// As in [`SourceEvent::body_digest`]: the same key with another digest is another message under a used
    /// id.
    pub body_digest: Digest,
}

/// One OBR and what belongs to it.
pub struct Order {
    /// OBR-3, or ORC-3 where that is empty.
    pub filler: EntityIdentifier,
    /// OBR-4, the universal service identifier.
    pub service: Coded,
    /// OBR-16, the first.
    pub ordering_provider: Option<Provider>,
    /// OBR-22, when results were reported or the status changed.
    pub changed_at: Option<Timestamp>,
    /// OBR-25.
    pub status: OrderStatus,
    /// NTE-3 of the notes below OBR.
    pub notes: Vec<String>,
    /// The OBX segments.
    pub observations: Vec<Observation>,
}

/// One OBX and its notes.
pub struct Observation {
    /// OBX-3.
    pub code: Coded,
    /// OBX-5, read as OBX-2 says.
    pub value: Value,
    /// OBX-6.
    pub unit: Option<Coded>,
    /// OBX-7.
    pub reference_range: Option<String>,
    /// OBX-8.
    pub flags: Vec<AbnormalFlag>,
    /// OBX-11.
    pub status: ResultStatus,
    /// OBX-14.
    pub observed_at: Option<Timestamp>,
    /// NTE-3 of the notes below OBX.
    pub notes: Vec<String>,
}

impl Oru {
    /// Reads a result message.
    ///
    /// # Errors
    /// [`OruError`], each with a stable code.
    pub fn from_message(message: &Message) -> Result<Self, OruError> {
        let source = SourceEvent::of(message)?;
        let mut reading = Reading { zone: source.sent_at, ..Reading::default() };
        for segment in message.segments().skip(1) {
            reading.take(segment)?;
        }
        let patient = reading.patient.ok_or(OruError::MissingSegment { segment: "PID" })?;
        if reading.orders.is_empty() {
            return Err(OruError::MissingSegment { segment: "OBR" });
        }
        Ok(Self { source, patient, orders: reading.orders, unattached_observations: reading.unattached })
    }
}

/// Counts, never content.
impl fmt::Debug for Oru {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Oru")
            .field("source", &self.source)
            .field("patient", &self.patient)
            .field("orders", &self.orders.len())
            .finish_non_exhaustive()
    }
}

debug_without_content!(Order, Observation);

impl SourceEvent {
    /// The key of the message, for refusing what was sent before.
    #[must_use]
    pub fn key(&self) -> SourceKey {
        let escaped = |text: &str| text.replace('\\', "\\\\").replace('|', "\\|");
        let parts = [&self.sending_application, &self.sending_facility, &self.control_id];
        SourceKey { key: parts.map(|part| escaped(part)).join("|"), body_digest: self.body_digest }
    }

    fn of(message: &Message) -> Result<Self, OruError> {
        let header = message.header();
        let message_type = header.field(9);
        let (code, event) = (message_type.component(1).text(), message_type.component(2).text());
        let structure = message_type.component(3).text();
        if code != "ORU" || !(event == "R01" || event.is_empty() && structure == "ORU_R01") {
            return Err(OruError::UnsupportedMessageType { message_type: type_name(&code, &event) });
        }
        let processing = required(header, 11, "MSH-11")?;
        let version = required(header, 12, "MSH-12")?;
        if !version.strip_prefix("2.").is_some_and(|minor| minor.starts_with(|c: char| c.is_ascii_digit())) {
            return Err(OruError::UnsupportedVersion);
        }
        let joined = |number| {
            let parts: Vec<String> =
                header.field(number).first().components().map(|part| part.text().trim().to_owned()).collect();
            parts.join("^").trim_end_matches('^').to_owned()
        };
        let mut body = format!("{code}^{event}\r{processing}\r");
        for segment in message.segments().skip(1) {
            body.push_str(segment.raw());
            body.push('\r');
        }
        Ok(Self {
            sending_application: joined(3),
            sending_facility: joined(4),
            sent_at: Timestamp::parse(&header.field(7).text()),
            control_id: required(header, 10, "MSH-10")?,
            processing: ProcessingId::of(&processing).ok_or(OruError::UnsupportedProcessingId)?,
            version,
            body_digest: Digest::of(body.as_bytes()),
        })
    }
}

/// Whether a text of a result message says something about the patient in words or numbers: name and address
/// in PID, names of tests and doctors, values, notes. Identifiers, codes, dates and types are left out: what
/// is put in their place must not break the message. For whoever searches a system for such texts.
#[must_use]
pub fn is_content(location: &Location<'_>) -> bool {
    match (location.segment, location.field) {
        ("NTE", 3) | ("OBX", 5) => true,
        // The seventh component is the type of the name or address.
        ("PID", 5 | 6 | 9 | 11) => location.component != 7,
        ("OBR", 4) | ("OBX", 3) => location.component == 2,
        ("OBR", 16) => matches!(location.component, 2 | 3),
        _ => false,
    }
}

/// What has been read so far, and where the next segment belongs.
#[derive(Default)]
struct Reading {
    zone: Option<Timestamp>,
    patient: Option<PatientIdentifiers>,
    orders: Vec<Order>,
    /// ORC-3 of an ORC whose OBR has not come yet.
    common: Option<EntityIdentifier>,
    observations: usize,
    unattached: usize,
    notes: NotesOf,
}

/// What a note belongs to.
#[derive(Clone, Copy, Default)]
enum NotesOf {
    #[default]
    Nothing,
    Order,
    Observation,
}

impl Reading {
    fn take(&mut self, segment: Segment<'_>) -> Result<(), OruError> {
        match segment.name() {
            "PID" if self.patient.is_some() => return Err(OruError::MultiplePatients),
            "PID" => {
                self.patient = Some(PatientIdentifiers::of(segment)?);
                self.notes = NotesOf::Nothing;
            }
            "ORC" => {
                self.common = Some(EntityIdentifier::of(segment.field(3)));
                self.notes = NotesOf::Nothing;
            }
            "OBR" => self.order(segment)?,
            "OBX" => self.observation(segment)?,
            "NTE" => self.note(segment)?,
            "PV1" | "SPM" | "FT1" | "TXA" => self.notes = NotesOf::Nothing,
            _ => {}
        }
        Ok(())
    }

    fn order(&mut self, segment: Segment<'_>) -> Result<(), OruError> {
        if self.orders.len() >= ORDERS_MAX {
            return Err(OruError::TooMany { segment: "OBR", limit: ORDERS_MAX });
        }
        let common = self.common.take();
        let filler = Some(EntityIdentifier::of(segment.field(3)))
            .filter(|filler| !filler.id.is_empty())
            .or(common)
            .filter(|filler| !filler.id.is_empty())
            .ok_or(OruError::MissingField { field: "OBR-3" })?;
        self.orders.push(Order {
            filler,
            service: Coded::of(segment.field(4).first()).unwrap_or_default(),
            ordering_provider: Provider::of(segment.field(16)),
            changed_at: self.time(segment.field(22)),
            status: OrderStatus::of(segment.field(25).text().trim()),
            notes: Vec::new(),
            observations: Vec::new(),
        });
        self.notes = NotesOf::Order;
        Ok(())
    }

    fn observation(&mut self, segment: Segment<'_>) -> Result<(), OruError> {
        self.observations += 1;
        if self.observations > OBSERVATIONS_MAX {
            return Err(OruError::TooMany { segment: "OBX", limit: OBSERVATIONS_MAX });
        }
        let observed_at = self.time(segment.field(14));
        let Some(order) = self.orders.last_mut().filter(|_| self.common.is_none()) else {
            self.unattached += 1;
            self.notes = NotesOf::Nothing;
            return Ok(());
        };
        let range = segment.field(7).first().literal().trim().to_owned();
        order.observations.push(Observation {
            code: Coded::of(segment.field(3).first()).ok_or(OruError::MissingField { field: "OBX-3" })?,
            value: Value::of(segment.field(2).text().trim(), segment.field(5)),
            unit: Coded::of(segment.field(6).first()),
            reference_range: Some(range).filter(|range| !range.is_empty() && range != NULL),
            flags: AbnormalFlag::all(segment.field(8)),
            status: ResultStatus::of(segment.field(11).text().trim()),
            observed_at,
            notes: Vec::new(),
        });
        self.notes = NotesOf::Observation;
        Ok(())
    }

    fn note(&mut self, segment: Segment<'_>) -> Result<(), OruError> {
        let Some(order) = self.orders.last_mut() else { return Ok(()) };
        let notes = match self.notes {
            NotesOf::Nothing => return Ok(()),
            NotesOf::Order => &mut order.notes,
            NotesOf::Observation => match order.observations.last_mut() {
                Some(observation) => &mut observation.notes,
                None => return Ok(()),
            },
        };
        let lines: Vec<String> =
            segment.field(3).repetitions().map(|line| line.literal().trim_end().to_owned()).collect();
        let note = lines.join("\n");
        if note.trim().is_empty() || note == NULL {
            return Ok(());
        }
        if notes.len() >= NOTES_MAX {
            return Err(OruError::TooMany { segment: "NTE", limit: NOTES_MAX });
        }
        notes.push(note);
        Ok(())
    }

    fn time(&self, field: Field<'_>) -> Option<Timestamp> {
        let zone = self.zone.and_then(|sent_at| sent_at.offset());
        Some(Timestamp::parse(&field.text())?.or_offset(zone))
    }
}

/// The explicit null (section 2.5.3): the field is known to have no value.
const NULL: &str = "\"\"";

fn required(segment: Segment<'_>, number: usize, field: &'static str) -> Result<String, OruError> {
    let text = segment.field(number).text().trim().to_owned();
    if text.is_empty() || text == NULL { Err(OruError::MissingField { field }) } else { Ok(text) }
}

/// `ADT^A08`, if that is what it looks like: an error must not carry a misplaced name into a log.
fn type_name(code: &str, event: &str) -> String {
    let plain = |text: &str| {
        text.len() <= 8 && text.bytes().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit())
    };
    match (plain(code) && !code.is_empty(), plain(event) && !event.is_empty()) {
        (true, true) => format!("{code}^{event}"),
        (true, false) => code.to_owned(),
        _ => "?".to_owned(),
    }
}
