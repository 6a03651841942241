//! Bodies of the keyserver.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::base64url::Base64Url;
use crate::clock::UnixTime;
use crate::id::{DeviceId, Digest, TicketId};
use crate::message::Suite;
use crate::prekey::ProvenPrekey;

/// `PUT /v1/tickets/{ticket}`, by an enroller.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TicketBody {
    /// SHA-256 of the claim token.
    pub claim_digest: Digest,
    /// When the ticket ends (seconds), at most 15 minutes ahead.
    pub expires_at: UnixTime,
}

/// `POST /v1/tickets/{ticket}/claims`, by a device that holds the ticket's secret. No other credentials.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClaimBody {
    /// The claim token.
    pub claim_token: Base64Url,
    /// The enrolment: the record under the ticket's code.
    pub enrolment: Base64Url,
}

/// The answer to `GET /v1/tickets/{ticket}`, by an enroller.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct TicketState {
    /// The ticket.
    pub ticket: TicketId,
    /// When it ends (seconds).
    pub expires_at: UnixTime,
    /// The enrolments that claimed it, in the order they came. Two with valid codes mean that the secret
    /// leaked.
    pub enrolments: Vec<Base64Url>,
    /// Whether the ticket was used or closed.
    pub closed: bool,
}

/// `POST /v1/tickets/{ticket}/close`, by an enroller: nobody may claim it any more, and its enrolments are
/// dropped.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CloseBody {}

/// `PUT /v1/recipients/{recipient}/devices`, by an enroller (or a revoker that only removes).
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeviceSetBody {
    /// The countersigned set, one version above the stored one.
    pub set: Base64Url,
    /// An admission for each device that is new in it, for the device to show the relay.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub admissions: Vec<Base64Url>,
}

/// The answer to `GET /v1/recipients/{recipient}/devices`, and to a `PUT` of it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DeviceSetState {
    /// The set.
    pub set: Base64Url,
    /// Its version.
    pub version: u64,
}

/// The answer to `GET /v1/devices/{device}?wait=`, signed by the device: its admission once it is
/// countersigned.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DeviceState {
    /// The admission; nothing while the enrolment waits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub admission: Option<Base64Url>,
    /// The device set that it is in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub set: Option<Base64Url>,
    /// The newest tenant status.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<Base64Url>,
    /// Prekeys that are left, by suite.
    pub prekeys: Vec<PrekeyCount>,
    /// Key packages that are left, by the suites of MLS that it has uploaded any of.
    pub key_packages: Vec<KeyPackageCount>,
    /// Raised when the keyserver's store was restored: one-time prekeys and one-time key packages are gone, new
    /// ones are wanted.
    pub incarnation: u64,
    /// The keyserver's time (seconds).
    pub time: UnixTime,
}

/// How many prekeys of a suite are left.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PrekeyCount {
    /// The suite.
    pub suite: Suite,
    /// One-time prekeys that are left.
    pub one_time: u32,
    /// Until when the newest signed prekey may be sealed to; nothing when there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signed_until: Option<UnixTime>,
}

/// `PUT /v1/devices/{device}/prekeys`, signed by the device. The same batch again changes nothing.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PrekeyUpload {
    /// The signed batch.
    pub batch: Base64Url,
    /// Its leaves, in the order of the tree.
    pub leaves: Vec<Base64Url>,
    /// Whether every earlier prekey of the device is void: its state was lost or rolled back.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub replace: bool,
}

/// The answer to a [`PrekeyUpload`].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PrekeysStored {
    /// Prekeys that are left, by suite.
    pub prekeys: Vec<PrekeyCount>,
}

/// `POST /v1/recipients/{recipient}/look-up`, by a sender.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LookUp {
    /// The category to send, for consent.
    pub category: String,
    /// Whether a one-time prekey is to be taken for each device.
    pub one_time: bool,
}

/// The answer to a [`LookUp`].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LookedUp {
    /// The countersigned device set.
    pub set: Base64Url,
    /// The newest tenant status.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<Base64Url>,
    /// Prekeys for each device and suite.
    pub devices: Vec<DevicePrekeys>,
    /// The keyserver's time (seconds).
    pub time: UnixTime,
}

/// Prekeys of one device in one suite.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DevicePrekeys {
    /// The device.
    pub device: DeviceId,
    /// The suite.
    pub suite: Suite,
    /// The newest signed prekey: good until its `seal_until`, from a cache too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signed: Option<ProvenPrekey>,
    /// A one-time prekey that nobody else gets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub one_time: Option<ProvenPrekey>,
}

/// How many key packages of a suite of MLS are left.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyPackageCount {
    /// The suite, by its number.
    pub suite: u16,
    /// One-time key packages that are left.
    pub one_time: u32,
    /// Until when the last resort may be used; nothing when there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_resort_until: Option<UnixTime>,
}

/// `PUT /v1/devices/{device}/key-packages`, signed by the device. The same key packages again change nothing.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyPackageUpload {
    /// The suite of MLS that all of them are for, by its number.
    pub suite: u16,
    /// One-time key packages, at most 100: each is handed out once.
    pub packages: Vec<Base64Url>,
    /// A key package that is handed out whenever there is no other, in the place of the one before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_resort: Option<Base64Url>,
    /// Whether every earlier key package of the device in this suite is void: its state was lost or rolled back.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub replace: bool,
}

/// The answer to a [`KeyPackageUpload`].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct KeyPackagesStored {
    /// Key packages that are left, by suite.
    pub key_packages: Vec<KeyPackageCount>,
}

/// `POST /v1/recipients/{recipient}/key-packages`, signed by a device of the tenant that wants to add the
/// recipient to a group.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyPackageLookUp {
    /// The suite of MLS of the group, by its number.
    pub suite: u16,
    /// The category of what the group is for, for consent.
    pub category: String,
}

/// The answer to a [`KeyPackageLookUp`].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct KeyPackagesFound {
    /// The countersigned device set.
    pub set: Base64Url,
    /// The newest tenant status.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<Base64Url>,
    /// A key package for each device of the set that has one of the suite.
    pub packages: Vec<FoundKeyPackage>,
    /// The signed prekeys of each device, for the boxes that the group's messages travel in.
    pub prekeys: Vec<DevicePrekeys>,
    /// The keyserver's time (seconds).
    pub time: UnixTime,
}

/// A key package that was handed out.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct FoundKeyPackage {
    /// The device.
    pub device: DeviceId,
    /// The key package (RFC 9420 section 10).
    pub package: Base64Url,
    /// Whether others get it too: the device has no one-time key package left.
    pub last_resort: bool,
}

/// `POST /v1/devices/{device}/peers`, signed by the device: where members of its groups can be reached.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PeerLookUp {
    /// Devices of the same tenant, at most 64, each once.
    pub devices: Vec<DeviceId>,
}

/// The answer to a [`PeerLookUp`].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PeersFound {
    /// Those of the devices that are in the set of some recipient, in the order in which they were asked for.
    pub peers: Vec<Peer>,
    /// The newest tenant status.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<Base64Url>,
    /// The keyserver's time (seconds).
    pub time: UnixTime,
}

/// A device of the tenant, as others of it may seal to it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Peer {
    /// The device.
    pub device: DeviceId,
    /// Its newest signed prekeys, by suite; none when all have ended.
    pub prekeys: Vec<PeerPrekey>,
}

/// A signed prekey of a peer.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PeerPrekey {
    /// The suite.
    pub suite: Suite,
    /// The prekey.
    pub signed: ProvenPrekey,
}

/// `PUT /v1/recipients/{recipient}/consent/{category}`, by an enroller.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Consent {
    /// Whether the recipient agrees.
    pub granted: bool,
    /// When they said so (seconds).
    pub given_at: UnixTime,
    /// Who recorded it: a pseudonym or a system's name, at most 64 bytes.
    pub recorded_by: String,
    /// How: `portal`, `paper`, `device`, at most 64 bytes.
    pub method: String,
    /// SHA-256 of the document.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub document: Option<Digest>,
}

/// The answer to `GET /v1/recipients/{recipient}/consent`, by an enroller.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConsentList {
    /// What was recorded last, by category.
    pub consents: BTreeMap<String, Consent>,
}
