//! Messages, sealed before the clock starts.

use std::collections::BTreeMap;

use bytes::Bytes;
use sealpost_seal::{Envelope, SealedBox, seal};
use sealpost_wire::api::relay::{Submission, SubmittedBox};
use sealpost_wire::base64url::Base64Url;
use sealpost_wire::context::MessageContext;
use sealpost_wire::id::{NotificationId, TransportId};
use sealpost_wire::payload::{Notification, Priority, Sensitivity, Text};
use sealpost_wire::prekey::PrekeyKind;
use sealpost_wire::receipt::{Receipt, ReceiptStatement};

use crate::cast::{Device, Hospital, system_rng};
use crate::cores;
use crate::error::BenchError;

/// How long a message lives (seconds).
const LIFETIME_SECONDS: u64 = 3600;
/// The priority of all of them: what was not fetched is pushed again after a quarter of an hour, when a run
/// is long over.
const PRIORITY: Priority = Priority::Normal;

/// A message for one device, ready to be sent, fetched and acknowledged.
pub struct Message {
    /// The submission.
    pub id: TransportId,
    /// Its path at the relay.
    pub path: String,
    /// The body of the submission.
    pub body: Bytes,
    /// Bytes of the box.
    pub sealed_bytes: usize,
    /// The device's receipt once it has opened the message.
    pub opened: Base64Url,
}

/// A message for each of `devices`, in their order.
///
/// # Errors
/// [`BenchError::Cast`].
pub fn seal_all<D: AsRef<Device> + Sync>(
    hospital: &Hospital,
    devices: &[D],
) -> Result<Vec<Message>, BenchError> {
    let notification = lab_result(hospital);
    cores::make_on_both(devices.len(), |index| {
        // `index` counts the devices.
        let device = devices[index].as_ref();
        let id = TransportId::random(&mut system_rng());
        let sealed = seal_one(hospital, device, id, &notification)?;
        let opened = Receipt {
            tenant: hospital.tenant().clone(),
            transport_id: id,
            device: device.id(),
            sealed: sealed.digest,
            statement: ReceiptStatement::Opened(PrekeyKind::Signed),
            time: hospital.now(),
        };
        let sealed_bytes = sealed.bytes.len();
        let submission = Submission {
            expires_at: hospital.now().plus(LIFETIME_SECONDS),
            priority: PRIORITY,
            boxes: vec![SubmittedBox { device: device.id(), sealed: Base64Url(sealed.bytes) }],
            slot: None,
        };
        Ok(Message {
            id,
            path: format!("/v1/messages/{id}"),
            body: serde_json::to_vec(&submission)?.into(),
            sealed_bytes,
            opened: Base64Url(opened.sign(device.identity())),
        })
    })
}

/// Seals `notification` to `device`.
///
/// # Errors
/// [`BenchError::Cast`].
pub fn seal_one(
    hospital: &Hospital,
    device: &Device,
    id: TransportId,
    notification: &Notification,
) -> Result<SealedBox, BenchError> {
    let envelope = Envelope {
        tenant: hospital.tenant().clone(),
        transport_id: id,
        expires_at: hospital.now().plus(LIFETIME_SECONDS),
    };
    let (prekey, sender) = (device.prekey(), hospital.sender());
    let sealed = seal(notification, &envelope, prekey, sender, hospital.now(), &mut system_rng());
    sealed.map_err(BenchError::cast("a box"))
}

/// What the box of [`seal_one`] is bound to.
#[must_use]
pub fn context(hospital: &Hospital, device: &Device, id: TransportId) -> MessageContext {
    MessageContext {
        tenant: hospital.tenant().clone(),
        transport_id: id,
        device: device.id(),
        identity: device.identity().verifying_key().digest(),
        expires_at: hospital.now().plus(LIFETIME_SECONDS),
    }
}

/// An alert about a lab result. It fills the smallest size that there is, as most alerts do.
#[must_use]
pub fn lab_result(hospital: &Hospital) -> Notification {
    let text = Text {
        title: "Your potassium is too high".to_owned(),
        body: "Potassium 6.9 mmol/L. Please call the care team now.".to_owned(),
    };
    Notification {
        id: NotificationId::random(&mut system_rng()),
        revision: 1,
        created: hospital.now(),
        priority: PRIORITY,
        category: "lab-result".to_owned(),
        sensitivity: Sensitivity::Private,
        texts: BTreeMap::from([("en".to_owned(), text)]),
        parts: Vec::new(),
        replies: Vec::new(),
        attachments: Vec::new(),
        head: None,
    }
}
