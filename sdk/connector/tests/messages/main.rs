//! Messages as they come, read and mapped: tables, samples against another reader, properties over any bytes.

mod alerts;
mod properties;
mod reader;
mod results;
mod samples;

use sealpost_connector::hl7::{Hl7Error, Message, ReadOptions};
use sealpost_connector::oru::{Oru, OruError};

/// The sample messages, by file name.
const SAMPLES: [&str; 7] = [
    "ADT-A08-01.hl7",
    "ADT-A40-01.hl7",
    "LAB-ORU-1.hl7",
    "ORM-O01-01.hl7",
    "ORU-R01-01.hl7",
    "SIU-S12-01.hl7",
    "critical-potassium.hl7",
];

fn sample(name: &str) -> Vec<u8> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/data/hl7");
    std::fs::read(format!("{folder}/{name}")).unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn parse(bytes: impl AsRef<[u8]>) -> Result<Message, Hl7Error> {
    Message::parse(bytes.as_ref(), &ReadOptions::default())
}

fn oru(text: impl AsRef<[u8]>) -> Result<Oru, OruError> {
    Oru::from_message(&parse(text).unwrap())
}

/// A result message with this behind its OBR: a final one of Anna Test's, sent at 12:00 UTC.
fn result(behind: &str) -> String {
    format!(
        "MSH|^~\\&|LAB|NORTH|||20240301120000+0000||ORU^R01^ORU_R01|M1|P|2.5.1\r\
         PID|1||1^^^NORTH^MR||Test^Anna\r\
         OBR|1||F77^LAB|24326-1^Electrolytes^LN||||||||||||||||||20240301113000+0000|||F\r{behind}"
    )
}

/// An OBX of potassium with these fields.
fn potassium(value: &str, flags: &str, status: &str) -> String {
    format!(
        "OBX|1|NM|2823-3^Potassium^LN||{value}|mmol/L^^UCUM|3.5-5.1|{flags}|||{status}|||20240301100000\r"
    )
}
