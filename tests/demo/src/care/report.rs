//! The result of the care team's demo.

use std::path::PathBuf;

use serde::Serialize;

use super::{PHONES, Shown};
use crate::canary::Canary;
use crate::report::{Searched, verdict};
use crate::screen::{counted, say};

/// Whose phones there are: Apple's and Google's.
const PROVIDERS: usize = 2;

/// The result of the care team's demo: the last line of standard output with `--json`.
#[derive(Serialize)]
pub(crate) struct CareReport {
    /// Members that agreed on the group before the loss: three phones and the mailbox.
    members: usize,
    /// Members that agreed on it after the loss.
    members_left: usize,
    /// Commits that made the group what it is.
    commits: u64,
    /// Slots at the relay, and claims on them that won.
    slots: u64,
    slot_claims: u64,
    messages: usize,
    /// One for each message and each member that was in, but its author.
    readings: usize,
    readings_due: usize,
    /// The first commit behind the revocation removed the lost phone.
    removed_by_next_commit: bool,
    /// What the relay answers it.
    lost_phone_turned_away: Option<String>,
    /// Messages that it opened of those that came later.
    lost_phone_opened_later: usize,
    /// Commits that it has seen.
    lost_phone_commits: u64,
    /// Messages that the relay accepted, and boxes that it handed out.
    relay_messages: u64,
    relay_boxes: u64,
    /// Pushes, and how many different ones, but for the tokens in them.
    pushes: usize,
    stubs: usize,
    /// Texts that had a canary.
    canaries: usize,
    /// Canaries that every member had who stayed.
    canaries_on_devices: usize,
    #[serde(flatten)]
    searched: Searched,
    /// From the start, after the programs were built, to the end.
    milliseconds_in_all: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    folder: Option<PathBuf>,
}

impl CareReport {
    /// The result of what was seen, and of the search.
    pub(crate) fn new(
        shown: Shown,
        canaries: &[Canary],
        searched: Searched,
        milliseconds_in_all: u64,
        folder: Option<PathBuf>,
    ) -> Self {
        let everywhere = |canary: &&Canary| shown.texts.iter().all(|text| text.contains(&canary.text));
        Self {
            canaries: canaries.len(),
            canaries_on_devices: canaries.iter().filter(everywhere).count(),
            members: shown.members,
            members_left: shown.members_left,
            commits: shown.commits,
            slots: shown.relay.slots,
            slot_claims: shown.relay.claims,
            messages: shown.messages,
            readings: shown.readings,
            readings_due: shown.readings_due,
            removed_by_next_commit: shown.removed_by_next_commit,
            lost_phone_turned_away: shown.lost_phone_turned_away,
            lost_phone_opened_later: shown.lost_phone_opened_later,
            lost_phone_commits: shown.lost_phone_commits,
            relay_messages: shown.relay.submissions,
            relay_boxes: shown.relay.boxes,
            pushes: shown.pushes,
            stubs: shown.stubs,
            searched,
            milliseconds_in_all,
            folder,
        }
    }

    /// Whether the demo showed what it is there to show.
    pub(crate) fn is_good(&self) -> bool {
        self.claims().iter().all(|(holds, _)| *holds)
    }

    /// Prints the result for a person.
    pub(crate) fn print(&self) {
        for (holds, claim) in self.claims() {
            say(&format!("{}  {claim}", verdict(holds)));
        }
    }

    /// What the demo claims, and whether it holds.
    fn claims(&self) -> [(bool, String); 6] {
        let Self { members, members_left, commits, slots, slot_claims, .. } = self;
        let everybody = PHONES.len() + 1;
        let relay = format!(
            "the relay took {} and handed out {}",
            counted(usize::try_from(self.relay_messages).unwrap_or(usize::MAX), "message", "messages"),
            counted(usize::try_from(self.relay_boxes).unwrap_or(usize::MAX), "sealed box", "sealed boxes"),
        );
        [
            (
                *members == everybody
                    && *members_left == everybody - 1
                    && (*slots, slot_claims) == (1, commits),
                format!(
                    "{members} members agreed on the group, and {members_left} after the loss: \
                     {commits} commits, {slot_claims} claims on {} at the relay",
                    counted(usize::try_from(*slots).unwrap_or(usize::MAX), "slot", "slots"),
                ),
            ),
            (
                self.messages > 0 && self.readings == self.readings_due,
                format!(
                    "{} messages, read by everybody who was in: {} of {} readings",
                    self.messages, self.readings, self.readings_due
                ),
            ),
            (
                self.removed_by_next_commit,
                "the revoked phone was removed by the group's next commit".to_owned(),
            ),
            (
                self.lost_phone_opened_later == 0
                    && self.lost_phone_commits < self.commits
                    && self.lost_phone_turned_away.as_deref() == Some("revoked"),
                format!(
                    "it opened {} of what was written later: the relay turns it away ({}), and it has seen {} of {} commits",
                    self.lost_phone_opened_later,
                    self.lost_phone_turned_away.as_deref().unwrap_or("it does not"),
                    self.lost_phone_commits,
                    self.commits,
                ),
            ),
            (
                self.relay_messages > 0 && self.relay_boxes > 0 && self.pushes > 0 && self.stubs <= PROVIDERS,
                format!("{relay}; Apple and Google were sent {} pushes, {} stubs", self.pushes, self.stubs),
            ),
            (
                // A search for what never was on the way would prove nothing.
                self.searched.is_as_expected() && self.canaries_on_devices == self.canaries,
                format!(
                    "{}; {} of {} canaries reached every member who stayed, and the group's id was looked for too",
                    self.searched.said(),
                    self.canaries_on_devices,
                    self.canaries
                ),
            ),
        ]
    }
}
