//! Frames that are kept, in the form that they have in the database.

use sealpost_wire::base64url::Base64Url;
use sealpost_wire::clock::UnixTime;
use sealpost_wire::id::GroupId;
use sealpost_wire::payload::{MlsFrame, MlsKind};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::error::DeviceError;

#[derive(Serialize, Deserialize)]
struct StoredFrame {
    created: UnixTime,
    kind: u8,
    group: GroupId,
    body: Base64Url,
    sets: Vec<Base64Url>,
}

pub(crate) fn write_frame(frame: &MlsFrame) -> Result<Zeroizing<Vec<u8>>, DeviceError> {
    let stored = StoredFrame {
        created: frame.created,
        kind: frame.kind.code(),
        group: frame.group,
        body: Base64Url(frame.body.clone()),
        sets: frame.sets.iter().cloned().map(Base64Url).collect(),
    };
    serde_json::to_vec(&stored).map(Zeroizing::new).map_err(|_| DeviceError::Unreadable)
}

pub(crate) fn read_frame(bytes: &[u8]) -> Result<MlsFrame, DeviceError> {
    let stored: StoredFrame = serde_json::from_slice(bytes).map_err(|_| DeviceError::Unreadable)?;
    Ok(MlsFrame {
        created: stored.created,
        kind: MlsKind::from_code(u64::from(stored.kind))?,
        group: stored.group,
        body: stored.body.0,
        sets: stored.sets.into_iter().map(|set| set.0).collect(),
    })
}
