//! Prekeys of members: fetched from the keyserver, kept until they may not be sealed to.

use std::collections::BTreeSet;
use std::time::Duration;

use sealpost_seal::choose_prekey;
use sealpost_wire::api::keyserver::{DevicePrekeys, PeerLookUp, PeersFound};
use sealpost_wire::clock::UnixTime;
use sealpost_wire::id::DeviceId;
use sealpost_wire::limits::PEERS_PER_LOOK_UP_MAX;
use sealpost_wire::prekey::VerifiedPrekey;
use sealpost_wire::record::DeviceRecord;

use crate::Device;
use crate::error::DeviceError;
use crate::groups::state::{Work, WorkError};
use crate::http::json;

/// A member without a prekey that can be sealed to is asked for again after this long (seconds).
const PEER_AGAIN_SECONDS: u64 = 600;
/// Prekeys that are older than this (seconds) are fetched anew with the daily work: half a day.
const PEER_FRESH_SECONDS: u64 = 43_200;
/// Members whose prekeys are fetched anew at once, those of whom they are the oldest.
const REFRESHED_MAX: usize = 512;

impl Work<'_> {
    /// A prekey for each of `devices` that has one which lives until `expires_at`. Those that have none are left out:
    /// they miss the frame, and come back into the group later.
    pub(crate) fn prekeys(
        &self,
        devices: &[DeviceId],
        records: &[DeviceRecord],
        expires_at: UnixTime,
    ) -> Result<Vec<VerifiedPrekey>, WorkError> {
        let (mut found, mut wanted) = (Vec::with_capacity(devices.len()), Vec::new());
        for device in devices {
            let Some(record) = records.iter().find(|record| record.device == *device) else {
                tracing::warn!(%device, "a frame is for a device whose record is not known");
                continue;
            };
            let Some(peer) = self.change.peer(*device)? else {
                wanted.push(*device);
                continue;
            };
            match choose_prekey(record, &peer.prekeys, self.own.author.policy(), expires_at, self.now) {
                Ok(prekey) => found.push(prekey),
                Err(_) if peer.fetched.plus(PEER_AGAIN_SECONDS) <= self.now => wanted.push(*device),
                Err(error) => tracing::warn!(%device, code = error.code(), "a member cannot be sealed to"),
            }
        }
        if wanted.is_empty() { Ok(found) } else { Err(WorkError::PeersWanted(wanted)) }
    }
}

impl Work<'_> {
    /// Forgets the prekeys of devices that are in no group any more.
    pub(crate) fn forget_strangers(&mut self) -> Result<(), DeviceError> {
        let mut members = BTreeSet::new();
        for group in self.groups(|groups| groups.list())? {
            match self.groups(|groups| groups.members(group)) {
                Ok(entries) => members.extend(entries.into_iter().map(|entry| entry.device)),
                Err(error) if error.is_storage() => return Err(error),
                // Nothing is kept of it, or it cannot be read.
                Err(_) => {}
            }
        }
        let peers = self.change.peers(UnixTime(u64::MAX), usize::MAX)?;
        let mut strangers = peers.into_iter().filter(|peer| !members.contains(peer));
        strangers.try_for_each(|peer| self.change.forget_peer(peer))
    }
}

impl Device {
    /// Fetches prekeys anew: those of a member that has lost its old ones would never be missed. It can wait.
    pub(crate) fn refresh_peers(&mut self) -> Result<(), DeviceError> {
        let before = self.clock.now().minus(PEER_FRESH_SECONDS);
        let stale = self.store.change(|change| change.peers(before, REFRESHED_MAX))?;
        match self.fetch_peers(&stale) {
            Err(error) if !error.is_storage() => {
                tracing::info!(code = error.code(), "the prekeys of members stay as they are");
                Ok(())
            }
            fetched => fetched,
        }
    }

    /// Fetches the prekeys of `devices`. Of those that the keyserver does not know, it is kept that they have none.
    pub(crate) fn fetch_peers(&mut self, devices: &[DeviceId]) -> Result<(), DeviceError> {
        for some in devices.chunks(PEERS_PER_LOOK_UP_MAX) {
            let body = json(&PeerLookUp { devices: some.to_vec() })?;
            let path = format!("/v1/devices/{}/peers", self.enrolled.device);
            let keyserver = self.enrolled.keyserver.clone();
            let found: PeersFound = self.call("POST", &keyserver, path, body, Duration::ZERO)?;
            if let Some(status) = &found.status {
                self.take_status(status.as_ref())?;
            }
            let _held = self.lock.hold()?;
            let now = self.clock.now();
            self.store.change(|change| {
                some.iter().try_for_each(|device| {
                    let of_device = found.peers.iter().filter(|peer| peer.device == *device);
                    let prekeys = of_device.flat_map(|peer| &peer.prekeys).map(|prekey| DevicePrekeys {
                        device: *device,
                        suite: prekey.suite,
                        signed: Some(prekey.signed.clone()),
                        one_time: None,
                    });
                    change.put_peer(*device, &prekeys.collect::<Vec<_>>(), now)
                })
            })?;
        }
        Ok(())
    }
}
