//! Nonces of signed requests, for as long as their signatures could be shown again.

use std::collections::{HashMap, HashSet, VecDeque};

use sealpost_wire::clock::UnixTime;
use sealpost_wire::http_signature::SignedRequest;
use sealpost_wire::id::Digest;
use sealpost_wire::limits::REQUEST_WINDOW_SECONDS;

/// Nonces are kept by the time in their signature, in steps of this many seconds, and forgotten step by step.
const BUCKET_SECONDS: u64 = 10;
/// The same, as `Retry-After` wants it.
pub(super) const BUCKET_SECONDS_SHORT: u32 = 10;
/// Requests of one device in one step: it syncs once for each stub and a few times when the app is opened.
const PER_DEVICE_MAX: u8 = 200;
/// Requests of all devices in one step. The window holds 13 steps, so this bounds memory to about 60 MiB.
const PER_BUCKET_MAX: usize = 200_000;

/// Why a request is not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NonceError {
    /// Signed before this window began to remember.
    BeforeOpening,
    /// Seen before.
    Replayed,
    /// The device has sent too many; it may go on after this many seconds.
    TooMany(u32),
    /// All devices together have sent too many.
    Full,
}

/// What was seen within the window.
#[derive(Debug)]
pub(super) struct NonceWindow {
    opens_at: UnixTime,
    /// Oldest first; empty ones are left out.
    buckets: VecDeque<Bucket>,
}

#[derive(Debug)]
struct Bucket {
    number: u64,
    /// Digests of device and nonce.
    nonces: HashSet<u64>,
    /// Requests by a digest of the device.
    by_device: HashMap<u32, u8>,
}

impl NonceWindow {
    pub(super) const fn new(opens_at: UnixTime) -> Self {
        Self { opens_at, buckets: VecDeque::new() }
    }

    /// Remembers the nonce of a request whose signature and time were verified.
    pub(super) fn claim(&mut self, request: &SignedRequest, now: UnixTime) -> Result<(), NonceError> {
        if request.created < self.opens_at {
            return Err(NonceError::BeforeOpening);
        }
        self.forget(now);
        let who = Digest::of(format!("{}/{}", request.tenant, request.device).as_bytes());
        let nonce = Digest::of(format!("{who}{}", request.nonce).as_bytes());
        let bucket = self.bucket(request.created.0 / BUCKET_SECONDS);
        let nonce = short(&nonce);
        if bucket.nonces.contains(&nonce) {
            return Err(NonceError::Replayed);
        }
        if bucket.nonces.len() >= PER_BUCKET_MAX {
            return Err(NonceError::Full);
        }
        let count = bucket.by_device.entry(shortest(&who)).or_default();
        if *count >= PER_DEVICE_MAX {
            return Err(NonceError::TooMany(BUCKET_SECONDS_SHORT));
        }
        *count += 1;
        bucket.nonces.insert(nonce);
        Ok(())
    }

    /// Nonces that are remembered.
    pub(super) fn len(&self) -> usize {
        self.buckets.iter().map(|bucket| bucket.nonces.len()).sum()
    }

    /// Drops what would be refused for its time.
    pub(super) fn forget(&mut self, now: UnixTime) {
        let oldest = now.minus(REQUEST_WINDOW_SECONDS);
        while self.buckets.front().is_some_and(|bucket| bucket.number < oldest.0 / BUCKET_SECONDS) {
            self.buckets.pop_front();
        }
    }

    fn bucket(&mut self, number: u64) -> &mut Bucket {
        let at = self.buckets.partition_point(|bucket| bucket.number < number);
        if self.buckets.get(at).is_none_or(|bucket| bucket.number != number) {
            let bucket = Bucket { number, nonces: HashSet::new(), by_device: HashMap::new() };
            self.buckets.insert(at, bucket);
        }
        &mut self.buckets[at]
    }
}

/// Enough of a digest: nonces are random, so that another request has the same by chance once in 2^46 at the
/// most, and is then signed anew; and nobody can look for one, who does not know a device's nonces beforehand.
fn short(digest: &Digest) -> u64 {
    digest.as_bytes().first_chunk().map_or(0, |bytes| u64::from_be_bytes(*bytes))
}

/// A few bytes of a digest, to count by: devices that share them share a limit, nothing else.
fn shortest(digest: &Digest) -> u32 {
    digest.as_bytes().first_chunk().map_or(0, |bytes| u32::from_be_bytes(*bytes))
}
