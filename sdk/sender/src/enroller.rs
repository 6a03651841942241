//! The enroller: makes tickets, checks who claimed them, countersigns devices.
//!
//! A device is let in when its enrolment carries the code of the ticket that was shown to the patient, and when the
//! patient (or the tenant's policy) has confirmed the short code on both screens. Two devices under one ticket mean that
//! its secret leaked: neither is let in.

use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, OptionalExtension as _, params};
use sealpost_wire::admission::Admission;
use sealpost_wire::api::StatusBody;
use sealpost_wire::api::keyserver::{
    CloseBody, Consent, ConsentList, DeviceSetBody, DeviceSetState, TicketBody, TicketState,
};
use sealpost_wire::base64url::Base64Url;
use sealpost_wire::clock::UnixTime;
use sealpost_wire::device_set::{DeviceSet, DeviceSetDraft};
use sealpost_wire::error::TrustError;
use sealpost_wire::id::{DeviceId, KeyId, RecipientId, TicketId};
use sealpost_wire::limits::TICKET_LIFETIME_SECONDS;
use sealpost_wire::record::{DeviceRecord, Enrolment};
use sealpost_wire::status::{Revocation, TenantStatus};
use sealpost_wire::ticket::{EnrolmentLink, TicketSecret};
use sealpost_wire::trust::TenantTrust;
use serde::Serialize;
use zeroize::Zeroizing;

use crate::SenderParts;
use crate::error::SenderError;
use crate::http::{Call, Server};
use crate::identity::EnrollerIdentityFile;
use crate::private_file::make_private_folder;
use crate::vault::Vault;

const FILE: &str = "tickets.sqlite";
const TABLES: &str = "
    CREATE TABLE IF NOT EXISTS ticket (
        id BLOB PRIMARY KEY, recipient BLOB NOT NULL, secret BLOB, expires INTEGER NOT NULL, outcome TEXT
    ) STRICT;
    CREATE TABLE IF NOT EXISTS status (only_row INTEGER PRIMARY KEY CHECK (only_row = 1), status BLOB NOT NULL) STRICT;
";
/// How long after its expiry a claimed ticket can still be countersigned (seconds): a day, as keyservers keep it.
const TICKET_KEPT_SECONDS: u64 = 86_400;
/// How often a device set is signed anew when another enroller was faster.
const CONFLICTS_MAX: usize = 8;

/// A ticket that waits for its device.
#[derive(Clone, Debug, Serialize)]
pub struct Ticket {
    /// The ticket.
    pub id: TicketId,
    /// Whose device it lets in.
    pub recipient: RecipientId,
    /// Until when it may be claimed (seconds).
    pub expires_at: UnixTime,
}

/// A device that claimed a ticket with the ticket's secret, and waits for its code to be confirmed.
#[derive(Clone, Debug, Serialize)]
pub struct Claim {
    /// The ticket.
    pub ticket: TicketId,
    /// Whose device it would be.
    pub recipient: RecipientId,
    /// The device.
    pub device: DeviceId,
    /// What the patient compares with the code on the phone.
    pub code: String,
}

/// A device that was let in.
#[derive(Clone, Debug, Serialize)]
pub struct Countersigned {
    /// Whose device it is.
    pub recipient: RecipientId,
    /// The device.
    pub device: DeviceId,
    /// The version of the device set that it is in.
    pub version: u64,
}

/// Who makes tickets and countersigns devices.
pub struct Enroller {
    identity: EnrollerIdentityFile,
    tickets: Connection,
    vault: Vault,
    keyserver: Server,
    relay: Server,
    parts: SenderParts,
}

impl Enroller {
    /// The enroller of `identity`, with its ticket table in `folder`.
    pub fn open(
        identity: EnrollerIdentityFile,
        folder: &Path,
        parts: SenderParts,
    ) -> Result<Self, SenderError> {
        make_private_folder(folder)?;
        let tickets = Connection::open(folder.join(FILE))?;
        tickets.busy_timeout(Duration::from_secs(10))?;
        tickets.pragma_update(None, "journal_mode", "WAL")?;
        tickets.pragma_update(None, "synchronous", "FULL")?;
        tickets.pragma_update(None, "secure_delete", "ON")?;
        tickets.execute_batch(TABLES)?;
        let client = identity.client();
        Ok(Self {
            vault: Vault::new(&identity.ticket_key),
            keyserver: Server::new(&identity.keyserver, client.clone(), &parts.roots),
            relay: Server::new(&identity.relay, client, &parts.roots),
            identity,
            tickets,
            parts,
        })
    }

    /// A new ticket for `recipient`, and the link that carries its secret: show it where the patient is authenticated.
    pub fn new_ticket(&self, recipient: RecipientId) -> Result<(Ticket, EnrolmentLink), SenderError> {
        let mut rng = (self.parts.rng)();
        let now = self.parts.clock.now();
        let secret = TicketSecret::generate(rng.as_mut());
        let id = secret.ticket_id();
        let expires_at = now.plus(TICKET_LIFETIME_SECONDS);
        self.forget_expired(now)?;
        let sealed = self.vault.seal(id.as_bytes(), secret.expose(), rng.as_mut())?;
        // In the table before the keyserver knows it: a claim never meets an enroller without its secret.
        self.tickets.execute(
            "INSERT INTO ticket (id, recipient, secret, expires) VALUES (?1, ?2, ?3, ?4)",
            params![id.as_bytes(), recipient.as_bytes(), sealed, expires_at.0.cast_signed()],
        )?;
        let body = TicketBody { claim_digest: secret.claim_token().digest(), expires_at };
        let call = Call::put(format!("/v1/tickets/{id}"), &body)?;
        let _made: serde_json::Value = self.keyserver.call(&call, now, rng.as_mut())?;
        let link = EnrolmentLink {
            tenant: self.identity.tenant.clone(),
            keyserver: self.identity.keyserver.clone(),
            relay: self.identity.relay.clone(),
            root: self.identity.root,
            secret,
        };
        Ok((Ticket { id, recipient, expires_at }, link))
    }

    /// The tickets that are still open here, oldest first.
    pub fn tickets(&self) -> Result<Vec<Ticket>, SenderError> {
        let sql = "SELECT id, recipient, expires FROM ticket WHERE outcome IS NULL ORDER BY expires";
        let mut statement = self.tickets.prepare_cached(sql)?;
        let rows = statement.query_map([], |row| {
            let expires: i64 = row.get(2)?;
            Ok(Ticket {
                id: TicketId(row.get(0)?),
                recipient: RecipientId(row.get(1)?),
                expires_at: UnixTime(expires.cast_unsigned()),
            })
        })?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// The device that claimed `ticket`, once there is one. The keyserver is asked to wait up to `wait` (whole seconds).
    ///
    /// # Errors
    /// [`SenderError::TicketLeaked`] when two devices hold the secret; the ticket is closed then, and both are refused.
    pub fn claim(&self, ticket: TicketId, wait: Duration) -> Result<Option<Claim>, SenderError> {
        let (recipient, secret) = self.open_ticket(ticket)?;
        Ok(self.valid_enrolment(ticket, &secret, wait)?.map(|enrolment| {
            let device = Enrolment::read(&enrolment).map(|read| read.record().device);
            let device = device.unwrap_or(DeviceId([0; 16]));
            Claim { ticket, recipient, device, code: secret.binding_key().code(&enrolment) }
        }))
    }

    /// Lets the device in that claimed `ticket` and shows `code`: signs the recipient's next device set with it, and its
    /// admission for the relay.
    ///
    /// # Errors
    /// [`SenderError::WrongCode`] when no device with this code claimed the ticket.
    pub fn countersign(&self, ticket: TicketId, code: &str) -> Result<Countersigned, SenderError> {
        let (recipient, secret) = self.open_ticket(ticket)?;
        let enrolment =
            self.valid_enrolment(ticket, &secret, Duration::ZERO)?.ok_or(SenderError::WrongCode)?;
        if secret.binding_key().code(&enrolment) != code.trim() {
            return Err(SenderError::WrongCode);
        }
        let enrolment = Enrolment::read(&enrolment)?;
        let device = enrolment.record().device;
        let version = self.change_set(recipient, |set| {
            let record = enrolment.record_bytes().to_vec();
            // It is there already when an earlier try was cut off before it could close the ticket.
            if !set.records.contains(&record) {
                set.records.push(record.clone());
            }
            Ok(vec![record])
        })?;
        self.close(ticket, "countersigned")?;
        Ok(Countersigned { recipient, device, version })
    }

    /// Closes a ticket that is not wanted any more, or whose code was not the patient's: nobody is let in with it.
    pub fn reject(&self, ticket: TicketId) -> Result<(), SenderError> {
        self.open_ticket(ticket)?;
        self.close(ticket, "rejected")
    }

    /// Takes a device out of a recipient's set, whose new version it gives: senders that look the
    /// recipient up seal nothing more to it. Revoke it in the tenant status too, to stop it at once everywhere.
    ///
    /// # Errors
    /// [`SenderError::UnknownDevice`] when it is not in the set.
    pub fn remove_device(&self, recipient: RecipientId, device: DeviceId) -> Result<u64, SenderError> {
        let is_it =
            |record: &Vec<u8>| DeviceRecord::verify(record).is_ok_and(|record| record.device == device);
        self.change_set(recipient, |set| {
            if !set.records.iter().any(is_it) {
                return Err(SenderError::UnknownDevice);
            }
            set.records.retain(|record| !is_it(record));
            if !set.revoked.contains(&device) {
                set.revoked.push(device);
            }
            Ok(Vec::new())
        })
    }

    /// Records what a recipient said about a category.
    pub fn put_consent(
        &self,
        recipient: RecipientId,
        category: &str,
        consent: &Consent,
    ) -> Result<(), SenderError> {
        let call = Call::put(format!("/v1/recipients/{recipient}/consent/{category}"), consent)?;
        let _stored: serde_json::Value = self.call_keyserver(&call)?;
        Ok(())
    }

    /// What a recipient said last about each category.
    pub fn consents(&self, recipient: RecipientId) -> Result<ConsentList, SenderError> {
        self.call_keyserver(&Call::get(format!("/v1/recipients/{recipient}/consent")))
    }

    /// The newest tenant status that this enroller has signed or seen; nothing when nothing was ever revoked.
    pub fn status(&self) -> Result<Option<TenantStatus>, SenderError> {
        Ok(self.trust()?.status().cloned())
    }

    /// Signs and publishes the next tenant status at both servers: what was revoked before, and this.
    pub fn revoke(
        &self,
        keys: &[(KeyId, Revocation)],
        devices: &[DeviceId],
    ) -> Result<TenantStatus, SenderError> {
        let now = self.parts.clock.now();
        let mut status = match self.newest_status(now)? {
            Some(known) => TenantStatus {
                sequence: known.sequence.saturating_add(1),
                issued: now.max(known.issued),
                ..known
            },
            None => TenantStatus {
                tenant: self.identity.tenant.clone(),
                sequence: 1,
                issued: now,
                revoked_keys: Vec::new(),
                revoked_devices: Vec::new(),
            },
        };
        for (key, reason) in keys {
            match status.revoked_keys.iter_mut().find(|(known, _)| known == key) {
                // What was in other hands once is never taken for merely retired.
                Some((_, known)) if *reason == Revocation::Compromised => *known = *reason,
                Some(_) => {}
                None => status.revoked_keys.push((*key, *reason)),
            }
        }
        status.revoked_keys.sort_unstable_by_key(|(key, _)| *key);
        status.revoked_devices.extend_from_slice(devices);
        status.revoked_devices.sort_unstable();
        status.revoked_devices.dedup();
        self.publish(&status, now)?;
        Ok(status)
    }

    /// Signs the newest status anew, so that it does not grow old, and publishes it at both servers. Nothing happens
    /// when nothing was ever revoked. Once a tenant has a status, servers refuse submissions when it is too old.
    pub fn publish_status(&self) -> Result<Option<TenantStatus>, SenderError> {
        let now = self.parts.clock.now();
        let Some(known) = self.newest_status(now)? else { return Ok(None) };
        let status = TenantStatus { issued: now.max(known.issued), ..known };
        self.publish(&status, now)?;
        Ok(Some(status))
    }

    /// Keeps a status and shows it to both servers. One that is out does not keep it from the other.
    fn publish(&self, status: &TenantStatus, now: UnixTime) -> Result<(), SenderError> {
        let revoke = &self.identity.revoke;
        let bytes = status.sign(&revoke.key, &revoke.certificate)?;
        self.tickets.execute("INSERT OR REPLACE INTO status VALUES (1, ?1)", [&bytes])?;
        let call = Call::put("/v1/status".to_owned(), &StatusBody { status: Base64Url(bytes) })?;
        let mut rng = (self.parts.rng)();
        let put = [&self.relay, &self.keyserver]
            .map(|server| server.call::<serde_json::Value>(&call, now, rng.as_mut()));
        put.into_iter().try_for_each(|answer| answer.map(drop).map_err(SenderError::Http))
    }

    /// The newest status, of this enroller's own and the servers': another one may have revoked something since.
    fn newest_status(&self, now: UnixTime) -> Result<Option<TenantStatus>, SenderError> {
        let mut trust = self.trust()?;
        let mut rng = (self.parts.rng)();
        let call = Call::get("/v1/status".to_owned());
        for server in [&self.relay, &self.keyserver] {
            let refused = match server.call::<StatusBody>(&call, now, rng.as_mut()) {
                Ok(body) => match trust.accept_status(body.status.as_ref(), now) {
                    Ok(_) | Err(TrustError::Rollback) => continue,
                    Err(error) => error.code().to_owned(),
                },
                Err(error) if error.is_status(404) => continue,
                Err(error) => error.code().to_owned(),
            };
            // What is to be revoked must not wait for it.
            tracing::warn!(code = %refused, "a server does not tell a status of the tenant that can be believed");
        }
        Ok(trust.status().cloned())
    }

    /// Signs the next version of a recipient's set until the keyserver takes it. `change` works on the draft and returns
    /// the records that are to be admitted.
    fn change_set(
        &self,
        recipient: RecipientId,
        change: impl Fn(&mut DeviceSetDraft) -> Result<Vec<Vec<u8>>, SenderError>,
    ) -> Result<u64, SenderError> {
        let path = format!("/v1/recipients/{recipient}/devices");
        let enrol = &self.identity.enrol;
        let tenant = &self.identity.tenant;
        let mut last = None;
        for _ in 0..CONFLICTS_MAX {
            let now = self.parts.clock.now();
            let mut draft = self.draft(recipient, &path, now)?;
            let admitted = change(&mut draft)?;
            let admissions = admitted.iter().map(|record| {
                Base64Url(Admission::sign(tenant, record, now, &enrol.key, &enrol.certificate))
            });
            let admissions = admissions.collect();
            let version = draft.version;
            let set = Base64Url(draft.sign(&enrol.key, &enrol.certificate)?);
            let answer: Result<DeviceSetState, SenderError> =
                self.call_keyserver(&Call::put(path.clone(), &DeviceSetBody { set, admissions })?);
            match answer {
                Ok(_) => return Ok(version),
                Err(SenderError::Http(error)) if error.is_status(409) => last = Some(error),
                Err(error) => return Err(error),
            }
        }
        Err(last.map_or(SenderError::UnknownTicket, SenderError::Http))
    }

    /// The next version, with the devices that are in now.
    fn draft(
        &self,
        recipient: RecipientId,
        path: &str,
        now: UnixTime,
    ) -> Result<DeviceSetDraft, SenderError> {
        let current: Option<DeviceSetState> = match self.call_keyserver(&Call::get(path.to_owned())) {
            Ok(state) => Some(state),
            Err(SenderError::Http(error)) if error.is_status(404) => None,
            Err(error) => return Err(error),
        };
        let tenant = self.identity.tenant.clone();
        let Some(current) = current else {
            return Ok(DeviceSetDraft {
                tenant,
                recipient,
                version: 1,
                previous: None,
                records: Vec::new(),
                revoked: Vec::new(),
                issued: now,
            });
        };
        // Signing on top of a set is vouching for it: it must be the tenant's own.
        let (set, _) = DeviceSet::verify(current.set.as_ref(), &self.trust()?, None)?;
        if set.recipient != recipient {
            return Err(TrustError::WrongDevice.into());
        }
        Ok(DeviceSetDraft {
            tenant,
            recipient,
            version: set.version.saturating_add(1),
            previous: Some(set.digest),
            records: set.devices.into_iter().map(|device| device.bytes).collect(),
            revoked: set.revoked,
            issued: now,
        })
    }

    /// The one enrolment under `ticket` that was made with its secret, if there is one.
    fn valid_enrolment(
        &self,
        ticket: TicketId,
        secret: &TicketSecret,
        wait: Duration,
    ) -> Result<Option<Vec<u8>>, SenderError> {
        let call = Call { wait, ..Call::get(format!("/v1/tickets/{ticket}?wait={}", wait.as_secs())) };
        let state: TicketState = self.call_keyserver(&call)?;
        let binding = secret.binding_key();
        let mut valid = state.enrolments.into_iter().filter(|bytes| {
            Enrolment::read(bytes.as_ref()).is_ok_and(|enrolment| {
                let record = enrolment.record();
                record.ticket == ticket
                    && record.tenant == self.identity.tenant
                    && enrolment.verify_binding(&binding).is_ok()
            })
        });
        let first = valid.next();
        if valid.next().is_some() {
            tracing::error!(%ticket, "two devices claimed one ticket; its secret leaked and both are refused");
            self.close(ticket, "leaked")?;
            return Err(SenderError::TicketLeaked);
        }
        Ok(first.map(|bytes| bytes.0))
    }

    fn open_ticket(&self, ticket: TicketId) -> Result<(RecipientId, TicketSecret), SenderError> {
        let sql =
            "SELECT recipient, secret FROM ticket WHERE id = ?1 AND outcome IS NULL AND secret IS NOT NULL";
        let read = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get::<_, Vec<u8>>(1)?));
        let row = self.tickets.query_row(sql, [ticket.as_bytes()], read).optional()?;
        let (recipient, sealed) = row.ok_or(SenderError::UnknownTicket)?;
        let secret = self.vault.open(ticket.as_bytes(), &sealed)?;
        let secret = <[u8; 32]>::try_from(secret.as_slice()).map(Zeroizing::new);
        let secret = secret.map_err(|_| SenderError::Unreadable)?;
        Ok((RecipientId(recipient), TicketSecret::from_bytes(*secret)))
    }

    /// The ticket has done its work: nobody may claim it any more, and its secret is forgotten.
    fn close(&self, ticket: TicketId, outcome: &str) -> Result<(), SenderError> {
        let call = Call::post(format!("/v1/tickets/{ticket}/close"), &CloseBody {})?;
        let _closed: serde_json::Value = self.call_keyserver(&call)?;
        let sql = "UPDATE ticket SET outcome = ?2, secret = NULL WHERE id = ?1";
        self.tickets.execute(sql, params![ticket.as_bytes(), outcome])?;
        Ok(())
    }

    fn stored_status(&self) -> Result<Option<Vec<u8>>, SenderError> {
        Ok(self.tickets.query_row("SELECT status FROM status", [], |row| row.get(0)).optional()?)
    }

    /// The secrets of tickets that nobody can claim or countersign any more.
    fn forget_expired(&self, now: UnixTime) -> Result<(), SenderError> {
        let sql =
            "UPDATE ticket SET outcome = 'expired', secret = NULL WHERE outcome IS NULL AND expires < ?1";
        self.tickets.execute(sql, [now.minus(TICKET_KEPT_SECONDS).0.cast_signed()])?;
        Ok(())
    }

    /// The tenant's root, and the newest status that was signed or seen here.
    fn trust(&self) -> Result<TenantTrust, SenderError> {
        let mut trust = TenantTrust::new(self.identity.tenant.clone(), vec![self.identity.root]);
        if let Some(stored) = self.stored_status()? {
            trust.accept_status(&stored, self.parts.clock.now())?;
        }
        Ok(trust)
    }

    fn call_keyserver<T: serde::de::DeserializeOwned>(&self, call: &Call) -> Result<T, SenderError> {
        let mut rng = (self.parts.rng)();
        Ok(self.keyserver.call(call, self.parts.clock.now(), rng.as_mut())?)
    }
}
