//! Tickets: 32 random bytes that the enroller shows where the patient is already authenticated. All else
//! comes from them by HKDF-SHA256 (RFC 5869) with an empty salt:
//!
//! ```text
//! ticket id   = HKDF(secret, info = "sealpost/1 ticket id",   16)   public; names the ticket
//! claim token = HKDF(secret, info = "sealpost/1 ticket claim", 32)  shown to the keyserver, which knows its SHA-256
//! binding key = HKDF(secret, info = "sealpost/1 ticket binding", 32) never leaves device and enroller
//! ```

use std::fmt;
use std::str::FromStr;

use hkdf::Hkdf;
use hmac::{Hmac, KeyInit as _, Mac as _};
use rand_core::CryptoRng;
use sha2::Sha256;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::base64url;
use crate::cbor::{Reader, Writer};
use crate::error::{FormatError, TrustError};
use crate::id::{Digest, TenantId, TicketId};
use crate::key::VerifyingKey;
use crate::limits::URL_BYTES_MAX;

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

/// The link that a patient opens or scans. All of it is in the URL's fragment, which browsers keep to
/// themselves:
///
/// ```text
/// link = any URL "#sp1." base64url(.cbor [ tenant, keyserver, relay, root key, secret ])
/// ```
#[derive(Clone, Debug)]
pub struct EnrolmentLink {
    /// The tenant.
    pub tenant: TenantId,
    /// The keyserver's URL, without a trailing slash.
    pub keyserver: String,
    /// The relay's URL, without a trailing slash.
    pub relay: String,
    /// The tenant's root: the device trusts it because the patient had the link from the hospital itself.
    pub root: VerifyingKey,
    /// The ticket.
    pub secret: TicketSecret,
}

/// What begins the fragment of an enrolment link.
const LINK_PREFIX: &str = "sp1.";
/// Bytes of a link's fragment, decoded.
const LINK_BYTES_MAX: usize = 2 * URL_BYTES_MAX + 256;

impl EnrolmentLink {
    /// The link at `page`, the hospital's page that opens the app.
    #[must_use]
    pub fn to_url(&self, page: &str) -> String {
        let mut writer = Writer::new();
        writer.array(5).text(self.tenant.as_str()).text(&self.keyserver).text(&self.relay);
        writer.bytes(self.root.as_bytes()).bytes(self.secret.expose());
        format!("{page}#{LINK_PREFIX}{}", base64url::encode(&writer.finish()))
    }
}

impl FromStr for EnrolmentLink {
    type Err = FormatError;

    fn from_str(link: &str) -> Result<Self, FormatError> {
        let malformed = FormatError::WrongValue("link");
        let (_, fragment) = link.trim().split_once('#').ok_or(malformed)?;
        let text = fragment.strip_prefix(LINK_PREFIX).ok_or(malformed)?;
        if text.len() > 2 * LINK_BYTES_MAX {
            return Err(FormatError::TooLarge(LINK_BYTES_MAX));
        }
        let bytes = base64url::decode(text).ok_or(malformed)?;
        let mut reader = Reader::new(&bytes, LINK_BYTES_MAX)?;
        reader.tuple(5)?;
        Ok(Self {
            tenant: reader.parsed("tenant")?,
            keyserver: reader.text("keyserver", URL_BYTES_MAX)?.to_owned(),
            relay: reader.text("relay", URL_BYTES_MAX)?.to_owned(),
            root: VerifyingKey::from_bytes(&reader.array("root key")?)?,
            secret: TicketSecret(reader.array("secret")?),
        })
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

    /// The code that a patient compares on phone and portal: eight digits of HMAC-SHA-256 over `"sealpost/1
    /// enrolment code" | SHA-256(enrolment)`. The keyserver cannot compute it, so it cannot search for
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
