//! The device's state, without servers: boxes are sealed here and handed to it as the relay would.

mod groups;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use getrandom::SysRng;
use rand_core::UnwrapErr;
use sealpost_seal::{DeviceAuthor, Envelope, SealPolicy, SealedBox, SenderIdentity, seal, seal_mls};
use sealpost_wire::admission::Admission;
use sealpost_wire::api::keyserver::PrekeyUpload;
use sealpost_wire::api::relay::WaitingBox;
use sealpost_wire::base64url::Base64Url;
use sealpost_wire::certificate::{Certificate, Purpose};
use sealpost_wire::clock::UnixTime;
use sealpost_wire::id::{CertificateId, Digest, GroupId, NotificationId, SubjectId, TransportId};
use sealpost_wire::key::{RequestKey, SigningKey};
use sealpost_wire::merkle;
use sealpost_wire::payload::{MlsFrame, MlsKind, Notification, Priority, Sensitivity, Text};
use sealpost_wire::prekey::{PrekeyKind, PrekeyLeaf, ProvenPrekey, VerifiedPrekey};
use sealpost_wire::receipt::{Receipt, ReceiptStatement, SignedReceipt};
use sealpost_wire::record::Enrolment;
use sealpost_wire::ticket::{EnrolmentLink, TicketSecret};
use sealpost_wire::trust::TenantTrust;
use tempfile::TempDir;

use super::*;

const NOW: u64 = 1_800_000_000;
const SECRET: &str = "potassium 6.9 mmol/L";
/// Nobody listens at port 1.
const NOBODY: &str = "http://127.0.0.1:1";

struct Moved(AtomicU64);

impl Clock for Moved {
    fn now_millis(&self) -> u64 {
        self.0.load(Ordering::Relaxed) * 1000
    }
}

/// A phone and a hospital.
struct World {
    folder: TempDir,
    clock: Arc<Moved>,
    root: SigningKey,
    sender: SenderIdentity,
}

impl World {
    fn new() -> Self {
        let root = SigningKey::from_seed(&[1; 32]);
        let key = SigningKey::from_seed(&[2; 32]);
        let certificate = certificate(&root, Purpose::Send, &key);
        let trust = TenantTrust::new(tenant(), vec![root.verifying_key()]);
        let sender =
            SenderIdentity::new(key, certificate, SealPolicy::default(), &trust, UnixTime(NOW)).unwrap();
        Self {
            folder: tempfile::tempdir().unwrap(),
            clock: Arc::new(Moved(AtomicU64::new(NOW))),
            root,
            sender,
        }
    }

    fn state(&self) -> PathBuf {
        self.folder.path().join("state")
    }

    fn keys(&self) -> PathBuf {
        self.folder.path().join("keys")
    }

    fn parts(&self) -> DeviceParts {
        DeviceParts {
            platform: Arc::new(FilePlatform::new(&self.keys()).unwrap()),
            clock: Arc::clone(&self.clock) as Arc<dyn Clock>,
            rng: Box::new(UnwrapErr(SysRng)),
            roots: ServerRoots::public(),
        }
    }

    fn link(&self) -> EnrolmentLink {
        EnrolmentLink {
            tenant: tenant(),
            keyserver: NOBODY.to_owned(),
            relay: NOBODY.to_owned(),
            root: self.root.verifying_key(),
            secret: TicketSecret::generate(&mut UnwrapErr(SysRng)),
        }
    }

    /// Enrols as far as it goes without a keyserver: keys are made before it is asked.
    fn enrol(&self, link: &EnrolmentLink) -> DeviceError {
        let refused = Device::enrol(&self.state(), link, &EnrolOptions::default(), self.parts());
        refused.err().expect("nobody answers")
    }

    fn open(&self) -> Device {
        Device::open(&self.state(), self.parts()).unwrap()
    }

    /// An enrolled device with prekeys.
    fn device(&self) -> Device {
        self.enrol(&self.link());
        let mut device = self.open();
        assert!(device.make_prekeys(&[], false, 1).unwrap());
        device
    }

    /// What a sender seals to: the device's newest prekeys, of which the first is signed and the others one-time.
    fn prekeys(device: &Device) -> Vec<VerifiedPrekey> {
        let upload = newest_upload(device);
        let record = Enrolment::read(&device.enrolled.enrolment).unwrap().record().clone();
        let proven = upload.leaves.iter().enumerate().map(|(index, leaf)| ProvenPrekey {
            leaf: leaf.clone(),
            index: index as u64,
            path: merkle::path(&upload.leaves, index).unwrap(),
            batch: upload.batch.clone(),
        });
        proven.map(|proven| VerifiedPrekey::verify(&proven, &record, UnixTime(NOW)).unwrap()).collect()
    }

    fn seal(&self, told: &Notification, id: u8, prekey: &VerifiedPrekey) -> WaitingBox {
        let envelope = envelope(id);
        let sealed =
            seal(told, &envelope, prekey, &self.sender, UnixTime(NOW), &mut UnwrapErr(SysRng)).unwrap();
        waiting(&envelope, sealed)
    }

    /// A message to a group, by `author` and to the device of `prekey`.
    fn seal_mls(&self, author: &Device, id: u8, prekey: &VerifiedPrekey) -> WaitingBox {
        let key = SigningKey::from_seed(&[4; 32]);
        let enrolment = Enrolment::read(&author.enrolled.enrolment).unwrap();
        let certificate = certificate(&self.root, Purpose::Enrol, &key);
        let admission =
            Admission::sign(&tenant(), enrolment.record_bytes(), UnixTime(NOW), &key, &certificate);
        let trust = TenantTrust::new(tenant(), vec![self.root.verifying_key()]);
        let identity = author.enrolled.identity.clone();
        let author = DeviceAuthor::new(identity, admission, SealPolicy::default(), &trust).unwrap();
        let frame = MlsFrame {
            created: UnixTime(NOW),
            kind: MlsKind::Message,
            group: GroupId([5; 32]),
            body: b"an MLSMessage".to_vec(),
            sets: Vec::new(),
        };
        let envelope = envelope(id);
        let sealed =
            seal_mls(&frame, &envelope, prekey, &author, UnixTime(NOW), &mut UnwrapErr(SysRng)).unwrap();
        waiting(&envelope, sealed)
    }
}

fn certificate(root: &SigningKey, purpose: Purpose, key: &SigningKey) -> Vec<u8> {
    let certificate = Certificate {
        tenant: tenant(),
        purpose,
        subject: laboratory(),
        id: CertificateId([3; 16]),
        key: RequestKey::Ed25519(key.verifying_key()),
        not_before: UnixTime(NOW - 1000),
        not_after: UnixTime(NOW + 100 * 86_400),
        roles: Vec::new(),
    };
    certificate.sign(root).unwrap()
}

fn envelope(id: u8) -> Envelope {
    Envelope { tenant: tenant(), transport_id: TransportId([id; 16]), expires_at: UnixTime(NOW + 3600) }
}

fn waiting(envelope: &Envelope, sealed: SealedBox) -> WaitingBox {
    WaitingBox {
        cursor: u64::from(envelope.transport_id.0[0]),
        id: envelope.transport_id,
        sender: laboratory().into(),
        expires_at: envelope.expires_at,
        sealed: Base64Url(sealed.bytes),
    }
}

fn tenant() -> TenantId {
    "st-mary".parse().unwrap()
}

fn laboratory() -> SubjectId {
    "laboratory".parse().unwrap()
}

fn told(id: u8, revision: u64) -> Notification {
    Notification {
        id: NotificationId([id; 16]),
        revision,
        created: UnixTime(NOW),
        priority: Priority::Critical,
        category: "lab-result".to_owned(),
        sensitivity: Sensitivity::Private,
        texts: BTreeMap::from([("en".to_owned(), Text { title: "T".to_owned(), body: SECRET.to_owned() })]),
        parts: Vec::new(),
        replies: Vec::new(),
        attachments: Vec::new(),
        head: None,
    }
}

fn newest_upload(device: &Device) -> PrekeyUpload {
    let (_, upload) = device.store.pending_uploads().unwrap().pop().expect("prekeys wait to be uploaded");
    serde_json::from_slice(&upload).unwrap()
}

fn take(device: &mut Device, waiting: &WaitingBox) -> TakenBox {
    let mut report = SyncReport::default();
    device.take_boxes(std::slice::from_ref(waiting), &[], &mut report).unwrap();
    report.boxes.remove(0)
}

fn unopenable(waiting: &WaitingBox, code: &str) -> TakenBox {
    TakenBox::Unopenable(waiting.id, code.to_owned())
}

fn has_prekey(device: &mut Device, prekey: &VerifiedPrekey) -> bool {
    device.store.change(|change| Ok(change.prekey(prekey.leaf().id())?.is_some())).unwrap()
}

/// The receipts that wait to be sent, each verified.
fn receipts(device: &Device) -> Vec<Receipt> {
    let identity = device.enrolled.identity.verifying_key();
    let stored = device.store.receipts(100).unwrap();
    let verified = stored.iter().map(|(_, bytes)| {
        SignedReceipt::read(bytes).unwrap().verify(&tenant(), device.id(), &identity).unwrap()
    });
    verified.collect()
}

#[test]
fn a_box_is_opened_once_and_its_one_time_prekey_is_gone() {
    let world = World::new();
    let mut device = world.device();
    let prekeys = World::prekeys(&device);
    assert_eq!(prekeys[1].leaf().kind, PrekeyKind::OneTime);
    let waiting = world.seal(&told(1, 1), 1, &prekeys[1]);
    assert_eq!(take(&mut device, &waiting), TakenBox::Opened(NotificationId([1; 16])));
    assert!(!has_prekey(&mut device, &prekeys[1]));
    let sent = receipts(&device);
    assert_eq!(sent.len(), 1);
    assert_eq!(sent[0].statement, ReceiptStatement::Opened(PrekeyKind::OneTime));
    assert_eq!((sent[0].transport_id, sent[0].sealed), (waiting.id, Digest::of(waiting.sealed.as_ref())));
    // The relay had not heard of it: the same receipt goes out again, and nothing else happens.
    assert_eq!(take(&mut device, &waiting), TakenBox::Duplicate(waiting.id));
    assert_eq!(receipts(&device), sent);
    assert_eq!(device.messages().unwrap().len(), 1);
}

#[test]
fn a_signed_prekey_opens_more_than_one_box() {
    let world = World::new();
    let mut device = world.device();
    let signed = World::prekeys(&device).remove(0);
    assert_eq!(signed.leaf().kind, PrekeyKind::Signed);
    for id in [1, 2] {
        let waiting = world.seal(&told(id, 1), id, &signed);
        assert_eq!(take(&mut device, &waiting), TakenBox::Opened(NotificationId([id; 16])));
    }
    assert!(has_prekey(&mut device, &signed));
    assert_eq!(receipts(&device)[1].statement, ReceiptStatement::Opened(PrekeyKind::Signed));
}

#[test]
fn a_box_that_fails_a_check_burns_no_prekey() {
    let world = World::new();
    let mut device = world.device();
    let prekey = World::prekeys(&device).remove(1);
    let good = world.seal(&told(1, 1), 1, &prekey);
    let mut changed = good.clone();
    *changed.sealed.0.last_mut().unwrap() ^= 1;
    let TakenBox::Unopenable(id, code) = take(&mut device, &changed) else { panic!("it was opened") };
    assert_eq!((id, code.as_str()), (changed.id, "undecryptable"));
    assert!(has_prekey(&mut device, &prekey));
    assert_eq!(take(&mut device, &good), TakenBox::Opened(NotificationId([1; 16])));
}

#[test]
fn an_mls_frame_waits_for_a_device_that_is_admitted() {
    let world = World::new();
    let mut device = world.device();
    let prekey = World::prekeys(&device).remove(1);
    let frame = world.seal_mls(&device, 1, &prekey);
    assert_eq!(take(&mut device, &frame), TakenBox::Deferred(frame.id));
    assert!(has_prekey(&mut device, &prekey));
    assert!(device.messages().unwrap().is_empty());
}

#[test]
fn a_second_box_under_a_used_id_is_a_replay() {
    let world = World::new();
    let mut device = world.device();
    let prekeys = World::prekeys(&device);
    take(&mut device, &world.seal(&told(1, 1), 1, &prekeys[1]));
    let replay = world.seal(&told(2, 1), 1, &prekeys[2]);
    assert_eq!(take(&mut device, &replay), unopenable(&replay, "replayed"));
    assert_eq!(device.messages().unwrap().len(), 1);
}

#[test]
fn a_box_to_a_prekey_of_another_time_is_answered() {
    let world = World::new();
    let mut device = world.device();
    let prekey = World::prekeys(&device).remove(1);
    take(&mut device, &world.seal(&told(1, 1), 1, &prekey));
    let late = world.seal(&told(2, 1), 2, &prekey);
    assert_eq!(take(&mut device, &late), unopenable(&late, "unknown_prekey"));
    let said = receipts(&device).pop().unwrap();
    assert_eq!(said.statement, ReceiptStatement::Unopenable("unknown_prekey".to_owned()));
}

#[test]
fn each_revision_is_presented_once() {
    let world = World::new();
    let mut device = world.device();
    let prekeys = World::prekeys(&device);
    take(&mut device, &world.seal(&told(1, 1), 1, &prekeys[1]));
    take(&mut device, &world.seal(&told(2, 5), 2, &prekeys[2]));
    let shown: Vec<_> = device.present().unwrap().into_iter().map(|message| message.notification).collect();
    assert_eq!(shown, [told(1, 1), told(2, 5)]);
    assert!(device.present().unwrap().is_empty());
    drop(device);
    let mut device = world.open();
    assert!(device.present().unwrap().is_empty(), "shown again after a start");
    let older = world.seal(&told(2, 4), 3, &prekeys[3]);
    assert_eq!(take(&mut device, &older), TakenBox::Superseded(NotificationId([2; 16])));
    assert!(device.present().unwrap().is_empty(), "an older revision is shown");
    take(&mut device, &world.seal(&told(2, 6), 4, &prekeys[4]));
    let shown = device.present().unwrap();
    assert_eq!((shown.len(), shown[0].notification.revision), (1, 6));
    let kept: Vec<_> =
        device.messages().unwrap().into_iter().map(|message| message.notification.revision).collect();
    assert_eq!(kept, [1, 6]);
}

#[test]
fn an_answer_is_signed_about_the_box_that_was_opened() {
    let world = World::new();
    let mut device = world.device();
    let waiting = world.seal(&told(1, 1), 1, &World::prekeys(&device)[1]);
    take(&mut device, &waiting);
    device.answer(NotificationId([1; 16]), Answer::Decline).unwrap();
    let said = receipts(&device).pop().unwrap();
    assert_eq!(said.statement, ReceiptStatement::Declined(PrekeyKind::OneTime));
    assert_eq!((said.transport_id, said.sealed), (waiting.id, Digest::of(waiting.sealed.as_ref())));
    let unknown = device.answer(NotificationId([7; 16]), Answer::Confirm).unwrap_err();
    assert!(matches!(unknown, DeviceError::UnknownMessage));
}

#[test]
fn a_state_that_was_put_back_burns_its_prekeys() {
    let world = World::new();
    let device = world.device();
    let prekeys = World::prekeys(&device);
    drop(device);
    let backup = fs::read(world.state().join("device.sqlite")).unwrap();
    let mut device = world.open();
    assert!(has_prekey(&mut device, &prekeys[1]), "an honest start burns prekeys");
    take(&mut device, &world.seal(&told(1, 1), 1, &prekeys[1]));
    drop(device);
    fs::write(world.state().join("device.sqlite"), backup).unwrap();

    let mut device = world.open();
    for prekey in &prekeys {
        assert!(!has_prekey(&mut device, prekey));
    }
    // The keyserver is told with the next upload, and once only.
    assert!(device.make_prekeys(&[], false, 1).unwrap());
    assert!(newest_upload(&device).replace);
    let fresh = World::prekeys(&device).remove(1);
    drop(device);
    let mut device = world.open();
    assert!(has_prekey(&mut device, &fresh), "burnt twice");
    assert!(device.make_prekeys(&[], false, 1).unwrap());
    assert!(!newest_upload(&device).replace);
}

#[test]
fn private_keys_go_when_nothing_sealed_to_them_can_come() {
    let world = World::new();
    let mut device = world.device();
    let prekey = World::prekeys(&device).remove(1);
    let last = |at: UnixTime, device: &mut Device| {
        world.clock.0.store(at.0, Ordering::Relaxed);
        device.take_boxes(&[], &[], &mut SyncReport::default()).unwrap();
        has_prekey(device, &prekey)
    };
    let open_until = prekey.leaf().open_until;
    assert!(last(open_until, &mut device));
    assert!(!last(open_until.plus(1), &mut device));
}

#[test]
fn what_has_expired_stays_expired_when_the_clock_goes_back() {
    let world = World::new();
    let mut device = world.device();
    let waiting = world.seal(&told(1, 1), 1, &World::prekeys(&device)[1]);
    world.clock.0.store(NOW + 86_400, Ordering::Relaxed);
    device.take_boxes(&[], &[], &mut SyncReport::default()).unwrap();
    drop(device);
    world.clock.0.store(NOW, Ordering::Relaxed);
    let mut device = world.open();
    assert_eq!(take(&mut device, &waiting), unopenable(&waiting, "expired"));
}

#[test]
fn one_process_at_a_time_changes_the_state() {
    let world = World::new();
    let device = world.device();
    let other = OpenOptions::new().write(true).open(world.state().join("lock")).unwrap();
    let held = device.lock.hold().unwrap();
    assert!(matches!(other.try_lock(), Err(fs::TryLockError::WouldBlock)));
    drop(held);
    other.try_lock().unwrap();
}

#[test]
fn a_state_of_a_newer_version_is_refused() {
    let world = World::new();
    drop(world.device());
    let connection = rusqlite::Connection::open(world.state().join("device.sqlite")).unwrap();
    connection.pragma_update(None, "user_version", 3).unwrap();
    drop(connection);
    let refused = Device::open(&world.state(), world.parts()).err().unwrap();
    assert!(matches!(refused, DeviceError::NewerState(3)), "{refused}");
}

#[test]
fn a_state_from_before_groups_gets_their_tables() {
    let world = World::new();
    let device = world.device();
    let prekey = World::prekeys(&device).remove(1);
    drop(device);
    let connection = rusqlite::Connection::open(world.state().join("device.sqlite")).unwrap();
    let groups = ["state", "message", "outgoing", "plan", "task", "held", "author", "peer", "invited"];
    for table in
        groups.map(|table| format!("group_{table}")).into_iter().chain(["key_package_batch".to_owned()])
    {
        connection.execute_batch(&format!("DROP TABLE {table}")).unwrap();
    }
    connection.pragma_update(None, "user_version", 1).unwrap();
    drop(connection);
    let mut device = world.open();
    assert!(has_prekey(&mut device, &prekey), "what was there is lost");
    assert!(device.store.group_tasks().unwrap().is_empty());
    drop(device);
    drop(world.open());
}

#[test]
fn a_folder_without_a_device_says_so() {
    let world = World::new();
    let refused = Device::open(&world.state(), world.parts()).err().unwrap();
    assert!(matches!(refused, DeviceError::NotEnrolled), "{refused}");
}

#[test]
fn an_enrolment_goes_on_where_it_stopped_and_starts_over_with_a_new_link() {
    let world = World::new();
    let (first, second) = (world.link(), world.link());
    let refused = world.enrol(&first);
    assert!(refused.is_temporary(), "{refused}");
    assert!(refused.to_string().contains(NOBODY), "{refused}");
    let device = world.open();
    let (id, code) = (device.id(), device.code().unwrap());
    assert_eq!(code.len(), 8);
    assert!(!device.is_admitted());
    drop(device);
    world.enrol(&first);
    let mut device = world.open();
    assert_eq!((device.id(), device.code().unwrap()), (id, code));
    assert!(device.make_prekeys(&[], false, 1).unwrap());
    drop(device);
    world.enrol(&second);
    let device = world.open();
    assert_ne!(device.id(), id);
    assert!(device.store.pending_uploads().unwrap().is_empty(), "prekeys of the device that never was");
}

#[test]
fn nothing_is_registered_before_the_tenant_has_countersigned() {
    let world = World::new();
    let mut device = world.device();
    assert!(matches!(device.register(None), Err(DeviceError::NotAdmitted)));
    assert!(device.await_admission(Duration::ZERO).unwrap_err().is_temporary());
}

#[test]
fn a_key_that_others_can_read_is_refused() {
    let world = World::new();
    drop(world.device());
    let key = world.keys().join("wrapping.key");
    assert_eq!(fs::metadata(&key).unwrap().permissions().mode() & 0o777, 0o600);
    fs::set_permissions(&key, fs::Permissions::from_mode(0o640)).unwrap();
    let refused = Device::open(&world.state(), world.parts()).err().unwrap();
    assert!(matches!(refused, DeviceError::Platform(PlatformError::KeyFile(_))), "{refused}");
}

#[test]
fn nothing_readable_lies_in_the_state() {
    let world = World::new();
    let mut device = world.device();
    let waiting = world.seal(&told(1, 1), 1, &World::prekeys(&device)[1]);
    take(&mut device, &waiting);
    let seed = *device.enrolled.identity.seed();
    for file in fs::read_dir(world.state()).unwrap() {
        let bytes = fs::read(file.unwrap().path()).unwrap();
        assert!(!bytes.windows(SECRET.len()).any(|window| window == SECRET.as_bytes()));
        assert!(!bytes.windows(seed.len()).any(|window| window == seed));
    }
}

/// The leaves of an upload are what the store keeps.
#[test]
fn prekeys_are_durable_before_they_are_uploaded() {
    let world = World::new();
    let mut device = world.device();
    let upload = newest_upload(&device);
    assert!(!upload.replace);
    let prekeys = World::prekeys(&device);
    assert_eq!(prekeys.len(), upload.leaves.len());
    for leaf in &upload.leaves {
        let leaf = PrekeyLeaf::read(leaf.as_ref()).unwrap();
        let stored = device.store.change(|change| change.prekey(leaf.id())).unwrap().expect("it is stored");
        assert_eq!((stored.kind, stored.key.public_key()), (leaf.kind, leaf.key));
    }
}

#[test]
fn a_server_that_is_too_busy_says_when_to_come_again() {
    use std::io::{BufRead as _, Write as _};

    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let keyserver = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        let mut stream = listener.accept().unwrap().0;
        let mut read = std::io::BufReader::new(stream.try_clone().unwrap());
        let (mut line, mut length) = (String::new(), 0);
        while read.read_line(&mut line).unwrap() > 2 {
            let field = line.to_ascii_lowercase();
            length =
                field.strip_prefix("content-length: ").map_or(length, |text| text.trim().parse().unwrap());
            line.clear();
        }
        std::io::Read::read_exact(&mut read, &mut vec![0; length]).unwrap();
        let answer = "HTTP/1.1 429 Too Many Requests\r\nretry-after: 7\r\ncontent-length: 0\r\n\r\n";
        stream.write_all(answer.as_bytes()).unwrap();
    });
    let world = World::new();
    let refused = world.enrol(&EnrolmentLink { keyserver, ..world.link() });
    assert!(refused.is_temporary(), "{refused}");
    assert_eq!(refused.retry_after(), Some(Duration::from_secs(7)));
}
