//! The two MLS cipher suites.

use openmls_traits::types::Ciphersuite;
use sealpost_wire::message::Suite;
use serde::{Deserialize, Serialize};

/// An MLS cipher suite (RFC 9420 section 17.1). Both sign with Ed25519, hash with SHA-256 and encrypt with
/// ChaCha20-Poly1305; they differ in the KEM.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum GroupSuite {
    /// 0x0003, MLS_128_DHKEMX25519_CHACHA20POLY1305_SHA256_Ed25519.
    Classical,
    /// 0x004D, MLS_256_XWING_CHACHA20POLY1305_SHA256_Ed25519: X-Wing, ML-KEM-768 with X25519. The code point is
    /// provisional: openmls uses it until the IETF has given one, and a group keeps its suite for life. Only for
    /// groups whose members all open hybrid boxes.
    Hybrid,
}

impl GroupSuite {
    pub(crate) const ALL: [Self; 2] = [Self::Classical, Self::Hybrid];

    /// The suite's number in MLS.
    #[must_use]
    pub const fn code(self) -> u16 {
        match self {
            Self::Classical => 0x0003,
            Self::Hybrid => 0x004D,
        }
    }

    /// The suite with this number, if it is one of the two.
    #[must_use]
    pub fn from_code(code: u16) -> Option<Self> {
        Self::ALL.into_iter().find(|suite| suite.code() == code)
    }

    /// Whether a device whose record lists `suites` can be in a group of this suite.
    #[must_use]
    pub fn fits(self, suites: &[Suite]) -> bool {
        match self {
            Self::Classical => true,
            Self::Hybrid => suites.contains(&Suite::Hybrid),
        }
    }

    pub(crate) const fn mls(self) -> Ciphersuite {
        match self {
            Self::Classical => Ciphersuite::MLS_128_DHKEMX25519_CHACHA20POLY1305_SHA256_Ed25519,
            Self::Hybrid => Ciphersuite::MLS_256_XWING_CHACHA20POLY1305_SHA256_Ed25519,
        }
    }

    pub(crate) fn from_mls(suite: Ciphersuite) -> Option<Self> {
        Self::ALL.into_iter().find(|known| known.mls() == suite)
    }
}
