//! What goes wrong in groups, and how they come out of it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use getrandom::SysRng;
use rand_core::UnwrapErr;
use sealpost_device::{
    Device, DeviceError, DeviceParts, FilePlatform, GroupEvent, HttpError, MessageState, NewMessage,
    Platform, PlatformError, Progress, Standing, WrappingKey,
};
use sealpost_tests::site::{CATEGORY, Site, device_parts};
use sealpost_tests::tap::Verdict;
use sealpost_tests::tenant::now;
use sealpost_wire::member::MailboxStatement;

use super::{Ahead, Member, is_submission, lose_next_box, team};
use crate::until;

#[test]
fn a_commit_whose_answer_is_lost_is_merged_after_a_start() {
    let site = Site::start().unwrap();
    let (mut laboratory, mut nurse, doctor, group) = team(&site);
    let before = laboratory.state(group).0;
    let mut swallowed = false;
    site.relay.tap().unwrap().observe(move |exchange| {
        let swallow = !swallowed && is_submission(exchange);
        swallowed |= swallow;
        if swallow { Verdict::Swallow } else { Verdict::Pass }
    });
    assert_eq!(laboratory.device.remove(group, &[doctor.id()]).unwrap(), Progress::Waiting);
    // The others are ahead of the author, and write in the new epoch.
    nurse.sync();
    nurse.say(group, "who is left?");
    laboratory = laboratory.again();
    let caught_up = until(|| {
        laboratory.sync();
        (laboratory.state(group) == nurse.state(group)).then_some(())
    });
    assert!(caught_up.is_some(), "the commit is not merged");
    assert_eq!(laboratory.state(group).0, before + 1, "committed twice");
    assert_eq!(laboratory.texts(group), ["who is left?"]);
    site.stop().unwrap();
}

#[test]
fn a_state_that_was_put_back_writes_nothing_before_it_has_come_back_into_its_groups() {
    let site = Site::start().unwrap();
    let (mut laboratory, mut nurse, _doctor, group) = team(&site);
    let Member { handset, device } = nurse;
    drop(device);
    let file = handset.folder.join("state").join("device.sqlite");
    let copy = std::fs::read(&file).unwrap();
    nurse = Member { device: handset.open().unwrap(), handset };
    nurse.say(group, "before");
    let Member { handset, device } = nurse;
    drop(device);
    std::fs::write(&file, copy).unwrap();
    nurse = Member { device: handset.open().unwrap(), handset };
    assert_eq!(nurse.standing(group), Standing::Lost);
    let message = NewMessage::Text { text: "again".to_owned(), quick_replies: Vec::new() };
    assert!(matches!(nurse.device.send_to_group(group, &message), Err(DeviceError::Group(_))));
    nurse.device.maintain_prekeys().unwrap();
    // It asks, a member answers, it comes back.
    nurse.sync();
    laboratory.sync();
    nurse.sync();
    assert_eq!(nurse.standing(group), Standing::In);
    laboratory.sync();
    assert_eq!(laboratory.state(group), nurse.state(group));
    nurse.say(group, "after");
    laboratory.sync();
    assert_eq!(laboratory.texts(group), ["before", "after"]);
    site.stop().unwrap();
}

#[test]
fn messages_that_wait_while_the_group_moves_on_reach_everybody_once() {
    let site = Site::start().unwrap();
    let (mut laboratory, nurse, mut doctor, group) = team(&site);
    let clock = Arc::<Ahead>::default();
    let mut nurse = nurse.by(&clock);
    let away = Arc::new(AtomicBool::new(true));
    let is_away = Arc::clone(&away);
    site.relay.tap().unwrap().observe(move |exchange| {
        let swallow = is_away.load(Ordering::Relaxed) && is_submission(exchange);
        if swallow { Verdict::Swallow } else { Verdict::Pass }
    });
    // The relay has the first without the nurse's knowledge; the second waits behind it.
    nurse.say(group, "first");
    nurse.say(group, "second");
    away.store(false, Ordering::Relaxed);
    assert!(matches!(doctor.sync()[..], [GroupEvent::Message { .. }]));
    // More epochs than anybody keeps the keys of, which is five.
    for number in 0..6 {
        assert_eq!(laboratory.device.rename_group(group, &format!("Ward {number}")).unwrap(), Progress::Done);
    }
    clock.pass(5);
    nurse.sync();
    laboratory.sync();
    assert_eq!(laboratory.texts(group), ["first", "second"]);
    assert!(doctor.sync().contains(&GroupEvent::Nothing("repeated")));
    assert_eq!(doctor.texts(group), ["first", "second"]);
    let states = nurse.device.group_messages(group).unwrap().into_iter().map(|message| message.state);
    assert_eq!(states.collect::<Vec<_>>(), [MessageState::Sent; 2]);
    site.stop().unwrap();
}

#[test]
fn a_phone_that_missed_a_commit_comes_back_by_itself() {
    let site = Site::start().unwrap();
    let (laboratory, nurse, doctor, group) = team(&site);
    let clock = Arc::<Ahead>::default();
    let (mut laboratory, mut nurse) = (laboratory.by(&clock), nurse.by(&clock));
    laboratory.device.remove(group, &[doctor.id()]).unwrap();
    lose_next_box(&site);
    assert!(nurse.sync().is_empty());
    laboratory.say(group, "missed");
    assert_eq!(nurse.sync(), [GroupEvent::Kept]);
    // The commit may still come: nobody is asked yet.
    assert!(laboratory.sync().is_empty());
    clock.pass(121);
    nurse.sync();
    assert_eq!(laboratory.sync(), [GroupEvent::InfoWanted { by: nurse.id() }]);
    nurse.sync();
    laboratory.sync();
    assert_eq!(laboratory.state(group), nurse.state(group));
    laboratory.say(group, "back");
    nurse.sync();
    assert_eq!(nurse.texts(group), ["back"]);

    // A person may ask for it too.
    let before = nurse.state(group).0;
    nurse.device.rejoin(group).unwrap();
    laboratory.sync();
    nurse.sync();
    laboratory.sync();
    assert_eq!(nurse.state(group).0, before + 1);
    assert_eq!(laboratory.state(group), nurse.state(group));
    site.stop().unwrap();
}

#[test]
fn a_phone_whose_welcome_is_lost_is_invited_anew() {
    let site = Site::start().unwrap();
    let clock = Arc::<Ahead>::default();
    let mut laboratory = Member::mailbox(&site, "laboratory").by(&clock);
    let mut nurse = Member::new(&site).by(&clock);
    let group = laboratory.device.create_group("Ward 3", &[]).unwrap();
    laboratory.invite(group, &nurse);
    lose_next_box(&site);
    assert!(nurse.sync().is_empty());
    laboratory.say(group, "can you come?");
    assert_eq!(nurse.sync(), [GroupEvent::Kept]);
    for wait in [121, 242, 484] {
        assert!(nurse.device.groups().unwrap().is_empty());
        clock.pass(wait);
        nurse.sync();
        assert_eq!(laboratory.sync(), [GroupEvent::InfoWanted { by: nurse.id() }]);
    }
    let joined = nurse.sync();
    assert!(joined.contains(&GroupEvent::Joined { by: laboratory.id() }), "{joined:?}");
    laboratory.say(group, "now?");
    nurse.sync();
    assert_eq!(nurse.texts(group), ["now?"]);
    nurse.say(group, "on my way");
    laboratory.sync();
    assert_eq!(laboratory.texts(group), ["can you come?", "now?", "on my way"]);
    assert_eq!(laboratory.members(group), BTreeSet::from([laboratory.id(), nurse.id()]));
    site.stop().unwrap();
}

#[test]
fn a_revoked_phone_is_removed_by_whoever_hears_of_it_first() {
    let site = Site::start().unwrap();
    let (mut laboratory, mut nurse, mut doctor, group) = team(&site);
    laboratory.say(group, "before");
    doctor.sync();
    site.enroller.revoke(&[], &[doctor.id()]).unwrap();
    // The nurse is no steward in this: everybody may remove who is revoked.
    laboratory.device.set_stewards(group, &[laboratory.id()]).unwrap();
    nurse.sync();
    laboratory.sync();
    let agreed = BTreeSet::from([laboratory.id(), nurse.id()]);
    assert_eq!((laboratory.members(group), nurse.members(group)), (agreed.clone(), agreed));
    assert_eq!(laboratory.state(group), nurse.state(group));
    laboratory.say(group, "after");
    nurse.sync();
    assert_eq!(nurse.texts(group), ["before", "after"]);
    let refused = doctor.device.sync(Duration::ZERO).unwrap_err();
    assert!(refused.to_string().contains("revoked"), "{refused}");
    assert_eq!(doctor.texts(group), ["before"]);
    site.stop().unwrap();
}

#[test]
fn devices_and_senders_of_another_hospital_have_no_place_in_a_group() {
    let (site, other) = (Site::start().unwrap(), Site::start().unwrap());
    let mut laboratory = Member::mailbox(&site, "laboratory");
    let stranger = Member::new(&other);
    let group = laboratory.device.create_group("Ward 3", &[]).unwrap();
    let refused = laboratory.device.invite(group, stranger.handset.recipient, CATEGORY).unwrap_err();
    assert_eq!(refused.code(), "not_found");
    let identity = other.tenant.sender("laboratory").unwrap();
    let statement = MailboxStatement {
        tenant: site.tenant.id.clone(),
        device: laboratory.id(),
        identity: laboratory.device.identity(),
        issued: now(),
    };
    let statement = statement.sign(&identity.send.key, &identity.send.certificate).unwrap();
    assert!(matches!(laboratory.device.set_mailbox_statement(&statement), Err(DeviceError::Trust(_))));
    // A group that no sender of the hospital stands for is believed by nobody.
    let (mut nurse, mut doctor) = (Member::new(&site), Member::new(&site));
    let group = nurse.device.create_group("Ward 3", &[]).unwrap();
    nurse.invite(group, &doctor);
    assert_eq!(doctor.sync(), [GroupEvent::Nothing("not_anchored")]);
    // And nobody is invited for what they have not agreed to.
    let refused = nurse.device.invite(group, doctor.handset.recipient, "meals").unwrap_err();
    assert!(
        matches!(&refused, DeviceError::Http(HttpError::Refused { code, .. }) if code == "consent_missing")
    );
    site.stop().unwrap();
    other.stop().unwrap();
}

#[test]
fn a_group_of_more_than_one_submission_holds_together_when_answers_are_lost() {
    let site = Site::start().unwrap();
    let mut laboratory = Member::mailbox(&site, "laboratory");
    let group = laboratory.device.create_group("Ward 3", &[]).unwrap();
    let recipients = [site.recipient().unwrap(), site.recipient().unwrap()];
    let phones = |recipient| (0..9).map(|_| Member::of(&site, recipient)).collect::<Vec<_>>();
    let mut members: Vec<_> = recipients.into_iter().flat_map(phones).collect();
    laboratory.device.invite(group, recipients[0], CATEGORY).unwrap();
    // Nine boxes with the commit and nine with the welcome: the claim goes with the first sixteen.
    let mut swallowed = BTreeSet::new();
    site.relay.tap().unwrap().observe(move |exchange| {
        match is_submission(exchange) && swallowed.insert(exchange.path.clone()) {
            true => Verdict::Swallow,
            false => Verdict::Pass,
        }
    });
    let invited = laboratory.device.invite(group, recipients[1], CATEGORY).unwrap();
    assert_eq!((invited.0.len(), invited.1), (9, Progress::Waiting));
    laboratory = laboratory.again();
    let settled = until(|| {
        laboratory.sync();
        let all = laboratory.members(group).len() == members.len() + 1;
        let agreed = laboratory.state(group);
        let is_there = |member: &mut Member| {
            member.sync();
            member.device.groups().unwrap().iter().any(|state| (state.epoch, state.authenticator) == agreed)
        };
        (all && members.iter_mut().all(is_there)).then_some(())
    });
    assert!(settled.is_some(), "somebody is left behind");
    site.relay.tap().unwrap().observe(|_| Verdict::Pass);
    members[17].say(group, "all eighteen of us");
    laboratory.sync();
    assert_eq!(laboratory.texts(group), ["all eighteen of us"]);
    for member in &mut members[..17] {
        member.sync();
        assert_eq!(member.texts(group), ["all eighteen of us"]);
    }
    site.stop().unwrap();
}

#[test]
fn when_key_packages_are_used_up_the_last_resort_lets_a_phone_in_and_is_replaced_at_once() {
    let site = Site::start().unwrap();
    let (mut laboratory, mut nurse, _doctor, group) = team(&site);
    // Somebody uses up what waits for the nurse.
    for _ in 0..40 {
        let nobody = laboratory.device.invite(group, nurse.handset.recipient, CATEGORY);
        assert!(matches!(nobody, Err(DeviceError::NobodyToInvite)));
    }
    let second = laboratory.device.create_group("Ward 4", &[]).unwrap();
    laboratory.invite(second, &nurse);
    let invited = laboratory.state(second).0;
    assert!(matches!(nurse.sync()[..], [GroupEvent::Joined { .. }]));
    // Others may have been invited by the same key: its place in the tree has a new one.
    assert!(matches!(laboratory.sync()[..], [GroupEvent::Changed { .. }]));
    assert_eq!(laboratory.state(second), nurse.state(second));
    assert_eq!(laboratory.state(second).0, invited + 1);
    let third = laboratory.device.create_group("Ward 5", &[]).unwrap();
    laboratory.invite(third, &nurse);
    assert!(matches!(nurse.sync()[..], [GroupEvent::Joined { .. }]));
    assert!(nurse.device.maintain_prekeys().unwrap().key_packages >= 30, "they are not refilled");
    site.stop().unwrap();
}

/// A platform whose process ends at one of its calls: what was committed before stays, what follows is not done.
struct Ends {
    platform: FilePlatform,
    calls_left: AtomicUsize,
}

impl Platform for Ends {
    fn wrapping_key(&self) -> Result<WrappingKey, PlatformError> {
        self.platform.wrapping_key()
    }

    fn generation(&self) -> Result<u64, PlatformError> {
        self.platform.generation()
    }

    fn set_generation(&self, generation: u64) -> Result<(), PlatformError> {
        let left =
            self.calls_left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
        match left {
            Ok(_) => self.platform.set_generation(generation),
            Err(_) => Err(PlatformError::KeyFile("the process ends here".to_owned())),
        }
    }
}

#[test]
fn a_process_that_ends_between_any_two_steps_of_a_commit_goes_on_after_a_start() {
    let site = Site::start().unwrap();
    let (mut laboratory, mut nurse, _doctor, group) = team(&site);
    let mut ended = 0;
    for calls in 0.. {
        let guest = Member::new(&site);
        let Member { handset, device } = laboratory;
        drop(device);
        let platform = Ends {
            platform: FilePlatform::new(&handset.folder.join("platform")).unwrap(),
            calls_left: AtomicUsize::new(calls),
        };
        let parts = DeviceParts {
            platform: Arc::new(platform),
            rng: Box::new(UnwrapErr(SysRng)),
            ..device_parts(&handset.folder).unwrap()
        };
        let mut device = Device::open(&handset.folder.join("state"), parts).unwrap();
        let invited = device.invite(group, guest.handset.recipient, CATEGORY);
        drop(device);
        laboratory = Member { device: handset.open().unwrap(), handset };
        laboratory.sync();
        let is_in = |laboratory: &mut Member| {
            let members = laboratory.device.group_members(group).unwrap();
            members.iter().any(|member| member.device == guest.id())
        };
        assert!(is_in(&mut laboratory), "after {calls} steps");
        nurse.sync();
        assert_eq!(laboratory.state(group), nurse.state(group), "after {calls} steps");
        match invited {
            Ok((_, progress)) => {
                assert_eq!(progress, Progress::Done);
                break;
            }
            Err(_) => ended += 1,
        }
    }
    assert!(ended >= 3, "the process ended {ended} times");
    site.stop().unwrap();
}
