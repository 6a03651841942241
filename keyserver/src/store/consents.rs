//! Consents in the store.

use sealpost_service::audit::{self, Entry};
use sealpost_wire::api::keyserver::Consent;
use sealpost_wire::id::{RecipientId, TenantId};

use super::{AUDIT, CONSENTS, Put, Store, StoreError, row};
use crate::consent::{self, CATEGORIES_PER_RECIPIENT_MAX, Category};

impl Store {
    /// Records what a recipient said last about a category.
    ///
    /// # Errors
    /// [`StoreError::Consent`] when a later word is recorded, [`StoreError::Full`].
    pub async fn put_consent(
        &self,
        tenant: &TenantId,
        recipient: RecipientId,
        category: &Category,
        consent: Consent,
        entry: Entry,
    ) -> Result<Put, StoreError> {
        let tenant = tenant.clone();
        let key = row::consent(&tenant, recipient, category.as_str());
        let decided = self.engine.write("put_consent", move |view| {
            let recorded: Option<Consent> = row::find(view, CONSENTS, &key)?;
            if recorded.as_ref() == Some(&consent) {
                return Ok(Put::Again);
            }
            consent::supersede(recorded.as_ref(), &consent)?;
            let rows = || view.prefix(CONSENTS, row::recipient(&tenant, recipient));
            if recorded.is_none()
                && rows().take(CATEGORIES_PER_RECIPIENT_MAX).count() == CATEGORIES_PER_RECIPIENT_MAX
            {
                return Err(StoreError::Full("categories"));
            }
            row::put(view, CONSENTS, key, &consent)?;
            audit::append(view, AUDIT, &tenant, &entry);
            Ok(if recorded.is_some() { Put::Again } else { Put::New })
        });
        decided.await?
    }
}
