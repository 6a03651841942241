//! Keyspaces and keys. Every key starts with its tenant and a home lane; an embedded store has the one lane
//! 0.
//!
//! ```text
//! messages    tenant | 0 | lane | transport id | sender                      a submission: manifest and ends
//! deliveries  tenant | 0 | lane | device | cursor                            a box that waits, and its state
//! boxes       tenant | 0 | lane | device | cursor                            the sealed message itself
//! mailboxes   tenant | 0 | lane | device                                     cursors, counts, the push job
//! devices     tenant | 0 | lane | device                                     keys, push token
//! jobs        tenant | 0 | lane | app | priority | due | device              push jobs, by when they are due
//! deadlines   tenant | 0 | lane | time | transport id | sender               when to expire or forget a message
//! events      tenant | 0 | lane | 0                                          the first and the last id
//!             tenant | 0 | lane | 1 | last id in the row
//! apps        tenant | 0 | lane | name                                       the number of an app
//! ```
//! Numbers are big endian, so that keys are in their order. The transport id comes before the sender in
//! `messages`, because a device's receipt names the one and not the other.

use sealpost_service::engine::Keyspace;
use sealpost_service::shared_rows::SharedKeyspaces;
use sealpost_service::store_key::{after_tenant, tenant_key};
use sealpost_wire::id::{DeviceId, SubjectId, TenantId, TransportId};
use sealpost_wire::payload::Priority;

use super::AppId;

/// Version of keys and values; a store of another version is not opened.
pub(super) const STORE_VERSION: u8 = 1;

pub(super) const MESSAGES: Keyspace = Keyspace::rows(0, "messages");
pub(super) const DELIVERIES: Keyspace = Keyspace::rows(1, "deliveries");
pub(super) const BOXES: Keyspace = Keyspace::bulk(2, "boxes");
pub(super) const MAILBOXES: Keyspace = Keyspace::rows(3, "mailboxes");
pub(super) const DEVICES: Keyspace = Keyspace::rows(4, "devices");
pub(super) const JOBS: Keyspace = Keyspace::rows(5, "jobs");
pub(super) const DEADLINES: Keyspace = Keyspace::rows(6, "deadlines");
pub(super) const EVENTS: Keyspace = Keyspace::rows(7, "events");
pub(super) const APPS: Keyspace = Keyspace::rows(8, "apps");

/// The keyspaces that the parts of `sealpost-service` fill.
pub(super) const SHARED: SharedKeyspaces = SharedKeyspaces {
    assertions: Keyspace::rows(9, "assertions"),
    statuses: Keyspace::rows(10, "statuses"),
    audit: Keyspace::rows(11, "audit"),
};

/// All of them, by index.
pub(super) static KEYSPACES: [Keyspace; 12] = [
    MESSAGES,
    DELIVERIES,
    BOXES,
    MAILBOXES,
    DEVICES,
    JOBS,
    DEADLINES,
    EVENTS,
    APPS,
    SHARED.assertions,
    SHARED.statuses,
    SHARED.audit,
];

/// The only home lane of an embedded store.
const LANE: &[u8] = &[0];
const EVENT_BOUNDS: &[u8] = &[0];
const EVENT_ROWS: &[u8] = &[1];

/// All submissions under a transport id: one for each sender that used it.
pub(super) fn messages(tenant: &TenantId, id: TransportId) -> Vec<u8> {
    tenant_key(tenant, &[LANE, id.as_bytes()])
}

pub(super) fn message(tenant: &TenantId, id: TransportId, sender: &SubjectId) -> Vec<u8> {
    tenant_key(tenant, &[LANE, id.as_bytes(), sender.as_str().as_bytes()])
}

/// The sender in the key of a message.
pub(super) fn sender_of_message(key: &[u8], tenant: &TenantId) -> Option<SubjectId> {
    let sender = after_tenant(key, tenant)?.get(1 + 16..)?;
    std::str::from_utf8(sender).ok()?.parse().ok()
}

/// A device's row: its mailbox, its registration, and what begins the keys of its deliveries and boxes.
pub(super) fn device(tenant: &TenantId, device: DeviceId) -> Vec<u8> {
    tenant_key(tenant, &[LANE, device.as_bytes()])
}

pub(super) fn delivery(tenant: &TenantId, device: DeviceId, cursor: u64) -> Vec<u8> {
    tenant_key(tenant, &[LANE, device.as_bytes(), &cursor.to_be_bytes()])
}

/// The last number in a key: the cursor of a delivery.
pub(super) fn cursor(key: &[u8]) -> Option<u64> {
    key.last_chunk().map(|bytes| u64::from_be_bytes(*bytes))
}

/// All jobs of an app and priority.
pub(super) fn jobs(tenant: &TenantId, app: AppId, priority: Priority) -> Vec<u8> {
    tenant_key(tenant, &[LANE, &app.0.to_be_bytes(), &[priority.code()]])
}

pub(super) fn job(
    tenant: &TenantId,
    app: AppId,
    priority: Priority,
    due_ms: u64,
    device: DeviceId,
) -> Vec<u8> {
    let (app, due) = (app.0.to_be_bytes(), due_ms.to_be_bytes());
    tenant_key(tenant, &[LANE, &app, &[priority.code()], &due, device.as_bytes()])
}

/// The first key of the jobs that are due at `due_ms` or later.
pub(super) fn jobs_from(tenant: &TenantId, app: AppId, priority: Priority, due_ms: u64) -> Vec<u8> {
    job(tenant, app, priority, due_ms, DeviceId([0; 16]))
}

/// When a job is due, and of which device.
pub(super) fn due_and_device(key: &[u8]) -> Option<(u64, DeviceId)> {
    let (rest, device) = key.split_last_chunk::<16>()?;
    let (_, due) = rest.split_last_chunk::<8>()?;
    Some((u64::from_be_bytes(*due), DeviceId(*device)))
}

pub(super) fn deadline(tenant: &TenantId, at: u64, id: TransportId, sender: &SubjectId) -> Vec<u8> {
    tenant_key(tenant, &[LANE, &at.to_be_bytes(), id.as_bytes(), sender.as_str().as_bytes()])
}

/// The first key of the deadlines at `at` or later.
pub(super) fn deadlines_from(tenant: &TenantId, at: u64) -> Vec<u8> {
    tenant_key(tenant, &[LANE, &at.to_be_bytes()])
}

/// What a deadline's key says.
pub(super) fn deadline_parts(key: &[u8], tenant: &TenantId) -> Option<(u64, TransportId, SubjectId)> {
    let (at, rest) = after_tenant(key, tenant)?.get(1..)?.split_first_chunk::<8>()?;
    let (id, sender) = rest.split_first_chunk::<16>()?;
    let sender = std::str::from_utf8(sender).ok()?.parse().ok()?;
    Some((u64::from_be_bytes(*at), TransportId(*id), sender))
}

pub(super) fn event_bounds(tenant: &TenantId) -> Vec<u8> {
    tenant_key(tenant, &[LANE, EVENT_BOUNDS])
}

/// The row whose last event has this id.
pub(super) fn events(tenant: &TenantId, last: u64) -> Vec<u8> {
    tenant_key(tenant, &[LANE, EVENT_ROWS, &last.to_be_bytes()])
}

pub(super) fn app(tenant: &TenantId, name: &str) -> Vec<u8> {
    tenant_key(tenant, &[LANE, name.as_bytes()])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_say_what_went_in_and_sort_by_time() {
        let tenant: TenantId = "st-mary".parse().unwrap();
        let sender: SubjectId = "lab".parse().unwrap();
        let (id, device_id) = (TransportId([7; 16]), DeviceId([9; 16]));
        assert_eq!(sender_of_message(&message(&tenant, id, &sender), &tenant), Some(sender.clone()));
        assert_eq!(cursor(&delivery(&tenant, device_id, 12)), Some(12));
        let job_key = |due| job(&tenant, AppId(3), Priority::Bulk, due, device_id);
        assert_eq!(due_and_device(&job_key(1_000_000)), Some((1_000_000, device_id)));
        assert!(job_key(255) < job_key(256));
        assert!(jobs_from(&tenant, AppId(3), Priority::Bulk, 256) < job_key(256));
        let at = deadline(&tenant, 99, id, &sender);
        assert_eq!(deadline_parts(&at, &tenant), Some((99, id, sender)));
        assert!(deadlines_from(&tenant, 99) < at && at < deadlines_from(&tenant, 100));
        let other: TenantId = "st-mary2".parse().unwrap();
        assert_eq!(deadline_parts(&at, &other), None, "another tenant's key");
    }
}
