//! `cargo demo --mls`: a care team talks in a group, over both servers and the emulators.
//!
//! ```text
//! the laboratory's mailbox makes a group, and invites the phones of a patient, a nurse and a doctor on call
//! the laboratory asks, the doctor answers by a quick reply, the nurse confirms
//! the doctor's phone is lost: the hospital revokes it, and the next commit removes it
//! the patient writes, and the doctor's phone opens nothing of it
//! ```

mod report;
mod script;

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use sealpost_device::{
    Device, DeviceError, EnrolOptions, GroupReply, GroupState, MessageId, NewMessage, Progress,
};
use sealpost_wire::clock::Clock as _;
use sealpost_wire::id::{DeviceId, GroupId, RecipientId};
use sealpost_wire::ticket::EnrolmentLink;

use crate::canary::without_canaries;
use crate::clock::{SystemClock, system_rng};
use crate::emulators::Push;
use crate::error::DemoError;
use crate::hospital::{Hospital, SENDER};
use crate::phone::{PhoneEvent, PhoneOrder, device_parts};
use crate::pocket::{Pocket, TEAM};
use crate::process::Processes;
use crate::programs::Programs;
use crate::running::Running;
use crate::screen::{Timeline, counted, say};
use crate::site::Site;

pub(crate) use report::CareReport;
pub(crate) use script::Script;

/// What the members agree to talk for.
const CATEGORY: &str = "care-team";
/// How long all of it may take.
const DEADLINE: Duration = Duration::from_secs(120);
/// How long one sync of the mailbox lets the relay wait.
const SYNC_WAIT: Duration = Duration::from_secs(2);
/// How long the keyserver waits for the mailbox to be let in.
const ADMISSION_WAIT: Duration = Duration::from_secs(20);

/// The phones, by their places among [`TEAM`].
const PHONES: [usize; 3] = [PATIENT, NURSE, DOCTOR];
const PATIENT: usize = 0;
const NURSE: usize = 1;
const DOCTOR: usize = 2;

/// The team at work.
pub(crate) struct CareTeam<'d> {
    running: Running<'d>,
    hospital: Hospital,
    pocket: Pocket,
    /// The laboratory's own device.
    mailbox: Device,
    recipients: [RecipientId; PHONES.len()],
    devices: Vec<DeviceId>,
    until: Instant,
    timeline: Timeline,
    written: Vec<Written>,
}

/// A message that was written to the group.
struct Written {
    id: MessageId,
    /// The phones that were in the group, but its author's.
    readers: Vec<usize>,
    /// Whether the mailbox is to read it too.
    for_mailbox: bool,
}

/// What was seen of the team.
pub(crate) struct Shown {
    /// The group.
    pub(crate) group: GroupId,
    /// Members that agreed on the group before the loss.
    members: usize,
    /// Members that agreed on it at the end.
    members_left: usize,
    /// Commits that made the group what it is.
    commits: u64,
    /// Messages that were written.
    messages: usize,
    /// Readings that there should be: one for each message and member that was in, but its author.
    readings_due: usize,
    /// Readings that there were.
    readings: usize,
    /// The doctor's phone was gone from the group after the first commit behind its loss.
    removed_by_next_commit: bool,
    /// What the relay answered when the lost phone asked for messages.
    lost_phone_turned_away: Option<String>,
    /// Messages that the lost phone opened of those that were written after its removal.
    lost_phone_opened_later: usize,
    /// Commits that the lost phone has seen.
    lost_phone_commits: u64,
    /// What the relay counted.
    relay: RelayCounts,
    /// Pushes that Apple and Google were sent, and how many different ones but for their tokens.
    pushes: usize,
    stubs: usize,
    /// All that each member that stayed has read and written, in one text each.
    texts: Vec<String>,
}

/// What the relay counted.
struct RelayCounts {
    /// Messages that it accepted.
    submissions: u64,
    /// Slots that were made: one for each group.
    slots: u64,
    /// Claims on slots that won, those that made them included.
    claims: u64,
    /// Boxes that it handed out.
    boxes: u64,
}

impl<'d> CareTeam<'d> {
    /// Starts everything, plays it, and ends everything in good order.
    pub(crate) fn show(
        site: &'d Site,
        processes: &Processes,
        programs: &'d Programs,
        script: &Script,
    ) -> Result<Shown, DemoError> {
        let mut team = Self::start(site, processes, programs)?;
        say("");
        let played = team.play(script);
        // What happened until then says why it did not go on.
        team.print(script);
        let shown = played?;
        team.end()?;
        Ok(shown)
    }

    fn start(site: &'d Site, processes: &Processes, programs: &'d Programs) -> Result<Self, DemoError> {
        let (running, hospital) = Running::start(site, processes, programs)?;
        let mut rng = system_rng();
        let recipients = PHONES.map(|_| RecipientId::random(rng.as_mut()));
        for recipient in recipients {
            hospital.record_consent(recipient, CATEGORY)?;
        }
        let mut pocket = Pocket::new(&TEAM);
        let devices = pocket.enrol(&hospital, &recipients, processes, site, running.control_url())?;
        let devices: Result<Vec<DeviceId>, _> = devices.iter().map(|device| device.parse()).collect();
        let devices = devices.map_err(|error| DemoError::failed("a phone's id", error))?;
        let mailbox = make_mailbox(&hospital, site)?;
        say(&format!(
            "Enrolled   the {SENDER}'s mailbox, device {}, by the {SENDER}'s own word",
            mailbox.id()
        ));
        let until = Instant::now() + DEADLINE;
        let (timeline, written) = (Timeline::default(), Vec::new());
        Ok(Self { running, hospital, pocket, mailbox, recipients, devices, until, timeline, written })
    }

    fn play(&mut self, script: &Script) -> Result<Shown, DemoError> {
        let group = self.invite(script)?;
        let together = self.await_agreement(group, &PHONES)?;

        let question = self.ask(group, script)?;
        let code = script.answer_code().to_owned();
        self.write(
            group,
            DOCTOR,
            &PhoneOrder::Answer { about: question.to_string(), code },
            &[PATIENT, NURSE],
        )?;
        let confirm = PhoneOrder::Confirm { about: question.to_string() };
        self.write(group, NURSE, &confirm, &[PATIENT, DOCTOR])?;

        let removed_by_next_commit = self.lose_doctor(group, &together)?;
        let alone = self.await_agreement(group, &[PATIENT, NURSE])?;
        let later = PhoneOrder::Write { text: script.later().to_owned() };
        self.write(group, PATIENT, &later, &[NURSE])?;
        self.pocket.tell(DOCTOR, &PhoneOrder::Look)?;
        let turned_away =
            self.pocket.await_event(DOCTOR, self.until, "get the relay's answer", |event| match event {
                PhoneEvent::TurnedAway { code, .. } => Some(code.clone()),
                _ => None,
            })?;

        let pushes = self.running.pushes()?;
        Ok(Shown {
            group,
            members: self.members_of(&together)?,
            members_left: self.members_of(&alone)?,
            commits: alone.epoch,
            messages: self.written.len(),
            readings_due: self
                .written
                .iter()
                .map(|one| one.readers.len() + usize::from(one.for_mailbox))
                .sum(),
            readings: self.readings(group)?,
            removed_by_next_commit,
            lost_phone_turned_away: Some(turned_away),
            lost_phone_opened_later: self.opened_later(script),
            lost_phone_commits: self.views(DOCTOR).map(|(epoch, ..)| epoch).max().unwrap_or(u64::MAX),
            relay: RelayCounts::read(&self.running.relay_metrics()?),
            stubs: different(&pushes),
            pushes: pushes.len(),
            texts: self.texts(group)?,
        })
    }

    /// The mailbox makes the group and invites the phones, one after the other.
    fn invite(&mut self, script: &Script) -> Result<GroupId, DemoError> {
        let names = PHONES.map(|phone| self.pocket.name(phone)).join(", ");
        let invites = format!("makes a group and invites {names}, each by a commit and a welcome");
        self.timeline.add(SystemClock.now_millis(), SENDER, invites);
        let group = self.mailbox.create_group(script.label(), &[self.devices[NURSE]]).map_err(of_mailbox)?;
        for phone in PHONES {
            let invited = self.mailbox.invite(group, self.recipients[phone], CATEGORY).map_err(of_mailbox)?;
            if invited != (vec![self.devices[phone]], Progress::Done) {
                return Err(DemoError::Failed(format!("the {} was not invited", self.pocket.name(phone))));
            }
        }
        Ok(group)
    }

    /// The mailbox asks its question. Returns its id once every phone shows it.
    fn ask(&mut self, group: GroupId, script: &Script) -> Result<MessageId, DemoError> {
        let replies =
            script.answers().map(|(code, label)| GroupReply { code: code.into(), label: label.into() });
        let question =
            NewMessage::Text { text: script.question().to_owned(), quick_replies: replies.to_vec() };
        let asked = without_canaries(script.question(), script.canaries());
        self.timeline.add(SystemClock.now_millis(), SENDER, format!("asks:\n  {asked}"));
        let id = self.mailbox.send_to_group(group, &question).map_err(of_mailbox)?;
        self.written.push(Written { id, readers: PHONES.to_vec(), for_mailbox: false });
        self.await_read(id, &PHONES)?;
        Ok(id)
    }

    /// Somebody writes on a phone; returns once the other phones and the mailbox show it.
    fn write(
        &mut self,
        group: GroupId,
        phone: usize,
        order: &PhoneOrder,
        readers: &[usize],
    ) -> Result<(), DemoError> {
        self.pocket.tell(phone, order)?;
        // Each of them writes once.
        let id = self.pocket.await_event(phone, self.until, "write", |event| match event {
            PhoneEvent::Wrote { message, .. } => Some(message.clone()),
            _ => None,
        })?;
        let id = crate::phone::message_id(&id).map_err(|error| DemoError::failed("a message's id", error))?;
        self.written.push(Written { id, readers: readers.to_vec(), for_mailbox: true });
        self.await_read(id, readers)?;
        while !self.mailbox_has(group, id)? {
            if Instant::now() >= self.until {
                return Err(DemoError::Failed(format!("the {SENDER} did not get a message")));
            }
            self.mailbox.sync(SYNC_WAIT).map_err(of_mailbox)?;
        }
        let (name, at_ms) = (self.pocket.name(phone), SystemClock.now_millis());
        self.timeline.add(at_ms, SENDER, format!("reads what the {name} wrote"));
        Ok(())
    }

    /// The hospital revokes the doctor's phone, and the mailbox hears of it. Returns whether the very next commit of the
    /// group removed it, which nobody has asked for.
    fn lose_doctor(&mut self, group: GroupId, together: &GroupState) -> Result<bool, DemoError> {
        let lost = self.devices[DOCTOR];
        self.hospital.revoke(lost)?;
        let revoked = "the doctor's phone is lost: revokes it at both servers";
        self.timeline.add(SystemClock.now_millis(), "hospital", revoked);
        let epoch = loop {
            self.mailbox.sync(Duration::ZERO).map_err(of_mailbox)?;
            let members = self.mailbox.group_members(group).map_err(of_mailbox)?;
            if members.iter().all(|member| member.device != lost) {
                break self.state(group)?.epoch;
            }
            if Instant::now() >= self.until {
                return Err(DemoError::Failed("the doctor's phone was not removed".to_owned()));
            }
        };
        let removed = "hears of it with its next sync; the group's next commit removes the phone by itself";
        self.timeline.add(SystemClock.now_millis(), SENDER, removed);
        Ok(epoch == together.epoch + 1)
    }

    /// Waits until these phones and the mailbox have come to the same state of the group.
    fn await_agreement(&mut self, group: GroupId, phones: &[usize]) -> Result<GroupState, DemoError> {
        let state = self.state(group)?;
        let agreed = state.authenticator.to_string();
        for phone in phones {
            let what = "come to the same state of the group";
            self.pocket.await_event(*phone, self.until, what, |event| match event {
                PhoneEvent::Group { view, .. } if view.is_in && view.authenticator == agreed => Some(()),
                _ => None,
            })?;
        }
        Ok(state)
    }

    fn await_read(&mut self, id: MessageId, phones: &[usize]) -> Result<(), DemoError> {
        let id = id.to_string();
        for phone in phones {
            self.pocket.await_event(*phone, self.until, "show a message", |event| match event {
                PhoneEvent::Read { message, .. } if *message == id => Some(()),
                _ => None,
            })?;
        }
        Ok(())
    }

    fn state(&mut self, group: GroupId) -> Result<GroupState, DemoError> {
        let states = self.mailbox.groups().map_err(of_mailbox)?;
        let state = states.into_iter().find(|state| state.group == group);
        state.ok_or_else(|| DemoError::Failed(format!("the {SENDER} has lost its group")))
    }

    /// Members that were in the same state of the group: the mailbox, and the phones that told of it.
    fn members_of(&self, state: &GroupState) -> Result<usize, DemoError> {
        let agreed = state.authenticator.to_string();
        let agree = |phone: &&usize| self.views(**phone).any(|(_, authenticator, _)| authenticator == agreed);
        let phones = PHONES.iter().filter(agree).count();
        // All of them say that so many are in.
        let listed = self.views(PATIENT).find(|(_, authenticator, _)| *authenticator == agreed);
        match listed {
            Some((.., members)) if members == phones + 1 => Ok(members),
            _ => Err(DemoError::Failed("the members do not agree on who is in".to_owned())),
        }
    }

    /// What a phone told of its group: epoch, authenticator, how many are in.
    fn views(&self, of: usize) -> impl Iterator<Item = (u64, &str, usize)> {
        self.pocket.events().iter().filter_map(move |(phone, event)| match event {
            PhoneEvent::Group { view, .. } if *phone == of => {
                Some((view.epoch, view.authenticator.as_str(), view.members.len()))
            }
            _ => None,
        })
    }

    fn mailbox_has(&mut self, group: GroupId, id: MessageId) -> Result<bool, DemoError> {
        let messages = self.mailbox.group_messages(group).map_err(of_mailbox)?;
        Ok(messages.iter().any(|message| message.content.id == id))
    }

    /// How many of the members that were in have read each message, all messages together.
    fn readings(&mut self, group: GroupId) -> Result<usize, DemoError> {
        let mut readings = 0;
        for one in 0..self.written.len() {
            let (id, for_mailbox) = (self.written[one].id, self.written[one].for_mailbox);
            readings += usize::from(for_mailbox && self.mailbox_has(group, id)?);
            let id = id.to_string();
            let has_read = |reader: &&usize| {
                let mut events = self.pocket.events().iter();
                events.any(|(phone, event)| {
                    phone == *reader && matches!(event, PhoneEvent::Read { message, .. } if *message == id)
                })
            };
            readings += self.written[one].readers.iter().filter(has_read).count();
        }
        Ok(readings)
    }

    /// What the doctor's phone opened of the patient's words.
    fn opened_later(&self, script: &Script) -> usize {
        let later = self.written.last().map(|last| last.id.to_string());
        let opened = self.pocket.events().iter().filter(|(phone, event)| match event {
            PhoneEvent::Read { message, text, .. } => {
                *phone == DOCTOR && (later.as_ref() == Some(message) || text.contains(script.later_canary()))
            }
            _ => false,
        });
        opened.count()
    }

    /// All that each member that stayed has read or written.
    fn texts(&mut self, group: GroupId) -> Result<Vec<String>, DemoError> {
        let mut texts = vec![self.state(group)?.label];
        for message in self.mailbox.group_messages(group).map_err(of_mailbox)? {
            let content = message.content;
            let offers = content.quick_replies.iter().flat_map(|reply| [&reply.code, &reply.label]);
            let words = std::iter::once(&content.text).chain(offers).map(|text| format!("\n{text}"));
            texts[0].extend(words);
        }
        for of in [PATIENT, NURSE] {
            let mut all = String::new();
            for (_, event) in self.pocket.events().iter().filter(|(phone, _)| *phone == of) {
                match event {
                    PhoneEvent::Read { text, offers, .. } => {
                        let offers = offers.iter().flat_map(|(code, label)| [code, label]);
                        all.extend(std::iter::once(text).chain(offers).map(|text| format!("\n{text}")));
                    }
                    PhoneEvent::Wrote { text, .. } => all.push_str(text),
                    PhoneEvent::Group { view, .. } => all.push_str(&view.label),
                    _ => {}
                }
            }
            texts.push(all);
        }
        Ok(texts)
    }

    /// Prints what happened, in its order.
    fn print(&mut self, script: &Script) {
        let mut timeline = std::mem::take(&mut self.timeline);
        for (phone, event) in self.pocket.events() {
            self.add_event(&mut timeline, *phone, event, script);
        }
        timeline.lines().iter().for_each(|line| say(line));
    }

    fn add_event(&self, timeline: &mut Timeline, phone: usize, event: &PhoneEvent, script: &Script) {
        let name = self.pocket.name(phone);
        let shown = |text: &str| without_canaries(text, script.canaries());
        match event {
            PhoneEvent::Group { at_ms, view } => {
                let members = counted(view.members.len(), "member", "members");
                let what = if view.is_in { "is in the group" } else { "is out of the group" };
                timeline.add(*at_ms, name, format!("{what}, which has {members}"));
            }
            PhoneEvent::Read { at_ms, author, about, text, offers, .. } => {
                let author = self.name_of(author);
                let offers: String =
                    offers.iter().map(|(_, label)| format!("\n  [{}]", shown(label))).collect();
                let text = shown(text);
                let what = match about {
                    None => format!("shows, from the {author}:\n  {text}{offers}"),
                    Some(_) if text.is_empty() => format!("shows that the {author} has confirmed the question"),
                    Some(_) => format!("shows the {author}'s answer:\n  {text}"),
                };
                timeline.add(*at_ms, name, what);
            }
            PhoneEvent::TurnedAway { at_ms, code } => {
                timeline.add(*at_ms, name, format!("asks the relay for messages, and is turned away: {code}"));
            }
            PhoneEvent::Failed { error } => {
                timeline.add(SystemClock.now_millis(), name, format!("FAILED: {error}"));
            }
            PhoneEvent::Claimed { .. }
            | PhoneEvent::Enrolled { .. }
            | PhoneEvent::Woken { .. }
            | PhoneEvent::Synced { .. }
            | PhoneEvent::Wrote { .. }
            // Nobody sends an alert here.
            | PhoneEvent::Opened { .. } => {}
        }
    }

    fn name_of(&self, author: &str) -> &'static str {
        let phone = self.devices.iter().position(|device| device.to_string() == author);
        phone.map_or(SENDER, |phone| self.pocket.name(phone))
    }

    fn end(mut self) -> Result<(), DemoError> {
        self.running.write_down()?;
        self.pocket.put_away()?;
        self.running.end()
    }
}

impl RelayCounts {
    /// Out of the relay's metrics, in Prometheus' text format.
    fn read(metrics: &str) -> Self {
        let count = |series: &str| -> u64 {
            let mut lines = metrics.lines().filter_map(|line| line.strip_prefix(series)?.trim().parse().ok());
            lines.next().unwrap_or_default()
        };
        let claims =
            |outcome: &str| count(&format!("sealpost_relay_slot_claims_total{{outcome=\"{outcome}\"}}"));
        Self {
            submissions: count("sealpost_relay_submissions_total{outcome=\"new\"}"),
            slots: claims("made"),
            claims: claims("made") + claims("won"),
            boxes: count("sealpost_relay_boxes_handed_out_total"),
        }
    }
}

/// A device of the laboratory's own, without pushes.
fn make_mailbox(hospital: &Hospital, site: &Site) -> Result<Device, DemoError> {
    let (ticket, link) = hospital.new_ticket(RecipientId::random(system_rng().as_mut()))?;
    let link: EnrolmentLink = link.parse().map_err(|error| DemoError::failed("a ticket's link", error))?;
    let folder = site.devices().join("mailbox");
    let parts = device_parts(&folder).map_err(of_mailbox)?;
    let enrolled = Device::enrol(&folder.join("state"), &link, &EnrolOptions::default(), parts);
    let mut device = enrolled.map_err(of_mailbox)?;
    let claim = hospital.await_claim(&ticket)?;
    if device.code().as_ref() != Some(&claim.code) {
        return Err(DemoError::Failed("mailbox and portal show different codes".to_owned()));
    }
    hospital.countersign(&ticket, &claim.code)?;
    if !device.await_admission(ADMISSION_WAIT).map_err(of_mailbox)? {
        return Err(DemoError::Failed(format!("the {SENDER}'s mailbox was not let in")));
    }
    device.register(None).map_err(of_mailbox)?;
    let statement = hospital.mailbox_statement(&device)?;
    device.set_mailbox_statement(&statement).map_err(of_mailbox)?;
    device.maintain_prekeys().map_err(of_mailbox)?;
    Ok(device)
}

fn of_mailbox(error: DeviceError) -> DemoError {
    DemoError::failed(format!("the {SENDER}'s mailbox"), error)
}

/// How many different pushes there are, but for the tokens in them.
fn different(pushes: &[Push]) -> usize {
    let body = |push: &Push| String::from_utf8_lossy(&push.body).replace(&push.token, "");
    pushes.iter().map(body).collect::<BTreeSet<_>>().len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_relay_counts_is_read() {
        let metrics = "# HELP sealpost_relay_submissions_total Submissions.\n\
                       sealpost_relay_submissions_total{outcome=\"duplicate\"} 9\n\
                       sealpost_relay_submissions_total{outcome=\"new\"} 12\n\
                       sealpost_relay_slot_claims_total{outcome=\"conflict\"} 7\n\
                       sealpost_relay_slot_claims_total{outcome=\"made\"} 1\n\
                       sealpost_relay_slot_claims_total{outcome=\"won\"} 3\n\
                       sealpost_relay_boxes_handed_out_total 20\n";
        let counts = RelayCounts::read(metrics);
        assert_eq!((counts.submissions, counts.slots, counts.claims, counts.boxes), (12, 1, 4, 20));
    }
}
