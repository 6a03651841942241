//! Prekeys: made by the app, durable before they are uploaded, refilled and rotated.

use std::time::Duration;

use sealpost_open::PrekeyPrivate;
use sealpost_wire::api::keyserver::{PrekeyCount, PrekeyUpload, PrekeysStored};
use sealpost_wire::base64url::Base64Url;
use sealpost_wire::clock::UnixTime;
use sealpost_wire::limits::{
    MESSAGE_LIFETIME_SECONDS_MAX, PREKEYS_PER_BATCH_MAX, SIGNED_PREKEY_ROTATION_SECONDS,
    SIGNED_PREKEY_SEAL_SECONDS,
};
use sealpost_wire::message::Suite;
use sealpost_wire::prekey::{PrekeyKind, PrekeyLeaf, sign_batch};

use crate::Device;
use crate::error::DeviceError;
use crate::http::json;
use crate::store::NewPrekey;

/// One-time prekeys that the keyserver is to hold for each suite.
const ONE_TIME_TARGET: u32 = 60;
/// Below this many, new ones are made.
const ONE_TIME_LOW: u32 = 30;
/// A one-time prekey may be sealed to for this long (seconds): 60 days.
const ONE_TIME_SEAL_SECONDS: u64 = 60 * 86_400;

/// What was done about prekeys.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PrekeyReport {
    /// Prekeys made and uploaded.
    pub uploaded: usize,
    /// What the keyserver holds.
    pub left: Vec<PrekeyCount>,
    /// Key packages made and uploaded, of a device that is admitted.
    pub key_packages: usize,
}

impl Device {
    /// Refills one-time prekeys and rotates the signed one, where needed, and refills key packages for groups once the
    /// device is admitted. For the app only: an extension just consumes.
    pub fn maintain_prekeys(&mut self) -> Result<PrekeyReport, DeviceError> {
        let mut report = PrekeyReport::default();
        self.upload_pending(&mut report)?;
        let state = self.keyserver_state(Duration::ZERO)?;
        let incarnation = state.incarnation;
        let restored =
            self.store.meta("keyserver_incarnation")?.is_some_and(|seen| *seen != incarnation.to_be_bytes());
        report.left = state.prekeys;
        if self.make_prekeys(&report.left, restored, incarnation)? {
            self.upload_pending(&mut report)?;
        }
        if self.is_admitted() {
            report.key_packages = self.maintain_key_packages(&state.key_packages, restored)?;
        }
        Ok(report)
    }

    /// Makes what is missing, durably. Returns whether there is something to upload.
    pub(crate) fn make_prekeys(
        &mut self,
        left: &[PrekeyCount],
        restored: bool,
        incarnation: u64,
    ) -> Result<bool, DeviceError> {
        let _held = self.lock.hold()?;
        let now = self.clock.now();
        let replace = self.store.burnt()? || restored;
        let mut prekeys = Vec::new();
        let mut leaves = Vec::new();
        for suite in self.enrolled.suites.clone() {
            let count = left.iter().find(|count| count.suite == suite).filter(|_| !replace);
            let rotated = |made: UnixTime| now < made.plus(SIGNED_PREKEY_ROTATION_SECONDS);
            let has_signed = count.is_some_and(|count| count.signed_until.is_some())
                && self.store.newest_signed_prekey(suite)?.is_some_and(rotated);
            let one_time = match count.map_or(0, |count| count.one_time) {
                ONE_TIME_LOW.. => 0,
                few => ONE_TIME_TARGET - few,
            };
            let kinds = std::iter::repeat_n(PrekeyKind::OneTime, one_time as usize);
            for kind in (!has_signed).then_some(PrekeyKind::Signed).into_iter().chain(kinds) {
                if leaves.len() < PREKEYS_PER_BATCH_MAX {
                    let (prekey, leaf) = self.new_prekey(suite, kind, now);
                    prekeys.push(prekey);
                    leaves.push(leaf.to_bytes());
                }
            }
        }
        if leaves.is_empty() {
            return Ok(false);
        }
        let enrolled = &self.enrolled;
        let batch = sign_batch(&enrolled.tenant, enrolled.device, &leaves, now, &enrolled.identity)?;
        let leaves = leaves.into_iter().map(Base64Url).collect();
        let upload = json(&PrekeyUpload { batch: Base64Url(batch), leaves, replace })?;
        let rng = self.rng.as_mut();
        let generation = self.store.change(|change| {
            for prekey in &prekeys {
                change.insert_prekey(prekey, now, rng)?;
            }
            change.insert_upload(&upload)?;
            change.set_counter("burnt", 0)?;
            change.set_counter("latest_time", now.0.cast_signed())?;
            change.set_meta("keyserver_incarnation", &incarnation.to_be_bytes(), rng)?;
            change.next_generation()
        })?;
        self.platform.set_generation(generation)?;
        Ok(true)
    }

    fn new_prekey(&mut self, suite: Suite, kind: PrekeyKind, now: UnixTime) -> (NewPrekey, PrekeyLeaf) {
        let (key, public) = PrekeyPrivate::generate(suite, self.rng.as_mut());
        let seal_until = now.plus(match kind {
            PrekeyKind::Signed => SIGNED_PREKEY_SEAL_SECONDS,
            PrekeyKind::OneTime => ONE_TIME_SEAL_SECONDS,
        });
        let open_until = seal_until.plus(MESSAGE_LIFETIME_SECONDS_MAX);
        let leaf =
            PrekeyLeaf { device: self.enrolled.device, suite, kind, key: public, seal_until, open_until };
        (NewPrekey { id: leaf.id(), key, kind, seal_until, open_until }, leaf)
    }

    /// Uploads what was made before. A batch that the keyserver has already is no new batch.
    fn upload_pending(&mut self, report: &mut PrekeyReport) -> Result<(), DeviceError> {
        for (id, upload) in self.store.pending_uploads()? {
            let body: PrekeyUpload = serde_json::from_slice(&upload).map_err(|_| DeviceError::Unreadable)?;
            let path = format!("/v1/devices/{}/prekeys", self.enrolled.device);
            let keyserver = self.enrolled.keyserver.clone();
            let stored: PrekeysStored = self.call("PUT", &keyserver, path, upload, Duration::ZERO)?;
            self.store.change(|change| change.delete_upload(id))?;
            report.uploaded += body.leaves.len();
            report.left = stored.prekeys;
        }
        Ok(())
    }
}
