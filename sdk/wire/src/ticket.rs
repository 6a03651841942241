//! Tickets: 32 random bytes that the enroller shows where the patient is already authenticated. All else comes from them
//! by HKDF-SHA256 (RFC 5869) with an empty salt:
//!
//! ```text
//! ticket id   = HKDF(secret, info = "sealpost/1 ticket id",   16)   public; names the ticket
//! claim token = HKDF(secret, info = "sealpost/1 ticket claim", 32)  shown to the keyserver, which knows its SHA-256
//! binding key = HKDF(secret, info = "sealpost/1 ticket binding", 32) never leaves device and enroller
//! ```

use std::fmt;

use hkdf::Hkdf;
use hmac::{Hmac, KeyInit as _, Mac as _};
use rand_core::CryptoRng;
use sha2::Sha256;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::error::TrustError;
use crate::id::{Digest, TicketId};

/// Digits of the code that a patient compares on phone and portal.
pub const CODE_DIGITS: usize = 8;

/// The secret of a ticket, wiped when dropped. It travels in the fragment of a link and in a QR code only.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct TicketSecret([u8; 32]);

impl TicketSecret {
    /// A new random secret.
    pub fn generate<R: CryptoRng + ?Sized>(rng: &mut R) -> Self {
        let mut secret = Self([0; 32]);
        rng.fill_bytes(&mut secret.0);
        secret
    }

    /// The secret with these bytes.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The bytes, for the link.
    #[must_use]
    pub const fn expose(&self) -> &[u8; 32] {
        &self.0
    }

    /// The ticket's public name.
    #[must_use]
    pub fn ticket_id(&self) -> TicketId {
        TicketId(self.derive(b"sealpost/1 ticket id"))
    }

    /// What a device shows the keyserver to claim the ticket.
    #[must_use]
    pub fn claim_token(&self) -> ClaimToken {
        ClaimToken(self.derive(b"sealpost/1 ticket claim"))
    }

    /// What binds a device record to the ticket.
    #[must_use]
    pub fn binding_key(&self) -> BindingKey {
        BindingKey(self.derive(b"sealpost/1 ticket binding"))
    }

    fn derive<const N: usize>(&self, info: &[u8]) -> [u8; N] {
        let mut output = [0; N];
        // HKDF-SHA256 gives up to 8160 bytes; these are 16 and 32.
        let expanded = Hkdf::<Sha256>::new(None, &self.0).expand(info, &mut output);
        debug_assert!(expanded.is_ok(), "HKDF output too long");
        output
    }
}

impl fmt::Debug for TicketSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TicketSecret(of ticket {})", self.ticket_id())
    }
}

/// Shown to the keyserver to claim a ticket. The keyserver keeps its hash only.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct ClaimToken([u8; 32]);

impl ClaimToken {
    /// The token with these bytes.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The bytes, for the request.
    #[must_use]
    pub const fn expose(&self) -> &[u8; 32] {
        &self.0
    }

    /// What the keyserver stores and compares.
    #[must_use]
    pub fn digest(&self) -> Digest {
        Digest::of(&self.0)
    }
}

impl fmt::Debug for ClaimToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClaimToken(…)")
    }
}

/// Binds a device record to a ticket (HMAC-SHA-256, RFC 2104). Only the device and the enroller have it.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct BindingKey([u8; 32]);

impl BindingKey {
    pub(crate) fn tag(&self, message: &[u8]) -> [u8; 32] {
        self.mac(message).finalize().into_bytes().into()
    }

    pub(crate) fn verify(&self, message: &[u8], tag: &[u8; 32]) -> Result<(), TrustError> {
        self.mac(message).verify_slice(tag).map_err(|_| TrustError::BadMac)
    }

    /// The code that a patient compares on phone and portal: eight digits of HMAC-SHA-256 over
    /// `"sealpost/1 enrolment code" | SHA-256(enrolment)`. The keyserver cannot compute it, so it cannot search for
    /// another enrolment with the same code.
    #[must_use]
    pub fn code(&self, enrolment: &[u8]) -> String {
        let mut message = b"sealpost/1 enrolment code".to_vec();
        message.extend_from_slice(Digest::of(enrolment).as_bytes());
        let tag = self.tag(&message);
        let number = tag.iter().take(8).fold(0_u64, |number, byte| (number << 8) | u64::from(*byte));
        format!("{:0width$}", number % 10_u64.pow(8), width = CODE_DIGITS)
    }

    fn mac(&self, message: &[u8]) -> Hmac<Sha256> {
        // A key shorter than the block is padded with zeros (RFC 2104 section 2).
        let mut block = Zeroizing::new([0; 64]);
        block.iter_mut().zip(self.0).for_each(|(to, from)| *to = from);
        let mut mac = Hmac::<Sha256>::new(&(*block).into());
        mac.update(message);
        mac
    }
}

impl fmt::Debug for BindingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BindingKey(…)")
    }
}
