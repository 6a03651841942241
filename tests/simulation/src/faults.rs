//! Faults that the simulation must find. Each is one of the parts around the group, with a mistake in it; the product
//! has none of them.

/// A part that does its work wrongly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The client is told that the relay took its commit before the relay has decided.
    MergedBeforeAcceptance,
    /// The store keeps messages and the groups' state in two transactions.
    StateApartFromMessage,
    /// Devices believe the evidence that comes with a welcome, whoever signed it.
    EvidenceUnchecked,
    /// Devices never hear of a revocation.
    RevokedStays,
    /// The counter outside the store is restored together with it.
    RestoreUnnoticed,
    /// The relay takes a claim without looking at its capability.
    CapabilityUnchecked,
    /// The relay takes a claim without looking at its sequence.
    SequenceUnchecked,
    /// The relay takes the same submission for another one when it comes again.
    DuplicateUnrecognised,
    /// Nobody deletes the keys of past epochs.
    PastEpochsKept,
    /// The relay takes what asks for the way back in, and gives it to nobody.
    CallsUnheard,
    /// The relay has one slot for all groups.
    SlotsMixed,
}

impl Fault {
    /// All of them.
    pub const ALL: [Self; 11] = [
        Self::MergedBeforeAcceptance,
        Self::StateApartFromMessage,
        Self::EvidenceUnchecked,
        Self::RevokedStays,
        Self::RestoreUnnoticed,
        Self::CapabilityUnchecked,
        Self::SequenceUnchecked,
        Self::DuplicateUnrecognised,
        Self::PastEpochsKept,
        Self::CallsUnheard,
        Self::SlotsMixed,
    ];
}
