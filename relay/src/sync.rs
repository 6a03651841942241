//! `POST /v1/sync`: a device's one round trip. Receipts up; waiting boxes and the tenant's status down.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use http::{HeaderMap, Method, Uri};
use sealpost_service::audit::{Act, Actor, Entry, Object};
use sealpost_service::body::{RawBody, check_json, parse_json};
use sealpost_service::problem::{ProblemCode, Refusal};
use sealpost_service::tenants::Tenant;
use sealpost_wire::api::relay::{ReceiptOutcome, SyncRequest, SyncResponse, WaitingBox};
use sealpost_wire::base64url::Base64Url;
use sealpost_wire::id::{DeviceId, TenantId};
use sealpost_wire::key::VerifyingKey;
use sealpost_wire::limits::{
    BOXES_PER_SYNC_MAX, RECEIPT_BYTES_MAX, RECEIPTS_PER_SYNC_MAX, SYNC_BOX_BYTES_MAX,
};
use sealpost_wire::receipt::SignedReceipt;

use crate::device::tenant_of;
use crate::relay::Relay;
use crate::store::{Acknowledging, BoxPage, VerifiedReceipt};

/// Bytes of a sync: receipts in base64url, and the JSON around them.
pub(crate) const BODY_BYTES_MAX: usize =
    RECEIPTS_PER_SYNC_MAX * (RECEIPT_BYTES_MAX.div_ceil(3) * 4 + 8) + 1024;

/// Receipts that are verified before another task may run.
const RECEIPTS_AT_ONCE: usize = 8;

/// Applies a device's receipts, and hands out its waiting boxes; waits for one if there is none.
pub(crate) async fn post(
    State(relay): State<Arc<Relay>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    RawBody(body): RawBody,
) -> Result<Json<SyncResponse>, Refusal> {
    check_json(&headers)?;
    let request = relay.door.read(&method, &uri, &headers, &body)?;
    let tenant = tenant_of(&relay, &request)?;
    let device = relay.store.device(&request.tenant, request.device)?;
    let key = device.as_ref().map(|device| &device.request_key);
    relay.door.admit(&request, &tenant, key, relay.clock.now())?;
    // Let in, so there is a device with this key.
    let Some(device) = device else { return Err(ProblemCode::InvalidCredentials.into()) };
    let sync: SyncRequest = parse_json(&body)?;
    if sync.receipts.len() > RECEIPTS_PER_SYNC_MAX {
        return Err(Refusal::new(ProblemCode::InvalidValue).detail("too many receipts"));
    }
    let caller = SyncCaller { relay, tenant, device: request.device };
    let receipts = caller.acknowledge(&sync.receipts, &device.identity_key).await?;
    let (boxes, more) = caller.boxes(&sync).await?;
    caller.answer(receipts, boxes, more).map(Json)
}

/// A device whose request was let in.
struct SyncCaller {
    relay: Arc<Relay>,
    tenant: Arc<Tenant>,
    device: DeviceId,
}

impl SyncCaller {
    /// What becomes of each receipt: verified here, applied in one write.
    async fn acknowledge(
        &self,
        receipts: &[Base64Url],
        identity: &VerifyingKey,
    ) -> Result<Vec<ReceiptOutcome>, Refusal> {
        if receipts.is_empty() {
            return Ok(Vec::new());
        }
        let now_ms = self.relay.clock.now_millis();
        let mut outcomes = vec![ReceiptOutcome::Invalid; receipts.len()];
        let (mut verified, mut places) = (Vec::new(), Vec::new());
        for (place, bytes) in receipts.iter().enumerate() {
            if place > 0 && place % RECEIPTS_AT_ONCE == 0 {
                tokio::task::yield_now().await;
            }
            if let Some(receipt) = verify(bytes.as_ref(), self.tenant.id(), self.device, identity, now_ms) {
                verified.push(receipt);
                places.push(place);
            }
        }
        if !verified.is_empty() {
            let acknowledging = Acknowledging {
                tenant: self.tenant.id().clone(),
                device: self.device,
                receipts: verified,
                now_ms,
            };
            let applied = self.relay.store.acknowledge(acknowledging).await?;
            for (place, outcome) in places.into_iter().zip(applied) {
                outcomes[place] = outcome;
            }
        }
        outcomes.iter().for_each(|outcome| self.relay.metrics.receipt(*outcome));
        Ok(outcomes)
    }

    /// The waiting boxes; when there is none, those that come while the device stays connected.
    async fn boxes(&self, sync: &SyncRequest) -> Result<(Vec<WaitingBox>, bool), Refusal> {
        let found = self.page(sync)?;
        let wait = Duration::from_secs(sync.wait.min(self.relay.limits.wait_seconds_max).into());
        if !found.0.is_empty() || found.1 || wait.is_zero() {
            return Ok(found);
        }
        let Some(waiter) = self.relay.store.mailbox_waiter(self.tenant.id(), self.device) else {
            return Ok(found);
        };
        let over = tokio::time::sleep(wait);
        tokio::pin!(over);
        loop {
            let grown = waiter.grown();
            self.check_not_revoked()?;
            let found = self.page(sync)?;
            if !found.0.is_empty() || found.1 {
                return Ok(found);
            }
            tokio::select! {
                () = grown => {}
                () = &mut over => return Ok(found),
                () = self.relay.shutdown.begun() => return Ok(found),
            }
        }
    }

    fn page(&self, sync: &SyncRequest) -> Result<(Vec<WaitingBox>, bool), Refusal> {
        let page = BoxPage {
            after: sync.after,
            boxes_max: sync.limit.map_or(BOXES_PER_SYNC_MAX, usize::from).min(BOXES_PER_SYNC_MAX),
            bytes_max: SYNC_BOX_BYTES_MAX,
            now: self.relay.clock.now(),
        };
        Ok(self.relay.store.waiting_boxes(self.tenant.id(), self.device, page)?)
    }

    /// A device may be revoked while it waits.
    fn check_not_revoked(&self) -> Result<(), Refusal> {
        let revoked = self.tenant.state().trust.check_device(self.device);
        revoked.map_err(|_| ProblemCode::Revoked.into())
    }

    fn answer(
        &self,
        receipts: Vec<ReceiptOutcome>,
        boxes: Vec<WaitingBox>,
        more: bool,
    ) -> Result<SyncResponse, Refusal> {
        self.check_not_revoked()?;
        let state = self.tenant.state();
        self.relay.metrics.boxes.inc_by(u64::try_from(boxes.len()).unwrap_or(u64::MAX));
        Ok(SyncResponse {
            boxes,
            more,
            receipts,
            status: state.status.as_ref().map(|status| Base64Url(status.to_vec())),
            time: self.relay.clock.now(),
            incarnation: self.relay.incarnation,
        })
    }
}

/// A receipt that the device has signed; nothing for any other bytes.
fn verify(
    bytes: &[u8],
    tenant: &TenantId,
    device: DeviceId,
    identity: &VerifyingKey,
    now_ms: u64,
) -> Option<VerifiedReceipt> {
    let receipt = SignedReceipt::read(bytes).ok()?.verify(tenant, device, identity).ok()?;
    let state = receipt.statement.state().name();
    let objects: [Object<'_>; 2] = [("message", &receipt.transport_id), ("state", &state)];
    let audit = Entry::new(now_ms, Act::ReceiptStored, &Actor::Device(device), &objects, "done");
    Some(VerifiedReceipt { receipt, bytes: bytes.to_vec(), audit })
}
