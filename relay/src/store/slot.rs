//! Slots: of several submissions that claim the same place of an order, one is accepted.
//!
//! ```text
//! claim ----> is there the slot? -no--> does it show a capability? -yes--> unknown
//!                  |                       `-no--> made, and won
//!                  `-yes-> the sequence expected? -no--> conflict
//!                              `-yes-> the capability asked for? -no--> forbidden
//!                                          `-yes-> won: sequence + 1, next
//! ```
//! The place is claimed in the transaction that accepts the submission, so that both are durable or neither
//! is. Who loses leaves nothing behind.

use sealpost_service::engine::{Space, View};
use sealpost_wire::clock::UnixTime;
use sealpost_wire::id::{SlotId, TenantId};
use sealpost_wire::slot::SlotClaim;

use super::accept::Accepting;
use super::change::Change;
use super::key::{self, Home, Maker, SLOTS};
use super::slot_row::{SlotCount, SlotRow, Winner};
use super::{Damaged, Store, StoreError};

/// A slot that nobody has claimed for this long (seconds) is forgotten: 400 days, more than a year's visit
/// apart.
pub const SLOT_UNUSED_SECONDS_MAX: u64 = 400 * 86_400;

/// Why a claim on a slot did not win. Only [`Self::Full`] may pass by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SlotRefusal {
    /// The slot expects another sequence: somebody else has claimed the place.
    Conflict,
    /// There is no such slot.
    Unknown,
    /// The capability is not the one that the slot asks for.
    Forbidden,
    /// The tenant, or the author alone, has as many slots as are kept for it.
    Full,
}

/// What a look for unused slots did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SlotsForgotten {
    /// Slots that went.
    pub count: usize,
    /// Where to look next; nothing at the end.
    pub next: Option<SlotId>,
}

/// How many slots are kept.
#[derive(Clone, Copy, Debug)]
pub(super) struct SlotLimits {
    /// Of a tenant.
    pub(super) tenant_max: u32,
    /// Of those, made by one author.
    pub(super) author_max: u32,
}

impl Store {
    /// Forgets the slots of a tenant that were unused for [`SLOT_UNUSED_SECONDS_MAX`], among `max` from the
    /// slot `from` on; from the first without one.
    ///
    /// # Errors
    /// [`StoreError`]; the same may be tried again.
    pub async fn forget_slots(
        &self,
        tenant: &TenantId,
        from: Option<SlotId>,
        now: UnixTime,
        max: usize,
    ) -> Result<SlotsForgotten, StoreError> {
        let home = self.home(tenant)?;
        let (unused, next) = self.unused_slots(home, from, now, max)?;
        if unused.is_empty() {
            return Ok(SlotsForgotten { count: 0, next });
        }
        let decide = move |view: &mut View| {
            let mut count = 0;
            for slot in unused {
                // It may have been claimed since the look.
                let row = slot_row(view, home, slot)?.filter(|row| is_unused(row, now));
                if let Some(row) = row {
                    view.remove(SLOTS, key::slot(home, slot));
                    uncount(view, key::slot_count(home))?;
                    uncount(view, key::slot_maker(home, row.maker))?;
                    count += 1;
                }
            }
            Ok(count)
        };
        let count = self.write_with("forget_slots", Space::Frees, decide).await?;
        Ok(SlotsForgotten { count, next })
    }

    fn unused_slots(
        &self,
        home: Home,
        from: Option<SlotId>,
        now: UnixTime,
        max: usize,
    ) -> Result<(Vec<SlotId>, Option<SlotId>), StoreError> {
        let from = key::slot(home, from.unwrap_or(SlotId([0; 16])));
        let to = key::slot(home, SlotId([u8::MAX; 16]));
        let mut unused = Vec::new();
        for (position, row) in
            self.engine.snapshot().range(SLOTS, from.as_slice()..=to.as_slice()).enumerate()
        {
            let (key, value) = row?;
            let read = key::slot_id(&key).zip(SlotRow::decode(&value));
            let (slot, row) = read.ok_or(Damaged(SLOTS.name()))?;
            if position >= max {
                return Ok((unused, Some(slot)));
            }
            if is_unused(&row, now) {
                unused.push(slot);
            }
        }
        Ok((unused, None))
    }
}

/// Claims a place for a submission, which is to be accepted in the same transaction. Nothing is written for a
/// claim that loses.
pub(super) fn claim(
    change: &mut Change<'_>,
    accepting: &Accepting,
    claim: &SlotClaim,
    limits: SlotLimits,
) -> Result<Result<(), SlotRefusal>, Damaged> {
    let home = change.home;
    let stored = slot_row(change.view, home, claim.slot)?;
    let sequence = match judge(stored.as_ref(), claim) {
        Ok(sequence) => sequence,
        Err(refusal) => return Ok(Err(refusal)),
    };
    let maker = match stored {
        Some(row) => row.maker,
        None => {
            let maker = key::maker(&accepting.author);
            if !count(change.view, home, maker, limits)? {
                return Ok(Err(SlotRefusal::Full));
            }
            maker
        }
    };
    let row = SlotRow {
        sequence,
        next: claim.next,
        used: UnixTime(change.now_ms / 1000),
        maker,
        winner: Winner { id: accepting.id, digest: accepting.digest, author: accepting.author.clone() },
    };
    change.view.put(SLOTS, key::slot(home, claim.slot), row.encode());
    Ok(Ok(()))
}

/// What the slot expects when the claim has won; or why it does not win.
fn judge(stored: Option<&SlotRow>, claim: &SlotClaim) -> Result<u64, SlotRefusal> {
    match (stored, &claim.capability) {
        (None, None) => {}
        (None, Some(_)) => return Err(SlotRefusal::Unknown),
        // Before the capability: who has lost a race needs none, and learns no more than that.
        (Some(row), _) if row.sequence != claim.sequence => return Err(SlotRefusal::Conflict),
        (Some(row), shown) => {
            if !shown.as_ref().is_some_and(|shown| shown.opens(&row.next)) {
                return Err(SlotRefusal::Forbidden);
            }
        }
    }
    // No claim has the place behind the last one.
    claim.next_sequence().ok_or(SlotRefusal::Conflict)
}

fn slot_row(view: &View, home: Home, slot: SlotId) -> Result<Option<SlotRow>, Damaged> {
    let value = view.get(SLOTS, key::slot(home, slot));
    value.map(|value| SlotRow::decode(&value).ok_or(Damaged(SLOTS.name()))).transpose()
}

fn is_unused(row: &SlotRow, now: UnixTime) -> bool {
    row.used.plus(SLOT_UNUSED_SECONDS_MAX) <= now
}

/// Counts a new slot; whether there is room for it.
fn count(view: &mut View, home: Home, maker: Maker, limits: SlotLimits) -> Result<bool, Damaged> {
    let (of_tenant, of_author) = (key::slot_count(home), key::slot_maker(home, maker));
    let (tenant, author) = (counted(view, &of_tenant)?.0, counted(view, &of_author)?.0);
    if tenant >= limits.tenant_max || author >= limits.author_max {
        return Ok(false);
    }
    view.put(SLOTS, of_tenant, SlotCount(tenant + 1).encode());
    view.put(SLOTS, of_author, SlotCount(author + 1).encode());
    Ok(true)
}

/// A slot went from a count; one of none is not kept.
fn uncount<const N: usize>(view: &mut View, key: [u8; N]) -> Result<(), Damaged> {
    match counted(view, &key)?.0.saturating_sub(1) {
        0 => view.remove(SLOTS, key),
        left => view.put(SLOTS, key, SlotCount(left).encode()),
    }
    Ok(())
}

fn counted(view: &View, key: &[u8]) -> Result<SlotCount, Damaged> {
    match view.get(SLOTS, key) {
        Some(value) => SlotCount::decode(&value).ok_or(Damaged(SLOTS.name())),
        None => Ok(SlotCount::default()),
    }
}
