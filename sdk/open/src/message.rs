//! Opening.

use sealpost_wire::clock::UnixTime;
use sealpost_wire::context::MessageContext;
use sealpost_wire::error::TrustError;
use sealpost_wire::limits::CLOCK_SKEW_SECONDS_MAX;
use sealpost_wire::message::SealedMessage;
use sealpost_wire::padding;
use sealpost_wire::payload::{SignedMessage, VerifiedMessage};
use sealpost_wire::trust::TenantTrust;

use crate::decryption;
use crate::error::OpenError;
use crate::prekey::PrekeyPrivate;

/// Opens a sealed message, or says why not. `context` is what the device knows of the message and of itself:
/// the relay's word on transport id and expiry counts only because the message does not open with another.
/// `now` comes from a clock that never goes back (see [`crate::ReplayGuard::time`]).
///
/// The checks, in this order; the first that fails is the answer:
/// 1. the context's tenant is the one trusted,
/// 2. size, then form,
/// 3. the suite is the key's, the prekey id is the key's,
/// 4. the message has not expired, by more than the clocks may differ,
/// 5. decryption, with the context,
/// 6. padding,
/// 7. size and form of the signed message,
/// 8. who wrote it: a notification's certificate (form, root, signature, tenant, purpose, not revoked), or an MLS
///    frame's admission (form, the enrol key's chain, signature, record, tenant, the device is not revoked),
/// 9. the signature by the certified key or the admitted device's identity key, with the context,
/// 10. the frame is one that this version opens; the payload's form,
/// 11. the ids in the payload are the context's,
/// 12. made not in the future, not too long before the expiry, and (a notification) while the certificate was
///     valid.
///
/// What an MLS frame carries (RFC 9420, device sets) is not looked into here.
///
/// # Errors
/// An [`OpenError`] with a stable code. A prekey must stay until all of this has passed, or somebody could
/// burn it.
pub fn open(
    bytes: &[u8],
    context: &MessageContext,
    key: &PrekeyPrivate,
    trust: &TenantTrust,
    now: UnixTime,
) -> Result<VerifiedMessage, OpenError> {
    if context.tenant != *trust.tenant() {
        return Err(TrustError::WrongTenant.into());
    }
    let sealed = SealedMessage::read(bytes)?;
    if sealed.suite != key.suite() {
        return Err(OpenError::SuiteMismatch);
    }
    if sealed.prekey != key.id() {
        return Err(OpenError::PrekeyMismatch);
    }
    if now > context.expires_at.plus(CLOCK_SKEW_SECONDS_MAX) {
        return Err(OpenError::Expired);
    }
    let padded = decryption::decrypt(&sealed, key.expose_seed(), &sealed.associated_data(context))?;
    let signed = padding::unpad(&padded)?;
    let message = SignedMessage::read(signed).map_err(|error| OpenError::Message(error.into()))?;
    Ok(message.verify(context, trust, now)?)
}
