//! The outbox: alerts from the moment a source hands them over until their receipts are in. One SQLite database.
//!
//! ```text
//! alert      source event      -> what a person is to be told, sealed under the outbox's key
//! subject    what events are about -> the notification that tells of it, its newest revision
//! submission one attempt to send an alert: waiting -> sealed -> accepted, or failed
//! box        one device's sealed message of a submission, and what the device said about it
//! directory  recipient         -> the newest device set that was believed
//! ```
//! Sealed bytes are committed before they are first sent, under a transport id of their own.

use std::path::Path;
use std::sync::Arc;

use rand_core::CryptoRng;
use rusqlite::{Connection, OptionalExtension as _, Row, Transaction, TransactionBehavior, params};
use sealpost_seal::SealedBox;
use sealpost_wire::api::keyserver::LookedUp;
use sealpost_wire::clock::{Clock, UnixTime};
use sealpost_wire::delivery::DeliveryState;
use sealpost_wire::device_set::DeviceSet;
use sealpost_wire::id::{DeviceId, Digest, NotificationId, RecipientId, TransportId};
use sealpost_wire::key::VerifyingKey;
use sealpost_wire::limits::MESSAGE_LIFETIME_SECONDS_MAX;
use sealpost_wire::payload::{Notification, Priority};
use sealpost_wire::trust::TenantTrust;

use crate::alert::{Alert, AlertStatus, BoxStatus, Enqueued, Stage, SubmissionStatus};
use crate::directory::Seen;
use crate::error::SenderError;
use crate::private_file::make_private_folder;
use crate::vault::{StorageKey, Vault};

const VERSION: i64 = 1;
const FILE: &str = "outbox.sqlite";
const BUSY_MILLISECONDS: u64 = 10_000;
/// Bytes of the key of a source event.
const SOURCE_BYTES_MAX: usize = 512;

const TABLES: &str = "
    CREATE TABLE alert (
        id INTEGER PRIMARY KEY, source TEXT NOT NULL UNIQUE, body BLOB NOT NULL, notification BLOB NOT NULL,
        revision INTEGER NOT NULL, recipient BLOB NOT NULL, category TEXT NOT NULL, priority INTEGER NOT NULL,
        created INTEGER NOT NULL, expires INTEGER NOT NULL, content BLOB
    ) STRICT;
    CREATE TABLE subject (
        subject TEXT PRIMARY KEY, notification BLOB NOT NULL, revision INTEGER NOT NULL, as_of INTEGER
    ) STRICT;
    CREATE TABLE submission (
        id INTEGER PRIMARY KEY, alert INTEGER NOT NULL REFERENCES alert, stage INTEGER NOT NULL, only_device BLOB,
        transport_id BLOB UNIQUE, attempts INTEGER NOT NULL, due INTEGER NOT NULL, failure TEXT, accepted INTEGER,
        from_cache INTEGER NOT NULL, reseals INTEGER NOT NULL
    ) STRICT;
    CREATE INDEX submission_by_due ON submission (stage, due);
    CREATE TABLE box (
        transport_id BLOB NOT NULL, device BLOB NOT NULL, identity BLOB NOT NULL, digest BLOB NOT NULL, sealed BLOB,
        bytes INTEGER NOT NULL, state INTEGER NOT NULL, reason TEXT, verified INTEGER NOT NULL, device_time INTEGER,
        PRIMARY KEY (transport_id, device)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE directory (
        recipient BLOB PRIMARY KEY, looked_up BLOB NOT NULL, at INTEGER NOT NULL
    ) STRICT;
    CREATE TABLE value (name TEXT PRIMARY KEY, value BLOB NOT NULL) STRICT;
";

/// The database, and the key to the alerts in it.
pub(crate) struct Outbox {
    connection: Connection,
    vault: Vault,
}

/// A submission that is to be sealed.
pub(crate) struct ToSeal {
    pub(crate) id: i64,
    pub(crate) recipient: RecipientId,
    pub(crate) category: String,
    pub(crate) expires_at: UnixTime,
    pub(crate) only_device: Option<DeviceId>,
    pub(crate) attempts: u32,
    pub(crate) notification: Notification,
}

/// A submission that is to be sent.
pub(crate) struct ToSend {
    pub(crate) id: i64,
    pub(crate) transport_id: TransportId,
    pub(crate) expires_at: UnixTime,
    pub(crate) priority: Priority,
    pub(crate) attempts: u32,
    pub(crate) boxes: Vec<(DeviceId, Vec<u8>)>,
}

/// A box, as what a device says about it is checked against.
pub(crate) struct SentBox {
    pub(crate) identity: VerifyingKey,
    pub(crate) digest: Digest,
    pub(crate) state: DeliveryState,
    pub(crate) verified: bool,
}

/// What is known of a box now.
pub(crate) struct BoxNews {
    pub(crate) transport_id: TransportId,
    pub(crate) device: DeviceId,
    pub(crate) state: DeliveryState,
    pub(crate) reason: Option<String>,
    pub(crate) verified: bool,
    pub(crate) device_time: Option<UnixTime>,
}

impl Outbox {
    pub(crate) fn open(folder: &Path, key: &StorageKey) -> Result<Self, SenderError> {
        make_private_folder(folder)?;
        let mut connection = Connection::open(folder.join(FILE))?;
        connection.busy_timeout(std::time::Duration::from_millis(BUSY_MILLISECONDS))?;
        // FULL: a commit is durable when it returns, in WAL mode too.
        connection.pragma_update(None, "journal_mode", "WAL")?;
        connection.pragma_update(None, "synchronous", "FULL")?;
        connection.pragma_update(None, "foreign_keys", "ON")?;
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let version: i64 = transaction.pragma_query_value(None, "user_version", |row| row.get(0))?;
        match version {
            0 => {
                transaction.execute_batch(TABLES)?;
                transaction.pragma_update(None, "user_version", VERSION)?;
            }
            VERSION => {}
            newer => return Err(SenderError::NewerOutbox(newer)),
        }
        transaction.commit()?;
        Ok(Self { connection, vault: Vault::new(key) })
    }

    /// Takes an alert in, once for each source event.
    pub(crate) fn enqueue(
        &mut self,
        alert: &Alert,
        clock: &dyn Clock,
        rng: &mut dyn CryptoRng,
    ) -> Result<Enqueued, SenderError> {
        let now = clock.now();
        let lifetime = alert.lifetime_seconds.clamp(1, MESSAGE_LIFETIME_SECONDS_MAX);
        if alert.source.key.is_empty() || alert.source.key.len() > SOURCE_BYTES_MAX {
            return Err(sealpost_wire::error::FormatError::WrongValue("source").into());
        }
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        if let Some((known, body)) = known_source(&transaction, &alert.source.key)? {
            return if body == alert.source.body {
                Ok(Enqueued::Known(known))
            } else {
                Err(SenderError::SourceConflict(alert.source.key.clone()))
            };
        }
        let (id, revision) = match next_revision(&transaction, alert, rng)? {
            Ok(next) => next,
            Err(newer) => return Ok(Enqueued::Outdated(newer)),
        };
        let notification = Notification {
            id,
            revision,
            created: now,
            priority: alert.priority,
            category: alert.category.clone(),
            sensitivity: alert.sensitivity,
            texts: alert.texts.clone(),
            parts: alert.parts.clone(),
            replies: alert.replies.clone(),
            attachments: Vec::new(),
            head: None,
        };
        // What could never be sealed is refused now, to its source, not found out later.
        notification.check()?;
        let content = serde_json::to_vec(&notification).map_err(|_| SenderError::Unreadable)?;
        let content = self.vault.seal(alert.source.key.as_bytes(), &content, rng)?;
        transaction.execute(
            "INSERT INTO alert (source, body, notification, revision, recipient, category, priority, created, expires,
                content) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
            params![
                alert.source.key,
                alert.source.body.as_bytes(),
                id.as_bytes(),
                revision.cast_signed(),
                alert.recipient.as_bytes(),
                alert.category,
                i64::from(alert.priority.code()),
                now.0.cast_signed(),
                now.plus(lifetime).0.cast_signed(),
                content
            ],
        )?;
        insert_submission(&transaction, transaction.last_insert_rowid(), None, 0, 0)?;
        transaction.commit()?;
        Ok(Enqueued::New(id))
    }

    /// Submissions that are due to be sealed, most urgent first.
    pub(crate) fn due_to_seal(&self, now_ms: u64, limit: usize) -> Result<Vec<ToSeal>, SenderError> {
        let sql = "SELECT submission.id, source, recipient, category, expires, only_device, attempts, content
                   FROM submission JOIN alert ON alert.id = alert
                   WHERE stage = 0 AND due <= ?1 ORDER BY priority, due, submission.id LIMIT ?2";
        let mut statement = self.connection.prepare_cached(sql)?;
        let mut rows = statement.query(params![now_ms.cast_signed(), limit.cast_signed()])?;
        let mut due = Vec::new();
        while let Some(row) = rows.next()? {
            let source: String = row.get(1)?;
            let content = self.vault.open(source.as_bytes(), &row.get::<_, Vec<u8>>(7)?)?;
            due.push(ToSeal {
                id: row.get(0)?,
                recipient: RecipientId(row.get(2)?),
                category: row.get(3)?,
                expires_at: time(row, 4)?,
                only_device: row.get::<_, Option<[u8; 16]>>(5)?.map(DeviceId),
                attempts: row.get(6)?,
                notification: serde_json::from_slice(&content).map_err(|_| SenderError::Unreadable)?,
            });
        }
        Ok(due)
    }

    /// Submissions that are due to be sent, most urgent first.
    pub(crate) fn due_to_send(&self, now_ms: u64, limit: usize) -> Result<Vec<ToSend>, SenderError> {
        let sql = "SELECT submission.id, transport_id, expires, priority, attempts
                   FROM submission JOIN alert ON alert.id = alert
                   WHERE stage = 1 AND due <= ?1 ORDER BY priority, due, submission.id LIMIT ?2";
        let mut statement = self.connection.prepare_cached(sql)?;
        let mut rows = statement.query(params![now_ms.cast_signed(), limit.cast_signed()])?;
        let mut due = Vec::new();
        while let Some(row) = rows.next()? {
            let transport_id = TransportId(row.get(1)?);
            due.push(ToSend {
                id: row.get(0)?,
                transport_id,
                expires_at: time(row, 2)?,
                priority: Priority::from_code(row.get::<_, i64>(3)?.cast_unsigned())?,
                attempts: row.get(4)?,
                boxes: self.sealed_boxes(transport_id)?,
            });
        }
        Ok(due)
    }

    fn sealed_boxes(&self, transport_id: TransportId) -> Result<Vec<(DeviceId, Vec<u8>)>, SenderError> {
        let sql =
            "SELECT device, sealed FROM box WHERE transport_id = ?1 AND sealed IS NOT NULL ORDER BY device";
        let mut statement = self.connection.prepare_cached(sql)?;
        let rows =
            statement.query_map([transport_id.as_bytes()], |row| Ok((DeviceId(row.get(0)?), row.get(1)?)))?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// When the next submission is due (milliseconds); nothing when none waits.
    pub(crate) fn next_due_ms(&self) -> Result<Option<u64>, SenderError> {
        let sql = "SELECT min(due) FROM submission WHERE stage IN (0, 1)";
        let due: Option<i64> = self.connection.query_row(sql, [], |row| row.get(0))?;
        Ok(due.map(i64::cast_unsigned))
    }

    /// Commits what was sealed: from here on the submission is these bytes.
    pub(crate) fn sealed(
        &mut self,
        submission: i64,
        transport_id: TransportId,
        boxes: &[(VerifyingKey, SealedBox)],
        from_cache: bool,
    ) -> Result<(), SenderError> {
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let sql = "UPDATE submission SET stage = 1, transport_id = ?2, attempts = 0, failure = NULL, from_cache = ?3
                   WHERE id = ?1 AND stage = 0";
        if transaction.execute(sql, params![submission, transport_id.as_bytes(), from_cache])? == 1 {
            for (identity, sealed) in boxes {
                transaction.execute(
                    "INSERT INTO box (transport_id, device, identity, digest, sealed, bytes, state, verified)
                     VALUES (?1, ?2, ?3, ?4, ?5, length(?5), ?6, 0)",
                    params![
                        transport_id.as_bytes(),
                        sealed.device.as_bytes(),
                        identity.as_bytes(),
                        sealed.digest.as_bytes(),
                        sealed.bytes,
                        DeliveryState::Held.code()
                    ],
                )?;
            }
        }
        transaction.commit()?;
        Ok(())
    }

    /// The relay said 202: what it said of each box, and the sealed bytes are its own from here on.
    pub(crate) fn accepted(
        &mut self,
        submission: i64,
        transport_id: TransportId,
        boxes: &[BoxNews],
        now_ms: u64,
    ) -> Result<(), SenderError> {
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let sql =
            "UPDATE submission SET stage = 2, failure = NULL, accepted = ?2 WHERE id = ?1 AND stage = 1";
        transaction.execute(sql, params![submission, now_ms.cast_signed()])?;
        let sql = "UPDATE box SET sealed = NULL WHERE transport_id = ?1";
        transaction.execute(sql, [transport_id.as_bytes()])?;
        for news in boxes {
            set_box(&transaction, news)?;
        }
        transaction.commit()?;
        Ok(())
    }

    /// The submission is tried again at `due_ms`.
    pub(crate) fn postponed(&mut self, submission: i64, code: &str, due_ms: u64) -> Result<(), SenderError> {
        let sql = "UPDATE submission SET attempts = attempts + 1, failure = ?2, due = ?3 WHERE id = ?1 AND stage < 2";
        self.connection.execute(sql, params![submission, code, due_ms.cast_signed()])?;
        Ok(())
    }

    /// The submission will not be sent.
    pub(crate) fn failed(&mut self, submission: i64, code: &str) -> Result<(), SenderError> {
        let sql = "UPDATE submission SET stage = 3, attempts = attempts + 1, failure = ?2 WHERE id = ?1 AND stage < 2";
        self.connection.execute(sql, params![submission, code])?;
        Ok(())
    }

    /// The box that a device's word is about.
    pub(crate) fn sent_box(
        &self,
        transport_id: TransportId,
        device: DeviceId,
    ) -> Result<Option<SentBox>, SenderError> {
        let sql = "SELECT identity, digest, state, verified FROM box WHERE transport_id = ?1 AND device = ?2";
        let read =
            |row: &Row<'_>| Ok((row.get::<_, [u8; 32]>(0)?, row.get(1)?, row.get::<_, u8>(2)?, row.get(3)?));
        let row: Option<(_, _, _, bool)> = self
            .connection
            .query_row(sql, params![transport_id.as_bytes(), device.as_bytes()], read)
            .optional()?;
        let Some((identity, digest, state, verified)) = row else { return Ok(None) };
        Ok(Some(SentBox {
            identity: VerifyingKey::from_bytes(&identity)?,
            digest: Digest(digest),
            state: DeliveryState::from_code(state).ok_or(SenderError::Unreadable)?,
            verified,
        }))
    }

    /// Takes in a page of news and where the next page begins. A box that its device could not open is queued to be
    /// sealed anew, at most `reseals_max` times for each alert and device.
    pub(crate) fn take_news(
        &mut self,
        news: &[BoxNews],
        cursor: Option<u64>,
        reseals_max: u32,
    ) -> Result<(), SenderError> {
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        for one in news {
            if set_box(&transaction, one)? && one.state == DeliveryState::Unopenable && one.verified {
                reseal(&transaction, one, reseals_max)?;
            }
        }
        if let Some(cursor) = cursor {
            set_value(&transaction, "events", &cursor.to_be_bytes())?;
        }
        transaction.commit()?;
        Ok(())
    }

    /// The id of the last event that was taken in.
    pub(crate) fn events_cursor(&self) -> Result<u64, SenderError> {
        let stored = self.value("events")?.and_then(|bytes| bytes.try_into().ok());
        Ok(stored.map_or(0, u64::from_be_bytes))
    }

    /// Transport ids of accepted submissions with a box whose end is not proven yet.
    pub(crate) fn unsettled(&self) -> Result<Vec<TransportId>, SenderError> {
        // Ends that are the relay's own word (expired, failed …) have no proof to wait for.
        let sql =
            "SELECT DISTINCT transport_id FROM box WHERE verified = 0 AND sealed IS NULL AND state <= ?1";
        let mut statement = self.connection.prepare_cached(sql)?;
        let rows = statement.query_map([DeliveryState::Opened.code()], |row| row.get(0).map(TransportId))?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// The newest tenant status.
    pub(crate) fn status(&self) -> Result<Option<Vec<u8>>, SenderError> {
        self.value("status")
    }

    pub(crate) fn set_status(&mut self, status: &[u8]) -> Result<(), SenderError> {
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        set_value(&transaction, "status", status)?;
        Ok(transaction.commit()?)
    }

    /// What was seen of a recipient before.
    pub(crate) fn directory(
        &self,
        recipient: RecipientId,
        trust: &TenantTrust,
    ) -> Result<Option<Arc<Seen>>, SenderError> {
        let sql = "SELECT looked_up, at FROM directory WHERE recipient = ?1";
        let read = |row: &Row<'_>| Ok((row.get::<_, Vec<u8>>(0)?, time(row, 1)?));
        let row = self.connection.query_row(sql, [recipient.as_bytes()], read).optional()?;
        let Some((looked_up, at)) = row else { return Ok(None) };
        let looked_up: LookedUp = serde_json::from_slice(&looked_up).map_err(|_| SenderError::Unreadable)?;
        // A set whose enrol key was found compromised since then counts no more.
        match DeviceSet::verify(looked_up.set.as_ref(), trust, None) {
            Ok((set, _)) => Ok(Some(Arc::new(Seen { set, looked_up, at }))),
            Err(error) => {
                tracing::warn!(code = error.code(), "a cached device set is not believed any more");
                Ok(None)
            }
        }
    }

    pub(crate) fn set_directory(
        &mut self,
        recipient: RecipientId,
        looked_up: &LookedUp,
        at: UnixTime,
    ) -> Result<(), SenderError> {
        let looked_up = serde_json::to_vec(looked_up).map_err(|_| SenderError::Unreadable)?;
        let sql = "INSERT OR REPLACE INTO directory VALUES (?1, ?2, ?3)";
        self.connection.execute(sql, params![recipient.as_bytes(), looked_up, at.0.cast_signed()])?;
        Ok(())
    }

    /// Where every alert is, oldest first.
    pub(crate) fn alerts(&self) -> Result<Vec<AlertStatus>, SenderError> {
        let sql = "SELECT id, source, notification, revision, created, expires FROM alert ORDER BY id";
        let mut statement = self.connection.prepare_cached(sql)?;
        let mut rows = statement.query([])?;
        let mut alerts = Vec::new();
        while let Some(row) = rows.next()? {
            alerts.push(self.alert_of(row)?);
        }
        Ok(alerts)
    }

    /// Where the alert of a source event is.
    pub(crate) fn alert(&self, source: &str) -> Result<Option<AlertStatus>, SenderError> {
        let sql = "SELECT id, source, notification, revision, created, expires FROM alert WHERE source = ?1";
        let mut statement = self.connection.prepare_cached(sql)?;
        let mut rows = statement.query([source])?;
        rows.next()?.map(|row| self.alert_of(row)).transpose()
    }

    fn alert_of(&self, row: &Row<'_>) -> Result<AlertStatus, SenderError> {
        Ok(AlertStatus {
            submissions: self.submissions(row.get(0)?)?,
            source: row.get(1)?,
            notification: NotificationId(row.get(2)?),
            revision: row.get::<_, i64>(3)?.cast_unsigned(),
            created: time(row, 4)?,
            expires_at: time(row, 5)?,
        })
    }

    fn submissions(&self, alert: i64) -> Result<Vec<SubmissionStatus>, SenderError> {
        let sql = "SELECT transport_id, stage, attempts, failure, accepted, from_cache FROM submission
                   WHERE alert = ?1 ORDER BY id";
        let mut statement = self.connection.prepare_cached(sql)?;
        let mut rows = statement.query([alert])?;
        let mut submissions = Vec::new();
        while let Some(row) = rows.next()? {
            let transport_id = row.get::<_, Option<[u8; 16]>>(0)?.map(TransportId);
            submissions.push(SubmissionStatus {
                transport_id,
                stage: Stage::from_code(row.get(1)?).ok_or(SenderError::Unreadable)?,
                attempts: row.get(2)?,
                failure: row.get(3)?,
                accepted_ms: row.get::<_, Option<i64>>(4)?.map(i64::cast_unsigned),
                from_cache: row.get(5)?,
                boxes: transport_id.map(|id| self.boxes(id)).transpose()?.unwrap_or_default(),
            });
        }
        Ok(submissions)
    }

    fn boxes(&self, transport_id: TransportId) -> Result<Vec<BoxStatus>, SenderError> {
        let sql =
            "SELECT device, state, reason, verified, device_time, bytes FROM box WHERE transport_id = ?1
                   ORDER BY device";
        let mut statement = self.connection.prepare_cached(sql)?;
        let mut rows = statement.query([transport_id.as_bytes()])?;
        let mut boxes = Vec::new();
        while let Some(row) = rows.next()? {
            boxes.push(BoxStatus {
                device: DeviceId(row.get(0)?),
                state: DeliveryState::from_code(row.get(1)?).ok_or(SenderError::Unreadable)?,
                reason: row.get(2)?,
                verified: row.get(3)?,
                device_time: row.get::<_, Option<i64>>(4)?.map(|seconds| UnixTime(seconds.cast_unsigned())),
                bytes: row.get::<_, i64>(5)?.cast_unsigned(),
            });
        }
        Ok(boxes)
    }

    fn value(&self, name: &str) -> Result<Option<Vec<u8>>, SenderError> {
        let sql = "SELECT value FROM value WHERE name = ?1";
        Ok(self.connection.query_row(sql, [name], |row| row.get(0)).optional()?)
    }
}

fn known_source(
    transaction: &Transaction<'_>,
    source: &str,
) -> Result<Option<(NotificationId, Digest)>, SenderError> {
    let sql = "SELECT notification, body FROM alert WHERE source = ?1";
    let read = |row: &Row<'_>| Ok((NotificationId(row.get(0)?), Digest(row.get(1)?)));
    Ok(transaction.query_row(sql, [source], read).optional()?)
}

/// Id and revision for an alert; the notification that it is too old for, if it is.
fn next_revision(
    transaction: &Transaction<'_>,
    alert: &Alert,
    rng: &mut dyn CryptoRng,
) -> Result<Result<(NotificationId, u64), NotificationId>, SenderError> {
    let Some(subject) = &alert.source.subject else { return Ok(Ok((NotificationId::random(rng), 1))) };
    // Two recipients never share a notification.
    let subject = format!("{}|{subject}", alert.recipient);
    let as_of = alert.source.as_of.map(|time| time.0.cast_signed());
    let sql = "SELECT notification, revision, as_of FROM subject WHERE subject = ?1";
    let read = |row: &Row<'_>| {
        Ok((NotificationId(row.get(0)?), row.get::<_, i64>(1)?, row.get::<_, Option<i64>>(2)?))
    };
    let (id, revision, as_of) = match transaction.query_row(sql, [&subject], read).optional()? {
        None => (NotificationId::random(rng), 1, as_of),
        Some((id, _, Some(known))) if as_of.is_some_and(|as_of| as_of < known) => return Ok(Err(id)),
        // An event without a time takes nothing away from what is known of the ones before it.
        Some((id, revision, known)) => (id, revision.saturating_add(1), as_of.or(known)),
    };
    let sql = "INSERT OR REPLACE INTO subject VALUES (?1, ?2, ?3, ?4)";
    transaction.execute(sql, params![subject, id.as_bytes(), revision, as_of])?;
    Ok(Ok((id, revision.cast_unsigned())))
}

fn insert_submission(
    transaction: &Transaction<'_>,
    alert: i64,
    only_device: Option<DeviceId>,
    due_ms: u64,
    reseals: u32,
) -> Result<(), SenderError> {
    transaction.execute(
        "INSERT INTO submission (alert, stage, only_device, attempts, due, from_cache, reseals)
         VALUES (?1, 0, ?2, 0, ?3, 0, ?4)",
        params![alert, only_device.map(|device| device.0), due_ms.cast_signed(), reseals],
    )?;
    Ok(())
}

/// Writes news of a box unless what is known already says as much. Returns whether its state was news; why a box still
/// waits is written down all the same.
fn set_box(transaction: &Transaction<'_>, news: &BoxNews) -> Result<bool, SenderError> {
    let sql = "SELECT state, verified FROM box WHERE transport_id = ?1 AND device = ?2";
    let key = params![news.transport_id.as_bytes(), news.device.as_bytes()];
    let read = |row: &Row<'_>| Ok((row.get::<_, u8>(0)?, row.get::<_, bool>(1)?));
    let Some((code, verified)) = transaction.query_row(sql, key, read).optional()? else { return Ok(false) };
    let state = DeliveryState::from_code(code).ok_or(SenderError::Unreadable)?;
    // What a device signed stands against what the relay merely says.
    if verified && !news.verified {
        return Ok(false);
    }
    if state == news.state && verified == news.verified {
        if let Some(reason) = news.reason.as_ref().filter(|_| state == DeliveryState::Queued) {
            let sql = "UPDATE box SET reason = ?3 WHERE transport_id = ?1 AND device = ?2";
            let values = params![news.transport_id.as_bytes(), news.device.as_bytes(), reason];
            transaction.execute(sql, values)?;
        }
        return Ok(false);
    }
    // Held: nothing was heard of the box yet. The first word may come late, and be any.
    let first_word = state == DeliveryState::Held;
    let first_proof = news.verified && !verified;
    if !(first_word || first_proof || state.allows(news.state)) {
        return Ok(false);
    }
    transaction.execute(
        "UPDATE box SET state = ?3, reason = ?4, verified = ?5, device_time = ?6
         WHERE transport_id = ?1 AND device = ?2",
        params![
            news.transport_id.as_bytes(),
            news.device.as_bytes(),
            news.state.code(),
            news.reason,
            news.verified,
            news.device_time.map(|time| time.0.cast_signed())
        ],
    )?;
    Ok(true)
}

fn reseal(transaction: &Transaction<'_>, news: &BoxNews, reseals_max: u32) -> Result<(), SenderError> {
    let sql = "SELECT alert, reseals FROM submission WHERE transport_id = ?1";
    let read = |row: &Row<'_>| Ok((row.get::<_, i64>(0)?, row.get::<_, u32>(1)?));
    let Some((alert, reseals)) =
        transaction.query_row(sql, [news.transport_id.as_bytes()], read).optional()?
    else {
        return Ok(());
    };
    if reseals < reseals_max {
        tracing::info!(message = %news.transport_id, device = %news.device, "a box could not be opened; sealing anew");
        insert_submission(transaction, alert, Some(news.device), 0, reseals + 1)?;
    } else {
        tracing::error!(message = %news.transport_id, device = %news.device, "a device cannot open what is sealed to it");
    }
    Ok(())
}

fn set_value(transaction: &Transaction<'_>, name: &str, value: &[u8]) -> Result<(), SenderError> {
    transaction.execute("INSERT OR REPLACE INTO value VALUES (?1, ?2)", params![name, value])?;
    Ok(())
}

fn time(row: &Row<'_>, column: usize) -> rusqlite::Result<UnixTime> {
    Ok(UnixTime(row.get::<_, i64>(column)?.cast_unsigned()))
}

#[cfg(test)]
mod tests;
