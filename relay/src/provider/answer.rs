//! What an answer of a provider means, by its bytes alone: the decisions of the clients without their
//! connections and credentials, for whoever has an answer in hand.

use http::{HeaderMap, StatusCode};
use sealpost_wire::clock::UnixTime;

use super::apns_answer::ApnsRefusal;
use super::fcm_answer::FcmRefusal;
use super::outcome::Outcome;
use super::{exchange, oauth};

/// What APNs' refusal of a push comes to, when nothing is left to try at once.
#[must_use]
pub fn apns_refusal(status: StatusCode, headers: &HeaderMap, body: &[u8], now: UnixTime) -> Outcome {
    ApnsRefusal::read(status, body).outcome(exchange::retry_after(headers, now.0))
}

/// What FCM's refusal of a push comes to, when nothing is left to try at once.
#[must_use]
pub fn fcm_refusal(status: StatusCode, headers: &HeaderMap, body: &[u8], now: UnixTime) -> Outcome {
    FcmRefusal::read(status, body).outcome(exchange::retry_after(headers, now.0))
}

/// Until when the access token in an answer of Google's token endpoint serves.
///
/// # Errors
/// The [`Outcome`] of every push that needs the token.
pub fn access_token(
    status: StatusCode,
    headers: &HeaderMap,
    body: &[u8],
    now: UnixTime,
) -> Result<UnixTime, Outcome> {
    let token = oauth::read_answer(status, headers, body, now.0)?;
    Ok(UnixTime(token.expires_at()))
}
