//! The row of a tenant: its number, and the highest number of its devices.
//!
//! ```text
//! version | home (2) | device numbers given (8)
//! ```

use super::codec::{Decoder, Encoder};
use super::key::Home;

/// What the store numbers of a tenant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TenantRow {
    pub(super) home: Home,
    pub(super) devices: u64,
}

impl TenantRow {
    pub(super) fn encode(self) -> Vec<u8> {
        Encoder::new(11).u16(self.home.0).u64(self.devices).finish()
    }

    pub(super) fn decode(value: &[u8]) -> Option<Self> {
        let mut row = Decoder::new(value)?;
        let read = Self { home: Home(row.u16()?), devices: row.u64()? };
        row.end(read)
    }
}
