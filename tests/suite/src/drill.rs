//! The drill: a site under load, whose programs are killed at seeded random moments and started again at
//! once.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use sealpost_device::{Device, EnrolOptions, MessageState, Progress};
use sealpost_sender::identity::SenderIdentityFile;
use sealpost_sender::{Sender, SenderOptions, Stage};
use sealpost_wire::api::keyserver::{ConsentList, LookUp};
use sealpost_wire::id::{DeviceId, RecipientId};
use sealpost_wire::member::MailboxStatement;
use serde::Serialize;

use crate::Outcome;
use crate::client::Client;
use crate::plan::{Files, Strike, Victim, strikes};
use crate::process::built;
use crate::program::{Program, Syncs};
use crate::promises::{Broken, End, broken, is_proven};
use crate::record::{Record, Seen};
use crate::site::{CATEGORY, Handset, Site, consent};
use crate::tap::Verdict;
use crate::tenant::now;

/// How many devices each recipient has.
const DEVICES: [usize; 4] = [2, 2, 1, 1];
/// The recipient whose device is the mailbox of the sender, and makes the group,
const MAILBOX: usize = 3;
/// and those whose devices it invites.
const INVITED: [usize; 2] = [0, 2];
/// Source events come this often.
const ALERT_EVERY: Duration = Duration::from_millis(10);
/// And wait when so many are not in the outbox yet,
const UNQUEUED_MAX: usize = 16;
/// or so many are there and not at the relay.
const UNSENT_MAX: usize = 60;
/// Prekeys of one recipient are taken this often, besides those that the sender takes.
const TAKE_EVERY: Duration = Duration::from_millis(40);
/// Consents that are recorded meanwhile, one for so many prekeys.
const CONSENTS_MAX: usize = 200;
const PREKEYS_PER_CONSENT: usize = 3;
/// How often the outbox is looked at until all is done.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// A drill is given up when nothing has changed for so long: a busy machine is slow, but it moves.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// What a drill does.
#[derive(Clone, Debug)]
pub struct DrillOptions {
    /// Chooses the order and the moments.
    pub seed: u64,
    /// Who is killed.
    pub victims: Vec<Victim>,
    /// How often each.
    pub count: usize,
    /// Whether each kill is a power cut.
    pub cuts: bool,
}

/// What a drill found.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Programs that were killed.
    pub kills: usize,
    /// Source events that the sender took.
    pub alerts: usize,
    /// Messages that the relay answered with 202.
    pub accepted: usize,
    /// Boxes that a device opened.
    pub opened: usize,
    /// Notifications that devices showed.
    pub shown: usize,
    /// Of them, those that were shown before.
    pub duplicates: usize,
    /// One-time prekeys that were given out.
    pub prekeys: usize,
    /// Messages that devices wrote to their group, each read by all other members.
    pub said: usize,
    /// How long it took.
    pub seconds: f64,
    /// Each promise that was broken, in words.
    pub broken: Vec<String>,
    /// The same, for tests.
    #[serde(skip)]
    pub promises: Vec<Broken>,
    /// The ends of all logs, if a promise was broken.
    #[serde(skip)]
    pub logs: String,
}

/// Runs a whole drill. Each strike is shown to `tell`, with the time until the victim was back.
///
/// # Errors
/// A program ends by itself, or does not start again: that is a failure too.
pub fn run(options: &DrillOptions, tell: &mut dyn FnMut(usize, &Strike, Duration)) -> Outcome<Report> {
    let mut drill = Drill::begin(options.cuts.then_some(Syncs::Count))?;
    for (number, strike) in
        strikes(options.seed, &options.victims, options.count, options.cuts).iter().enumerate()
    {
        let back_after = match drill.strike(strike) {
            Ok(back_after) => back_after,
            Err(error) => return Err(format!("{error}\n{}", drill.site.log_tails()).into()),
        };
        tell(number + 1, strike, back_after);
    }
    drill.finish(PATIENCE)
}

/// A drill under way: the site is up and alerts come.
pub struct Drill {
    started: Instant,
    kills: usize,
    record: Arc<Record>,
    source: Arc<Source>,
    /// Those that make load; they end when told to stop.
    load: Vec<JoinHandle<Outcome<()>>>,
    registrar: Registrar,
    identity: SenderIdentityFile,
    devices: Vec<(Handset, Program)>,
    /// The members of the group.
    members: BTreeSet<DeviceId>,
    site: Site,
}

impl Drill {
    /// Starts a site with devices, a sender and load. With `cuts`, the power of any program can be cut.
    ///
    /// # Errors
    /// The site does not start.
    pub fn begin(cuts: Option<Syncs>) -> Outcome<Self> {
        let started = Instant::now();
        let mut site = Site::start()?;
        let record = Arc::new(Record::default());
        let mut recipients: BTreeMap<RecipientId, BTreeSet<DeviceId>> = BTreeMap::new();
        let mut phones = Vec::new();
        for (number, count) in DEVICES.into_iter().enumerate() {
            let recipient = site.recipient()?;
            for _ in 0..count {
                let (handset, device) = site.enrol(recipient, &EnrolOptions::default())?;
                recipients.entry(recipient).or_default().insert(handset.id);
                phones.push((number, handset, device));
            }
        }
        let identity = site.tenant.sender("laboratory")?;
        let members = make_group(&site, &identity, &mut phones)?;
        let program = |(_, handset, _): (usize, Handset, Device)| {
            let program = device_program(&site, handset.clone(), Arc::clone(&record));
            (handset, program)
        };
        let mut devices: Vec<_> = phones.into_iter().map(program).collect();
        let mut sender = sender_program(&site, &identity, Arc::clone(&record))?;
        if let Some(syncs) = cuts {
            // What was enrolled so far counts as synced.
            site.keyserver.terminate()?;
            site.relay.terminate()?;
            let programs = [&mut site.keyserver, &mut site.relay, &mut sender];
            for program in programs.into_iter().chain(devices.iter_mut().map(|(_, program)| program)) {
                program.arm(syncs)?;
            }
            site.keyserver.start()?;
            site.relay.start()?;
        }
        observe(&site, &record)?;
        sender.start()?;
        for (_, program) in &mut devices {
            program.start()?;
        }
        let taken_from = recipients.keys().next().copied().ok_or("there are recipients")?;
        let source = Arc::new(Source {
            issued: Mutex::default(),
            sender: Mutex::new(sender),
            recipients,
            stopped: AtomicBool::new(false),
        });
        let taker = Arc::new(site.client(&site.tenant.keyserver, &identity));
        let portal = site.tenant.enroller("portal")?;
        let portal = Client::new(&site.tenant.keyserver, &site.tenant.id, &portal.subject, portal.request);
        let portal = Arc::new(portal);
        let registrar = Registrar { taker, portal, recipient: taken_from };
        let registering = registrar.clone();
        let load = vec![
            spawn(&source, &record, |source, record| source.issue(record)),
            spawn(&source, &record, move |source, _| registering.work(&source.stopped)),
        ];
        Ok(Self { started, kills: 0, record, source, load, registrar, identity, devices, members, site })
    }

    /// What was seen so far.
    #[must_use]
    pub fn record(&self) -> &Record {
        &self.record
    }

    /// Waits for the moment, kills, cuts, and starts again on the same files. Returns how long the victim was
    /// away.
    ///
    /// # Errors
    /// The victim had ended by itself, or does not start again; the load has come to a stop.
    pub fn strike(&mut self, strike: &Strike) -> Outcome<Duration> {
        let before = self.record.seen().exchanges(strike.victim);
        let deadline = Instant::now() + PATIENCE;
        let moved = |seen: &Seen| seen.exchanges(strike.victim) >= before + strike.exchanges;
        if !self.record.wait_for(deadline, moved) {
            return Err(format!("the {} does nothing", strike.victim).into());
        }
        std::thread::sleep(strike.pause);
        self.kills += 1;
        let struck = Instant::now();
        match strike.victim {
            Victim::Relay => strike_program(&mut self.site.relay, strike.files)?,
            Victim::Keyserver => strike_program(&mut self.site.keyserver, strike.files)?,
            Victim::Sender => {
                let mut sender = held(&self.source.sender);
                strike_program(&mut sender, strike.files)?;
                self.source.tell_again(&mut sender, &self.record);
            }
            Victim::Device => {
                let count = self.devices.len() as u64;
                let index = usize::try_from(strike.device % count)?;
                strike_program(&mut self.devices[index].1, strike.files)?;
            }
        }
        Ok(struck.elapsed())
    }

    /// Kills all devices, so that what is accepted waits at the relay.
    ///
    /// # Errors
    /// One had ended by itself.
    pub fn hold_devices(&mut self) -> Outcome<()> {
        self.devices.iter_mut().try_for_each(|(_, program)| program.kill(Files::Kept))
    }

    /// Starts the devices again.
    ///
    /// # Errors
    /// One does not start.
    pub fn release_devices(&mut self) -> Outcome<()> {
        self.devices.iter_mut().try_for_each(|(_, program)| program.start().map(drop))
    }

    /// Ends the load, lets everything come to its end, at most until nothing has changed for `patience`, and
    /// checks the promises.
    ///
    /// # Errors
    /// A program had ended by itself, or a server does not end well.
    pub fn finish(mut self, patience: Duration) -> Outcome<Report> {
        self.source.stopped.store(true, Ordering::Relaxed);
        for thread in std::mem::take(&mut self.load) {
            match thread.join() {
                Ok(ended) => ended?,
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        let issued = held(&self.source.issued).clone();
        let deadline = Instant::now() + patience;
        let all_queued = self.record.wait_for(deadline, |seen| seen.queued.len() == issued.len());
        let outbox = self.site.open_sender(self.identity.clone(), SenderOptions::default())?;
        let recipients: BTreeMap<_, _> = issued
            .iter()
            .map(|issued| (issued.key.clone(), self.source.recipients[&issued.recipient].clone()))
            .collect();
        // The group goes on talking; what was said until now is to reach everybody.
        let said = self.record.seen().said.clone();
        self.settle(&outbox, &recipients, patience)?;
        let is_read = |seen: &Seen| {
            let mut wanted = said.iter().flat_map(|(message, author)| {
                let others = self.members.iter().filter(move |member| *member != author);
                others.map(|member| (*member, message.clone()))
            });
            wanted.all(|one| seen.read.contains(&one))
        };
        self.record.wait_for(Instant::now() + patience, is_read);

        held(&self.source.sender).kill(Files::Kept)?;
        let (mut inboxes, mut conversations) = (BTreeMap::new(), BTreeMap::new());
        for (handset, program) in &mut self.devices {
            program.kill(Files::Kept)?;
            let mut device = handset.open()?;
            let messages = device.messages()?;
            inboxes.insert(handset.id, messages.into_iter().map(|message| message.transport_id).collect());
            if self.members.contains(&handset.id) {
                conversations.insert(handset.id, conversation(&mut device)?);
            }
        }
        let consents = self.registrar.consents()?;
        let end = End { alerts: outbox.alerts()?, recipients, inboxes, consents, said, conversations };
        let seen = self.record.seen();
        let mut promises = broken(&seen, &end);
        if !all_queued {
            promises.push(Broken::AlertRefused("the sender does not take alerts any more".to_owned()));
        }
        let duplicates = promises.iter().filter(|one| matches!(one, Broken::ShownTwice(..))).count();
        let report = Report {
            kills: self.kills,
            alerts: seen.queued.len(),
            accepted: seen.accepted.len(),
            opened: end.inboxes.values().map(BTreeSet::len).sum(),
            shown: seen.shown.len(),
            duplicates,
            prekeys: seen.prekeys.len(),
            said: end.said.len(),
            seconds: self.started.elapsed().as_secs_f64(),
            broken: promises.iter().map(ToString::to_string).collect(),
            logs: if promises.is_empty() { String::new() } else { self.site.log_tails() },
            promises,
        };
        drop(seen);
        self.site.stop()?;
        Ok(report)
    }

    /// Waits until every alert is opened and proven, or nothing has changed for `patience`.
    fn settle(
        &self,
        outbox: &Sender,
        recipients: &BTreeMap<String, BTreeSet<DeviceId>>,
        patience: Duration,
    ) -> Outcome<()> {
        let mut last = (usize::MAX, usize::MAX);
        let mut changed = Instant::now();
        loop {
            let alerts = outbox.alerts()?;
            let known: BTreeMap<_, _> = alerts.iter().map(|alert| (alert.source.as_str(), alert)).collect();
            let unproven = recipients.iter().flat_map(|(key, devices)| {
                let alert = known.get(key.as_str());
                devices.iter().filter(move |device| !alert.is_some_and(|alert| is_proven(alert, **device)))
            });
            let submissions = alerts.iter().flat_map(|alert| &alert.submissions);
            let unsent = submissions.filter(|one| matches!(one.stage, Stage::Waiting | Stage::Sealed));
            let left = (unproven.count(), unsent.count());
            if left == (0, 0) {
                return Ok(());
            }
            if left != last {
                (last, changed) = (left, Instant::now());
            } else if changed.elapsed() >= patience {
                return Ok(());
            }
            std::thread::sleep(LOOK_EVERY);
        }
    }
}

/// Makes the group and lets its members in. Returns who they are.
fn make_group(
    site: &Site,
    identity: &SenderIdentityFile,
    phones: &mut [(usize, Handset, Device)],
) -> Outcome<BTreeSet<DeviceId>> {
    for (_, _, device) in &mut *phones {
        device.maintain_prekeys()?;
    }
    let of = |phones: &[(usize, Handset, Device)], number| {
        let found = phones.iter().find(|(of, _, _)| *of == number);
        found.map(|(_, handset, _)| handset.clone()).ok_or("every recipient has a device")
    };
    let [first, second] = INVITED;
    let (steward, invited) = (of(phones, first)?.id, [of(phones, first)?, of(phones, second)?]);
    let mailbox = phones.iter_mut().find(|(of, _, _)| *of == MAILBOX);
    let (_, _, mailbox) = mailbox.ok_or("the mailbox is a device")?;
    let statement = MailboxStatement {
        tenant: site.tenant.id.clone(),
        device: mailbox.id(),
        identity: mailbox.identity(),
        issued: now(),
    };
    mailbox.set_mailbox_statement(&statement.sign(&identity.send.key, &identity.send.certificate)?)?;
    let group = mailbox.create_group("Ward", &[steward])?;
    for handset in invited {
        if mailbox.invite(group, handset.recipient, CATEGORY)?.1 != Progress::Done {
            return Err("the group is not made".into());
        }
    }
    let members: BTreeSet<_> =
        mailbox.group_members(group)?.into_iter().map(|member| member.device).collect();
    for (_, handset, device) in phones {
        device.sync(Duration::ZERO)?;
        if members.contains(&handset.id) == device.groups()?.is_empty() {
            return Err("a member is not in".into());
        }
    }
    Ok(members)
}

/// The messages of others in a device's group.
fn conversation(device: &mut Device) -> Outcome<BTreeSet<String>> {
    let mut messages = BTreeSet::new();
    for state in device.groups()? {
        let of_others = device.group_messages(state.group)?.into_iter();
        let of_others = of_others.filter(|message| message.state == MessageState::Received);
        messages.extend(of_others.map(|message| message.content.id.to_string()));
    }
    Ok(messages)
}

/// Where the load comes from: a hospital's system that says each event again until the sender has it.
struct Source {
    issued: Mutex<Vec<Issued>>,
    sender: Mutex<Program>,
    recipients: BTreeMap<RecipientId, BTreeSet<DeviceId>>,
    stopped: AtomicBool,
}

#[derive(Clone)]
struct Issued {
    key: String,
    recipient: RecipientId,
    priority: usize,
}

impl Issued {
    fn line(&self) -> String {
        format!("{} {} {}", self.key, self.recipient, self.priority)
    }
}

impl Source {
    fn issue(&self, record: &Record) -> Outcome<()> {
        let recipients: Vec<_> = self.recipients.keys().copied().collect();
        for number in 0.. {
            let has_room = |seen: &Seen| {
                let stopped = self.stopped.load(Ordering::Relaxed);
                let unsent = seen.queued.len().saturating_sub(seen.accepted.len());
                stopped || (number - seen.queued.len() < UNQUEUED_MAX && unsent < UNSENT_MAX)
            };
            if !record.wait_for(Instant::now() + PATIENCE, has_room) {
                return Err("the sender does not take or send alerts any more".into());
            }
            if self.stopped.load(Ordering::Relaxed) {
                break;
            }
            let recipient = recipients[number % recipients.len()];
            let issued = Issued { key: format!("alert-{number}"), recipient, priority: 1 + number % 3 };
            let line = issued.line();
            held(&self.issued).push(issued);
            // A sender that was killed is told again once it is back.
            held(&self.sender).tell(&line);
            std::thread::sleep(ALERT_EVERY);
        }
        Ok(())
    }

    fn tell_again(&self, sender: &mut Program, record: &Record) {
        let seen = record.seen();
        let issued = held(&self.issued).clone();
        for unqueued in issued.iter().filter(|issued| !seen.queued.contains(&issued.key)) {
            sender.tell(&unqueued.line());
        }
    }
}

/// Load on the keyserver alone. What it answers, the tap records.
#[derive(Clone)]
struct Registrar {
    taker: Arc<Client>,
    portal: Arc<Client>,
    recipient: RecipientId,
}

impl Registrar {
    /// Takes one-time prekeys, as a second sender would, and records consents.
    fn work(&self, stopped: &AtomicBool) -> Outcome<()> {
        let look_up = format!("/v1/recipients/{}/look-up", self.recipient);
        let body = LookUp { category: CATEGORY.to_owned(), one_time: true };
        for number in 0.. {
            if stopped.load(Ordering::Relaxed) {
                break;
            }
            // The keyserver may be away; what it did not answer does not count.
            let _answer = self.taker.call("POST", &look_up, Some(&body));
            let (category, at) = (number / PREKEYS_PER_CONSENT, number % PREKEYS_PER_CONSENT);
            if at == 0 && category < CONSENTS_MAX {
                let path = format!("/v1/recipients/{}/consent/c-{category}", self.recipient);
                let _answer = self.portal.call("PUT", &path, Some(&consent()));
            }
            std::thread::sleep(TAKE_EVERY);
        }
        Ok(())
    }

    fn consents(&self) -> Outcome<BTreeSet<String>> {
        let answer = self.portal.get(&format!("/v1/recipients/{}/consent", self.recipient))?;
        let list: ConsentList = serde_json::from_value(answer.body)?;
        Ok(list.consents.into_keys().collect())
    }
}

fn strike_program(program: &mut Program, files: Files) -> Outcome<()> {
    program.kill(files)?;
    program.start().map(drop)
}

fn observe(site: &Site, record: &Arc<Record>) -> Outcome<()> {
    let at_keyserver = Arc::clone(record);
    site.keyserver.tap()?.observe(move |exchange| {
        at_keyserver.keyserver_answered(exchange);
        Verdict::Pass
    });
    let at_relay = Arc::clone(record);
    site.relay.tap()?.observe(move |exchange| {
        at_relay.relay_answered(exchange);
        Verdict::Pass
    });
    Ok(())
}

fn sender_program(site: &Site, identity: &SenderIdentityFile, record: Arc<Record>) -> Outcome<Program> {
    let file = site.path("sender.json");
    identity.write(&file)?;
    let outbox = site.path(&format!("outbox-{}", identity.subject));
    let folder = outbox.clone();
    let command = move || {
        let mut command = Command::new(built("drill-sender")?);
        command.arg(&file).arg(&outbox);
        Ok(command)
    };
    let log = site.log("drill-sender");
    Ok(Program::new("drill-sender", folder, log, command, move |line| record.sender_said(line)))
}

fn device_program(site: &Site, handset: Handset, record: Arc<Record>) -> Program {
    let (id, folder) = (handset.id, handset.folder);
    let arguments = folder.clone();
    let command = move || {
        let mut command = Command::new(built("drill-device")?);
        command.arg(&arguments);
        Ok(command)
    };
    let log = site.log(&format!("drill-device-{id}"));
    Program::new("drill-device", folder, log, command, move |line| record.device_said(id, line))
}

fn spawn(
    source: &Arc<Source>,
    record: &Arc<Record>,
    run: impl FnOnce(&Source, &Record) -> Outcome<()> + Send + 'static,
) -> JoinHandle<Outcome<()>> {
    let (source, record) = (Arc::clone(source), Arc::clone(record));
    std::thread::spawn(move || run(&source, &record))
}

fn held<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
