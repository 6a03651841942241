//! Look-ups: what a sender gets of a recipient, and a device of its peers.

use sealpost_wire::api::keyserver::{DevicePrekeys, LookedUp, Peer, PeerPrekey, PeersFound};
use sealpost_wire::base64url::Base64Url;
use sealpost_wire::clock::UnixTime;
use sealpost_wire::id::DeviceId;
use sealpost_wire::message::Suite;
use sealpost_wire::prekey::ProvenPrekey;

use crate::prekey::PrekeyRow;

/// What a look-up came to.
#[derive(Debug)]
pub enum LookUpOutcome {
    /// The set and its prekeys.
    Found(Found),
    /// The recipient has not agreed to the category.
    ConsentMissing,
}

/// A recipient's set, with the prekeys that this look-up gets: rows as they were stored, to be unfolded
/// outside the writer thread.
#[derive(Debug)]
pub struct Found {
    /// The set.
    pub set: Vec<u8>,
    /// Prekeys by device and suite.
    pub devices: Vec<FoundPrekeys>,
}

/// Prekeys of one device in one suite.
#[derive(Debug)]
pub struct FoundPrekeys {
    /// The device.
    pub device: DeviceId,
    /// The suite.
    pub suite: Suite,
    /// The newest signed prekey.
    pub signed: Option<FoundPrekey>,
    /// The one-time prekey that was taken.
    pub one_time: Option<FoundPrekey>,
}

/// A prekey's row and its batch.
#[derive(Debug)]
pub struct FoundPrekey {
    /// The row.
    pub row: PrekeyRow,
    /// The signed batch.
    pub batch: Vec<u8>,
}

impl FoundPrekey {
    fn proven(self) -> ProvenPrekey {
        self.row.proven(self.batch)
    }
}

impl Found {
    /// One-time prekeys that were taken.
    #[must_use]
    pub fn taken(&self) -> usize {
        self.devices.iter().filter(|found| found.one_time.is_some()).count()
    }

    /// The answer.
    #[must_use]
    pub fn answer(self, status: Option<&[u8]>, now: UnixTime) -> LookedUp {
        LookedUp {
            set: Base64Url(self.set),
            status: status.map(|bytes| Base64Url(bytes.to_vec())),
            devices: answered(self.devices),
            time: now,
        }
    }
}

/// Prekeys as they are answered.
pub(crate) fn answered(prekeys: Vec<FoundPrekeys>) -> Vec<DevicePrekeys> {
    let prekeys = prekeys.into_iter().map(|found| DevicePrekeys {
        device: found.device,
        suite: found.suite,
        signed: found.signed.map(FoundPrekey::proven),
        one_time: found.one_time.map(FoundPrekey::proven),
    });
    prekeys.collect()
}

/// A device of the tenant that another one asked for.
#[derive(Debug)]
pub struct FoundPeer {
    /// The device.
    pub device: DeviceId,
    /// Its prekeys, of which only signed ones are there.
    pub prekeys: Vec<FoundPrekeys>,
}

/// The answer to a look-up of peers.
#[must_use]
pub fn peers_found(peers: Vec<FoundPeer>, status: Option<&[u8]>, now: UnixTime) -> PeersFound {
    let prekey = |found: FoundPrekeys| {
        Some(PeerPrekey { suite: found.suite, signed: found.signed.map(FoundPrekey::proven)? })
    };
    let peers = peers.into_iter().map(|peer| Peer {
        device: peer.device,
        prekeys: peer.prekeys.into_iter().filter_map(prekey).collect(),
    });
    PeersFound { peers: peers.collect(), status: status.map(|bytes| Base64Url(bytes.to_vec())), time: now }
}
