//! Groups of devices without servers: submissions are handed over here as the relay would.

use sealpost_wire::api::keyserver::DevicePrekeys;
use sealpost_wire::api::relay::Submission;
use sealpost_wire::author::AuthorName;
use sealpost_wire::device_set::DeviceSetDraft;
use sealpost_wire::id::RecipientId;
use sealpost_wire::member::MailboxStatement;
use sealpost_wire::message::Suite;

use super::*;
use crate::MessageId;
use crate::groups::commits::{Plan, PlannedMember};
use crate::groups::conversation::NewMessage;
use crate::groups::rows::Task;

/// An admitted device, and what others need to invite it.
struct Member {
    world: World,
    device: Device,
    prekeys: Vec<DevicePrekeys>,
    key_packages: Vec<Vec<u8>>,
    set: Vec<u8>,
}

impl Member {
    fn new(number: u8, mailbox: bool) -> Self {
        let world = World::new();
        // openmls judges the lifetime of a key package that is to be used by the system's clock.
        let modified = fs::metadata(world.folder.path()).unwrap().modified().unwrap();
        let today = modified.duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
        world.clock.0.store(today, Ordering::Relaxed);
        let mut device = world.device();
        let key = SigningKey::from_seed(&[4; 32]);
        let certificate_of = |purpose, key: &SigningKey| certificate(&world.root, purpose, key);
        let enrol = certificate_of(Purpose::Enrol, &key);
        let enrolment = device.enrolled.enrolment.clone();
        let record = Enrolment::read(&enrolment).unwrap().record_bytes().to_vec();
        device.enrolled.admission = Some(Admission::sign(&tenant(), &record, UnixTime(NOW), &key, &enrol));
        let set = DeviceSetDraft {
            tenant: tenant(),
            recipient: RecipientId([number; 16]),
            version: 1,
            previous: None,
            records: vec![record],
            revoked: Vec::new(),
            issued: UnixTime(NOW),
        };
        let set = set.sign(&key, &enrol).unwrap();
        if mailbox {
            let key = SigningKey::from_seed(&[2; 32]);
            let statement = MailboxStatement {
                tenant: tenant(),
                device: device.id(),
                identity: device.identity(),
                issued: UnixTime(NOW),
            };
            let statement = statement.sign(&key, &certificate_of(Purpose::Send, &key)).unwrap();
            device.set_mailbox_statement(&statement).unwrap();
        }
        let upload = newest_upload(&device);
        let signed = ProvenPrekey {
            leaf: upload.leaves[0].clone(),
            index: 0,
            path: merkle::path(&upload.leaves, 0).unwrap(),
            batch: upload.batch.clone(),
        };
        let prekeys =
            DevicePrekeys { device: device.id(), suite: Suite::Hybrid, signed: Some(signed), one_time: None };
        let key_packages = device
            .group_work(|work| {
                Ok(work.groups(|groups| groups.make_key_packages(3, GroupSuite::Classical, false))?)
            })
            .unwrap();
        Self { world, device, prekeys: vec![prekeys], key_packages, set }
    }

    /// Knows where the others can be reached, as the keyserver would tell.
    fn knows(&mut self, others: &[&Self]) {
        for other in others {
            let (id, prekeys) = (other.device.id(), other.prekeys.clone());
            self.device.store.change(|change| change.put_peer(id, &prekeys, UnixTime(NOW))).unwrap();
        }
    }

    fn invite(&mut self, group: GroupId, other: &mut Self) {
        let new = PlannedMember {
            device: other.device.id(),
            key_package: Base64Url(other.key_packages.pop().unwrap()),
            set: Base64Url(other.set.clone()),
        };
        self.plan(group, &Plan { add: vec![new], ..Plan::default() });
    }

    fn plan(&mut self, group: GroupId, plan: &Plan) {
        self.device.group_work(|work| Ok(work.plan(group, plan)?)).unwrap();
        self.device.stage_next_commit(group).unwrap();
    }

    /// Hands everything over that waits to be sent, and accepts it.
    fn deliver(&mut self, others: &mut [&mut Self]) -> Vec<TakenBox> {
        let mut taken = Vec::new();
        while let Some(row) = self.device.store.next_outgoing(UnixTime(NOW)).unwrap() {
            let submission: Submission = serde_json::from_slice(&row.submission).unwrap();
            assert_eq!(submission.slot.is_some(), row.claims);
            for one in submission.boxes {
                let Some(other) = others.iter_mut().find(|other| other.device.id() == one.device) else {
                    continue;
                };
                let waiting = WaitingBox {
                    cursor: 1,
                    id: row.transport_id,
                    sender: AuthorName::Device(self.device.id()),
                    expires_at: submission.expires_at,
                    sealed: one.sealed,
                };
                taken.push(take(&mut other.device, &waiting));
            }
            self.device.settle(&row, |work| work.accepted(&row)).unwrap();
        }
        taken
    }

    fn say(&mut self, group: GroupId, text: &str) {
        let message = NewMessage::Text { text: text.to_owned(), quick_replies: Vec::new() };
        let id = MessageId::random(&mut UnwrapErr(SysRng));
        self.device.write(group, id, &message).unwrap();
    }

    fn texts(&mut self, group: GroupId) -> Vec<String> {
        self.device.group_messages(group).unwrap().into_iter().map(|message| message.content.text).collect()
    }

    fn state(&mut self) -> GroupState {
        self.device.groups().unwrap().remove(0)
    }

    /// Does the next thing that is no submission. Returns whether there was one.
    fn step(&mut self) -> bool {
        let mut report = GroupReport::default();
        let worked = self.device.next_step(&mut report).unwrap();
        assert_eq!(report, GroupReport::default());
        worked
    }

    fn tasks(&self) -> Vec<Task> {
        self.device.store.group_tasks().unwrap().into_iter().map(|task| task.task).collect()
    }
}

/// Time passes for everybody.
fn pass(seconds: u64, members: &[&Member]) {
    for member in members {
        member.world.clock.0.fetch_add(seconds, Ordering::Relaxed);
    }
}

fn team() -> (Member, Member, Member, GroupId) {
    let (mut laboratory, mut nurse, mut doctor) =
        (Member::new(1, true), Member::new(2, false), Member::new(3, false));
    laboratory.knows(&[&nurse, &doctor]);
    nurse.knows(&[&laboratory, &doctor]);
    doctor.knows(&[&laboratory, &nurse]);
    let group = laboratory.device.create_group("Ward 3", &[nurse.device.id()]).unwrap();
    for number in [0, 1] {
        let other = if number == 0 { &mut nurse } else { &mut doctor };
        laboratory.invite(group, other);
        laboratory.deliver(&mut [&mut nurse, &mut doctor]);
    }
    assert_eq!(laboratory.state().epoch, 2);
    assert_eq!(nurse.state().authenticator, laboratory.state().authenticator);
    assert_eq!(doctor.state().authenticator, laboratory.state().authenticator);
    (laboratory, nurse, doctor, group)
}

#[test]
fn members_talk_and_who_is_removed_reads_no_more() {
    let (mut laboratory, mut nurse, mut doctor, group) = team();
    laboratory.say(group, "can you come?");
    laboratory.deliver(&mut [&mut nurse, &mut doctor]);
    nurse.say(group, "on my way");
    nurse.deliver(&mut [&mut laboratory, &mut doctor]);
    for member in [&mut laboratory, &mut nurse, &mut doctor] {
        assert_eq!(member.texts(group), ["can you come?", "on my way"]);
    }
    laboratory.plan(group, &Plan { remove: vec![doctor.device.id()], ..Plan::default() });
    laboratory.say(group, "of the old epoch");
    laboratory.deliver(&mut [&mut nurse, &mut doctor]);
    laboratory.say(group, "between us");
    laboratory.deliver(&mut [&mut nurse, &mut doctor]);
    assert_eq!(nurse.texts(group)[2..], ["of the old epoch", "between us"]);
    assert!(!doctor.texts(group).contains(&"between us".to_owned()));
    assert_eq!(doctor.state().standing, Standing::Out);
}

#[test]
fn what_comes_before_its_commit_is_kept_and_read_after_it() {
    let (mut laboratory, mut nurse, doctor, group) = team();
    nurse.plan(group, &Plan { remove: vec![doctor.device.id()], ..Plan::default() });
    // The relay has accepted the commit; its author does not know yet.
    let row = nurse.device.store.next_outgoing(UnixTime(NOW)).unwrap().unwrap();
    let submission: Submission = serde_json::from_slice(&row.submission).unwrap();
    let to = laboratory.device.id();
    for one in submission.boxes.into_iter().filter(|one| one.device == to) {
        let waiting = WaitingBox {
            cursor: 1,
            id: row.transport_id,
            sender: AuthorName::Device(nurse.device.id()),
            expires_at: submission.expires_at,
            sealed: one.sealed,
        };
        take(&mut laboratory.device, &waiting);
    }
    laboratory.say(group, "in the new epoch");
    assert_eq!(laboratory.deliver(&mut [&mut nurse]), [TakenBox::Group(group, GroupEvent::Kept)]);
    assert!(nurse.texts(group).is_empty());
    nurse.device.settle(&row, |work| work.accepted(&row)).unwrap();
    assert_eq!(nurse.texts(group), ["in the new epoch"]);
    assert_eq!(nurse.state().authenticator, laboratory.state().authenticator);
    drop(doctor);
}

#[test]
fn a_device_whose_state_was_put_back_comes_back_into_its_groups_before_it_writes() {
    let (mut laboratory, mut nurse, mut doctor, group) = team();
    nurse.device.enrolled.save(&mut nurse.device.store, &mut UnwrapErr(SysRng)).unwrap();
    let copy = rusqlite::Connection::open(nurse.world.state().join("device.sqlite")).unwrap();
    let aside = nurse.world.folder.path().join("aside.sqlite");
    copy.execute("VACUUM INTO ?1", [aside.to_str().unwrap()]).unwrap();
    drop(copy);
    nurse.say(group, "before");
    nurse.deliver(&mut [&mut laboratory, &mut doctor]);
    let Member { world, device, .. } = nurse;
    drop(device);
    fs::rename(&aside, world.state().join("device.sqlite")).unwrap();
    let _gone = fs::remove_file(world.state().join("device.sqlite-wal"));
    let mut device = world.open();
    assert_eq!(device.groups().unwrap()[0].standing, Standing::Lost);
    let text = NewMessage::Text { text: "again".to_owned(), quick_replies: Vec::new() };
    assert!(matches!(
        device.write(group, MessageId([1; 16]), &text),
        Err(DeviceError::Group(GroupError::Lost))
    ));
    assert_eq!(device.store.group_tasks().unwrap().len(), 1, "the way back is owed");
}

#[test]
fn a_commit_for_nobody_claims_its_place_all_the_same() {
    let mut laboratory = Member::new(1, true);
    let (own, prekeys) = (laboratory.device.id(), laboratory.prekeys.clone());
    laboratory.device.store.change(|change| change.put_peer(own, &prekeys, UnixTime(NOW))).unwrap();
    let group = laboratory.device.create_group("Ward 3", &[]).unwrap();
    laboratory.plan(group, &Plan { label: Some("Ward 4".to_owned()), ..Plan::default() });
    let row = laboratory.device.store.next_outgoing(UnixTime(NOW)).unwrap().unwrap();
    let submission: Submission = serde_json::from_slice(&row.submission).unwrap();
    assert!(submission.slot.is_some() && row.claims);
    assert_eq!(submission.boxes.iter().map(|one| one.device).collect::<Vec<_>>(), [own]);
    let waiting = WaitingBox {
        cursor: 1,
        id: row.transport_id,
        sender: AuthorName::Device(own),
        expires_at: submission.expires_at,
        sealed: submission.boxes[0].sealed.clone(),
    };
    let taken = take(&mut laboratory.device, &waiting);
    assert_eq!(taken, TakenBox::Group(group, GroupEvent::Nothing("own")));
    laboratory.device.settle(&row, |work| work.accepted(&row)).unwrap();
    assert_eq!((laboratory.state().label.as_str(), laboratory.state().epoch), ("Ward 4", 1));
}

#[test]
fn an_answer_for_a_commit_that_is_forgotten_changes_nothing() {
    let (mut laboratory, nurse, doctor, group) = team();
    laboratory.plan(group, &Plan { remove: vec![doctor.device.id()], ..Plan::default() });
    let row = laboratory.device.store.next_outgoing(UnixTime(NOW)).unwrap().unwrap();
    laboratory.device.group_work(|work| Ok(work.groups(|groups| groups.discard_staged(group))?)).unwrap();
    laboratory.device.settle(&row, |work| work.accepted(&row)).unwrap();
    assert_eq!(laboratory.state().epoch, 2);
    assert!(laboratory.device.store.next_outgoing(UnixTime(NOW)).unwrap().is_none());
    drop(nurse);
}

#[test]
fn who_is_taken_for_a_member_and_is_none_asks_to_be_invited_anew() {
    let (mut laboratory, mut nurse, mut doctor, group) = team();
    let mut guest = Member::new(4, false);
    laboratory.knows(&[&guest]);
    guest.knows(&[&laboratory]);
    // Its prekeys count as uploaded.
    let (upload, _) = guest.device.store.pending_uploads().unwrap().remove(0);
    guest.device.store.change(|change| change.delete_upload(upload)).unwrap();
    // The welcome never comes.
    laboratory.invite(group, &mut guest);
    laboratory.deliver(&mut [&mut nurse, &mut doctor]);
    laboratory.say(group, "are you there?");
    assert_eq!(laboratory.deliver(&mut [&mut guest]), [TakenBox::Group(group, GroupEvent::Kept)]);
    assert!(!guest.step(), "the welcome may still come");
    let mut wait = 121;
    for call in 1..=3 {
        pass(wait, &[&laboratory, &guest]);
        assert!(guest.step(), "call {call}");
        let by = guest.device.id();
        let asked = guest.deliver(&mut [&mut laboratory]);
        assert_eq!(asked, [TakenBox::Group(group, GroupEvent::InfoWanted { by })]);
        assert!(laboratory.tasks().contains(&Task::Answer));
        assert_eq!(laboratory.tasks().contains(&Task::Invite), call == 3, "call {call}");
        wait *= 2;
    }
}

#[test]
fn a_group_that_was_left_a_week_ago_is_in_nobodys_way() {
    let (mut laboratory, mut nurse, mut doctor, group) = team();
    laboratory.plan(group, &Plan { remove: vec![doctor.device.id()], ..Plan::default() });
    laboratory.deliver(&mut [&mut nurse, &mut doctor]);
    assert_eq!(doctor.state().standing, Standing::Out);
    pass(9 * 86_400, &[&doctor]);
    let report = doctor.device.work_on_groups().unwrap();
    assert_eq!(report, GroupReport::default());
    assert!(doctor.device.groups().unwrap().is_empty());
}

#[test]
fn a_lie_about_the_epoch_brings_a_device_back_once() {
    let (mut laboratory, mut nurse, doctor, group) = team();
    nurse.plan(group, &Plan { remove: vec![doctor.device.id()], ..Plan::default() });
    let row = nurse.device.store.next_outgoing(UnixTime(NOW)).unwrap().unwrap();
    nurse.device.settle(&row, |work| work.accepted(&row)).unwrap();
    nurse.say(group, "of an epoch whose commit nobody has");
    assert_eq!(nurse.deliver(&mut [&mut laboratory]), [TakenBox::Group(group, GroupEvent::Kept)]);
    assert_eq!(laboratory.tasks(), [Task::Rejoin]);
    let merged = |laboratory: &mut Member| {
        let merged = laboratory.device.group_work(|work| {
            let own = work.device();
            work.change.count_task(group, Task::Rejoin, own, work.now)?;
            Ok(work.merged(group, None)?)
        });
        merged.unwrap();
    };
    merged(&mut laboratory);
    assert!(laboratory.tasks().is_empty(), "it comes back again and again for one frame");
}
