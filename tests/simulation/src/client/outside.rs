//! What is outside a device's process: its store and its servers.

use sealpost_group::{GroupSuite, NewMember};
use sealpost_wire::id::DeviceId;

use super::tables::{Tables, Upload};
use crate::relay::{Answer, Submission, Waiting};

/// The device's store.
pub(crate) trait Store {
    fn tables(&self) -> &Tables;
    /// Makes the new state durable, all of it or nothing.
    fn commit(&mut self, tables: Tables) -> Result<(), Killed>;
    /// The counter outside the store is ahead of the one inside.
    fn is_older_copy(&self) -> bool;
}

/// The process has ended before the transaction was committed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Killed;

/// A request without an answer: it may have arrived or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NoAnswer;

/// The relay and the keyserver, as this device reaches them.
pub(crate) trait Outside {
    fn submit(&mut self, submission: &Submission) -> Result<Answer, NoAnswer>;
    fn waiting(&mut self) -> Option<Waiting>;
    fn acknowledge(&mut self, number: u64);
    /// The newest tenant status.
    fn status(&mut self) -> Option<Vec<u8>>;
    /// The own newest device set.
    fn own_set(&mut self) -> Option<Vec<u8>>;
    /// A key package of a device, and its recipient's newest set.
    fn look_up(&mut self, device: DeviceId, suite: GroupSuite) -> Option<NewMember>;
    /// The own key packages of a suite that are left, and whether there is a last resort.
    fn key_packages_left(&mut self, suite: GroupSuite) -> Option<(usize, bool)>;
    fn upload(&mut self, upload: &Upload) -> Result<(), NoAnswer>;
}
