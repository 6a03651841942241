//! Ids in the audit.

use std::fmt;

use sealpost_wire::id::DeviceId;

/// Devices, separated by spaces.
pub(crate) struct Devices<I>(pub(crate) I);

impl<I: Iterator<Item = DeviceId> + Clone> fmt::Display for Devices<I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, id) in self.0.clone().enumerate() {
            let separator = if position == 0 { "" } else { " " };
            write!(f, "{separator}{id}")?;
        }
        Ok(())
    }
}
