//! Routes of devices that are or become members of groups: their key packages, those of a recipient, and where
//! their peers can be reached.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use sealpost_service::audit::{Act, Actor, Entry, Object};
use sealpost_service::parameter::InPath;
use sealpost_service::problem::{ProblemCode, Refusal};
use sealpost_wire::api::keyserver::{
    KeyPackageLookUp, KeyPackageUpload, KeyPackagesFound, KeyPackagesStored, PeerLookUp, PeersFound,
};
use sealpost_wire::id::{DeviceId, RecipientId};
use sealpost_wire::key_package::{KeyPackageOwner, MlsSuite};
use sealpost_wire::limits::PEERS_PER_LOOK_UP_MAX;

use super::Listed;
use super::signed::Signed;
use crate::consent::Category;
use crate::key_package::{KeyPackageOutcome, NewKeyPackages};
use crate::keyserver::Keyserver;
use crate::look_up::peers_found;
use crate::metrics::suite_label;
use crate::store::{KeyPackageRequest, StoreError};

pub(super) async fn put_key_packages(
    State(keyserver): State<Arc<Keyserver>>,
    InPath(id): InPath<DeviceId>,
    signed: Signed,
) -> Result<Json<KeyPackagesStored>, Refusal> {
    let tenant = signed.of(id)?;
    signed.require_admitted()?;
    let body: KeyPackageUpload = signed.json()?;
    let identity = signed.known.identity_key().ok_or(ProblemCode::Internal)?;
    let now = keyserver.clock.now();
    let state = tenant.state_shared();
    // Two hundred signatures: the other requests of this thread do not wait for them.
    let read = move || NewKeyPackages::read(body, &mut KeyPackageOwner::new(&state.trust, id, identity), now);
    let new = tokio::task::spawn_blocking(read).await.map_err(|_| ProblemCode::Internal)??;
    let (suite, one_time, last_resort) = (new.suite, new.one_time.len(), new.last_resort.is_some());

    let objects: [Object<'_>; 5] = [
        ("device", &id),
        ("suite", &suite.code()),
        ("one_time", &one_time),
        ("last_resort", &last_resort),
        ("replace", &new.replace),
    ];
    let who = Actor::Device(id);
    let entry = Entry::new(keyserver.clock.now_millis(), Act::KeyPackagesPut, &who, &objects, "done");
    let limits = keyserver.limits.key_packages();
    let key_packages = keyserver.store.put_key_packages(tenant.id(), id, new, limits, now, entry).await?;
    let uploaded = &keyserver.metrics.key_packages_uploaded;
    uploaded.with_label_values(&[suite_label(suite), "one_time"]).inc_by(one_time as u64);
    uploaded.with_label_values(&[suite_label(suite), "last_resort"]).inc_by(last_resort.into());
    Ok(Json(KeyPackagesStored { key_packages }))
}

pub(super) async fn look_up(
    State(keyserver): State<Arc<Keyserver>>,
    InPath(recipient): InPath<RecipientId>,
    signed: Signed,
) -> Result<Json<KeyPackagesFound>, Refusal> {
    signed.require_admitted()?;
    let body: KeyPackageLookUp = signed.json()?;
    let suite = MlsSuite::from_code(body.suite);
    let suite = suite.ok_or_else(|| Refusal::new(ProblemCode::InvalidValue).detail("suite"))?;
    let category = Category::parse(&body.category)?;
    let tenant = &signed.tenant;
    // Whether there is such a recipient or not: who asks too often learns nothing by it.
    keyserver.key_package_callers.take((tenant.id(), signed.device))?;
    keyserver.key_package_recipients.take((tenant.id(), recipient))?;

    let state = tenant.state_shared();
    let objects: [Object<'_>; 3] =
        [("recipient", &recipient), ("category", &body.category), ("suite", &body.suite)];
    let time = keyserver.clock.now_millis();
    let who = Actor::Device(signed.device);
    let entry = |outcome| Entry::new(time, Act::KeyPackagesTaken, &who, &objects, outcome);
    let request = KeyPackageRequest {
        recipient,
        suite,
        policy: keyserver.policy(tenant.id()),
        category,
        answered: entry("done"),
        refused: entry(ProblemCode::ConsentMissing.code()),
        state: state.clone(),
    };
    let now = keyserver.clock.now();
    let looked_up = keyserver.store.look_up_key_packages(tenant.id(), request, now).await;
    let outcome = match &looked_up {
        Ok(KeyPackageOutcome::Found(_)) => "answered",
        Ok(KeyPackageOutcome::ConsentMissing) => "consent_missing",
        Err(StoreError::NotFound) => "not_found",
        Err(_) => "failed",
    };
    keyserver.metrics.key_package_look_ups.with_label_values(&[outcome]).inc();
    let found = match looked_up? {
        KeyPackageOutcome::Found(found) => found,
        KeyPackageOutcome::ConsentMissing => return Err(ProblemCode::ConsentMissing.into()),
    };
    let last_resorts = found.packages.iter().filter(|(_, _, last_resort)| *last_resort).count();
    let counter = &keyserver.metrics.key_packages;
    let count = |outcome, number: usize| {
        counter.with_label_values(&[suite_label(suite), outcome]).inc_by(number as u64);
    };
    count("taken", found.packages.len() - last_resorts);
    count("last_resort", last_resorts);
    count("exhausted", found.exhausted);
    Ok(Json(found.answer(state.status.as_deref(), now)))
}

pub(super) async fn peers(
    State(keyserver): State<Arc<Keyserver>>,
    InPath(id): InPath<DeviceId>,
    signed: Signed,
) -> Result<Json<PeersFound>, Refusal> {
    let tenant = signed.of(id)?;
    signed.require_admitted()?;
    let PeerLookUp { devices } = signed.json()?;
    let is_again = |(at, device): (usize, &DeviceId)| devices.iter().take(at).any(|known| known == device);
    if devices.len() > PEERS_PER_LOOK_UP_MAX || devices.iter().enumerate().any(is_again) {
        return Err(Refusal::new(ProblemCode::InvalidValue).detail("devices"));
    }
    let asked = Listed(devices.clone());
    let objects: [Object<'_>; 1] = [("devices", &asked)];
    let who = Actor::Device(id);
    let entry = Entry::new(keyserver.clock.now_millis(), Act::PeersLookedUp, &who, &objects, "done");
    let (state, now) = (tenant.state_shared(), keyserver.clock.now());
    let peers = keyserver.store.look_up_peers(tenant.id(), devices, state.clone(), now, entry).await?;
    Ok(Json(peers_found(peers, state.status.as_deref(), now)))
}
