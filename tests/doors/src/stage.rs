//! A server with a hospital on it, another one beside, and for each operation what a right caller would send.

use std::collections::BTreeMap;
use std::time::Duration;

use http::Method;
use rand_core::Rng as _;
use sealpost_service::clock::{ManualClock, SystemClock};
use sealpost_wire::api::StatusBody;
use sealpost_wire::api::keyserver::{
    ClaimBody, CloseBody, Consent, DeviceSetBody, KeyPackageLookUp, KeyPackageUpload, LookUp, PeerLookUp,
    PrekeyUpload, TicketBody,
};
use sealpost_wire::api::relay::{DeviceRegistration, Submission, SubmittedBox, SyncRequest};
use sealpost_wire::base64url::Base64Url;
use sealpost_wire::certificate::Role;
use sealpost_wire::clock::{Clock as _, UnixTime};
use sealpost_wire::device_set::DeviceSetDraft;
use sealpost_wire::id::{PrekeyId, RecipientId, SlotId, TicketId, TransportId};
use sealpost_wire::key::{SignRequest as _, SigningKey};
use sealpost_wire::key_package::{KeyPackageDraft, Lifetime, MlsSuite};
use sealpost_wire::limits::ACCESS_TOKEN_LIFETIME_SECONDS_MAX;
use sealpost_wire::member::MemberCredential;
use sealpost_wire::message::{SealedHeader, Suite};
use sealpost_wire::payload::Priority;
use sealpost_wire::prekey::{PrekeyKind, PrekeyLeaf, sign_batch};
use sealpost_wire::record::enrol;
use sealpost_wire::slot::{SlotCapability, SlotClaim};
use sealpost_wire::ticket::TicketSecret;
use serde::Serialize;
use serde_json::Value;

use crate::call::{Answer, Call};
use crate::document::{Document, Operation, Security};
use crate::hospital::{ClientKey, Hospital, Phone, rng, token_call};
use crate::server::Server;

/// The roles by their names in the documents.
pub const ROLES: [(Role, &str); 3] =
    [(Role::Sender, "sender"), (Role::Enroller, "enroller"), (Role::Revoker, "revoker")];
const CATEGORY: &str = "lab-results";

/// Access tokens by role.
pub type Tokens = BTreeMap<&'static str, String>;

/// See the module.
#[derive(Debug)]
pub struct Stage {
    /// The server.
    pub server: Server,
    /// Its document, as it serves it.
    pub document: Document,
    /// The time.
    pub clock: ManualClock,
    /// The hospital whose ids are used.
    pub mary: Hospital,
    /// Another one.
    pub john: Hospital,
    /// Tokens of the first.
    pub tokens: Tokens,
    /// Tokens of the other.
    pub foreign_tokens: Tokens,
    /// Tokens that were good until a moment ago.
    pub expired_tokens: Tokens,
    /// A token of another server for the same hospital.
    pub strange_token: String,
    /// A token of a client whose key was revoked since.
    pub revoked_token: String,
    /// The first hospital's device.
    pub phone: Phone,
    /// Another device of it.
    pub second_phone: Phone,
    /// A device of the other hospital.
    pub foreign_phone: Phone,
    /// A device of the first that was revoked.
    pub lost_phone: Phone,
    /// The client whose key was revoked.
    former: ClientKey,
    /// The secret of a ticket that is closed.
    pub closed_ticket: TicketSecret,
    /// The recipient.
    pub recipient: RecipientId,
    /// What stands for a parameter of a path, by its name, or by operation and name.
    ids: BTreeMap<String, String>,
    /// What a right caller would send, by the name of the schema.
    bodies: BTreeMap<&'static str, Value>,
}

impl Stage {
    /// A relay with a device, a message on its way to it, and a status.
    pub async fn relay() -> Self {
        let (clock, mary, john) = hospitals();
        // One device plays all of them.
        let rates = "[rates]\ndevice = { requests = 100000, seconds = 1 }\n";
        let server = Server::relay([&mary, &john], &clock, rates).await;
        let other = Server::keyserver([&mary, &john], &clock, "").await;
        let mut stage = Self::new(server, &other, clock, mary, john).await;
        other.end().await;

        let (lost, second) = (stage.lost_phone.clone(), stage.second_phone.clone());
        for phone in [lost, second, stage.foreign_phone.clone(), stage.phone.clone()] {
            let hospital = if phone.tenant == stage.mary.id { &stage.mary } else { &stage.john };
            let record = phone.record(&stage.server.base, TicketId([3; 16]), stage.now());
            let admission = Base64Url(hospital.admit(&record, stage.now(), &hospital.enrol));
            let body = DeviceRegistration { admission, push: None };
            let call = json_call(Method::PUT, &format!("/v1/devices/{}", phone.id), &body);
            let _ = stage.signed(&phone, call).await.expect(201);
            stage.keep("DeviceRegistration", &body);
        }
        let submission = Submission {
            expires_at: stage.now().plus(86_400),
            priority: Priority::Normal,
            boxes: vec![SubmittedBox { device: stage.phone.id, sealed: Base64Url(sealed()) }],
            slot: None,
        };
        let id = TransportId::random(&mut rng()).to_string();
        stage.keep("Submission", &submission);
        stage.keep("SyncRequest", &SyncRequest::default());
        stage.ids.insert("id".to_owned(), id.clone());
        stage.ids.insert("device".to_owned(), stage.phone.id.to_string());
        // Of two authors under one id.
        let call = || json_call(Method::PUT, &format!("/v1/messages/{id}"), &submission);
        let _ = stage.asked("sender", call()).await.expect(202);
        let _ = stage.signed(&stage.phone, call()).await.expect(202);
        let claiming = Submission { slot: Some(stage.slot_claim()), ..submission.clone() };
        let path = format!("/v1/messages/{}", TransportId::random(&mut rng()));
        let _ = stage.asked("sender", json_call(Method::PUT, &path, &claiming)).await.expect(202);
        stage.put_status().await;
        stage
    }

    /// The claim that has made a slot at the relay.
    #[must_use]
    pub fn slot_claim(&self) -> SlotClaim {
        let next = self.slot_capability().digest();
        SlotClaim { slot: SlotId([9; 16]), sequence: 1 << 40, capability: None, next }
    }

    /// What the claim behind it has to show.
    #[must_use]
    pub fn slot_capability(&self) -> SlotCapability {
        SlotCapability::from_bytes([9; 32])
    }

    /// A keyserver with a recipient, a device in their set, one that waits, consent, prekeys and a status.
    pub async fn keyserver() -> Self {
        let (clock, mary, john) = hospitals();
        // One phone sends most of the matrix, faster than any phone.
        let rates = "[rates]\ndevice = { requests = 10000, seconds = 1 }\n";
        let server = Server::keyserver([&mary, &john], &clock, rates).await;
        let other = Server::relay([&mary, &john], &clock, "").await;
        let mut stage = Self::new(server, &other, clock, mary, john).await;
        other.end().await;

        let recipient = stage.recipient;
        let waiting = stage.mary.phone();
        for phone in [&stage.second_phone, &stage.lost_phone] {
            stage.enrol(phone, &stage.mary, &stage.tokens).await;
        }
        let foreign = stage.enrol(&stage.foreign_phone, &stage.john, &stage.foreign_tokens).await.record;
        let foreign_recipient = RecipientId::random(&mut rng());
        let foreign = stage.device_set(foreign_recipient, &foreign, &stage.john, &stage.john.enrol);
        let call = json_call(Method::PUT, &format!("/v1/recipients/{foreign_recipient}/devices"), &foreign);
        let call = call.bearer(&stage.foreign_tokens["enroller"]);
        let _ = call.send(&stage.server.base).await.expect(200);
        let record = stage.enrol(&stage.phone, &stage.mary, &stage.tokens).await.record;
        let claimed = stage.enrol(&waiting, &stage.mary, &stage.tokens).await;
        stage.keep("TicketBody", &claimed.ticket);
        stage.keep("ClaimBody", &claimed.claim);
        stage.keep("CloseBody", &CloseBody {});
        stage.ids.insert("ticket".to_owned(), claimed.id.to_string());
        let closing = stage.enrol(&stage.mary.phone(), &stage.mary, &stage.tokens).await.id;
        stage.ids.insert("close.ticket".to_owned(), closing.to_string());
        stage.ids.insert("device".to_owned(), stage.phone.id.to_string());
        stage.ids.insert("recipient".to_owned(), recipient.to_string());
        stage.ids.insert("category".to_owned(), CATEGORY.to_owned());

        let over = stage.closed_ticket.clone();
        stage.put_ticket(&over, &stage.tokens).await;
        let close =
            json_call(Method::POST, &format!("/v1/tickets/{}/close", over.ticket_id()), &CloseBody {});
        let _ = stage.asked("enroller", close).await.expect(200);

        let set = stage.device_set(recipient, &record, &stage.mary, &stage.mary.enrol);
        let call = json_call(Method::PUT, &format!("/v1/recipients/{recipient}/devices"), &set);
        let _ = stage.asked("enroller", call).await.expect(200);
        stage.keep("DeviceSetBody", &set);
        let prekeys = prekeys(&stage.phone, stage.now());
        let call = json_call(Method::PUT, &format!("/v1/devices/{}/prekeys", stage.phone.id), &prekeys);
        let _ = stage.signed(&stage.phone, call).await.expect(200);
        stage.keep("PrekeyUpload", &prekeys);
        let packages = key_packages(&stage.phone, &stage.mary, &stage.mary.enrol, stage.now());
        let call = json_call(Method::PUT, &format!("/v1/devices/{}/key-packages", stage.phone.id), &packages);
        let _ = stage.signed(&stage.phone, call).await.expect(200);
        stage.keep("KeyPackageUpload", &packages);
        stage.keep("KeyPackageLookUp", &KeyPackageLookUp { suite: 3, category: CATEGORY.to_owned() });
        stage.keep("PeerLookUp", &PeerLookUp { devices: vec![stage.phone.id, stage.second_phone.id] });
        let consent = Consent {
            granted: true,
            given_at: stage.now(),
            recorded_by: "portal".to_owned(),
            method: "portal".to_owned(),
            document: None,
        };
        let path = format!("/v1/recipients/{recipient}/consent/{CATEGORY}");
        let _ = stage.asked("enroller", json_call(Method::PUT, &path, &consent)).await.expect(201);
        stage.keep("Consent", &consent);
        stage.keep("LookUp", &LookUp { category: CATEGORY.to_owned(), one_time: false });
        stage.put_status().await;
        stage
    }

    /// The time.
    #[must_use]
    pub fn now(&self) -> UnixTime {
        self.clock.now()
    }

    /// The ids that it knows, by the parameters that they are for.
    #[must_use]
    pub fn ids(&self) -> BTreeMap<String, String> {
        self.ids.clone()
    }

    /// The operation of this id.
    ///
    /// # Panics
    /// There is none.
    #[must_use]
    pub fn operation(&self, id: &str) -> Operation {
        let operations = self.document.operations();
        operations.into_iter().find(|one| one.id == id).unwrap_or_else(|| panic!("no operation {id}"))
    }

    /// The path of an operation with ids in the place of its parameters: known ones, or those of the
    /// document.
    ///
    /// # Panics
    /// A parameter has no value in either.
    #[must_use]
    pub fn path(&self, operation: &Operation) -> String {
        let mut path = operation.path.clone();
        for parameter in operation.parameters.iter().filter(|parameter| parameter["in"] == "path") {
            let name = parameter["name"].as_str().expect("a name");
            let known = self.ids.get(&format!("{}.{name}", operation.id)).or_else(|| self.ids.get(name));
            let value = known.cloned().or_else(|| parameter["example"].as_str().map(str::to_owned));
            let value = value.unwrap_or_else(|| panic!("{}: no example of {name}", operation.id));
            path = path.replace(&format!("{{{name}}}"), &value);
        }
        path
    }

    /// What a right caller sends in the body: a known one, or the example of the document.
    #[must_use]
    pub fn body(&self, operation: &Operation) -> Option<Value> {
        let (_, schema) = operation.body.as_ref()?;
        let known = self.bodies.get(schema.as_str()).cloned();
        Some(known.unwrap_or_else(|| self.document.schema(schema)["example"].clone()))
    }

    /// A right call, but for the credentials.
    #[must_use]
    pub fn bare(&self, operation: &Operation) -> Call {
        if operation.is_oauth {
            let client = self.mary.client("lab", &[Role::Sender], self.now());
            return token_call(&self.mary.assertion(&client, &self.server.base, self.now()));
        }
        let call = Call::new(operation.method.clone(), &self.path(operation));
        match self.body(operation) {
            Some(body) => call.body("application/json", body.to_string()),
            None => call,
        }
    }

    /// The call with the credentials that its operation wants.
    #[must_use]
    pub fn let_in(&self, operation: &Operation, call: Call) -> Call {
        match operation.security {
            Security::None => call,
            Security::Bearer => call.bearer(&self.tokens[role(operation)]),
            Security::Device => self.phone.sign(&self.server.base, call, self.now()),
        }
    }

    async fn new(server: Server, other: &Server, clock: ManualClock, mary: Hospital, john: Hospital) -> Self {
        let expired_tokens = tokens(&mary, &server.base, clock.now()).await;
        clock.advance(Duration::from_secs(ACCESS_TOKEN_LIFETIME_SECONDS_MAX));
        let now = clock.now();
        let all = ROLES.map(|(role, _)| role);
        let former = mary.client("former", &all, now);
        Self {
            document: server.document().await,
            tokens: tokens(&mary, &server.base, now).await,
            foreign_tokens: tokens(&john, &server.base, now).await,
            strange_token: mary.token(&other.base, "lab", &all, now).await,
            revoked_token: mary.token_of(&former, &server.base, now).await,
            expired_tokens,
            former,
            phone: mary.phone(),
            second_phone: mary.phone(),
            foreign_phone: john.phone(),
            closed_ticket: TicketSecret::generate(&mut rng()),
            recipient: RecipientId::random(&mut rng()),
            lost_phone: mary.phone(),
            server,
            clock,
            mary,
            john,
            ids: BTreeMap::new(),
            bodies: BTreeMap::new(),
        }
    }

    fn keep<T: Serialize>(&mut self, schema: &'static str, body: &T) {
        self.bodies.insert(schema, serde_json::to_value(body).expect("a body"));
    }

    async fn asked(&self, role: &str, call: Call) -> Answer {
        call.bearer(&self.tokens[role]).send(&self.server.base).await
    }

    async fn signed(&self, phone: &Phone, call: Call) -> Answer {
        phone.sign(&self.server.base, call, self.now()).send(&self.server.base).await
    }

    /// A client whose key was revoked.
    #[must_use]
    pub const fn former(&self) -> &ClientKey {
        &self.former
    }

    /// A claim that was let in.
    ///
    /// # Panics
    /// The stage is not a keyserver's.
    #[must_use]
    pub fn known_claim(&self) -> ClaimBody {
        serde_json::from_value(self.bodies["ClaimBody"].clone()).expect("a claim")
    }

    /// Another status of the first hospital, issued at another time.
    #[must_use]
    pub fn status_at(&self, issued: UnixTime) -> StatusBody {
        let revoked = (self.former.key.request_key().key_id(), self.lost_phone.id);
        StatusBody { status: Base64Url(self.mary.status(issued, revoked, &self.mary.revoke)) }
    }

    /// A status of a hospital, signed by a key with its certificate.
    #[must_use]
    pub fn status(&self, hospital: &Hospital, signer: &(SigningKey, Vec<u8>)) -> StatusBody {
        let revoked = (self.former.key.request_key().key_id(), self.lost_phone.id);
        StatusBody { status: Base64Url(hospital.status(self.now(), revoked, signer)) }
    }

    async fn put_status(&mut self) {
        let body = self.status(&self.mary, &self.mary.revoke);
        let _ = self.asked("revoker", json_call(Method::PUT, "/v1/status", &body)).await.expect(200);
        self.keep("StatusBody", &body);
    }

    /// Makes a ticket and claims it for a device, which waits from then on.
    async fn enrol(&self, phone: &Phone, hospital: &Hospital, tokens: &Tokens) -> Waiting {
        assert_eq!(phone.tenant, hospital.id);
        let secret = TicketSecret::generate(&mut rng());
        let (id, ticket) = (secret.ticket_id(), self.put_ticket(&secret, tokens).await);
        let record = phone.record("https://relay.example", id, self.now());
        let claim = self.claim(phone, &secret);
        let call = json_call(Method::POST, &format!("/v1/tickets/{id}/claims"), &claim);
        let _ = call.send(&self.server.base).await.expect(202);
        Waiting { id, ticket, claim, record }
    }

    async fn put_ticket(&self, secret: &TicketSecret, tokens: &Tokens) -> TicketBody {
        let claim_digest = secret.claim_token().digest();
        let ticket = TicketBody { claim_digest, expires_at: self.now().plus(600) };
        let call = json_call(Method::PUT, &format!("/v1/tickets/{}", secret.ticket_id()), &ticket);
        let _ = call.bearer(&tokens["enroller"]).send(&self.server.base).await.expect(201);
        ticket
    }

    /// The claim of a ticket by a device.
    #[must_use]
    pub fn claim(&self, phone: &Phone, secret: &TicketSecret) -> ClaimBody {
        let record = phone.record("https://relay.example", secret.ticket_id(), self.now());
        ClaimBody {
            claim_token: Base64Url(secret.claim_token().expose().to_vec()),
            enrolment: Base64Url(enrol(&record, &secret.binding_key())),
        }
    }

    /// Key packages that were let in.
    ///
    /// # Panics
    /// The stage is not a keyserver's.
    #[must_use]
    pub fn known_key_packages(&self) -> KeyPackageUpload {
        serde_json::from_value(self.bodies["KeyPackageUpload"].clone()).expect("key packages")
    }

    /// A first device set of a recipient, signed by a key with its certificate.
    ///
    /// # Panics
    /// It cannot be signed.
    #[must_use]
    pub fn device_set(
        &self,
        recipient: RecipientId,
        record: &[u8],
        hospital: &Hospital,
        signer: &(SigningKey, Vec<u8>),
    ) -> DeviceSetBody {
        let draft = DeviceSetDraft {
            tenant: hospital.id.clone(),
            recipient,
            version: 1,
            previous: None,
            records: vec![record.to_vec()],
            revoked: Vec::new(),
            issued: self.now(),
        };
        DeviceSetBody {
            set: Base64Url(draft.sign(&signer.0, &signer.1).expect("a set")),
            admissions: vec![Base64Url(hospital.admit(record, self.now(), signer))],
        }
    }
}

/// A device that has claimed a ticket.
struct Waiting {
    id: TicketId,
    ticket: TicketBody,
    claim: ClaimBody,
    record: Vec<u8>,
}

/// A role that an operation lets in.
#[must_use]
pub fn role(operation: &Operation) -> &str {
    operation.roles.first().map_or("sender", String::as_str)
}

fn hospitals() -> (ManualClock, Hospital, Hospital) {
    let clock = ManualClock::at(SystemClock.now());
    let hospital = |name| Hospital::new(name, clock.now());
    let (mary, john) = (hospital("st-mary"), hospital("st-john"));
    (clock, mary, john)
}

async fn tokens(hospital: &Hospital, base: &str, now: UnixTime) -> Tokens {
    let mut tokens = Tokens::new();
    for (role, name) in ROLES {
        tokens.insert(name, hospital.token(base, name, &[role], now).await);
    }
    tokens
}

/// A call with a JSON body.
///
/// # Panics
/// The body cannot be written.
pub fn json_call<T: Serialize>(method: Method, path: &str, body: &T) -> Call {
    Call::new(method, path).body("application/json", serde_json::to_vec(body).expect("a body"))
}

/// What looks like a sealed message from outside.
#[must_use]
pub fn sealed() -> Vec<u8> {
    SealedHeader::new(Suite::Classical, PrekeyId([5; 16])).finish(&[9; 32], &[0xcc; 1024])
}

/// A batch of one signed prekey of a device.
///
/// # Panics
/// It cannot be signed.
#[must_use]
pub fn prekeys(phone: &Phone, now: UnixTime) -> PrekeyUpload {
    let mut key = vec![0; Suite::Classical.public_key_bytes()];
    rng().fill_bytes(&mut key);
    let seal_until = now.plus(60 * 86_400);
    let leaf = PrekeyLeaf {
        device: phone.id,
        suite: Suite::Classical,
        kind: PrekeyKind::Signed,
        key,
        seal_until,
        open_until: seal_until.plus(30 * 86_400),
    };
    let leaf = leaf.to_bytes();
    let batch = sign_batch(&phone.tenant, phone.id, std::slice::from_ref(&leaf), now, &phone.identity);
    let batch = Base64Url(batch.expect("a batch"));
    PrekeyUpload { batch, leaves: vec![Base64Url(leaf)], replace: false }
}

/// A key package and a last resort of a device, under an admission by a key with its certificate.
///
/// # Panics
/// It cannot be signed.
#[must_use]
pub fn key_packages(
    phone: &Phone,
    hospital: &Hospital,
    signer: &(SigningKey, Vec<u8>),
    now: UnixTime,
) -> KeyPackageUpload {
    let record = phone.record("https://relay.example", TicketId([3; 16]), now);
    let admission = hospital.admit(&record, now, signer);
    let credential = MemberCredential { admission, statement: None }.to_bytes();
    let key = || {
        let mut key = vec![0; MlsSuite::Classical.public_key_bytes()];
        rng().fill_bytes(&mut key);
        key
    };
    let package = |is_last_resort| {
        let draft = KeyPackageDraft {
            suite: MlsSuite::Classical,
            init_key: key(),
            encryption_key: key(),
            credential: credential.clone(),
            lifetime: Lifetime { not_before: now.minus(3600), not_after: now.plus(60 * 86_400) },
            is_last_resort,
        };
        Base64Url(draft.sign(&phone.identity))
    };
    KeyPackageUpload {
        suite: MlsSuite::Classical.code(),
        packages: vec![package(false)],
        last_resort: Some(package(true)),
        replace: false,
    }
}
