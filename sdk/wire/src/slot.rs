//! Slots: how those who share a secret put their submissions in an order without telling the relay what they
//! order (the commits of a group).
//!
//! A slot is a counter at the relay under a random name. A submission may claim the slot's next sequence number;
//! of several that do, one is accepted. The claim shows the capability that the accepted claim before it asked
//! for, and says what the next one will have to show:
//!
//! ```text
//! claim n     { slot, sequence n,     capability n,     next = SHA-256(capability n+1) }
//! claim n+1   { slot, sequence n + 1, capability n + 1, next = SHA-256(capability n+2) }
//! ```
//!
//! The claim that makes the slot shows none. It may begin at any number.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use subtle::ConstantTimeEq as _;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::base64url::{self, Base64Url};
use crate::cbor::Writer;
use crate::id::{Digest, SlotId};
use crate::limits::SLOT_SEQUENCE_MAX;

/// The claim of a submission on the next place in a slot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SlotClaim {
    /// The slot.
    pub slot: SlotId,
    /// The place: the number that the relay expects next, at most [`SLOT_SEQUENCE_MAX`].
    pub sequence: u64,
    /// What the claim before asked for. Without one the claim makes the slot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capability: Option<SlotCapability>,
    /// SHA-256 of the capability that the next claim has to show.
    pub next: Digest,
}

impl SlotClaim {
    /// The number that the relay expects when this claim has won, or nothing when the sequence is above
    /// [`SLOT_SEQUENCE_MAX`]: such a claim is to be refused.
    #[must_use]
    pub const fn next_sequence(&self) -> Option<u64> {
        if self.sequence > SLOT_SEQUENCE_MAX { None } else { Some(self.sequence + 1) }
    }

    /// The claim as the digest of its submission has it: `[slot, sequence, SHA-256(capability) or h'', next]`.
    pub(crate) fn write(&self, writer: &mut Writer) {
        let shown = self.capability.as_ref().map(SlotCapability::digest);
        let shown: &[u8] = match &shown {
            Some(digest) => digest.as_bytes(),
            None => &[],
        };
        writer.array(4).bytes(self.slot.as_bytes()).uint(self.sequence);
        writer.bytes(shown).bytes(self.next.as_bytes());
    }
}

/// What the holder of one place in a slot shows: 32 bytes that only those who share a secret can know. Compared
/// in constant time, wiped when dropped.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct SlotCapability([u8; 32]);

impl SlotCapability {
    /// The capability with these bytes.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The bytes, for those who share the secret.
    #[must_use]
    pub const fn expose(&self) -> &[u8; 32] {
        &self.0
    }

    /// What the claim before names as `next`, and the relay keeps.
    #[must_use]
    pub fn digest(&self) -> Digest {
        Digest::of(&self.0)
    }

    /// Whether it is the one whose digest the claim before named.
    #[must_use]
    pub fn opens(&self, next: &Digest) -> bool {
        self.digest().as_bytes().ct_eq(next.as_bytes()).into()
    }
}

impl PartialEq for SlotCapability {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl Eq for SlotCapability {}

impl fmt::Debug for SlotCapability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SlotCapability(…)")
    }
}

impl Serialize for SlotCapability {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&Zeroizing::new(base64url::encode(&self.0)))
    }
}

impl<'de> Deserialize<'de> for SlotCapability {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let bytes = Zeroizing::new(Base64Url::deserialize(deserializer)?.0);
        let bytes = bytes.as_slice().try_into();
        bytes.map(Self).map_err(|_| serde::de::Error::custom("a capability has 32 bytes"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim() -> SlotClaim {
        let capability = Some(SlotCapability([7; 32]));
        SlotClaim { slot: SlotId([1; 16]), sequence: 9, capability, next: Digest([2; 32]) }
    }

    #[test]
    fn a_capability_opens_what_was_named_for_it_and_shows_itself_to_nobody() {
        let capability = SlotCapability([7; 32]);
        assert!(capability.opens(&Digest::of(&[7; 32])));
        assert!(!capability.opens(&Digest::of(&[8; 32])));
        assert!(!capability.opens(&Digest([7; 32])), "the digest is compared, not the bytes");
        assert!(format!("{:?}", claim()).contains("SlotCapability(…)"));
    }

    #[test]
    fn a_claim_has_one_form_in_json() {
        let text = serde_json::to_string(&claim()).unwrap();
        let (slot, next, shown) = ("01".repeat(16), "02".repeat(32), base64url::encode(&[7; 32]));
        let expected = format!(r#"{{"slot":"{slot}","sequence":9,"capability":"{shown}","next":"{next}"}}"#);
        assert_eq!(text, expected);
        assert_eq!(serde_json::from_str::<SlotClaim>(&text).unwrap(), claim());
        let short = text.replace(&shown, &base64url::encode(&[7; 31]));
        let long = text.replace(&shown, &base64url::encode(&[7; 33]));
        let unknown = text.replace("\"next\"", "\"more\":1,\"next\"");
        for bad in [short, long, unknown, text.replace(&next, "")] {
            assert!(serde_json::from_str::<SlotClaim>(&bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn sequences_end_before_they_leave_the_numbers_of_json() {
        let at = |sequence| SlotClaim { sequence, ..claim() }.next_sequence();
        assert_eq!(at(0), Some(1));
        assert_eq!(at(SLOT_SEQUENCE_MAX), Some(SLOT_SEQUENCE_MAX + 1));
        assert_eq!(at(SLOT_SEQUENCE_MAX + 1), None);
        assert_eq!(at(u64::MAX), None);
    }
}
