//! Keys of epochs that are over are deleted by time too, by the clock that is passed.

use std::time::UNIX_EPOCH;

use openmls::group::{MlsGroup, PastEpochDeletion};
use sealpost_wire::id::GroupId;

use crate::error::GroupError;
use crate::limits::PAST_EPOCH_SECONDS_MAX;
use crate::operation::{Loaded, Operation};
use crate::record::Record;
use crate::store::GroupStore;

impl<S: GroupStore> Operation<'_, S> {
    /// Deletes the keys of epochs that ended too long ago. openmls counts how many to keep; which those are is
    /// decided by this crate's own times, not by the clock of the system that openmls would read.
    pub(crate) fn expire(&self, loaded: &mut Loaded) -> Result<Record, GroupError> {
        if let Some(keep) = loaded.record.expire_past(self.now) {
            self.keep_past_epochs(&mut loaded.mls, keep)?;
        }
        Ok(loaded.record.clone())
    }

    fn keep_past_epochs(&self, mls: &mut MlsGroup, keep: usize) -> Result<(), GroupError> {
        let deletion = PastEpochDeletion::before_timestamp(UNIX_EPOCH).max_past_epochs(keep);
        mls.delete_past_epoch_secrets(&self.provider, deletion).map_err(|error| GroupError::library(&error))
    }

    pub(crate) fn forget_old_epochs(&self, group: GroupId) -> Result<(), GroupError> {
        let mut record = self.record(group)?;
        let over = |since: sealpost_wire::clock::UnixTime| since.plus(PAST_EPOCH_SECONDS_MAX) <= self.now;
        if record.former.as_ref().is_some_and(|former| over(former.since)) {
            self.drop_former(group, &mut record)?;
        }
        if let Some(former) = &mut record.former
            && let Some(keep) = former.expire_past(self.now)
            && let Some(mut mls) = self.load_mls(group, former.incarnation)?
        {
            self.keep_past_epochs(&mut mls, keep)?;
        }
        if record.left.is_some_and(over) {
            self.delete_incarnation(group, record.incarnation)?;
        } else {
            let incarnation = record.incarnation;
            record = self.expire(&mut *self.load_as(group, record, incarnation)?)?;
        }
        self.save_record(group, &record)
    }

    /// Deletes what is left of the incarnation before.
    pub(crate) fn drop_former(&self, group: GroupId, record: &mut Record) -> Result<(), GroupError> {
        match record.former.take() {
            Some(former) => self.delete_incarnation(group, former.incarnation),
            None => Ok(()),
        }
    }
}
