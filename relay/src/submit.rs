//! `PUT /v1/messages/{transport id}`: a submission. The answer is 202 once it is durable; no push provider is
//! asked.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

use axum::Json;
use axum::extract::{FromRequest as _, Request, State};
use http::{HeaderMap, StatusCode, header};
use sealpost_service::access::Access;
use sealpost_service::audit::{Act, Entry, Object};
use sealpost_service::body::{RawBody, check_json, parse_json};
use sealpost_service::parameter::InPath;
use sealpost_service::problem::{ProblemCode, Refusal};
use sealpost_wire::api::relay::{MessageStatus, Submission};
use sealpost_wire::certificate::Role;
use sealpost_wire::clock::UnixTime;
use sealpost_wire::id::{Digest, TransportId};
use sealpost_wire::limits::{
    BOXES_PER_MESSAGE_MAX, CLOCK_SKEW_SECONDS_MAX, MESSAGE_LIFETIME_SECONDS_MAX, SEALED_BYTES_MAX,
};
use sealpost_wire::message::SealedMessage;
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::id_list::Devices;
use crate::relay::Relay;
use crate::store::{Accepted, Accepting, AcceptingBox, BoxValue};

/// Bytes of a submission: boxes in base64url, and the JSON around them.
pub(crate) const BODY_BYTES_MAX: usize =
    BOXES_PER_MESSAGE_MAX * (SEALED_BYTES_MAX.div_ceil(3) * 4 + 128) + 1024;

/// Accepts a submission.
pub(crate) async fn put(
    State(relay): State<Arc<Relay>>,
    InPath(id): InPath<TransportId>,
    request: Request,
) -> Result<(StatusCode, Json<MessageStatus>), Refusal> {
    let caller = relay.authority.authenticate(request.headers())?;
    caller.require(&[Role::Sender])?;
    check_json(request.headers())?;
    let _room = relay.budget.take(request.headers())?;
    let RawBody(body) = RawBody::from_request(request, &()).await?;
    let began = Instant::now();
    let submission: Submission = parse_json(&body)?;
    drop(body);
    let digest = submission.digest();
    let now_ms = relay.clock.now_millis();
    if let Err(refusal) = check(&relay, &caller, &submission, UnixTime(now_ms / 1000)) {
        return repeated(&relay, &caller, id, digest, refusal);
    }
    let accepting = accepting(&caller, id, digest, &submission, now_ms);
    drop(submission);
    let accepted = relay.store.accept(accepting).await?;
    relay.metrics.accept_seconds.observe(began.elapsed().as_secs_f64());
    answer(&relay, accepted)
}

/// Bounds the bytes of submissions in memory at one time.
pub(crate) struct SubmissionBudget(Semaphore);

impl SubmissionBudget {
    pub(crate) fn new(bytes: u32) -> Self {
        Self(Semaphore::new(usize::try_from(bytes).unwrap_or(Semaphore::MAX_PERMITS)))
    }

    /// Room for a body of the length that the headers announce, or of the longest there is.
    fn take(&self, headers: &HeaderMap) -> Result<SemaphorePermit<'_>, Refusal> {
        let announced =
            headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
        let bytes = announced.unwrap_or(BODY_BYTES_MAX);
        if bytes > BODY_BYTES_MAX {
            return Err(ProblemCode::BodyTooLarge.into());
        }
        // Never cut: the longest body has about 6 MB.
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        let room = self.0.try_acquire_many(bytes);
        room.map_err(|_| Refusal::new(ProblemCode::Unavailable).retry_after(1))
    }
}

/// What is to be refused whatever the store holds.
fn check(relay: &Relay, caller: &Access, submission: &Submission, now: UnixTime) -> Result<(), Refusal> {
    let invalid = |detail: &'static str| Err(Refusal::new(ProblemCode::InvalidValue).detail(detail));
    if submission.boxes.is_empty() || submission.boxes.len() > BOXES_PER_MESSAGE_MAX {
        return invalid("a submission has 1 to 16 boxes");
    }
    let devices: BTreeSet<_> = submission.boxes.iter().map(|one| one.device).collect();
    if devices.len() < submission.boxes.len() {
        return invalid("a device is there twice");
    }
    if submission.slot.is_some() {
        return invalid("this relay keeps no slots");
    }
    for one in &submission.boxes {
        SealedMessage::read(one.sealed.as_ref())?;
    }
    // The sender's clock may be ahead: it computes the expiry by its own.
    let latest = now.plus(MESSAGE_LIFETIME_SECONDS_MAX + CLOCK_SKEW_SECONDS_MAX);
    if submission.expires_at <= now || submission.expires_at > latest {
        return Err(ProblemCode::InvalidExpiry.into());
    }
    caller.tenant().check_status_age(now, relay.limits.status_age_seconds_max)
}

/// A submission that would be refused now, but was accepted before, has the answer that it had.
fn repeated(
    relay: &Relay,
    caller: &Access,
    id: TransportId,
    digest: Digest,
    refusal: Refusal,
) -> Result<(StatusCode, Json<MessageStatus>), Refusal> {
    match relay.store.accepted(caller.tenant().id(), caller.subject(), id, digest)? {
        Some(accepted @ Accepted::Duplicate(_)) => answer(relay, accepted),
        _ => Err(refusal),
    }
}

fn accepting(
    caller: &Arc<Access>,
    id: TransportId,
    digest: Digest,
    submission: &Submission,
    now_ms: u64,
) -> Accepting {
    let state = caller.tenant().state();
    let mut boxes: Vec<_> = submission
        .boxes
        .iter()
        .map(|one| AcceptingBox {
            device: one.device,
            revoked: state.trust.check_device(one.device).is_err(),
            digest: Digest::of(one.sealed.as_ref()),
            value: BoxValue::new(one.sealed.as_ref()),
        })
        .collect();
    boxes.sort_unstable_by_key(|one| one.device);
    let devices = Devices(boxes.iter().map(|one| one.device));
    let priority = submission.priority.name();
    let objects: [Object<'_>; 3] = [("message", &id), ("priority", &priority), ("devices", &devices)];
    let audit = Entry::new(now_ms, Act::MessageAccepted, &caller.actor(), &objects, "done");
    Accepting {
        tenant: caller.tenant().id().clone(),
        sender: caller.subject().clone(),
        id,
        digest,
        expires_at: submission.expires_at,
        priority: submission.priority,
        boxes,
        now_ms,
        audit,
    }
}

fn answer(relay: &Relay, accepted: Accepted) -> Result<(StatusCode, Json<MessageStatus>), Refusal> {
    match accepted {
        Accepted::New(status) => {
            relay.metrics.submission("new");
            Ok((StatusCode::ACCEPTED, Json(status)))
        }
        Accepted::Duplicate(status) => {
            relay.metrics.submission("duplicate");
            Ok((StatusCode::ACCEPTED, Json(status)))
        }
        Accepted::Conflict => {
            relay.metrics.submission("conflict");
            Err(ProblemCode::Conflict.into())
        }
    }
}
