//! What holds whatever is killed: pure checks of what was seen and of what is there in the end.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use sealpost_sender::{AlertStatus, Stage};
use sealpost_wire::delivery::DeliveryState;
use sealpost_wire::id::{DeviceId, PrekeyId, TransportId};

use crate::record::Seen;

/// What is there in the end.
#[derive(Debug, Default)]
pub struct End {
    /// The sender's outbox.
    pub alerts: Vec<AlertStatus>,
    /// For each source event, the devices that it is for.
    pub recipients: BTreeMap<String, BTreeSet<DeviceId>>,
    /// For each device, the messages that it has opened.
    pub inboxes: BTreeMap<DeviceId, BTreeSet<TransportId>>,
    /// The categories that the keyserver has a consent for.
    pub consents: BTreeSet<String>,
    /// Messages of a group, by id, that were said before the load ended, and who wrote each.
    pub said: BTreeMap<String, DeviceId>,
    /// For each member of the group, the messages of others that it has.
    pub conversations: BTreeMap<DeviceId, BTreeSet<String>>,
}

/// A promise that was broken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Broken {
    /// The sender had taken it, and its outbox does not have it.
    AlertLost(String),
    /// The sender would not take it, or not carry it on.
    AlertRefused(String),
    /// A device that it is for has no signed receipt of having opened it at the sender.
    AlertNotOpened(String, DeviceId),
    /// The relay had answered 202, and the device never opened it.
    AcceptedLost(TransportId, DeviceId),
    /// The device could not open it.
    Unopenable(TransportId, DeviceId, String),
    /// A device has shown it again.
    ShownTwice(DeviceId, String),
    /// The keyserver has given a one-time prekey out again.
    PrekeyTwice(PrekeyId),
    /// The keyserver had recorded it.
    ConsentLost(String),
    /// A device had said it to its group, and another member does not have it.
    SaidLost(String, DeviceId),
    /// A member has got two messages that were made with one key, and so with one nonce.
    KeyTwice(DeviceId),
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AlertLost(key) => write!(f, "alert {key} is lost"),
            Self::AlertRefused(what) => write!(f, "an alert was refused: {what}"),
            Self::AlertNotOpened(key, device) => write!(f, "no proof that {device} opened alert {key}"),
            Self::AcceptedLost(id, device) => write!(f, "message {id} got a 202 and is not at {device}"),
            Self::Unopenable(id, device, why) => write!(f, "{device} could not open message {id}: {why}"),
            Self::ShownTwice(device, what) => write!(f, "{device} has shown notification {what} twice"),
            Self::PrekeyTwice(id) => write!(f, "one-time prekey {id} was given twice"),
            Self::ConsentLost(category) => write!(f, "the consent to {category} is lost"),
            Self::SaidLost(message, device) => write!(f, "message {message} of a group is not at {device}"),
            Self::KeyTwice(device) => write!(f, "{device} has got two messages made with one key of a group"),
        }
    }
}

/// Every promise that was broken.
#[must_use]
pub fn broken(seen: &Seen, end: &End) -> Vec<Broken> {
    let mut broken: Vec<_> = seen.refused.iter().map(|line| Broken::AlertRefused(line.clone())).collect();
    let alerts: BTreeMap<_, _> = end.alerts.iter().map(|alert| (alert.source.as_str(), alert)).collect();
    for key in &seen.queued {
        match alerts.get(key.as_str()) {
            None => broken.push(Broken::AlertLost(key.clone())),
            Some(alert) => {
                let devices = end.recipients.get(key).into_iter().flatten();
                let missing = devices.filter(|device| !is_proven(alert, **device));
                broken.extend(missing.map(|device| Broken::AlertNotOpened(key.clone(), *device)));
            }
        }
    }
    for submission in end.alerts.iter().flat_map(|alert| &alert.submissions) {
        if submission.stage == Stage::Failed {
            broken.push(Broken::AlertRefused(submission.failure.clone().unwrap_or_default()));
        }
        let Some(id) = submission.transport_id else { continue };
        let unopenable = submission.boxes.iter().filter(|one| one.state == DeliveryState::Unopenable);
        broken.extend(
            unopenable.map(|one| Broken::Unopenable(id, one.device, one.reason.clone().unwrap_or_default())),
        );
    }
    for (id, devices) in &seen.accepted {
        let opened = |device| end.inboxes.get(device).is_some_and(|inbox| inbox.contains(id));
        let lost = devices.iter().filter(|device| !opened(*device));
        broken.extend(lost.map(|device| Broken::AcceptedLost(*id, *device)));
    }
    broken.extend(repeated(&seen.shown).map(|(device, what)| Broken::ShownTwice(*device, what.clone())));
    broken.extend(repeated(&seen.prekeys).map(|id| Broken::PrekeyTwice(*id)));
    broken.extend(seen.consents.difference(&end.consents).cloned().map(Broken::ConsentLost));
    for (message, author) in &end.said {
        let others = end.conversations.iter().filter(|(device, _)| *device != author);
        let missing = others.filter(|(_, messages)| !messages.contains(message));
        broken.extend(missing.map(|(device, _)| Broken::SaidLost(message.clone(), *device)));
    }
    broken.extend(seen.used.iter().copied().map(Broken::KeyTwice));
    broken
}

/// Whether the device's own signature says that it has opened the alert.
#[must_use]
pub fn is_proven(alert: &AlertStatus, device: DeviceId) -> bool {
    let mut boxes = alert.submissions.iter().flat_map(|submission| &submission.boxes);
    boxes.any(|one| one.device == device && one.verified && one.state == DeliveryState::Opened)
}

fn repeated<T: Ord>(all: &[T]) -> impl Iterator<Item = &T> {
    let mut met = BTreeSet::new();
    all.iter().filter(move |one| !met.insert(*one))
}

#[cfg(test)]
mod tests {
    use sealpost_sender::{BoxStatus, SubmissionStatus};
    use sealpost_wire::clock::UnixTime;
    use sealpost_wire::id::NotificationId;

    use super::*;

    const PHONE: DeviceId = DeviceId([1; 16]);
    const TABLET: DeviceId = DeviceId([2; 16]);
    const MESSAGE: TransportId = TransportId([3; 16]);

    /// One alert to two devices, all as it should be.
    #[allow(clippy::field_reassign_with_default, reason = "one of its fields is the record's own")]
    fn kept() -> (Seen, End) {
        let opened = |device| BoxStatus {
            device,
            state: DeliveryState::Opened,
            reason: None,
            verified: true,
            device_time: Some(UnixTime(1)),
            bytes: 1024,
        };
        let submission = SubmissionStatus {
            transport_id: Some(MESSAGE),
            stage: Stage::Accepted,
            attempts: 0,
            failure: None,
            accepted_ms: Some(1),
            from_cache: false,
            boxes: vec![opened(PHONE), opened(TABLET)],
        };
        let alert = AlertStatus {
            source: "a".to_owned(),
            notification: NotificationId([4; 16]),
            revision: 1,
            created: UnixTime(1),
            expires_at: UnixTime(9),
            submissions: vec![submission],
        };
        let both = BTreeSet::from([PHONE, TABLET]);
        let mut seen = Seen::default();
        seen.queued = BTreeSet::from(["a".to_owned()]);
        seen.accepted = BTreeMap::from([(MESSAGE, both.clone())]);
        seen.prekeys = vec![PrekeyId([5; 16]), PrekeyId([6; 16])];
        seen.shown = vec![(PHONE, "n 1".to_owned()), (TABLET, "n 1".to_owned()), (PHONE, "n 2".to_owned())];
        seen.consents = BTreeSet::from(["c-1".to_owned()]);
        let end = End {
            consents: BTreeSet::from(["c-1".to_owned(), "c-2".to_owned()]),
            alerts: vec![alert],
            recipients: BTreeMap::from([("a".to_owned(), both)]),
            inboxes: [PHONE, TABLET].map(|device| (device, BTreeSet::from([MESSAGE]))).into(),
            said: BTreeMap::from([("m".to_owned(), PHONE)]),
            conversations: BTreeMap::from([
                (PHONE, BTreeSet::new()),
                (TABLET, BTreeSet::from(["m".to_owned()])),
            ]),
        };
        (seen, end)
    }

    #[track_caller]
    fn assert_broken(change: impl FnOnce(&mut Seen, &mut End), expected: &[Broken]) {
        let (mut seen, mut end) = kept();
        change(&mut seen, &mut end);
        assert_eq!(broken(&seen, &end), expected);
    }

    #[test]
    fn a_run_as_it_should_be_breaks_nothing() {
        assert_broken(|_, _| {}, &[]);
    }

    #[test]
    fn an_alert_is_lost_with_its_row_and_unproven_without_a_signed_receipt_of_each_device() {
        assert_broken(|_, end| end.alerts.clear(), &[Broken::AlertLost("a".to_owned())]);
        let unproven = [Broken::AlertNotOpened("a".to_owned(), TABLET)];
        let tablet = |end: &mut End| std::mem::take(&mut end.alerts[0].submissions[0].boxes).swap_remove(1);
        assert_broken(
            |_, end| {
                let one = BoxStatus { verified: false, ..tablet(end) };
                end.alerts[0].submissions[0].boxes =
                    vec![BoxStatus { device: PHONE, verified: true, ..one.clone() }, one];
            },
            &unproven,
        );
        assert_broken(|_, end| drop(end.alerts[0].submissions[0].boxes.pop()), &unproven);
    }

    #[test]
    fn a_message_with_a_202_must_be_in_the_inbox_of_each_device() {
        let lost = [Broken::AcceptedLost(MESSAGE, PHONE)];
        assert_broken(|_, end| drop(end.inboxes.remove(&PHONE)), &lost);
        // Also one that the outbox knows nothing of.
        let other = TransportId([9; 16]);
        assert_broken(
            |seen, _| drop(seen.accepted.insert(other, BTreeSet::from([PHONE]))),
            &[Broken::AcceptedLost(other, PHONE)],
        );
    }

    #[test]
    fn refusals_and_boxes_that_do_not_open_count() {
        assert_broken(
            |seen, _| seen.refused.push("refused a source_conflict".to_owned()),
            &[Broken::AlertRefused("refused a source_conflict".to_owned())],
        );
        assert_broken(
            |_, end| {
                let mut failed = end.alerts[0].submissions[0].clone();
                (failed.stage, failed.failure) = (Stage::Failed, Some("not_found".to_owned()));
                failed.boxes.truncate(1);
                failed.boxes[0].state = DeliveryState::Unopenable;
                failed.boxes[0].reason = Some("unknown_prekey".to_owned());
                end.alerts[0].submissions.push(failed);
            },
            &[
                Broken::AlertRefused("not_found".to_owned()),
                Broken::Unopenable(MESSAGE, PHONE, "unknown_prekey".to_owned()),
            ],
        );
    }

    #[test]
    fn a_recorded_consent_stays() {
        assert_broken(|_, end| end.consents.clear(), &[Broken::ConsentLost("c-1".to_owned())]);
    }

    #[test]
    fn what_is_said_to_a_group_reaches_all_others_each_with_a_key_of_its_own() {
        assert_broken(
            |_, end| end.conversations.entry(TABLET).or_default().clear(),
            &[Broken::SaidLost("m".to_owned(), TABLET)],
        );
        assert_broken(|seen, _| seen.used.extend([TABLET]), &[Broken::KeyTwice(TABLET)]);
    }

    #[test]
    fn nothing_is_shown_or_given_twice() {
        assert_broken(
            |seen, _| seen.shown.push((PHONE, "n 1".to_owned())),
            &[Broken::ShownTwice(PHONE, "n 1".to_owned())],
        );
        assert_broken(
            |seen, _| seen.prekeys.push(PrekeyId([5; 16])),
            &[Broken::PrekeyTwice(PrekeyId([5; 16]))],
        );
    }
}
