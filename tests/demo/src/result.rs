//! The result that the demo sends: a message of the hospital's laboratory, with canaries in it.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use sealpost_connector::alert::{self, AlertOptions, Priority};
use sealpost_connector::hl7::{MESSAGE_BYTES_MAX, Message, ReadOptions};
use sealpost_connector::oru::{Oru, PatientIdentifier};
use sealpost_sender::{Alert, SourceEvent};
use sealpost_wire::id::RecipientId;
use sealpost_wire::payload::Sensitivity;

use crate::canary::{self, Canary, without_canaries};
use crate::clock::system_rng;
use crate::error::DemoError;

const SAMPLE: &[u8] = include_bytes!("../../data/hl7/critical-potassium.hl7");
/// How long a result is worth delivering (seconds): a week.
const LIFETIME_SECONDS: u64 = 7 * 24 * 3600;

/// A result message that was read and that canaries were planted in.
pub(crate) struct LabResult {
    /// The message as the hospital sends it, in the character set that it came in.
    pub(crate) bytes: Vec<u8>,
    /// What was planted in it.
    pub(crate) canaries: Vec<Canary>,
    /// The name of its character set.
    pub(crate) charset: &'static str,
    /// The file that it came from.
    pub(crate) origin: String,
    /// What the patient is called in the file, and with the canaries.
    identifiers: Vec<PatientIdentifier>,
    oru: Oru,
}

impl LabResult {
    /// Reads the message in `file`, or the sample.
    ///
    /// # Errors
    /// What is wrong with the file, on one line.
    pub(crate) fn read(file: Option<&Path>) -> Result<Self, DemoError> {
        let origin = file.map_or_else(|| "a sample".to_owned(), |file| file.display().to_string());
        let wrong = |why: &dyn std::fmt::Display| DemoError::missing(&origin, why);
        let bytes = match file {
            None => SAMPLE.to_vec(),
            Some(file) => {
                let mut bytes = Vec::new();
                // One byte more than the reader takes, for it to refuse.
                let limit = MESSAGE_BYTES_MAX as u64 + 1;
                let read = File::open(file).and_then(|file| file.take(limit).read_to_end(&mut bytes));
                read.map_err(|error| wrong(&error))?;
                bytes
            }
        };
        let parse = |bytes: &[u8]| {
            let message = Message::parse(bytes, &ReadOptions::default()).map_err(|error| wrong(&error))?;
            let oru = Oru::from_message(&message).map_err(|error| wrong(&error))?;
            Ok::<_, DemoError>((message, oru))
        };
        let (mut message, original) = parse(&bytes)?;
        let canaries = canary::plant(&mut message, system_rng().as_mut()).map_err(|error| wrong(&error))?;
        let bytes = message.encode().map_err(|error| wrong(&error))?;
        // What the hospital's system would read: the file with the canaries.
        let (message, oru) = parse(&bytes)?;
        let mut identifiers = original.patient.identifiers;
        identifiers.extend(oru.patient.identifiers.iter().cloned());
        Ok(Self { bytes, canaries, charset: message.charset().name(), origin, identifiers, oru })
    }

    /// The alerts for `recipient`, one for each order of the message.
    pub(crate) fn alerts(&self, recipient: RecipientId) -> Result<Vec<Alert>, DemoError> {
        let alerts = alert::Alert::from_oru(&self.oru, recipient, &AlertOptions::default());
        let alerts = alerts.map_err(|error| DemoError::failed(&self.origin, error))?;
        Ok(alerts.into_iter().map(to_send).collect())
    }

    /// What the message says, in one line for each order, as the hospital wrote it.
    pub(crate) fn summary(&self, alerts: &[Alert]) -> Vec<String> {
        let first_line = |alert: &Alert| {
            let text = alert.texts.values().next()?;
            let line = text.body.lines().next()?;
            Some(without_canaries(line, &self.canaries))
        };
        alerts.iter().filter_map(first_line).collect()
    }

    /// A patient map that leads from the message's patient to `recipient`, for the `sealpost` command.
    pub(crate) fn patient_map(&self, recipient: RecipientId) -> serde_json::Value {
        let named = self.identifiers.iter().filter_map(|identifier| {
            let authority = &identifier.authority;
            let authority =
                [&authority.namespace, &authority.universal_id].into_iter().find(|name| !name.is_empty())?;
            let is_mapped = !identifier.id_type.is_empty();
            is_mapped.then(|| {
                serde_json::json!({
                    "authority": authority,
                    "type": identifier.id_type,
                    "id": identifier.id,
                    "recipient": recipient,
                })
            })
        });
        serde_json::json!({ "patients": named.collect::<Vec<_>>() })
    }

    /// Who sent the message, as its header says.
    pub(crate) fn source(&self) -> String {
        let source = &self.oru.source;
        let application = source.sending_application.split('^').next().unwrap_or_default();
        let facility = source.sending_facility.split('^').next().unwrap_or_default();
        [application, facility].into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(" at ")
    }
}

/// What the sender is told about a result.
fn to_send(alert: alert::Alert) -> Alert {
    // Critical is the only urgency that a locked screen may show in words: somebody must act.
    let sensitivity =
        if alert.priority == Priority::Critical { Sensitivity::Private } else { Sensitivity::Restricted };
    Alert {
        source: SourceEvent {
            key: format!("{}|{}", alert.source_event.key, alert.order),
            body: alert.source_event.body_digest,
            subject: Some(alert.order),
            as_of: alert.observed_at,
        },
        recipient: alert.recipient,
        category: alert.category,
        priority: alert.priority.into(),
        sensitivity,
        texts: alert.texts,
        parts: alert.part.into_iter().collect(),
        replies: Vec::new(),
        lifetime_seconds: LIFETIME_SECONDS,
    }
}
