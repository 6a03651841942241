//! Tickets: made by an enroller, claimed by whoever holds the secret, closed when a device was countersigned.
//!
//! ```text
//! open --(claim, at most 4)--> open --(device set with one of the claims, or close)--> closed
//!   \--(expires_at)--> expired: its claims can still be countersigned while they are kept
//! ```

use sealpost_wire::api::keyserver::TicketState;
use sealpost_wire::base64url::Base64Url;
use sealpost_wire::clock::UnixTime;
use sealpost_wire::error::{FormatError, TrustError};
use sealpost_wire::id::{DeviceId, Digest, TicketId};
use sealpost_wire::limits::TICKET_LIFETIME_SECONDS;
use sealpost_wire::record::{DeviceRecord, Enrolment};
use sealpost_wire::ticket::ClaimToken;
use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq as _;

/// Different enrolments that claim one ticket. Two already mean that its secret leaked; the others tell how
/// widely.
pub const CLAIMS_PER_TICKET_MAX: usize = 4;

/// The enroller's clock may be ahead of this server's by this much (seconds).
const EXPIRY_SKEW_SECONDS: u64 = 60;

/// Why a ticket does not do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TicketError {
    /// The expiry has passed, or is more than 15 minutes away.
    #[error("the expiry has passed or is too far away")]
    Expiry,
    /// The claim token is not the ticket's.
    #[error("the claim token is not the ticket's")]
    WrongToken,
    /// It was used, closed, claimed too often, or its time is over. A new ticket helps.
    #[error("the ticket is closed or expired")]
    Unavailable,
}

/// A ticket as it is stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ticket {
    /// SHA-256 of the claim token.
    pub claim_digest: Digest,
    /// Until when it may be claimed (seconds).
    pub expires_at: UnixTime,
    /// Whether it was used or closed.
    pub closed: bool,
    /// Who claimed it, in the order they came.
    pub claims: Vec<Claim>,
    /// Devices whose claims were given up when it was closed.
    pub declined: Vec<DeviceId>,
}

/// One enrolment that claims a ticket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Claim {
    /// The device that it names.
    pub device: DeviceId,
    /// The enrolment.
    pub enrolment: Base64Url,
}

/// What a claim changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claimed {
    /// It is the first.
    New,
    /// Another enrolment was there before: the secret is in two hands, unless a device has begun anew.
    Second,
    /// The same bytes were there.
    Again,
}

impl Ticket {
    /// A new ticket.
    ///
    /// # Errors
    /// [`TicketError::Expiry`].
    pub fn new(claim_digest: Digest, expires_at: UnixTime, now: UnixTime) -> Result<Self, TicketError> {
        if expires_at <= now || expires_at > now.plus(TICKET_LIFETIME_SECONDS + EXPIRY_SKEW_SECONDS) {
            return Err(TicketError::Expiry);
        }
        Ok(Self { claim_digest, expires_at, closed: false, claims: Vec::new(), declined: Vec::new() })
    }

    /// Whether `other` is what the same request would make.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        self.claim_digest == other.claim_digest && self.expires_at == other.expires_at
    }

    /// Claims the ticket.
    ///
    /// # Errors
    /// [`TicketError::WrongToken`] before anything else is told of the ticket, [`TicketError::Unavailable`].
    pub fn claim(
        &mut self,
        token: &Digest,
        device: DeviceId,
        enrolment: &Base64Url,
        now: UnixTime,
    ) -> Result<Claimed, TicketError> {
        if !bool::from(self.claim_digest.as_bytes().ct_eq(token.as_bytes())) {
            return Err(TicketError::WrongToken);
        }
        if self.closed || now > self.expires_at {
            return Err(TicketError::Unavailable);
        }
        if self.claims.iter().any(|claim| claim.enrolment == *enrolment) {
            return Ok(Claimed::Again);
        }
        if self.claims.len() >= CLAIMS_PER_TICKET_MAX {
            return Err(TicketError::Unavailable);
        }
        let claimed = if self.claims.is_empty() { Claimed::New } else { Claimed::Second };
        self.claims.push(Claim { device, enrolment: enrolment.clone() });
        Ok(claimed)
    }

    /// Closes the ticket and gives up its claims.
    pub fn close(&mut self) -> Vec<Claim> {
        self.closed = true;
        std::mem::take(&mut self.claims)
    }

    /// Whether an enroller that waits has something to see.
    #[must_use]
    pub fn is_news(&self) -> bool {
        self.closed || !self.claims.is_empty()
    }

    /// The ticket as an enroller sees it.
    #[must_use]
    pub fn state(&self, ticket: TicketId) -> TicketState {
        let enrolments = self.claims.iter().map(|claim| claim.enrolment.clone()).collect();
        TicketState { ticket, expires_at: self.expires_at, enrolments, closed: self.closed }
    }
}

/// A claim that was read and whose record verifies; whether its token is the ticket's is for
/// [`Ticket::claim`].
#[derive(Clone, Debug)]
pub struct ClaimRequest {
    /// SHA-256 of the claim token.
    pub token: Digest,
    /// The enrolment's record.
    pub record: DeviceRecord,
    /// The record's bytes.
    pub record_bytes: Vec<u8>,
    /// The enrolment.
    pub enrolment: Base64Url,
}

impl ClaimRequest {
    /// Reads a claim of `ticket`.
    ///
    /// # Errors
    /// [`TrustError`] for an enrolment whose record does not verify or names another ticket.
    pub fn read(ticket: TicketId, token: &ClaimToken, enrolment: Base64Url) -> Result<Self, TrustError> {
        let read = Enrolment::read(enrolment.as_ref())?;
        if read.record().ticket != ticket {
            return Err(FormatError::WrongValue("ticket").into());
        }
        let (record, record_bytes) = (read.record().clone(), read.record_bytes().to_vec());
        Ok(Self { token: token.digest(), record, record_bytes, enrolment })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixTime = UnixTime(1_000_000);

    fn token(byte: u8) -> Digest {
        ClaimToken::from_bytes([byte; 32]).digest()
    }

    fn ticket() -> Ticket {
        Ticket::new(token(1), NOW.plus(600), NOW).unwrap()
    }

    fn enrolment(byte: u8) -> Base64Url {
        Base64Url(vec![byte; 8])
    }

    #[test]
    fn a_ticket_lives_at_most_15_minutes() {
        let made = |expires_at| Ticket::new(token(1), expires_at, NOW).map(|_| ());
        assert_eq!(made(NOW.plus(900)), Ok(()));
        assert_eq!(made(NOW.plus(960)), Ok(()), "a clock may be ahead by a minute");
        assert_eq!(made(NOW.plus(961)), Err(TicketError::Expiry));
        assert_eq!(made(NOW), Err(TicketError::Expiry));
    }

    #[test]
    fn a_wrong_token_learns_nothing() {
        let mut ticket = ticket();
        let device = DeviceId([1; 16]);
        let wrong = |ticket: &mut Ticket, now| ticket.claim(&token(2), device, &enrolment(1), now);
        assert_eq!(wrong(&mut ticket, NOW), Err(TicketError::WrongToken));
        assert_eq!(wrong(&mut ticket, NOW.plus(601)), Err(TicketError::WrongToken));
        ticket.close();
        assert_eq!(wrong(&mut ticket, NOW), Err(TicketError::WrongToken));
    }

    #[test]
    fn claims_are_counted_once_and_bounded() {
        let mut ticket = ticket();
        let mut claim = |n: u8, now| ticket.claim(&token(1), DeviceId([n; 16]), &enrolment(n), now);
        assert_eq!(claim(1, NOW), Ok(Claimed::New));
        assert_eq!(claim(1, NOW), Ok(Claimed::Again));
        for n in 2..=4 {
            assert_eq!(claim(n, NOW.plus(600)), Ok(Claimed::Second));
        }
        assert_eq!(claim(5, NOW), Err(TicketError::Unavailable));
        assert_eq!(claim(4, NOW), Ok(Claimed::Again), "what was told once is told again");
        assert_eq!(claim(4, NOW.plus(601)), Err(TicketError::Unavailable));
        assert_eq!(ticket.close().len(), 4);
        assert_eq!(
            ticket.claim(&token(1), DeviceId([1; 16]), &enrolment(1), NOW),
            Err(TicketError::Unavailable)
        );
    }
}
