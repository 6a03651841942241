//! Prekeys: what an upload adds, and which one a look-up takes.
//!
//! One-time prekeys of a device and suite are a queue with dense numbers: a look-up takes the number at the
//! head, so that no key is given twice, and neither taking nor counting searches the store. Ids of all
//! prekeys, taken or not, are remembered until nothing sealed to them can be opened any more: none comes
//! back.

use sealpost_wire::api::keyserver::{PrekeyCount, PrekeyUpload};
use sealpost_wire::base64url::Base64Url;
use sealpost_wire::clock::UnixTime;
use sealpost_wire::error::TrustError;
use sealpost_wire::id::{DeviceId, Digest, PrekeyId, TenantId};
use sealpost_wire::key::VerifyingKey;
use sealpost_wire::limits::CLOCK_SKEW_SECONDS_MAX;
use sealpost_wire::merkle;
use sealpost_wire::message::Suite;
use sealpost_wire::prekey::{PrekeyBatch, PrekeyKind, PrekeyLeaf, ProvenPrekey};
use serde::{Deserialize, Serialize};

/// A prekey ends at most this long after its upload (seconds): 180 days.
pub const PREKEY_LIFETIME_SECONDS_MAX: u64 = 180 * 86_400;

/// Expired prekeys that one look-up passes over for one device and suite.
const EXPIRED_PER_TAKE_MAX: usize = 16;

/// Why an upload is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UploadError {
    /// The batch or a leaf is not to be believed.
    #[error(transparent)]
    Trust(#[from] TrustError),
    /// A leaf has expired, or lives for too long.
    #[error("a prekey has expired or lives for too long")]
    Expiry,
    /// A leaf does not fit: a suite that the record does not list, two signed prekeys of one suite, a key
    /// twice.
    #[error("the field {0} has a value that is not allowed")]
    Value(&'static str),
    /// A prekey was uploaded before, in another batch.
    #[error("a prekey was uploaded before")]
    Reused,
    /// The device has as many as are kept for it. Later, when some were used, it may upload more.
    #[error("as many prekeys are stored as are kept for one device")]
    TooMany,
}

/// Limits on what is kept for one device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PrekeyLimits {
    /// One-time prekeys of one suite that wait to be taken.
    pub one_time_max: u64,
    /// Ids that are remembered, of taken ones too.
    pub remembered_max: u64,
}

/// An upload that is to be believed.
#[derive(Clone, Debug)]
pub struct Upload {
    /// SHA-256 of the signed batch: its name in the store.
    pub batch_id: Digest,
    /// The signed batch.
    pub batch: Vec<u8>,
    /// When the device signed it.
    pub created: UnixTime,
    /// Its prekeys.
    pub prekeys: Vec<StoredPrekey>,
    /// Until when something sealed to one of them can be opened.
    pub open_until: UnixTime,
    /// Whether all earlier prekeys are void.
    pub replace: bool,
}

/// A prekey as it waits in the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredPrekey {
    /// Its id.
    pub id: PrekeyId,
    /// Its suite.
    pub suite: Suite,
    /// Its kind.
    pub kind: PrekeyKind,
    /// Until when it may be sealed to.
    pub seal_until: UnixTime,
    /// Its place in the batch.
    pub index: u16,
    /// The proof that it is there.
    pub path: Vec<Digest>,
    /// The leaf.
    pub leaf: Vec<u8>,
}

impl Upload {
    /// Reads and verifies an upload of `device`, whose identity key and suites its record names.
    ///
    /// # Errors
    /// See [`UploadError`].
    pub fn read(
        body: PrekeyUpload,
        tenant: &TenantId,
        device: DeviceId,
        identity: &VerifyingKey,
        suites: &[Suite],
        now: UnixTime,
    ) -> Result<Self, UploadError> {
        let batch = PrekeyBatch::verify(body.batch.as_ref(), tenant, device, identity)?;
        if batch.created > now.plus(CLOCK_SKEW_SECONDS_MAX) {
            return Err(UploadError::Value("created"));
        }
        let leaves = batch.verify_leaves(&body.leaves, device)?;
        let open_until = leaves.iter().map(|leaf| leaf.open_until).max().unwrap_or(now);
        let mut prekeys: Vec<StoredPrekey> = Vec::with_capacity(leaves.len());
        for (index, (leaf, bytes)) in leaves.iter().zip(&body.leaves).enumerate() {
            check_leaf(leaf, suites, now)?;
            let id = leaf.id();
            let again = prekeys.iter().any(|other| {
                let rotated = leaf.kind == PrekeyKind::Signed && other.kind == PrekeyKind::Signed;
                other.id == id || (rotated && other.suite == leaf.suite)
            });
            if again {
                return Err(UploadError::Value("leaves"));
            }
            prekeys.push(StoredPrekey {
                id,
                suite: leaf.suite,
                kind: leaf.kind,
                seal_until: leaf.seal_until,
                // A batch has at most 128 leaves.
                index: u16::try_from(index).map_err(|_| UploadError::Value("leaves"))?,
                path: merkle::path(&body.leaves, index).unwrap_or_default(),
                leaf: bytes.0.clone(),
            });
        }
        Ok(Self {
            batch_id: Digest::of(body.batch.as_ref()),
            batch: body.batch.0,
            created: batch.created,
            prekeys,
            open_until,
            replace: body.replace,
        })
    }

    fn one_time(&self, suite: Suite) -> u64 {
        let counted =
            self.prekeys.iter().filter(|prekey| prekey.suite == suite && prekey.kind == PrekeyKind::OneTime);
        counted.count() as u64
    }
}

fn check_leaf(leaf: &PrekeyLeaf, suites: &[Suite], now: UnixTime) -> Result<(), UploadError> {
    if !suites.contains(&leaf.suite) {
        return Err(UploadError::Value("suite"));
    }
    let longest = now.plus(PREKEY_LIFETIME_SECONDS_MAX + CLOCK_SKEW_SECONDS_MAX);
    if leaf.seal_until <= now || leaf.open_until > longest {
        return Err(UploadError::Expiry);
    }
    Ok(())
}

/// What is stored for a device: where its queues begin and end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stock {
    /// The store's incarnation that the one-time prekeys belong to: those of an earlier one may have been
    /// taken in the life that a restore has cut off.
    pub incarnation: u64,
    /// Ids that are remembered.
    pub remembered: u64,
    /// One for each suite of the device's record, in its order.
    pub suites: Vec<SuiteStock>,
}

/// What is stored for one suite of a device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SuiteStock {
    /// The suite.
    pub suite: Suite,
    /// The number of the one-time prekey that is taken next.
    pub head: u64,
    /// One more than the number of the last one-time prekey.
    pub tail: u64,
    /// The newest signed prekey.
    pub signed: Option<SignedStock>,
}

/// The newest signed prekey of a suite.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SignedStock {
    /// When its batch was signed.
    pub created: UnixTime,
    /// Until when it may be sealed to.
    pub seal_until: UnixTime,
}

/// Where a prekey of an upload goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// The queue, under this number.
    Queue(u64),
    /// The place of the signed prekey.
    Signed,
    /// Nowhere: a newer signed prekey is there.
    Superseded,
}

impl Stock {
    /// Nothing yet, for a device with these suites.
    #[must_use]
    pub fn empty(suites: &[Suite], incarnation: u64) -> Self {
        let suites = suites.iter().map(|suite| SuiteStock { suite: *suite, head: 0, tail: 0, signed: None });
        Self { incarnation, remembered: 0, suites: suites.collect() }
    }

    /// Takes note of the store's incarnation, and gives the numbers of one-time prekeys that a restore has
    /// voided.
    pub fn enter(&mut self, incarnation: u64) -> Vec<(Suite, std::ops::Range<u64>)> {
        if self.incarnation == incarnation {
            return Vec::new();
        }
        self.incarnation = incarnation;
        self.drop_queues()
    }

    /// Makes room for an upload: says for each of its prekeys where it goes.
    ///
    /// # Errors
    /// [`UploadError::TooMany`].
    pub fn add(&mut self, upload: &Upload, limits: PrekeyLimits) -> Result<Vec<Place>, UploadError> {
        let remembered = self.remembered.saturating_add(upload.prekeys.len() as u64);
        let full = self.suites.iter().any(|stock| {
            (stock.tail - stock.head).saturating_add(upload.one_time(stock.suite)) > limits.one_time_max
        });
        if full || remembered > limits.remembered_max {
            return Err(UploadError::TooMany);
        }
        self.remembered = remembered;
        Ok(upload.prekeys.iter().map(|prekey| self.place(prekey, upload.created)).collect())
    }

    /// Voids everything: gives the numbers of the one-time prekeys that were waiting.
    pub fn clear(&mut self) -> Vec<(Suite, std::ops::Range<u64>)> {
        self.suites.iter_mut().for_each(|stock| stock.signed = None);
        self.drop_queues()
    }

    /// How many are left, by suite.
    #[must_use]
    pub fn counts(&self, now: UnixTime) -> Vec<PrekeyCount> {
        let count = |stock: &SuiteStock| PrekeyCount {
            suite: stock.suite,
            one_time: u32::try_from(stock.tail - stock.head).unwrap_or(u32::MAX),
            signed_until: stock.signed.map(|signed| signed.seal_until).filter(|until| *until > now),
        };
        self.suites.iter().map(count).collect()
    }

    fn drop_queues(&mut self) -> Vec<(Suite, std::ops::Range<u64>)> {
        self.suites
            .iter_mut()
            .map(|stock| (stock.suite, std::mem::replace(&mut stock.head, stock.tail)..stock.tail))
            .collect()
    }

    fn place(&mut self, prekey: &StoredPrekey, created: UnixTime) -> Place {
        let Some(stock) = self.suites.iter_mut().find(|stock| stock.suite == prekey.suite) else {
            return Place::Superseded;
        };
        match prekey.kind {
            PrekeyKind::OneTime => {
                let number = stock.tail;
                stock.tail += 1;
                Place::Queue(number)
            }
            PrekeyKind::Signed if stock.signed.is_some_and(|signed| signed.created > created) => {
                Place::Superseded
            }
            PrekeyKind::Signed => {
                stock.signed = Some(SignedStock { created, seal_until: prekey.seal_until });
                Place::Signed
            }
        }
    }
}

impl SuiteStock {
    /// Takes one-time prekeys from the head until one may still be sealed to: gives the numbers to remove, of
    /// which the last is the one to hand out, if any is. `seal_until` tells when the prekey with a number
    /// ends.
    pub fn take(&mut self, now: UnixTime, mut seal_until: impl FnMut(u64) -> Option<UnixTime>) -> Taken {
        let mut expired = Vec::new();
        while self.head < self.tail && expired.len() < EXPIRED_PER_TAKE_MAX {
            let number = self.head;
            self.head += 1;
            match seal_until(number) {
                Some(until) if until > now => return Taken { expired, number: Some(number) },
                _ => expired.push(number),
            }
        }
        Taken { expired, number: None }
    }
}

/// What [`SuiteStock::take`] found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Taken {
    /// Numbers of prekeys that had expired.
    pub expired: Vec<u64>,
    /// The number of the prekey to hand out.
    pub number: Option<u64>,
}

/// The row of a stored prekey.
///
/// ```text
/// batch id (16) | index (2) | seal_until (8) | path length (1) | path (32 each) | leaf
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PrekeyRow {
    /// The first half of SHA-256 of its batch.
    pub batch: [u8; 16],
    /// Until when it may be sealed to.
    pub seal_until: UnixTime,
    /// Its place in the batch.
    pub index: u16,
    /// The proof.
    pub path: Vec<Digest>,
    /// The leaf.
    pub leaf: Vec<u8>,
}

impl PrekeyRow {
    /// The row of a prekey of the batch with this id.
    #[must_use]
    pub fn new(prekey: &StoredPrekey, batch: [u8; 16]) -> Self {
        Self {
            batch,
            seal_until: prekey.seal_until,
            index: prekey.index,
            path: prekey.path.clone(),
            leaf: prekey.leaf.clone(),
        }
    }

    /// The row's bytes.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(27 + 32 * self.path.len() + self.leaf.len());
        bytes.extend_from_slice(&self.batch);
        bytes.extend_from_slice(&self.index.to_be_bytes());
        bytes.extend_from_slice(&self.seal_until.0.to_be_bytes());
        // A path in a tree of 128 leaves has 7 digests.
        bytes.push(u8::try_from(self.path.len()).unwrap_or(u8::MAX));
        self.path.iter().for_each(|digest| bytes.extend_from_slice(digest.as_bytes()));
        bytes.extend_from_slice(&self.leaf);
        bytes
    }

    /// Reads a row; nothing for bytes that are none.
    #[must_use]
    pub fn read(bytes: &[u8]) -> Option<Self> {
        let (batch, rest) = bytes.split_first_chunk::<16>()?;
        let (index, rest) = rest.split_first_chunk::<2>()?;
        let (seal_until, rest) = rest.split_first_chunk::<8>()?;
        let (length, rest) = rest.split_first()?;
        let (path, leaf) = rest.split_at_checked(usize::from(*length) * 32)?;
        let path = path.chunks_exact(32).map(|digest| digest.try_into().map(Digest));
        Some(Self {
            batch: *batch,
            seal_until: UnixTime(u64::from_be_bytes(*seal_until)),
            index: u16::from_be_bytes(*index),
            path: path.collect::<Result<_, _>>().ok()?,
            leaf: leaf.to_vec(),
        })
    }

    /// When the prekey in a row ends, without reading the rest.
    #[must_use]
    pub fn seal_until_of(bytes: &[u8]) -> Option<UnixTime> {
        let seal_until = bytes.get(18..26)?.try_into().ok()?;
        Some(UnixTime(u64::from_be_bytes(seal_until)))
    }

    /// The prekey with its proof.
    #[must_use]
    pub fn proven(self, batch: Vec<u8>) -> ProvenPrekey {
        ProvenPrekey {
            leaf: Base64Url(self.leaf),
            index: u64::from(self.index),
            path: self.path,
            batch: Base64Url(batch),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixTime = UnixTime(1_000_000);

    fn queue(tail: u64) -> SuiteStock {
        SuiteStock { suite: Suite::Classical, head: 0, tail, signed: None }
    }

    #[test]
    fn numbers_are_taken_in_order_and_each_once() {
        let mut stock = queue(3);
        let good = |_| Some(NOW.plus(1));
        let taken = [(); 4].map(|()| stock.take(NOW, good).number);
        assert_eq!(taken, [Some(0), Some(1), Some(2), None]);
    }

    #[test]
    fn expired_numbers_are_passed_over_a_few_at_a_time() {
        let mut stock = queue(100);
        let until = |number| Some(if number < 20 { NOW } else { NOW.plus(1) });
        let first = stock.take(NOW, until);
        assert_eq!((first.expired.len(), first.number), (EXPIRED_PER_TAKE_MAX, None));
        let second = stock.take(NOW, until);
        assert_eq!((second.expired, second.number), (vec![16, 17, 18, 19], Some(20)));
        // A row that is not there is as good as expired.
        assert_eq!(stock.take(NOW, |_| None).number, None);
    }

    #[test]
    fn another_incarnation_voids_what_waits_and_keeps_what_is_remembered() {
        let mut stock = Stock::empty(&[Suite::Hybrid, Suite::Classical], 1);
        stock.remembered = 5;
        stock.suites[1].tail = 3;
        stock.suites[1].signed = Some(SignedStock { created: NOW, seal_until: NOW.plus(10) });
        assert!(stock.enter(1).is_empty());
        assert_eq!(stock.enter(2), [(Suite::Hybrid, 0..0), (Suite::Classical, 0..3)]);
        assert!(stock.enter(2).is_empty());
        let counts = stock.counts(NOW);
        assert_eq!((counts[1].one_time, counts[1].signed_until), (0, Some(NOW.plus(10))));
        assert_eq!(stock.remembered, 5);
    }

    #[test]
    fn rows_are_read_back_and_cut_off_ones_are_not() {
        let row = PrekeyRow {
            batch: [1; 16],
            seal_until: NOW,
            index: 7,
            path: vec![Digest([2; 32]), Digest([3; 32])],
            leaf: vec![4; 40],
        };
        let bytes = row.to_bytes();
        assert_eq!(PrekeyRow::read(&bytes), Some(row));
        assert_eq!(PrekeyRow::seal_until_of(&bytes), Some(NOW));
        for length in 0..27 + 64 {
            assert_eq!(PrekeyRow::read(&bytes[..length]), None, "{length}");
        }
    }
}
