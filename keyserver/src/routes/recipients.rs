//! Routes of recipients: their device sets, their consents, and look-ups.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use http::StatusCode;
use sealpost_service::access::{Access, Caller};
use sealpost_service::audit::{Act, Entry, Object};
use sealpost_service::body::JsonBody;
use sealpost_service::parameter::InPath;
use sealpost_service::problem::{ProblemCode, Refusal};
use sealpost_wire::api::keyserver::{Consent, ConsentList, DeviceSetBody, DeviceSetState, LookUp, LookedUp};
use sealpost_wire::base64url::Base64Url;
use sealpost_wire::certificate::Role;
use sealpost_wire::id::RecipientId;
use sealpost_wire::limits::DEVICES_PER_SET_MAX;

use super::Listed;
use crate::consent::{self, Category};
use crate::device_set::NewSet;
use crate::keyserver::Keyserver;
use crate::look_up::LookUpOutcome;
use crate::store::{LookUpRequest, Put, StoreError};

pub(super) async fn put_devices(
    State(keyserver): State<Arc<Keyserver>>,
    Caller(caller): Caller,
    InPath(recipient): InPath<RecipientId>,
    JsonBody(body): JsonBody<DeviceSetBody>,
) -> Result<Json<DeviceSetState>, Refusal> {
    caller.require(&[Role::Enroller, Role::Revoker])?;
    if body.admissions.len() > DEVICES_PER_SET_MAX {
        return Err(Refusal::new(ProblemCode::InvalidValue).detail("admissions"));
    }
    let new = NewSet {
        recipient,
        bytes: body.set.0,
        admissions: body.admissions,
        may_add: caller.has(Role::Enroller),
    };
    let put = replace_set(&keyserver, &caller, new).await;
    let outcome = match &put {
        Ok((Put::New, _)) => "new",
        Ok((Put::Again, _)) => "again",
        Err(refusal) if refusal.code() == ProblemCode::VersionConflict => "conflict",
        Err(_) => "refused",
    };
    keyserver.metrics.device_sets.with_label_values(&[outcome]).inc();
    put.map(|(_, state)| Json(state))
}

async fn replace_set(
    keyserver: &Keyserver,
    caller: &Access,
    new: NewSet,
) -> Result<(Put, DeviceSetState), Refusal> {
    let (tenant, recipient) = (caller.tenant(), new.recipient);
    let stored = match keyserver.store.device_set(tenant.id(), recipient) {
        Ok((version, bytes)) if bytes == new.bytes => {
            return Ok((Put::Again, DeviceSetState { set: Base64Url(bytes), version }));
        }
        Ok((_, bytes)) => Some(bytes),
        Err(StoreError::NotFound) => None,
        Err(error) => return Err(error.into()),
    };
    let now = keyserver.clock.now();
    let change = new.judge(stored.as_deref(), &tenant.state().trust, now)?;
    let state = DeviceSetState { set: Base64Url(change.bytes.clone()), version: change.version };
    let added = Listed(change.added.iter().map(|added| added.device).collect());
    let removed = Listed(change.removed.clone());
    let objects: [Object<'_>; 5] = [
        ("recipient", &recipient),
        ("version", &change.version),
        ("set", &change.digest),
        ("added", &added),
        ("removed", &removed),
    ];
    let time = keyserver.clock.now_millis();
    let entry = Entry::new(time, Act::DeviceSetPut, &caller.actor(), &objects, "done");
    let put = keyserver.store.put_device_set(tenant.id(), change, now, entry).await?;
    Ok((put, state))
}

pub(super) async fn devices(
    State(keyserver): State<Arc<Keyserver>>,
    Caller(caller): Caller,
    InPath(recipient): InPath<RecipientId>,
) -> Result<Json<DeviceSetState>, Refusal> {
    caller.require(&[Role::Sender, Role::Enroller, Role::Revoker])?;
    let (version, set) = keyserver.store.device_set(caller.tenant().id(), recipient)?;
    Ok(Json(DeviceSetState { set: Base64Url(set), version }))
}

pub(super) async fn look_up(
    State(keyserver): State<Arc<Keyserver>>,
    Caller(caller): Caller,
    InPath(recipient): InPath<RecipientId>,
    JsonBody(body): JsonBody<LookUp>,
) -> Result<Json<LookedUp>, Refusal> {
    caller.require(&[Role::Sender])?;
    let category = Category::parse(&body.category)?;
    let tenant = caller.tenant();
    let state = tenant.state_shared();
    let objects: [Object<'_>; 3] =
        [("recipient", &recipient), ("category", &body.category), ("one_time", &body.one_time)];
    let time = keyserver.clock.now_millis();
    let entry = |outcome| Entry::new(time, Act::LookedUp, &caller.actor(), &objects, outcome);
    let request = LookUpRequest {
        recipient,
        policy: keyserver.policy(tenant.id()),
        category,
        one_time: body.one_time,
        answered: entry("done"),
        refused: entry(ProblemCode::ConsentMissing.code()),
        state: state.clone(),
    };
    let now = keyserver.clock.now();
    let looked_up = keyserver.store.look_up(tenant.id(), request, now).await;
    let outcome = match &looked_up {
        Ok(LookUpOutcome::Found(_)) => "answered",
        Ok(LookUpOutcome::ConsentMissing) => "consent_missing",
        Err(StoreError::NotFound) => "not_found",
        Err(_) => "failed",
    };
    keyserver.metrics.look_ups.with_label_values(&[outcome]).inc();
    let found = match looked_up? {
        LookUpOutcome::Found(found) => found,
        LookUpOutcome::ConsentMissing => return Err(ProblemCode::ConsentMissing.into()),
    };
    if body.one_time {
        let taken = found.taken();
        let counter = &keyserver.metrics.one_time_prekeys;
        counter.with_label_values(&["taken"]).inc_by(taken as u64);
        counter.with_label_values(&["exhausted"]).inc_by((found.devices.len() - taken) as u64);
    }
    Ok(Json(found.answer(state.status.as_deref(), now)))
}

pub(super) async fn put_consent(
    State(keyserver): State<Arc<Keyserver>>,
    Caller(caller): Caller,
    InPath((recipient, category)): InPath<(RecipientId, String)>,
    JsonBody(body): JsonBody<Consent>,
) -> Result<(StatusCode, Json<Consent>), Refusal> {
    caller.require(&[Role::Enroller])?;
    let category = Category::parse(&category)?;
    consent::check(&body, keyserver.clock.now())?;
    let objects: [Object<'_>; 3] =
        [("recipient", &recipient), ("category", &category), ("granted", &body.granted)];
    let time = keyserver.clock.now_millis();
    let entry = Entry::new(time, Act::ConsentPut, &caller.actor(), &objects, "done");
    let tenant = caller.tenant().id();
    match keyserver.store.put_consent(tenant, recipient, &category, body.clone(), entry).await? {
        Put::New => Ok((StatusCode::CREATED, Json(body))),
        Put::Again => Ok((StatusCode::OK, Json(body))),
    }
}

pub(super) async fn consent(
    State(keyserver): State<Arc<Keyserver>>,
    Caller(caller): Caller,
    InPath((recipient, category)): InPath<(RecipientId, String)>,
) -> Result<Json<Consent>, Refusal> {
    caller.require(&[Role::Enroller])?;
    let category = Category::parse(&category)?;
    Ok(Json(keyserver.store.consent(caller.tenant().id(), recipient, &category)?))
}

pub(super) async fn consents(
    State(keyserver): State<Arc<Keyserver>>,
    Caller(caller): Caller,
    InPath(recipient): InPath<RecipientId>,
) -> Result<Json<ConsentList>, Refusal> {
    caller.require(&[Role::Enroller])?;
    let consents = keyserver.store.consents(caller.tenant().id(), recipient)?;
    Ok(Json(ConsentList { consents: consents.into_iter().collect() }))
}
