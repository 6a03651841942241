//! Sealing and opening, either suite, beside bare `hpke` with Ed25519.

use std::collections::BTreeMap;
use std::hint::black_box;
use std::time::Instant;

use getrandom::SysRng;
use hpke::Kem;
use hpke::kem::{X25519HkdfSha256, XWing};
use rand_core::UnwrapErr;
use sealpost_open::{PrekeyPrivate, open};
use sealpost_seal::{Envelope, SealPolicy, SealedBox, SenderIdentity, SuitePolicy, seal};
use sealpost_wire::base64url::Base64Url;
use sealpost_wire::certificate::{Certificate, Purpose};
use sealpost_wire::clock::UnixTime;
use sealpost_wire::context::MessageContext;
use sealpost_wire::id::{CertificateId, DeviceId, NotificationId, TicketId, TransportId};
use sealpost_wire::key::{RequestKey, SigningKey};
use sealpost_wire::merkle;
use sealpost_wire::message::{SealedMessage, Suite};
use sealpost_wire::padding::padded_size;
use sealpost_wire::payload::{Notification, Priority, Sensitivity, Text};
use sealpost_wire::prekey::{PrekeyKind, PrekeyLeaf, ProvenPrekey, VerifiedPrekey, sign_batch};
use sealpost_wire::record::DeviceRecord;
use sealpost_wire::trust::TenantTrust;

use crate::cores;
use crate::limits::append_log::per_second;
use crate::limits::bare_crypto::Bare;
use crate::report::{Row, Runs};
use crate::rows::Effort;

const NOW: UnixTime = UnixTime(1_800_000_000);
/// Messages of one run of a suite.
const MESSAGES: usize = 3000;
/// What must be reached of bare `hpke` with Ed25519.
const BUDGET: f64 = 0.85;

/// Which half is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Half {
    /// Signing and sealing.
    Seal,
    /// Opening and verifying.
    Open,
}

/// Measures one half for one suite.
#[must_use]
pub fn row(name: &'static str, half: Half, suite: Suite, effort: Effort) -> Row {
    cores::stay_on(cores::TESTED);
    let runs = match suite {
        Suite::Hybrid => measure::<XWing>(half, suite, effort),
        Suite::Classical => measure::<X25519HkdfSha256>(half, suite, effort),
    };
    let ratio = runs.ratio();
    Row {
        name,
        what: match half {
            Half::Seal => format!("messages signed and sealed a second, {suite:?}, one core"),
            Half::Open => format!("messages opened and verified a second (sender and root), {suite:?}, one core"),
        },
        value: runs.value(),
        spread: runs.spread(),
        unit: "/s",
        limit: runs.limit(),
        limit_is: Some("bare hpke and Ed25519 over the same bytes".to_owned()),
        ratio,
        budget: format!("at least {BUDGET} x the limit"),
        holds: ratio.is_some_and(|ratio| ratio >= BUDGET),
        notes: Vec::new(),
    }
}

fn measure<K: Kem>(half: Half, suite: Suite, effort: Effort) -> Runs {
    let setting = Setting::new(suite);
    let sealed = setting.seal();
    let parts = SealedMessage::read(&sealed.bytes).expect("it was just sealed");
    let padded = parts.ciphertext.len() - 16;
    debug_assert_eq!(padded, padded_size(1), "the sample fills the smallest size");
    let bare = Bare::<K>::new(padded, parts.associated_data(&setting.context()).len());
    let bare_sealed = bare.seal();
    let mut runs = Runs::default();
    for _ in 0..effort.runs {
        let (ours, limit) = match half {
            Half::Seal => (rate(|| drop(black_box(setting.seal()))), rate(|| drop(black_box(bare.seal())))),
            Half::Open => (rate(|| setting.open(black_box(&sealed))), rate(|| bare.open(black_box(&bare_sealed)))),
        };
        runs.pair(ours, limit);
    }
    runs
}

fn rate(mut once: impl FnMut()) -> f64 {
    let start = Instant::now();
    for _ in 0..MESSAGES {
        once();
    }
    per_second(MESSAGES, start.elapsed().as_secs_f64())
}

/// A sender and a device that trust one root.
struct Setting {
    sender: SenderIdentity,
    trust: TenantTrust,
    prekey: VerifiedPrekey,
    private: PrekeyPrivate,
    envelope: Envelope,
    notification: Notification,
}

impl Setting {
    fn new(suite: Suite) -> Self {
        let mut rng = UnwrapErr(SysRng);
        let tenant: sealpost_wire::id::TenantId = "bench".parse().expect("a name");
        let root = SigningKey::generate(&mut rng);
        let key = SigningKey::generate(&mut rng);
        let certificate = Certificate {
            tenant: tenant.clone(),
            purpose: Purpose::Send,
            subject: "lab".parse().expect("a name"),
            id: CertificateId::random(&mut rng),
            key: RequestKey::Ed25519(key.verifying_key()),
            not_before: NOW.minus(86_400),
            not_after: NOW.plus(86_400),
            roles: Vec::new(),
        };
        let certificate = certificate.sign(&root).expect("a certificate");
        let trust = TenantTrust::new(tenant.clone(), vec![root.verifying_key()]);
        let policy = SealPolicy { suites: SuitePolicy::AllowClassical, ..SealPolicy::default() };
        let sender = SenderIdentity::new(key, certificate, policy, &trust, NOW).expect("a sender");
        let identity = SigningKey::generate(&mut rng);
        let record = DeviceRecord {
            tenant: tenant.clone(),
            ticket: TicketId([1; 16]),
            device: DeviceId::random(&mut rng),
            identity_key: identity.verifying_key(),
            request_key: RequestKey::Ed25519(identity.verifying_key()),
            suites: vec![suite],
            relay: "https://relay.example".to_owned(),
            created: NOW,
        };
        let (private, public) = PrekeyPrivate::generate(suite, &mut rng);
        let leaf = PrekeyLeaf {
            device: record.device,
            suite,
            kind: PrekeyKind::Signed,
            key: public,
            seal_until: NOW.plus(86_400),
            open_until: NOW.plus(30 * 86_400),
        };
        let leaves = [leaf.to_bytes()];
        let batch = sign_batch(&tenant, record.device, &leaves, NOW, &identity).expect("a batch");
        let proven = ProvenPrekey {
            path: merkle::path(&leaves, 0).expect("there is a leaf"),
            leaf: Base64Url(leaves[0].clone()),
            index: 0,
            batch: Base64Url(batch),
        };
        let prekey = VerifiedPrekey::verify(&proven, &record, NOW).expect("a prekey");
        let text = Text {
            title: "Your potassium is too high".to_owned(),
            body: "Potassium 6.9 mmol/L. Please call the care team now.".to_owned(),
        };
        Self {
            sender,
            trust,
            prekey,
            private,
            envelope: Envelope { tenant, transport_id: TransportId::random(&mut rng), expires_at: NOW.plus(3600) },
            notification: Notification {
                id: NotificationId::random(&mut rng),
                revision: 1,
                created: NOW,
                priority: Priority::Critical,
                category: "lab-result".to_owned(),
                sensitivity: Sensitivity::Private,
                texts: BTreeMap::from([("en".to_owned(), text)]),
                parts: Vec::new(),
                replies: Vec::new(),
                attachments: Vec::new(),
                head: None,
            },
        }
    }

    fn seal(&self) -> SealedBox {
        let rng = &mut UnwrapErr(SysRng);
        seal(&self.notification, &self.envelope, &self.prekey, &self.sender, NOW, rng).expect("it can be sealed")
    }

    fn open(&self, sealed: &SealedBox) {
        let message = open(&sealed.bytes, &self.context(), &self.private, &self.trust, NOW);
        black_box(message.expect("it can be opened"));
    }

    fn context(&self) -> MessageContext {
        MessageContext {
            tenant: self.envelope.tenant.clone(),
            transport_id: self.envelope.transport_id,
            device: self.prekey.record().device,
            identity: self.prekey.record().identity_key.digest(),
            expires_at: self.envelope.expires_at,
        }
    }
}
