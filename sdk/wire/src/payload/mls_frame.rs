//! MLS frames: what members of a group (RFC 9420) send to each other, a box for each device.
//!
//! ```text
//! frame = { 1: transport id, 2: device, 3: created, 4: kind, 5: group id, 6: body, ? 7: [+ device set] }
//! kind  = 0 message         body: MLSMessage (commit, proposal, application; public for external commits)
//!         1 welcome         body: MLSMessage (Welcome)
//!         2 rejoin request  body: nothing
//!         3 group info      body: .cbor { 1: MLSMessage (GroupInfo), 2: slot capability }
//! ```
//!
//! Body and device sets are carried here. MLS itself, and whether a set is to be believed, is for those who use them.

use std::fmt;

use zeroize::Zeroizing;

use crate::cbor::{Reader, Writer};
use crate::clock::UnixTime;
use crate::error::FormatError;
use crate::id::{DeviceId, GroupId, TransportId};
use crate::limits::{DEVICE_SET_BYTES_MAX, MLS_SETS_MAX, SIGNED_BYTES_MAX};
use crate::slot::SlotCapability;

/// What an MLS frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MlsKind {
    /// A message to the group: commit, proposal, application. The body is an `MLSMessage`.
    Message,
    /// The receiver is in the group now. The body is an `MLSMessage` with a `Welcome`.
    Welcome,
    /// The author has lost the group's epoch and asks for the group info. The body is empty.
    RejoinRequest,
    /// The way back into the group. The body is a [`GroupInfoBody`].
    GroupInfo,
}

impl MlsKind {
    /// All of them, by their numbers.
    pub const ALL: [Self; 4] = [Self::Message, Self::Welcome, Self::RejoinRequest, Self::GroupInfo];

    /// The number in frames: 0, 1, 2, 3.
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Self::Message => 0,
            Self::Welcome => 1,
            Self::RejoinRequest => 2,
            Self::GroupInfo => 3,
        }
    }

    /// The kind with this number.
    ///
    /// # Errors
    /// There is none.
    pub fn from_code(code: u64) -> Result<Self, FormatError> {
        Self::ALL
            .into_iter()
            .find(|kind| u64::from(kind.code()) == code)
            .ok_or(FormatError::WrongValue("kind"))
    }

    fn check_body(self, body: &[u8]) -> Result<(), FormatError> {
        match self {
            Self::RejoinRequest if body.is_empty() => Ok(()),
            Self::Message | Self::Welcome if !body.is_empty() => Ok(()),
            Self::GroupInfo => GroupInfoBody::read(body).map(|_| ()),
            Self::RejoinRequest | Self::Message | Self::Welcome => Err(FormatError::WrongValue("body")),
        }
    }
}

/// What a member of a group sends to a device.
#[derive(Clone, PartialEq, Eq)]
pub struct MlsFrame {
    /// When it was made.
    pub created: UnixTime,
    /// What it is.
    pub kind: MlsKind,
    /// The group.
    pub group: GroupId,
    /// What the kind says.
    pub body: Vec<u8>,
    /// The signed device sets of those whom the frame brings into the group; at most [`MLS_SETS_MAX`].
    pub sets: Vec<Vec<u8>>,
}

impl MlsFrame {
    /// Whether the frame can be written: what a reader would refuse is told before anything is signed.
    ///
    /// # Errors
    /// A body that its kind does not have, too many sets, or a set larger than one may be.
    pub fn check(&self) -> Result<(), FormatError> {
        if self.sets.len() > MLS_SETS_MAX {
            return Err(FormatError::WrongValue("sets"));
        }
        self.sets.iter().try_for_each(|set| check_set(set))?;
        self.kind.check_body(&self.body)
    }

    pub(super) fn write(&self, transport_id: TransportId, device: DeviceId) -> Vec<u8> {
        /// Room for the fields but body and sets, and for the head of a byte string.
        const FIXED: usize = 128;
        const HEAD: usize = 9;
        let sets: usize = self.sets.iter().map(|set| set.len() + HEAD).sum();
        let mut writer = Writer::with_capacity(FIXED + self.body.len() + sets);
        writer.map(6 + usize::from(!self.sets.is_empty()));
        writer.int(1).bytes(transport_id.as_bytes()).int(2).bytes(device.as_bytes());
        writer.int(3).uint(self.created.0).int(4).uint(u64::from(self.kind.code()));
        writer.int(5).bytes(self.group.as_bytes()).int(6).bytes(&self.body);
        if !self.sets.is_empty() {
            writer.int(7).array(self.sets.len());
            for set in &self.sets {
                writer.bytes(set);
            }
        }
        writer.finish()
    }

    /// The frame in `payload`, with the transport id and the device that it names.
    pub(super) fn read(payload: &[u8]) -> Result<(TransportId, DeviceId, Self), FormatError> {
        let mut reader = Reader::new(payload, SIGNED_BYTES_MAX)?;
        let mut fields = reader.map()?;
        fields.key(&mut reader, 1)?;
        let transport_id = TransportId(reader.array("transport id")?);
        fields.key(&mut reader, 2)?;
        let device = DeviceId(reader.array("device")?);
        fields.key(&mut reader, 3)?;
        let created = UnixTime(reader.uint()?);
        fields.key(&mut reader, 4)?;
        let kind = MlsKind::from_code(reader.uint()?)?;
        fields.key(&mut reader, 5)?;
        let group = GroupId(reader.array("group id")?);
        fields.key(&mut reader, 6)?;
        let body = reader.bytes()?.to_vec();
        let sets = match fields.optional(&mut reader, 7)? {
            true => read_sets(&mut reader)?,
            false => Vec::new(),
        };
        fields.end()?;
        kind.check_body(&body)?;
        Ok((transport_id, device, Self { created, kind, group, body, sets }))
    }
}

impl fmt::Debug for MlsFrame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MlsFrame")
            .field("created", &self.created)
            .field("kind", &self.kind)
            .field("group", &self.group)
            .field("body_bytes", &self.body.len())
            .field("sets", &self.sets.len())
            .finish()
    }
}

fn read_sets(reader: &mut Reader<'_>) -> Result<Vec<Vec<u8>>, FormatError> {
    let count = reader.list("sets", MLS_SETS_MAX)?;
    if count == 0 {
        return Err(FormatError::WrongValue("sets"));
    }
    (0..count)
        .map(|_| {
            let set = reader.bytes()?;
            check_set(set).map(|()| set.to_vec())
        })
        .collect()
}

fn check_set(set: &[u8]) -> Result<(), FormatError> {
    if set.len() > DEVICE_SET_BYTES_MAX { Err(FormatError::TooLarge(DEVICE_SET_BYTES_MAX)) } else { Ok(()) }
}

/// The body of a [`MlsKind::GroupInfo`] frame: what a member needs to come back by an external commit.
#[derive(Clone, PartialEq, Eq)]
pub struct GroupInfoBody {
    /// An `MLSMessage` with a `GroupInfo`, with the ratchet tree and the external public key in it.
    pub group_info: Vec<u8>,
    /// The capability of the group's slot in this epoch: the external commit has to show it.
    pub capability: SlotCapability,
}

impl GroupInfoBody {
    /// The body's bytes. They hold the capability: they are wiped when dropped.
    #[must_use]
    pub fn to_bytes(&self) -> Zeroizing<Vec<u8>> {
        /// Room for the capability and the heads.
        const FIXED: usize = 64;
        let mut writer = Writer::with_capacity(FIXED + self.group_info.len());
        writer.map(2).int(1).bytes(&self.group_info).int(2).bytes(self.capability.expose());
        Zeroizing::new(writer.finish())
    }

    /// Reads the body of a group info frame.
    ///
    /// # Errors
    /// The form, or an empty group info.
    pub fn read(body: &[u8]) -> Result<Self, FormatError> {
        let mut reader = Reader::new(body, SIGNED_BYTES_MAX)?;
        let mut fields = reader.map()?;
        fields.key(&mut reader, 1)?;
        let group_info = reader.bytes()?.to_vec();
        fields.key(&mut reader, 2)?;
        let capability = SlotCapability::from_bytes(reader.array("slot capability")?);
        fields.end()?;
        if group_info.is_empty() {
            return Err(FormatError::WrongValue("group info"));
        }
        Ok(Self { group_info, capability })
    }
}

impl fmt::Debug for GroupInfoBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "GroupInfoBody({} bytes, {:?})", self.group_info.len(), self.capability)
    }
}
