//! What the members say of themselves, for those who seal boxes to them.

use sealpost_wire::id::GroupId;
use sealpost_wire::record::DeviceRecord;

use crate::credential;
use crate::error::GroupError;
use crate::group::Groups;
use crate::operation::Operation;
use crate::store::GroupStore;

impl<S: GroupStore> Groups<'_, S> {
    /// The records of a group's members, this device's included: what their prekeys are verified by. Those of a
    /// return into the group that is staged are among them. The credentials were verified when their members came in;
    /// here only the signature of each record is looked at.
    ///
    /// # Errors
    /// [`GroupError::UnknownGroup`], a credential that cannot be read, or the store.
    pub fn records(&mut self, group: GroupId) -> Result<Vec<DeviceRecord>, GroupError> {
        self.operate(|operation| operation.records(group))
    }
}

impl<S: GroupStore> Operation<'_, S> {
    fn records(&self, group: GroupId) -> Result<Vec<DeviceRecord>, GroupError> {
        let record = self.record(group)?;
        let returning = record.staged.as_ref().and_then(|staged| staged.rejoin);
        let mut records: Vec<DeviceRecord> = Vec::new();
        for incarnation in [Some(record.incarnation), returning].into_iter().flatten() {
            // A state that cannot be read is one that the device comes back from.
            let Ok(Some(mls)) = self.load_mls(group, incarnation) else { continue };
            for member in mls.members() {
                let claimed = credential::claimed_record(&member.credential).map_err(GroupError::Refused)?;
                let own_key = claimed.identity_key.as_bytes()[..] == member.signature_key;
                if own_key && !records.iter().any(|known| known.identity_key == claimed.identity_key) {
                    records.push(claimed);
                }
            }
        }
        Ok(records)
    }
}
