//! `PUT /v1/messages/{transport id}`: a submission of a sender or of a device. The answer is 202 once it is
//! durable; no push provider is asked.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

use axum::Json;
use axum::extract::{FromRequest as _, Request, State};
use http::{HeaderMap, StatusCode, header};
use sealpost_service::audit::{Act, Entry, Object};
use sealpost_service::body::{RawBody, check_json, parse_json};
use sealpost_service::parameter::InPath;
use sealpost_service::problem::{ProblemCode, Refusal};
use sealpost_wire::api::relay::{MessageStatus, Submission};
use sealpost_wire::author::AuthorName;
use sealpost_wire::clock::UnixTime;
use sealpost_wire::id::{Digest, SlotId, TransportId};
use sealpost_wire::limits::{
    BOXES_PER_MESSAGE_MAX, CLOCK_SKEW_SECONDS_MAX, MESSAGE_LIFETIME_SECONDS_MAX, SEALED_BYTES_MAX,
};
use sealpost_wire::message::SealedMessage;
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::author::Author;
use crate::id_list::Devices;
use crate::metrics::ClaimOutcome;
use crate::relay::Relay;
use crate::store::{Accepted, Accepting, AcceptingBox, BoxValue, SlotRefusal};

/// The part of the room for submissions that those of devices may take together: a sender's critical message
/// finds room however many devices submit.
const BUDGET_PART_FOR_DEVICES: usize = 2;

/// Bytes of a submission: boxes in base64url, and the JSON around them.
pub(crate) const BODY_BYTES_MAX: usize =
    BOXES_PER_MESSAGE_MAX * (SEALED_BYTES_MAX.div_ceil(3) * 4 + 128) + 1024;

/// Accepts a submission.
pub(crate) async fn put(
    State(relay): State<Arc<Relay>>,
    InPath(id): InPath<TransportId>,
    request: Request,
) -> Result<(StatusCode, Json<MessageStatus>), Refusal> {
    let author = Author::let_in(&relay, request.method(), request.uri(), request.headers())?;
    check_json(request.headers())?;
    let _room = relay.budget.take(author.name(), request.headers())?;
    let RawBody(body) = RawBody::from_request(request, &()).await?;
    let began = Instant::now();
    author.check_body(&relay, &body)?;
    let submission: Submission = parse_json(&body)?;
    drop(body);
    let digest = submission.digest();
    let now_ms = relay.clock.now_millis();
    if let Err(refusal) = check(&relay, &author, &submission, UnixTime(now_ms / 1000)) {
        return repeated(&relay, &author, id, digest, refusal);
    }
    let claim = submission.slot.as_ref().map(|claim| claim.capability.is_none());
    let accepting = accepting(&author, id, digest, submission, now_ms);
    let accepted = relay.store.accept(accepting).await?;
    relay.metrics.accept_seconds.observe(began.elapsed().as_secs_f64());
    if let (Some(makes), Accepted::New(_)) = (claim, &accepted) {
        relay.metrics.slot_claim(if makes { ClaimOutcome::Made } else { ClaimOutcome::Won });
    }
    answer(&relay, accepted)
}

/// Bounds the bytes of submissions in memory at one time.
pub(crate) struct SubmissionBudget {
    all: Semaphore,
    /// What devices may have of it.
    of_devices: Semaphore,
}

/// Room for one submission; given back when it is dropped.
pub(crate) struct Room<'b> {
    _all: SemaphorePermit<'b>,
    _of_devices: Option<SemaphorePermit<'b>>,
}

impl SubmissionBudget {
    pub(crate) fn new(bytes: u32) -> Self {
        let all = usize::try_from(bytes).unwrap_or(Semaphore::MAX_PERMITS);
        // Never less than the longest body, or it would never be taken.
        let of_devices = (all / BUDGET_PART_FOR_DEVICES).max(BODY_BYTES_MAX);
        Self { all: Semaphore::new(all), of_devices: Semaphore::new(of_devices) }
    }

    /// Room for a body of the length that the headers announce, or of the longest there is.
    fn take(&self, author: &AuthorName, headers: &HeaderMap) -> Result<Room<'_>, Refusal> {
        let announced =
            headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
        let bytes = announced.unwrap_or(BODY_BYTES_MAX);
        if bytes > BODY_BYTES_MAX {
            return Err(ProblemCode::BodyTooLarge.into());
        }
        // Never cut: the longest body has about 6 MB.
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        let full = |_| Refusal::new(ProblemCode::Unavailable).retry_after(1);
        let of_devices = match author {
            AuthorName::Sender(_) => None,
            AuthorName::Device(_) => Some(self.of_devices.try_acquire_many(bytes).map_err(full)?),
        };
        Ok(Room { _all: self.all.try_acquire_many(bytes).map_err(full)?, _of_devices: of_devices })
    }
}

/// What is to be refused whatever the store holds.
fn check(relay: &Relay, author: &Author, submission: &Submission, now: UnixTime) -> Result<(), Refusal> {
    let invalid = |detail: &'static str| Err(Refusal::new(ProblemCode::InvalidValue).detail(detail));
    if submission.boxes.is_empty() || submission.boxes.len() > BOXES_PER_MESSAGE_MAX {
        return invalid("a submission has 1 to 16 boxes");
    }
    let devices: BTreeSet<_> = submission.boxes.iter().map(|one| one.device).collect();
    if devices.len() < submission.boxes.len() {
        return invalid("a device is there twice");
    }
    if submission.slot.as_ref().is_some_and(|claim| claim.next_sequence().is_none()) {
        return invalid("slot.sequence is above the highest there is");
    }
    for one in &submission.boxes {
        SealedMessage::read(one.sealed.as_ref())?;
    }
    // The sender's clock may be ahead: it computes the expiry by its own.
    let latest = now.plus(MESSAGE_LIFETIME_SECONDS_MAX + CLOCK_SKEW_SECONDS_MAX);
    if submission.expires_at <= now || submission.expires_at > latest {
        return Err(ProblemCode::InvalidExpiry.into());
    }
    author.tenant().check_status_age(now, relay.limits.status_age_seconds_max)
}

/// A submission that would be refused now, but was accepted before, has the answer that it had.
fn repeated(
    relay: &Relay,
    author: &Author,
    id: TransportId,
    digest: Digest,
    refusal: Refusal,
) -> Result<(StatusCode, Json<MessageStatus>), Refusal> {
    match relay.store.accepted(author.tenant().id(), author.name(), id, digest)? {
        Some(accepted @ Accepted::Duplicate(_)) => answer(relay, accepted),
        _ => Err(refusal),
    }
}

fn accepting(
    author: &Author,
    id: TransportId,
    digest: Digest,
    submission: Submission,
    now_ms: u64,
) -> Accepting {
    let state = author.tenant().state();
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
    Accepting {
        tenant: author.tenant().id().clone(),
        author: author.name().clone(),
        id,
        digest,
        expires_at: submission.expires_at,
        priority: submission.priority,
        audit: audit(author, id, &submission, &boxes, now_ms),
        boxes,
        slot: submission.slot,
        now_ms,
    }
}

/// Objects in the audit of a submission without a claim on a slot; the others follow.
const WITHOUT_CLAIM: usize = 3;

fn audit(
    author: &Author,
    id: TransportId,
    submission: &Submission,
    boxes: &[AcceptingBox],
    now_ms: u64,
) -> Entry {
    let devices = Devices(boxes.iter().map(|one| one.device));
    let priority = submission.priority.name();
    let claim = submission.slot.as_ref();
    let (slot, sequence) = claim.map_or((SlotId([0; 16]), 0), |claim| (claim.slot, claim.sequence));
    let objects: [Object<'_>; 5] = [
        ("message", &id),
        ("priority", &priority),
        ("devices", &devices),
        ("slot", &slot),
        ("sequence", &sequence),
    ];
    let objects = if claim.is_some() { &objects[..] } else { &objects[..WITHOUT_CLAIM] };
    Entry::new(now_ms, Act::MessageAccepted, &author.actor(), objects, "done")
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
        Accepted::SlotRefused(refusal) => {
            relay.metrics.submission("slot_refused");
            relay.metrics.slot_claim(ClaimOutcome::Refused(refusal));
            Err(slot_refused(refusal))
        }
    }
}

fn slot_refused(refusal: SlotRefusal) -> Refusal {
    match refusal {
        SlotRefusal::Conflict => ProblemCode::SlotConflict.into(),
        SlotRefusal::Unknown => ProblemCode::SlotUnknown.into(),
        SlotRefusal::Forbidden => ProblemCode::SlotForbidden.into(),
        SlotRefusal::Full => {
            Refusal::new(ProblemCode::OutOfSpace).detail("as many slots are kept as there may be")
        }
    }
}
