//! Routes of devices, which sign their requests: their state, and their prekeys.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use sealpost_service::audit::{Act, Actor, Entry, Object};
use sealpost_service::parameter::{InPath, InQuery};
use sealpost_service::problem::{ProblemCode, Refusal};
use sealpost_wire::api::keyserver::{DeviceState, PrekeyUpload, PrekeysStored};
use sealpost_wire::base64url::Base64Url;
use sealpost_wire::id::DeviceId;
use sealpost_wire::prekey::PrekeyKind;

use super::Wait;
use super::signed::Signed;
use crate::device::Standing;
use crate::keyserver::Keyserver;
use crate::prekey::Upload;
use crate::store::StoreError;

pub(super) async fn state(
    State(keyserver): State<Arc<Keyserver>>,
    InPath(id): InPath<DeviceId>,
    InQuery(wait): InQuery<Wait>,
    signed: Signed,
) -> Result<Json<DeviceState>, Refusal> {
    let tenant = signed.of(id)?;
    let end = keyserver.shutdown.begun();
    let device = keyserver.store.wait_for_admission(tenant.id(), id, wait.longest(), end).await?;
    let (recipient, admission) = match device.standing {
        Standing::Pending => (None, None),
        Standing::Admitted { recipient, admission } => (Some(recipient), Some(admission)),
        Standing::Removed { recipient } => (Some(recipient), None),
        Standing::Declined => return Err(ProblemCode::TicketUnavailable.into()),
    };
    let set = recipient.map(|recipient| keyserver.store.device_set(tenant.id(), recipient)).transpose()?;
    let now = keyserver.clock.now();
    let prekeys = match keyserver.store.prekey_counts(tenant.id(), id, now) {
        Ok(counts) => counts,
        // Those of a removed device go.
        Err(StoreError::NotFound) => Vec::new(),
        Err(error) => return Err(error.into()),
    };
    Ok(Json(DeviceState {
        admission,
        set: set.map(|(_, bytes)| Base64Url(bytes)),
        status: tenant.state().status.as_ref().map(|bytes| Base64Url(bytes.to_vec())),
        prekeys,
        key_packages: keyserver.store.key_package_counts(tenant.id(), id, now)?,
        incarnation: keyserver.store.incarnation(),
        time: now,
    }))
}

pub(super) async fn put_prekeys(
    State(keyserver): State<Arc<Keyserver>>,
    InPath(id): InPath<DeviceId>,
    signed: Signed,
) -> Result<Json<PrekeysStored>, Refusal> {
    let tenant = signed.of(id)?;
    let device = &signed.known;
    match device.standing {
        Standing::Pending | Standing::Admitted { .. } => {}
        Standing::Declined => return Err(ProblemCode::TicketUnavailable.into()),
        Standing::Removed { .. } => return Err(ProblemCode::Revoked.into()),
    }
    let body: PrekeyUpload = signed.json()?;
    let identity = device.identity_key().ok_or(ProblemCode::Internal)?;
    let now = keyserver.clock.now();
    let upload = Upload::read(body, tenant.id(), id, &identity, &device.suites, now)?;
    let one_time = upload.prekeys.iter().filter(|prekey| prekey.kind == PrekeyKind::OneTime).count();
    let signed_ones = upload.prekeys.len() - one_time;

    let objects: [Object<'_>; 4] = [
        ("device", &id),
        ("batch", &upload.batch_id),
        ("prekeys", &upload.prekeys.len()),
        ("replace", &upload.replace),
    ];
    let who = Actor::Device(id);
    let entry = Entry::new(keyserver.clock.now_millis(), Act::PrekeysPut, &who, &objects, "done");
    let limits = keyserver.limits.prekeys();
    let prekeys = keyserver.store.put_prekeys(tenant.id(), id, upload, limits, now, entry).await?;
    let uploaded = &keyserver.metrics.prekeys_uploaded;
    uploaded.with_label_values(&["one_time"]).inc_by(one_time as u64);
    uploaded.with_label_values(&["signed"]).inc_by(signed_ones as u64);
    Ok(Json(PrekeysStored { prekeys }))
}
