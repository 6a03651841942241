//! Sealing.

use rand_core::CryptoRng;
use sealpost_wire::clock::UnixTime;
use sealpost_wire::context::MessageContext;
use sealpost_wire::error::{FormatError, TrustError};
use sealpost_wire::id::{DeviceId, Digest, PrekeyId, TenantId, TransportId};
use sealpost_wire::limits::{
    CLOCK_SKEW_SECONDS_MAX, MESSAGE_LIFETIME_SECONDS_MAX, SEALED_BYTES_MAX, SIGNED_BYTES_MAX,
};
use sealpost_wire::message::{SealedHeader, Suite};
use sealpost_wire::padding;
use sealpost_wire::payload::{MlsFrame, Notification};
use sealpost_wire::prekey::{PrekeyKind, PrekeyLeaf, VerifiedPrekey};
use zeroize::Zeroizing;

use crate::encryption;
use crate::error::SealError;
use crate::identity::{DeviceAuthor, SenderIdentity};

/// What a message is bound to, apart from its device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Envelope {
    /// The tenant that sends.
    pub tenant: TenantId,
    /// The submission: random, and never sealed a second time.
    pub transport_id: TransportId,
    /// When the message is over (seconds).
    pub expires_at: UnixTime,
}

/// A message for one device, ready to be submitted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SealedBox {
    /// The device.
    pub device: DeviceId,
    /// The sealed message.
    pub bytes: Vec<u8>,
    /// SHA-256 of the bytes, as receipts name them.
    pub digest: Digest,
    /// The prekey that it is sealed to.
    pub prekey: PrekeyId,
    /// The kind of that prekey.
    pub kind: PrekeyKind,
    /// The suite.
    pub suite: Suite,
}

/// Seals `notification` to the device of `prekey`.
///
/// # Errors
/// What the device would refuse is not sealed: another tenant's device; an expiry that is not after `now`,
/// more than 30 days after it or after the notification's making, or after the prekey's `open_until`; a
/// certificate that is not valid when the notification was made; sizes. Nor is what the sender's policy
/// refuses: [`SealError::Downgrade`].
pub fn seal<R: CryptoRng + ?Sized>(
    notification: &Notification,
    envelope: &Envelope,
    prekey: &VerifiedPrekey,
    sender: &SenderIdentity,
    now: UnixTime,
    rng: &mut R,
) -> Result<SealedBox, SealError> {
    let (record, leaf) = (prekey.record(), prekey.leaf());
    check_tenants(envelope, prekey, &sender.certificate().tenant)?;
    sender.policy().check(record, leaf)?;
    check_times(notification.created, envelope.expires_at, prekey, now)?;
    sender.certificate().check_time(notification.created)?;
    let context = context(envelope, prekey);
    let signed = notification.sign(&context, sender.key(), sender.certificate_bytes())?;
    seal_signed(&signed, &context, leaf, rng)
}

/// Seals an MLS frame of `author` to the device of `prekey`.
///
/// # Errors
/// What [`seal`] refuses, but for the certificate's times: an admission has none.
pub fn seal_mls<R: CryptoRng + ?Sized>(
    frame: &MlsFrame,
    envelope: &Envelope,
    prekey: &VerifiedPrekey,
    author: &DeviceAuthor,
    now: UnixTime,
    rng: &mut R,
) -> Result<SealedBox, SealError> {
    let (record, leaf) = (prekey.record(), prekey.leaf());
    check_tenants(envelope, prekey, &author.admission().record.tenant)?;
    author.policy().check(record, leaf)?;
    check_times(frame.created, envelope.expires_at, prekey, now)?;
    let context = context(envelope, prekey);
    let signed = frame.sign(&context, author.identity(), author.admission_bytes())?;
    seal_signed(&signed, &context, leaf, rng)
}

fn context(envelope: &Envelope, prekey: &VerifiedPrekey) -> MessageContext {
    let record = prekey.record();
    MessageContext {
        tenant: envelope.tenant.clone(),
        transport_id: envelope.transport_id,
        device: record.device,
        identity: record.identity_key.digest(),
        expires_at: envelope.expires_at,
    }
}

fn seal_signed<R: CryptoRng + ?Sized>(
    signed: &[u8],
    context: &MessageContext,
    leaf: &PrekeyLeaf,
    rng: &mut R,
) -> Result<SealedBox, SealError> {
    let padded = padding::pad(signed).ok_or(FormatError::TooLarge(SIGNED_BYTES_MAX))?;
    // Encrypted in place: afterwards it holds ciphertext. What a failure leaves is wiped.
    let mut buffer = Zeroizing::new(padded);
    let header = SealedHeader::new(leaf.suite, leaf.id());
    let associated_data = header.associated_data(context);
    let encapsulated_key = encryption::encrypt(leaf.suite, &leaf.key, &associated_data, &mut buffer, rng)?;
    let ciphertext = std::mem::take(&mut *buffer);
    let bytes = header.finish(&encapsulated_key, &ciphertext);
    if bytes.len() > SEALED_BYTES_MAX {
        return Err(FormatError::TooLarge(SEALED_BYTES_MAX).into());
    }
    Ok(SealedBox {
        device: context.device,
        digest: Digest::of(&bytes),
        bytes,
        prekey: leaf.id(),
        kind: leaf.kind,
        suite: leaf.suite,
    })
}

fn check_tenants(envelope: &Envelope, prekey: &VerifiedPrekey, author: &TenantId) -> Result<(), SealError> {
    if prekey.record().tenant == envelope.tenant && *author == envelope.tenant {
        Ok(())
    } else {
        Err(TrustError::WrongTenant.into())
    }
}

fn check_times(
    created: UnixTime,
    expires_at: UnixTime,
    prekey: &VerifiedPrekey,
    now: UnixTime,
) -> Result<(), SealError> {
    let leaf = prekey.leaf();
    // It was verified at another time, perhaps: a set and its prekeys may come from a cache.
    if now > leaf.seal_until {
        return Err(TrustError::PrekeyExpired.into());
    }
    if expires_at <= now || expires_at > now.plus(MESSAGE_LIFETIME_SECONDS_MAX) {
        return Err(SealError::InvalidExpiry);
    }
    if created > now.plus(CLOCK_SKEW_SECONDS_MAX) {
        return Err(SealError::CreatedInFuture);
    }
    if expires_at > created.plus(MESSAGE_LIFETIME_SECONDS_MAX) {
        return Err(SealError::LifetimeTooLong);
    }
    if expires_at > leaf.open_until {
        return Err(SealError::ExpiresAfterPrekey);
    }
    Ok(())
}
