//! Look-ups: what the keyserver says of a recipient, and what of it is believed.

use sealpost_seal::{SealPolicy, choose_prekey};
use sealpost_wire::api::keyserver::{LookUp, LookedUp};
use sealpost_wire::clock::UnixTime;
use sealpost_wire::device_set::DeviceSet;
use sealpost_wire::error::TrustError;
use sealpost_wire::id::{KeyId, RecipientId};
use sealpost_wire::prekey::VerifiedPrekey;
use sealpost_wire::trust::TenantTrust;

use crate::error::{HttpError, SenderError};
use crate::http::{Call, Server};

/// What device sets and prekeys a sender accepts.
#[derive(Clone, Debug)]
pub struct DirectoryPolicy {
    /// The enrol keys whose device sets are accepted; all that the tenant root certified when empty.
    pub enrol_keys: Vec<KeyId>,
    /// What is asked of prekeys.
    pub seal: SealPolicy,
    /// How long (seconds) a verified set and its signed prekeys are sealed to while the keyserver is out.
    pub cache_seconds_max: u64,
}

impl Default for DirectoryPolicy {
    fn default() -> Self {
        Self { enrol_keys: Vec::new(), seal: SealPolicy::default(), cache_seconds_max: 86_400 }
    }
}

/// A look-up that was believed: a prekey for each device.
#[derive(Debug)]
pub(crate) struct Directory {
    pub(crate) prekeys: Vec<VerifiedPrekey>,
    pub(crate) set: DeviceSet,
    /// The answer without its one-time prekeys, for the cache.
    pub(crate) cacheable: LookedUp,
    /// A status newer than what was known.
    pub(crate) status: Option<Vec<u8>>,
    pub(crate) from_cache: bool,
}

/// What was seen of a recipient before.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) set: DeviceSet,
    pub(crate) looked_up: LookedUp,
    pub(crate) at: UnixTime,
}

/// What a look-up is about.
pub(crate) struct Question<'a> {
    pub(crate) recipient: RecipientId,
    pub(crate) category: &'a str,
    pub(crate) expires_at: UnixTime,
    pub(crate) seen: Option<&'a Seen>,
}

/// Looks a recipient up; from what was seen before if the keyserver is out and it is not too old.
pub(crate) fn look_up(
    question: &Question<'_>,
    keyserver: &Server,
    trust: &TenantTrust,
    policy: &DirectoryPolicy,
    now: UnixTime,
    rng: &mut dyn rand_core::CryptoRng,
) -> Result<Directory, SenderError> {
    let path = format!("/v1/recipients/{}/look-up", question.recipient);
    let body = LookUp { category: question.category.to_owned(), one_time: true };
    let answer: Result<LookedUp, HttpError> = keyserver.call(&Call::post(path, &body)?, now, rng);
    match (answer, question.seen) {
        (Ok(answer), _) => believe(answer, question, trust, policy, now, false),
        // A refusal is an answer; only an outage is none.
        (Err(error), Some(seen)) if is_outage(&error) && now <= seen.at.plus(policy.cache_seconds_max) => {
            tracing::warn!(recipient = %question.recipient, "the keyserver is out; sealing to a cached device set");
            believe(seen.looked_up.clone(), question, trust, policy, now, true)
        }
        // Nobody has enrolled a device yet; someone may.
        (Err(error), _) if error.is_status(404) => Err(SenderError::NoDevices),
        (Err(error), _) => Err(error.into()),
    }
}

const fn is_outage(error: &HttpError) -> bool {
    match error {
        HttpError::Unreachable(_) => true,
        HttpError::Refused { status, .. } => *status >= 500,
        HttpError::Malformed => false,
    }
}

fn believe(
    answer: LookedUp,
    question: &Question<'_>,
    trust: &TenantTrust,
    policy: &DirectoryPolicy,
    now: UnixTime,
    from_cache: bool,
) -> Result<Directory, SenderError> {
    let mut trust = trust.clone();
    let mut newer = None;
    if let Some(status) = answer.status.as_ref().filter(|_| !from_cache)
        && trust.accept_status(status.as_ref(), now)?
    {
        newer = Some(status.0.clone());
    }
    let set = verified_set(answer.set.as_ref(), question, &trust, policy)?;
    let mut prekeys = Vec::new();
    for device in &set.devices {
        // Still in the set, and out by the status: the enroller has not caught up.
        if trust.check_device(device.record.device).is_err() {
            continue;
        }
        let prekey = choose_prekey(&device.record, &answer.devices, &policy.seal, question.expires_at, now)?;
        prekeys.push(prekey);
    }
    if prekeys.is_empty() {
        return Err(SenderError::NoDevices);
    }
    let mut cacheable = answer;
    cacheable.devices.iter_mut().for_each(|device| device.one_time = None);
    Ok(Directory { prekeys, set, cacheable, status: newer, from_cache })
}

fn verified_set(
    bytes: &[u8],
    question: &Question<'_>,
    trust: &TenantTrust,
    policy: &DirectoryPolicy,
) -> Result<DeviceSet, SenderError> {
    let previous = question.seen.map(|seen| &seen.set);
    let (set, certificate) = DeviceSet::verify(bytes, trust, previous)?;
    if set.recipient != question.recipient {
        return Err(TrustError::WrongDevice.into());
    }
    if !policy.enrol_keys.is_empty() && !policy.enrol_keys.contains(&certificate.key.key_id()) {
        return Err(SenderError::EnrolKeyNotAllowed);
    }
    if let Some(previous) = previous {
        let same = set.version == previous.version && set.digest == previous.digest;
        let follows_directly =
            set.version != previous.version.saturating_add(1) || set.follows(Some(previous));
        if !same && (set.version <= previous.version || !follows_directly) {
            return Err(TrustError::Rollback.into());
        }
    }
    Ok(set)
}
