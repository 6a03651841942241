//! From a result to what a patient is told.
//!
//! One [`Alert`] stands for one filler order: corrections come by order, and must replace what was said about
//! that order and nothing else. The OBRs of a message that share a filler order number are one alert.

mod fhir;
mod wording;

use std::collections::BTreeMap;

use sealpost_wire::clock::UnixTime;
use sealpost_wire::id::RecipientId;
use sealpost_wire::limits::PART_BYTES_MAX;
use sealpost_wire::payload::{self, Part, Text};

use crate::hl7::UtcOffset;
use crate::oru::{AbnormalFlag, Observation, Order, Oru, SourceKey};

/// The category of every alert made here, for consent and routing.
pub const CATEGORY: &str = "lab-result";
/// The media type of an alert's part.
pub const PART_MEDIA_TYPE: &str = "application/fhir+json";

/// What a site tells the mapping.
#[derive(Clone, Copy, Debug, Default)]
pub struct AlertOptions {
    /// The offset of times that come without one, in a message whose MSH-7 has none either. Without it, such
    /// times count as UTC where seconds are needed, and lose their time of day in FHIR.
    pub zone: Option<UtcOffset>,
}

/// Why a result could not be made an alert. The same result fails again: a retry cannot help.
#[derive(Debug, thiserror::Error)]
pub enum AlertError {
    /// The FHIR part could not be written.
    #[error("the report could not be written as FHIR")]
    Fhir(#[from] serde_json::Error),
}

/// How urgent an alert is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Priority {
    /// Nothing is out of range.
    Normal,
    /// Something is high, low or abnormal, or an earlier alert is corrected or withdrawn.
    High,
    /// Something is critical, or beyond what the instrument can measure.
    Critical,
}

/// What a patient is told about one order.
#[derive(Clone, PartialEq, Eq)]
pub struct Alert {
    /// The message that it comes from. One message can give several alerts: this and `order` together name
    /// one.
    pub source_event: SourceKey,
    /// The filler order number (OBR-3), with its authority where one is given.
    pub order: String,
    /// Who is told.
    pub recipient: RecipientId,
    /// How urgently.
    pub priority: Priority,
    /// [`CATEGORY`].
    pub category: String,
    /// When the event happened: OBR-22, else MSH-7.
    pub created: Option<UnixTime>,
    /// The latest OBR-22. An alert must not replace one of the same order that has a later one.
    pub observed_at: Option<UnixTime>,
    /// The order whose earlier alert this one replaces, if one was sent: the order itself.
    pub revision_of: Option<String>,
    /// Whether earlier results of the order are taken back (OBX-11 is D or W). The earlier alert is to be
    /// recalled, whether or not this one has results of its own.
    pub retracts: bool,
    /// Whether some of the results may still change; the texts say so.
    pub preliminary: bool,
    /// Title and body by language tag. `en` is always there.
    ///
    /// A title is one short line that names no test and no value: it may show on a locked screen.
    pub texts: BTreeMap<String, Text>,
    /// The whole report as a FHIR R4 Bundle. `None` if it is larger than a part may be; the texts say so.
    pub part: Option<Part>,
}

debug_without_content!(Alert);

impl From<Priority> for payload::Priority {
    /// How soon it is delivered: what is high is no more urgent to deliver than what is normal, only to show.
    fn from(priority: Priority) -> Self {
        match priority {
            Priority::Critical => Self::Critical,
            Priority::High | Priority::Normal => Self::Normal,
        }
    }
}

impl Alert {
    /// The alerts of a result message, one for each filler order, in the message's order; at least one.
    ///
    /// # Errors
    /// [`AlertError`]
    pub fn from_oru(
        oru: &Oru,
        recipient: RecipientId,
        options: &AlertOptions,
    ) -> Result<Vec<Self>, AlertError> {
        let mut reports: Vec<Report<'_>> = Vec::new();
        for order in &oru.orders {
            let key = order.filler.key();
            match reports.iter_mut().find(|report| report.key == key) {
                Some(report) => report.orders.push(order),
                None => reports.push(Report { oru, key, orders: vec![order], options: *options }),
            }
        }
        reports.iter().map(|report| report.alert(recipient)).collect()
    }
}

/// The OBRs of one filler order.
struct Report<'o> {
    oru: &'o Oru,
    key: String,
    orders: Vec<&'o Order>,
    options: AlertOptions,
}

impl<'o> Report<'o> {
    fn alert(&self, recipient: RecipientId) -> Result<Alert, AlertError> {
        let zone = self.options.zone;
        let unix = |time: crate::hl7::Timestamp| time.or_offset(zone).unix();
        let observed_at = self.orders.iter().filter_map(|order| order.changed_at.and_then(unix)).max();
        let part = Some(fhir::bundle(self)?)
            .filter(|bytes| bytes.len() <= PART_BYTES_MAX)
            .map(|bytes| Part { media_type: PART_MEDIA_TYPE.to_owned(), bytes });
        let english = wording::english(self, part.is_some());
        Ok(Alert {
            source_event: self.oru.source.key(),
            order: self.key.clone(),
            recipient,
            priority: self.priority(),
            category: CATEGORY.to_owned(),
            created: observed_at.or_else(|| self.oru.source.sent_at.and_then(unix)),
            observed_at,
            revision_of: self.revises().then(|| self.key.clone()),
            retracts: self.retracts(),
            preliminary: self.is_preliminary(),
            texts: BTreeMap::from([("en".to_owned(), english)]),
            part,
        })
    }

    fn observations(&self) -> impl Iterator<Item = &'o Observation> {
        self.orders.iter().flat_map(|order| &order.observations)
    }

    fn revises(&self) -> bool {
        self.orders.iter().any(|order| order.status.revises())
            || self.observations().any(|observation| observation.status.revises())
    }

    fn retracts(&self) -> bool {
        self.observations().any(|observation| observation.status.retracts())
    }

    fn is_preliminary(&self) -> bool {
        self.observations().any(|observation| observation.status.is_preliminary())
    }

    /// Whoever was told something wrong must hear of it soon: a change is never less than high, whatever the
    /// new values are.
    fn priority(&self) -> Priority {
        let changed = if self.revises() { Priority::High } else { Priority::Normal };
        self.observations().map(severity).max().unwrap_or(Priority::Normal).max(changed)
    }
}

/// How urgent one observation is. The flags of a result that was taken back or could not be obtained count
/// for nothing; those of a result without a status do.
fn severity(observation: &Observation) -> Priority {
    use crate::oru::ResultStatus as Status;
    if observation.status.retracts() || observation.status == Status::Cancelled {
        return Priority::Normal;
    }
    observation.flags.iter().map(flag_severity).max().unwrap_or(Priority::Normal)
}

fn flag_severity(flag: &AbnormalFlag) -> Priority {
    use AbnormalFlag as Flag;
    match flag {
        Flag::CriticallyHigh
        | Flag::CriticallyLow
        | Flag::CriticallyAbnormal
        | Flag::AboveScale
        | Flag::BelowScale => Priority::Critical,
        Flag::High | Flag::Low | Flag::SignificantlyHigh | Flag::SignificantlyLow | Flag::Abnormal => {
            Priority::High
        }
        Flag::Normal
        | Flag::Risen
        | Flag::Fallen
        | Flag::Better
        | Flag::Worse
        | Flag::Susceptible
        | Flag::Intermediate
        | Flag::Resistant
        | Flag::Positive
        | Flag::Negative
        | Flag::Other(_) => Priority::Normal,
    }
}
